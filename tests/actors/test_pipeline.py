"""The pipeline in real worker processes, with real speech: what goes in, what comes out, and what survives."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jiwer
import msgspec
import pytest
import srt
import webvtt
from whisper_normalizer.english import EnglishTextNormalizer

from actors import messages
from actors.broker import make_broker
from deploy.embedded.running import Running
from storage.job import Job, JobStatus, Options, Source, new_job_id
from storage.job_store import JobStore
from storage.object_store import ObjectStore, result_key, source_key
from storage.settings import StorageSettings
from storage.transcript import Transcript
from tests.conftest import Sample
from tests.processes import new_worker
from tests.recordings import joined, wav
from tests.stack import Parts
from tests.storage.test_job_store import wait_until

normalize = EnglishTextNormalizer()

#: The long recording says the same again and again, which looks like a loop: every window would be decoded six times.
ONE_PASS = {"temperature": 1.0}


class World:
    """A store, a Redis and workers of one test module's own."""

    def __init__(self, parts: Parts, settings: StorageSettings, folder: Path) -> None:
        self.store = parts.start_store()
        self.redis = parts.start_redis()
        self.settings = msgspec.structs.replace(
            settings,
            s3_endpoint_url=self.store.url,
            s3_access_key=self.store.access_key,
            s3_secret_key=self.store.secret_key,
            redis_url=self.redis.url,
            default_model="tiny.en",
        )
        self.jobs = JobStore.connect(self.settings)
        self.objects = ObjectStore(self.settings)
        self.objects.prepare()
        self._broker = make_broker(self.settings)
        self._folder = folder
        self._workers: list[Running] = []

    def worker(self, **more: str) -> Running:
        """A running worker whose lease and heartbeat are short, so that tests need not wait for long."""
        short = {"LEASE_SECONDS": "2", "HEARTBEAT_SECONDS": "3", "JANITOR_SECONDS": "1", "WORKER_THREADS": "1"}
        worker = new_worker(self._folder / f"worker-{len(self._workers)}", self.settings, **{**short, **more})
        self._workers.append(worker)
        worker.start()
        return worker

    def submit(self, recording: bytes, **options: object) -> str:
        job_id = new_job_id()
        self.objects.put(source_key(job_id), recording, "application/octet-stream")
        return self.enqueue(job_id, len(recording), **options)

    def enqueue(self, job_id: str, size: int, **options: object) -> str:
        source = Source(type="form", key=source_key(job_id), filename="talk.wav", size=size)
        wanted = msgspec.convert({"model": "tiny.en", **options}, Options)
        job = Job(
            job_id=job_id,
            owner="",
            status=JobStatus.PENDING,
            source=source,
            options=wanted,
            created_at=time.time(),
        )
        self.jobs.create(job)
        messages.send(self._broker, job_id)
        return job_id

    def until(self, job_id: str, condition: Callable[[Job], bool], seconds: float = 90) -> Job:
        wait_until(lambda: condition(self.jobs.get(job_id)), seconds)
        return self.jobs.get(job_id)

    def finished(self, job_id: str) -> Job:
        return self.until(job_id, lambda job: job.status in ("completed", "failed", "cancelled"))

    def transcript(self, job_id: str) -> Transcript:
        return msgspec.json.decode(self.objects.get(result_key(job_id, "json")), type=Transcript)

    def results(self, job_id: str) -> list[str]:
        return [item.key for item in self.objects.list(f"transcripts/{job_id}/")]

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self.store.running.kill()
        self.redis.running.kill()


