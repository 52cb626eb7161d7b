"""The pipeline in real worker processes, with real speech: what goes in, what comes out, and what survives."""

import difflib
import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import jiwer
import msgspec
import numpy as np
import pytest
import srt
import webvtt
from whisper_normalizer.english import EnglishTextNormalizer

from actors import messages
from actors.audio import encode_flac
from actors.broker import make_broker
from deploy.embedded.running import Running
from storage.chunk_store import Chunk, ChunkStore
from storage.errors import ObjectMissing
from storage.job import Job, JobStatus, Options, Source, new_job_id
from storage.job_store import JobStore
from storage.keys import result_key, source_key
from storage.object_store import ObjectStore
from storage.partial import partial_segments
from storage.settings import StorageSettings
from storage.transcript import Transcript
from tests.actors.conftest import Convert
from tests.conftest import Sample
from tests.processes import new_worker
from tests.recordings import joined, samples_of, tone, wav
from tests.stack import Parts
from tests.storage.test_job_store import wait_until

normalize = EnglishTextNormalizer()

#: Silence between sentences that are said again and again. Nearer to each other they look like a loop in the text, and
#: each window would be decoded six times; and what is said beside a word moves it by more than a cut does.
APART_SECONDS = 4.0


def shifts_of_words(a: Transcript, b: Transcript) -> list[float]:
    """Seconds by which the words that both have begin apart."""
    words_a, words_b = (
        [word for segment in transcript.segments for word in segment.words or []] for transcript in (a, b)
    )
    spelled_a, spelled_b = ([word.word.strip(" .,!?").lower() for word in words] for words in (words_a, words_b))
    return [
        abs(words_a[block.a + at].start - words_b[block.b + at].start)
        for block in difflib.SequenceMatcher(None, spelled_a, spelled_b, autojunk=False).get_matching_blocks()
        for at in range(block.size)
    ]


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
        self.chunks = ChunkStore.connect(self.settings, self.jobs)
        self.objects = ObjectStore(self.settings)
        self.objects.prepare()
        self._broker = make_broker(self.settings)
        self._folder = folder
        self._workers: list[Running] = []
        self._shared: Running | None = None

    def shared_worker(self) -> Running:
        """A worker for the tests that do it no harm; it is gone once a test starts one of its own."""
        if self._shared is None:
            self._shared = self._new_worker()
        return self._shared

    def worker(self, **more: str) -> Running:
        """A running worker of the test's own."""
        if self._shared is not None:
            self._shared.stop()
            self._shared = None
        return self._new_worker(**more)

    def _new_worker(self, **more: str) -> Running:
        """Its lease and heartbeat are short, so that tests need not wait for long."""
        short = {"LEASE_SECONDS": "3", "HEARTBEAT_SECONDS": "3", "JANITOR_SECONDS": "1", "CHUNK_TARGET_SECONDS": "20"}
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
        messages.send(self._broker, job_id, wanted.priority)
        return job_id

    def until(self, job_id: str, condition: Callable[[Job], bool], seconds: float = 90) -> Job:
        wait_until(lambda: condition(self.jobs.get(job_id)), seconds)
        return self.jobs.get(job_id)

    def finished(self, job_id: str) -> Job:
        return self.until(job_id, lambda job: job.status in ("completed", "failed", "cancelled"))

    def transcript(self, job_id: str) -> Transcript:
        return msgspec.json.decode(self.objects.get(result_key(job_id, "json")), type=Transcript)

    def chunk_objects(self, job_id: str) -> list[str]:
        return [item.key for item in self.objects.list(f"chunks/{job_id}/")]

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
def worker(world: World) -> Running:
    return world.shared_worker()


@pytest.fixture(scope="module")
def clip(speech: dict[str, list[Sample]]) -> Sample:
    # Not the one that counts: "1-2-3" or "one, two, three" is Whisper's choice.
    return next(sample for sample in speech["en"] if "fox" in sample.text)


@pytest.fixture(scope="module")
def long_recording(speech: dict[str, list[Sample]]) -> bytes:
    """Long enough to be in the middle of it when something is killed."""
    return wav(joined(speech["en"], seconds=200, gap_seconds=APART_SECONDS))


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


