"""Changes whose answer is lost on the way: redis-py asks again, the change happens once, and nobody hears a lie."""

from typing import Any

import pytest
import redis

from storage.chunk_store import Chunk, ChunkStore
from storage.errors import JobConflict, JobFenced
from storage.job import Job, JobStatus
from storage.job_store import JobStore
from storage.redis_client import JOBS_DATABASE, connect
from storage.settings import StorageSettings
from tests.storage.test_job_store import stored, wait_until


class Forgetful(redis.Connection):
    """Breaks when the answer to a script has come, the first time that each is asked."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self._asked: tuple[Any, ...] = ()
        self._lost: set[tuple[Any, ...]] = set()

    def send_command(self, *args: Any, **options: Any) -> None:
        self._asked = args
        super().send_command(*args, **options)  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **options: Any) -> Any:
        answer = super().read_response(*args, **options)
        if self._asked[:1] == ("EVALSHA",) and self._asked not in self._lost:
            self._lost.add(self._asked)
            raise redis.ConnectionError("the answer is lost")
        return answer


@pytest.fixture
def jobs(store_settings: StorageSettings) -> JobStore:
    """Every change of a status is asked for twice."""
    return JobStore(forgetful(store_settings), 60)


@pytest.fixture
def chunks(store_settings: StorageSettings, jobs: JobStore) -> ChunkStore:
    return ChunkStore(forgetful(store_settings), jobs, 60)


def forgetful(settings: StorageSettings) -> redis.Redis:
    client = connect(settings, JOBS_DATABASE)
    client.connection_pool.connection_class = Forgetful
    return client


def events(jobs: JobStore, job: Job) -> list[str]:
    return [fields["type"] for _, fields in jobs._redis.xrange(f"bs:events:{job.job_id}")]


def test_a_start_and_a_cancel_succeed_and_happen_once(jobs: JobStore) -> None:
    job = stored(jobs, status=JobStatus.AWAITING_UPLOAD)

    started = jobs.start(job.job_id)
    cancelled = jobs.cancel(job.job_id)

    assert (started.status, cancelled.status) == ("pending", "cancelled")
    assert events(jobs, job) == ["awaiting_upload", "pending", "cancelled"]
    with pytest.raises(JobConflict):
        jobs.cancel(job.job_id)


def test_who_completes_a_job_hears_that_it_is_completed(jobs: JobStore) -> None:
    job = stored(jobs)
    claim = jobs.claim(job.job_id, "w", lease_seconds=60, max_attempts=1)

    jobs.complete(job.job_id, claim.token, {"json": 1}, 1.0)

    assert events(jobs, job) == ["pending", "processing", "completed"]
    with pytest.raises(JobFenced):
        jobs.complete(job.job_id, claim.token, {"json": 2}, 1.0)


def test_an_attempt_is_taken_back_once(jobs: JobStore) -> None:
    job = stored(jobs)
    jobs.claim(job.job_id, "dead", lease_seconds=0.01, max_attempts=3)
    wait_until(lambda: jobs.expire_lease(job.job_id))
    claim = jobs.claim(job.job_id, "w", lease_seconds=60, max_attempts=3)

    jobs.release(job.job_id, claim.token)

    assert (jobs.get(job.job_id).status, jobs.get(job.job_id).attempts) == ("pending", 1)


def test_no_chunk_is_admitted_and_then_forgotten(jobs: JobStore, chunks: ChunkStore) -> None:
    job = stored(jobs)
    claim = jobs.claim(job.job_id, "cutter", lease_seconds=60, max_attempts=3)

    sent = [
        chunks.announce(job.job_id, claim.token, Chunk(number, number, number + 1.0, 1.0), parallel=2)
        for number in range(4)
    ]
    first = chunks.claim(job.job_id, 0, 60, 3)
    chunks.release(first)
    after_first = chunks.finish(chunks.claim(job.job_id, 0, 60, 3), 2)
    after_second = chunks.finish(chunks.claim(job.job_id, 1, 60, 3), 2)

    assert sent == [[0], [1], [], []]
    assert (after_first, after_second) == ((False, [2]), (False, [3]))


def test_whoever_finishes_the_last_chunk_hears_that_it_was_the_last(jobs: JobStore, chunks: ChunkStore) -> None:
    ends = []
    for cut_is_last in (True, False):
        job = stored(jobs)
        claim = jobs.claim(job.job_id, "cutter", lease_seconds=60, max_attempts=3)
        chunks.announce(job.job_id, claim.token, Chunk(0, 0.0, 1.0, 1.0), parallel=2)
        done = [] if not cut_is_last else [chunks.finish(chunks.claim(job.job_id, 0, 60, 3), 2)[0]]
        done.append(chunks.finish_cut(job.job_id, claim.token, duration="1.0"))
        if not cut_is_last:
            done.append(chunks.finish(chunks.claim(job.job_id, 0, 60, 3), 2)[0])
        ends.append(done)

    assert ends == [[False, True], [False, True]]