@pytest.fixture(scope="module")
def world(
    parts: Parts, store_settings: StorageSettings, weights_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    settings = msgspec.structs.replace(store_settings, model_dir=str(weights_dir))
    made = World(parts, settings, tmp_path_factory.mktemp("workers"))
    yield made
    made.close()


@pytest.fixture
def worker(world: World) -> Iterator[Running]:
    running = world.worker()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def clip(speech: dict[str, list[Sample]]) -> Sample:
    return speech["en"][-1]


@pytest.fixture(scope="module")
def long_recording(speech: dict[str, list[Sample]]) -> bytes:
    """Long enough to be in the middle of it when something is killed."""
    return wav(joined(speech["en"], seconds=300))


def test_a_recording_goes_in_and_a_transcript_in_every_format_comes_out(
    world: World, worker: Running, clip: Sample
) -> None:
    job_id = world.submit(clip.path.read_bytes(), timestamp_granularity="word")

    job = world.finished(job_id)

    transcript = world.transcript(job_id)
    assert job.status == "completed", job.error
    assert job.progress == 100
    assert jiwer.wer(normalize(clip.text), normalize(transcript.text)) < 0.2
    assert transcript.language == "en"
    assert job.duration == pytest.approx(transcript.duration, abs=0.01)
    assert all(segment.words for segment in transcript.segments)
    sizes = {name: len(world.objects.get(result_key(job_id, name))) for name in ("json", "text", "srt", "vtt", "tsv")}
    assert job.files == sizes
    cues = list(srt.parse(world.objects.get(result_key(job_id, "srt")).decode(), ignore_errors=False))
    assert [cue.content for cue in cues] == [segment.text.strip() for segment in transcript.segments]
    captions = webvtt.from_string(world.objects.get(result_key(job_id, "vtt")).decode())
    assert len(captions) == len(cues)


def test_a_bad_file_fails_its_job_with_a_sentence_and_is_not_tried_again(world: World, worker: Running) -> None:
    bad = world.submit(b"This is a letter, not a recording. " * 50)
    missing = world.enqueue(new_job_id(), 10)

    failed, lost = world.finished(bad), world.finished(missing)

    assert (failed.status, failed.error_code, failed.attempts) == ("failed", "audio_unreadable", 1)
    assert (lost.status, lost.error_code, lost.attempts) == ("failed", "object_not_found", 1)
    assert failed.error
    assert world.results(bad) == []


def test_a_cancel_takes_effect_between_segments_and_leaves_no_results(
    world: World, worker: Running, long_recording: bytes, clip: Sample
) -> None:
    job_id = world.submit(long_recording, **ONE_PASS)
    world.until(job_id, lambda job: 0 < job.progress < 60)

    world.jobs.cancel(job_id)
    next_job = world.finished(world.submit(clip.path.read_bytes()))

    assert next_job.status == "completed"
    assert world.jobs.get(job_id).status == "cancelled"
    assert world.results(job_id) == []


def test_a_redelivered_message_of_a_finished_job_changes_nothing(world: World, worker: Running, clip: Sample) -> None:
    job_id = world.submit(clip.path.read_bytes())
    before = world.finished(job_id)

    messages.send(make_broker(world.settings), job_id)
    world.finished(world.submit(clip.path.read_bytes()))

    assert world.jobs.get(job_id) == before


def test_a_second_attempt_goes_on_from_the_stored_transcript(world: World, clip: Sample) -> None:
    job_id = new_job_id()
    stored = Transcript("kept", "en", 1.0, 1.0, 1.0, [])
    world.objects.put(source_key(job_id), clip.path.read_bytes(), "audio/wav")
    world.objects.put(result_key(job_id, "json"), msgspec.json.encode(stored), "application/json")
    world.enqueue(job_id, 10)
    world.jobs.claim(job_id, "dead worker", lease_seconds=0.1, max_attempts=3)

    running = world.worker()
    job = world.finished(job_id)
    running.stop()

    assert job.status == "completed"
    assert world.transcript(job_id) == stored
    assert world.objects.get(result_key(job_id, "text")) == b""


def test_a_killed_workers_job_is_done_by_another(world: World, long_recording: bytes) -> None:
    first = world.worker()
    job_id = world.submit(long_recording, **ONE_PASS)
    world.until(job_id, lambda job: job.progress > 0)

    first.kill()
    second = world.worker()
    job = world.finished(job_id)
    second.stop()

    assert (job.status, job.attempts) == ("completed", 2)
    assert len(world.results(job_id)) == 5


def test_a_stopping_worker_hands_its_job_back_and_the_attempt_does_not_count(
    world: World, long_recording: bytes
) -> None:
    first = world.worker()
    job_id = world.submit(long_recording, **ONE_PASS)
    world.until(job_id, lambda job: job.progress > 0)

    first.stop()
    handed_back = world.jobs.get(job_id)
    second = world.worker()
    job = world.finished(job_id)
    second.stop()

    assert (handed_back.status, handed_back.attempts) == ("pending", 0)
    assert (job.status, job.attempts) == ("completed", 1)


def test_a_frozen_worker_that_wakes_up_changes_nothing_and_there_is_one_result(
    world: World, long_recording: bytes, clip: Sample
) -> None:
    frozen = world.worker()
    job_id = world.submit(long_recording, **ONE_PASS)
    world.until(job_id, lambda job: job.progress > 0)

    frozen.pause()
    other = world.worker()
    done = world.finished(job_id)
    result = world.objects.get(result_key(job_id, "json"))
    other.stop()
    frozen.resume()
    # The woken worker gives the old job up and takes the next one.
    next_job = world.finished(world.submit(clip.path.read_bytes()))
    frozen.stop()

    assert (done.status, done.attempts) == ("completed", 2)
    assert next_job.status == "completed"
    assert world.jobs.get(job_id) == done
    assert world.objects.get(result_key(job_id, "json")) == result


def test_a_recording_that_kills_its_workers_fails_after_its_attempts(world: World, long_recording: bytes) -> None:
    job_id = world.submit(long_recording, **ONE_PASS)
    for attempt in (1, 2):
        running = world.worker(MAX_JOB_ATTEMPTS="2")
        world.until(job_id, lambda job, n=attempt: job.attempts == n and job.status == "processing")  # type: ignore[misc]
        running.kill()

    last = world.worker(MAX_JOB_ATTEMPTS="2")
    job = world.finished(job_id)
    last.stop()

    assert (job.status, job.error_code, job.attempts) == ("failed", "worker_lost", 2)


def test_a_store_that_goes_away_and_comes_back_costs_no_attempt(world: World, worker: Running, clip: Sample) -> None:
    job_id = new_job_id()
    world.objects.put(source_key(job_id), clip.path.read_bytes(), "audio/wav")
    world.store.running.kill()
    world.enqueue(job_id, 10)
    world.until(job_id, lambda job: job.status == "pending" and job.started_at is not None)

    world.store.running.start()
    job = world.finished(job_id)

    assert (job.status, job.attempts) == ("completed", 1)


def test_a_redis_that_goes_away_and_comes_back_loses_no_job(
    world: World, worker: Running, long_recording: bytes
) -> None:
    job_id = world.submit(long_recording, **ONE_PASS)
    world.until(job_id, lambda job: job.progress > 0)

    world.redis.running.kill()
    time.sleep(4)  # Longer than lease and heartbeat; nothing else marks that time.
    world.redis.running.start()
    job = world.finished(job_id)

    assert job.status == "completed"
    assert len(world.results(job_id)) == 5


def test_a_worker_makes_no_temporary_file(world: World, clip: Sample, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    made = folder.stat().st_mtime_ns
    running = world.worker(TMPDIR=str(folder))

    job = world.finished(world.submit(clip.path.read_bytes()))
    running.stop()

    assert job.status == "completed"
    # Nothing is there, and nothing was made and removed again: either would have changed the folder's own time.
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mtime_ns == made


def test_a_worker_that_cannot_start_says_why_in_one_line(world: World, tmp_path: Path) -> None:
    running = new_worker(tmp_path / "worker", world.settings, WHISPER_DEVICE="cuda")

    with pytest.raises(Exception, match="worker cannot start"):
        running.start()


def test_a_stopped_worker_no_longer_counts(world: World) -> None:
    running = world.worker()
    pid = running.pid
    counted = [worker.worker_id for worker in world.jobs.workers()]

    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not any(worker.worker_id.endswith(f":{pid}") for worker in world.jobs.workers()))

    assert any(worker_id.endswith(f":{pid}") for worker_id in counted)