def test_the_text_so_far_is_read_in_order_and_without_gaps_while_the_job_runs(
    world: World, worker: Running, long_recording: bytes
) -> None:
    job_id = world.submit(long_recording)
    world.until(job_id, lambda job: job.progress > 0 and 0 in world.chunks.done(job_id))
    seen = []
    while world.jobs.get(job_id).status == "processing":
        with suppress(ObjectMissing):  # It was completed in this moment.
            seen.append(partial_segments(job_id, world.jobs, world.chunks, world.objects))
    final = world.transcript(job_id).segments

    assert seen
    assert seen[0]
    for earlier, later in itertools.pairwise(seen):
        assert later[: len(earlier)] == earlier
    assert final[: len(seen[-1])] == seen[-1]


def test_separate_channels_are_transcribed_each_and_merged_in_the_order_of_time(
    world: World, worker: Running, speech: dict[str, list[Sample]]
) -> None:
    caller, callee = (samples_of(sample) for sample in speech["en"][1:3])
    silence = np.zeros_like
    left = np.concatenate([caller, silence(callee), caller])
    right = np.concatenate([silence(caller), callee, silence(caller)])

    job_id = world.submit(wav(np.stack([left, right])), channels="separate")
    job = world.finished(job_id)

    segments = world.transcript(job_id).segments
    assert job.status == "completed", job.error
    assert [segment.channel for segment in segments] == [0, 1, 0]
    assert [segment.start for segment in segments] == sorted(segment.start for segment in segments)


