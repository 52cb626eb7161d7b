"""The pipeline whose workers, store or Redis are killed, stopped or frozen: what survives, and what is given up."""

import os
import signal
import time
from pathlib import Path

import msgspec
import pytest

from actors import messages
from actors.broker import make_broker
from deploy.embedded.running import Running
from storage.chunk_store import Chunk
from storage.job import new_job_id
from storage.keys import result_key, source_key
from storage.transcript import Transcript
from tests.actors.world import World
from tests.conftest import Sample
from tests.processes import new_worker
from tests.storage.test_job_store import wait_until


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
    first = world.worker(LEASE_SECONDS="30", HEARTBEAT_SECONDS="30")
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


def test_what_lay_beside_other_work_in_a_dead_worker_is_not_blamed(world: World, long_recording: bytes) -> None:
    first = world.worker(MAX_JOB_ATTEMPTS="1", CHUNK_TARGET_SECONDS="600", CHUNK_MAX_SECONDS="900")
    job_ids = [world.submit(long_recording) for _ in range(2)]
    for job_id in job_ids:
        world.until(job_id, lambda job: job.status == "processing")

    first.kill()
    second = world.worker(MAX_JOB_ATTEMPTS="1")
    jobs = [world.finished(job_id) for job_id in job_ids]
    second.stop()

    assert [job.status for job in jobs] == ["completed", "completed"]


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


def test_a_store_that_goes_away_and_comes_back_costs_no_attempt(world: World, worker: Running, clip: Sample) -> None:
    job_id = new_job_id()
    world.objects.put(source_key(job_id), clip.path.read_bytes(), "audio/wav")
    world.store.running.kill()
    world.enqueue(job_id, 10)
    world.until(job_id, lambda job: job.status == "pending" and job.started_at is not None)

    world.store.running.start()
    job = world.finished(job_id)

    assert (job.status, job.attempts) == ("completed", 1)


def test_a_redis_that_goes_away_and_comes_back_loses_no_job(world: World, long_recording: bytes) -> None:
    running = world.worker()
    job_id = world.submit(long_recording)
    world.until(job_id, lambda job: job.progress > 0)

    world.redis.running.kill()
    time.sleep(4)  # Longer than lease and heartbeat; nothing else marks that time.
    world.redis.running.start()
    job = world.finished(job_id)
    running.stop()

    assert job.status == "completed"
    assert len(world.results(job_id)) == 5


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