def test_a_recording_that_breaks_off_is_transcribed_as_far_as_it_goes_with_a_warning(
    world: World, worker: Running, clip: Sample
) -> None:
    whole = encode_flac(samples_of(clip))

    job = world.finished(world.submit(whole[: len(whole) // 2]))

    assert job.status == "completed"
    assert any("breaks off after 1." in warning for warning in job.warnings)


@pytest.mark.parametrize("ending", ["wav", "mp3"])
def test_a_tenth_of_a_second_is_transcribed_to_nothing(
    ending: str, world: World, worker: Running, convert: Convert
) -> None:
    job_id = world.submit(convert(wav(tone(0.1)), ending))

    job = world.finished(job_id)

    assert (job.status, job.warnings) == ("completed", [])
    assert world.transcript(job_id).segments == []
    assert job.duration == pytest.approx(0.1, abs=0.03)


def test_a_recording_without_a_length_is_refused_where_it_passes_the_limit_and_its_chunks_are_swept(
    world: World, long_recording: bytes, clip: Sample, convert: Convert
) -> None:
    streamed = convert(long_recording, "mkv", "-c:a", "flac", "-live", "1")
    running = world.worker(MAX_DURATION="170")

    job_id = world.submit(streamed)
    job = world.finished(job_id)
    next_job = world.finished(world.submit(clip.path.read_bytes()))
    running.stop()

    assert (job.status, job.error_code, job.attempts) == ("failed", "audio_too_long", 1)
    assert re.fullmatch(r"the recording lasts at least 170\.\d s, the limit is 170 s", job.error or "")
    assert len(world.chunks.chunks(job_id)) > 5
    assert world.chunk_objects(job_id) == world.results(job_id) == []
    assert next_job.status == "completed"


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
    job_id = world.submit(long_recording)
    world.until(job_id, lambda job: 0 < job.progress < 60)

    world.jobs.cancel(job_id)
    next_job = world.finished(world.submit(clip.path.read_bytes()))

    assert next_job.status == "completed"
    assert world.jobs.get(job_id).status == "cancelled"
    assert world.results(job_id) == []


def test_a_redelivered_message_of_a_finished_job_changes_nothing(world: World, worker: Running, clip: Sample) -> None:
    job_id = world.submit(clip.path.read_bytes())
    before = world.finished(job_id)

    messages.send(make_broker(world.settings), job_id, "normal")
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
    job_id = world.submit(long_recording)
    world.until(job_id, lambda job: job.progress > 0)

    first.kill()
    second = world.worker()
    job = world.finished(job_id)
    second.stop()

    assert job.status == "completed"
    assert len(world.results(job_id)) == 5
    assert world.chunk_objects(job_id) == []


def test_a_stopping_worker_hands_its_job_back_and_the_attempt_does_not_count(
    world: World, long_recording: bytes
) -> None:
    first = world.worker()
    job_id = world.submit(long_recording)
    world.until(job_id, lambda job: job.progress > 0)

    first.stop()
    held = world.jobs.expired_leases(), world.chunks.stranded(job_id)[0]
    second = world.worker()
    job = world.finished(job_id)
    second.stop()

    assert held == ([], False)
    assert (job.status, job.attempts) == ("completed", 1)


def test_a_frozen_worker_that_wakes_up_changes_nothing_and_there_is_one_result(
    world: World, long_recording: bytes, clip: Sample
) -> None:
    frozen = world.worker()
    job_id = world.submit(long_recording)
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

    assert done.status == "completed"
    assert next_job.status == "completed"
    assert world.jobs.get(job_id) == done
    assert world.objects.get(result_key(job_id, "json")) == result


def test_a_recording_that_kills_its_workers_fails_after_its_attempts(world: World, long_recording: bytes) -> None:
    job_id = world.submit(long_recording)
    for attempt in (1, 2):
        # One chunk, so that the job's own attempts are counted.
        running = world.worker(MAX_JOB_ATTEMPTS="2", CHUNK_TARGET_SECONDS="600", CHUNK_MAX_SECONDS="900")
        world.until(job_id, lambda job, n=attempt: job.attempts == n and job.status == "processing")  # type: ignore[misc]
        running.kill()

    last = world.worker(MAX_JOB_ATTEMPTS="2")
    job = world.finished(job_id)
    last.stop()

    assert (job.status, job.error_code, job.attempts) == ("failed", "worker_lost", 2)


def test_a_chunk_that_kills_its_workers_fails_its_job_after_its_attempts(world: World, long_recording: bytes) -> None:
    job_id = world.submit(long_recording)
    # Somebody announced a chunk and died; whoever takes it dies too.
    cutting = world.jobs.claim(job_id, "dead", lease_seconds=0.1, max_attempts=9)
    world.chunks.announce(job_id, cutting.token, Chunk(0, 0.0, 20.0, 20.0), parallel=1, language="en")
    for _ in range(2):
        world.chunks.claim(job_id, 0, lease_seconds=0.1, max_attempts=2)
        wait_until(lambda: world.chunks.expire_lease(job_id, 0))
    messages.send_chunk(make_broker(world.settings), job_id, 0, "normal")

    running = world.worker(MAX_JOB_ATTEMPTS="2")
    job = world.finished(job_id)
    running.stop()

    assert (job.status, job.error_code) == ("failed", "worker_lost")


def test_a_long_recording_is_cut_and_its_words_stand_where_they_stood_uncut(
    world: World, speech: dict[str, list[Sample]]
) -> None:
    # Without the one that counts: "1-2-3" or "one, two, three" is Whisper's choice.
    sentences = [sample for sample in speech["en"] if "two" not in sample.text.lower()]
    recording = wav(joined(sentences, seconds=100, gap_seconds=APART_SECONDS))
    wanted: dict[str, object] = {"timestamp_granularity": "word", "segment_details": True}
    cutting = world.worker(CHUNK_TARGET_SECONDS="15", CHUNK_MAX_SECONDS="25")
    cut = world.submit(recording, **wanted)
    in_pieces = world.finished(cut)
    cutting.stop()
    whole_worker = world.worker(CHUNK_TARGET_SECONDS="600", CHUNK_MAX_SECONDS="900")
    whole = world.submit(recording, **wanted)
    in_one = world.finished(whole)
    whole_worker.stop()

    a, b = world.transcript(cut), world.transcript(whole)
    assert (in_pieces.status, in_one.status) == ("completed", "completed")
    assert in_pieces.phase == "cut"
    assert in_one.phase is None
    assert in_pieces.duration == in_one.duration == pytest.approx(len(recording) / 32000, abs=0.1)
    assert [segment.id for segment in a.segments] == list(range(len(a.segments)))
    assert normalize(a.text) == normalize(b.text)
    assert max(shifts_of_words(a, b)) <= 0.05
    # Also where a segment's window begins is told in the recording's time, and windows last 30 s at most.
    seeks = [(segment.details.seek / 100 if segment.details else -1) for segment in a.segments]
    assert all(-0.02 <= segment.start - seek <= 30 for segment, seek in zip(a.segments, seeks, strict=True))
    assert world.chunk_objects(cut) == []


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
    job_id = world.submit(long_recording)
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
