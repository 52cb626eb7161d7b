"""Which deaths of a worker count against a job: those of a worker that had nothing else in hand."""

import pytest

from storage.chunk_store import Chunk, ChunkStore
from storage.errors import JobConflict, JobFenced, JobSuspect
from storage.job import Job
from storage.job_store import Claim, JobStore
from storage.risk import Risk
from storage.settings import StorageSettings
from storage.transcript import Segment
from tests.storage.test_job_store import stored, wait_until

#: A lease that has run out by the next claim.
DEAD = 0.01


@pytest.fixture
def chunks(store_settings: StorageSettings, job_store: JobStore) -> ChunkStore:
    return ChunkStore.connect(store_settings, job_store)


def cutting(jobs: JobStore, chunks: ChunkStore) -> Claim:
    """A job whose first chunk is announced."""
    claim = jobs.claim(stored(jobs).job_id, "cutter", lease_seconds=60, max_attempts=2)
    chunks.announce(claim.job.job_id, claim.token, Chunk(0, 0.0, 20.0, 20.0), parallel=9)
    return claim


def lose_job(jobs: JobStore, job: Job, risk: Risk | None) -> None:
    """A worker that claims the job dies."""
    jobs.claim(job.job_id, "w", DEAD, 2, risk)
    wait_until(lambda: job.job_id in jobs.expired_leases())


def lose_chunk(jobs: JobStore, chunks: ChunkStore, job: Job, risk: Risk | None) -> None:
    chunks.claim(job.job_id, 0, DEAD, 2, risk)
    wait_until(lambda: f"{job.job_id}/0" in jobs.expired_leases())


def test_deaths_beside_other_work_are_free_but_the_job_is_to_be_done_alone_then(job_store: JobStore) -> None:
    job, other = stored(job_store), stored(job_store)

    for _ in range(2):
        lose_job(job_store, job, Risk([other.job_id]))

    for _ in range(3):
        with pytest.raises(JobSuspect):
            job_store.claim(job.job_id, "w", 30, 2, Risk())
    assert job_store.claim(job.job_id, "w", 30, 2, Risk(exclusive=True)).job.status == "processing"


def test_a_suspect_that_kills_its_workers_alone_fails_after_its_attempts(job_store: JobStore) -> None:
    job, other = stored(job_store), stored(job_store)
    for _ in range(2):
        lose_job(job_store, job, Risk([other.job_id]))
    for _ in range(2):
        lose_job(job_store, job, Risk(exclusive=True))

    with pytest.raises(JobConflict):
        job_store.claim(job.job_id, "w", 30, 2, Risk(exclusive=True))

    failed = job_store.get(job.job_id)
    assert (failed.status, failed.error_code) == ("failed", "worker_lost")
    assert failed.error == "the worker died 2 times on this recording, the limit is 2"


def test_work_that_is_taken_on_later_makes_a_death_free_for_what_was_there_first(job_store: JobStore) -> None:
    first, second = stored(job_store), stored(job_store)
    job_store.claim(first.job_id, "w", 0.5, 1, Risk())
    job_store.claim(second.job_id, "w", 60, 1, Risk([first.job_id]))
    wait_until(lambda: first.job_id in job_store.expired_leases())

    assert job_store.claim(first.job_id, "w", 60, 1, Risk()).job.attempts == 2


def test_a_chunk_is_blamed_as_a_job_is_and_neither_for_the_other(job_store: JobStore, chunks: ChunkStore) -> None:
    job = cutting(job_store, chunks).job
    for _ in range(2):
        lose_chunk(job_store, chunks, job, Risk([job.job_id]))
    with pytest.raises(JobSuspect):
        chunks.claim(job.job_id, 0, 60, 2, Risk())
    lose_chunk(job_store, chunks, job, Risk(exclusive=True))
    still = job_store.get(job.job_id)
    lose_chunk(job_store, chunks, job, Risk(exclusive=True))

    with pytest.raises(JobConflict):
        chunks.claim(job.job_id, 0, 60, 2, Risk(exclusive=True))

    failed = job_store.get(job.job_id)
    assert still.status == "processing"
    assert (failed.status, failed.error_code) == ("failed", "worker_lost")
    assert failed.error == "the worker died 2 times on one stretch, the limit is 2"


def test_a_chunk_taken_on_beside_a_cut_makes_its_workers_death_free_for_both(
    job_store: JobStore, chunks: ChunkStore
) -> None:
    job = stored(job_store)
    cut = job_store.claim(job.job_id, "w", 60, 1)
    chunks.announce(job.job_id, cut.token, Chunk(0, 0.0, 20.0, 20.0), parallel=9)
    chunks.claim(job.job_id, 0, DEAD, 1, Risk([job.job_id]))
    job_store.beat(job.job_id, cut.token, 1, DEAD)
    wait_until(lambda: {job.job_id, f"{job.job_id}/0"} <= set(job_store.expired_leases()))

    again = job_store.claim(job.job_id, "w", 60, 1)
    chunk = chunks.claim(job.job_id, 0, 60, 1)

    assert (again.job.status, chunk.chunk.number) == ("processing", 0)


def test_a_cut_that_goes_forward_between_two_deaths_is_not_blamed(job_store: JobStore, chunks: ChunkStore) -> None:
    job = stored(job_store)
    for number in range(4):
        claim = job_store.claim(job.job_id, "w", 60, 2)
        chunks.announce(job.job_id, claim.token, Chunk(number, 20.0 * number, 20.0 * number + 20, 20.0), parallel=9)
        job_store.beat(job.job_id, claim.token, 1, DEAD)
        wait_until(lambda: job_store.expire_lease(job.job_id))

    assert job_store.claim(job.job_id, "w", 60, 2).job.attempts == 5


def test_a_recording_of_which_more_is_told_between_two_deaths_is_not_blamed(job_store: JobStore) -> None:
    job = stored(job_store)
    for number in range(4):
        claim = job_store.claim(job.job_id, "w", 60, 2)
        job_store.tell(claim, number, [Segment(number, float(number), number + 1.0, "word", 0.9)], "en", 0.9)
        job_store.beat(job.job_id, claim.token, 1, DEAD)
        wait_until(lambda: job_store.expire_lease(job.job_id))
    claim = job_store.claim(job.job_id, "w", 60, 2)
    job_store.tell(claim, 3, [Segment(3, 3.0, 4.0, "again", 0.9)], "en", 0.9)
    job_store.beat(job.job_id, claim.token, 1, DEAD)
    wait_until(lambda: job_store.expire_lease(job.job_id))

    with pytest.raises(JobConflict):
        job_store.claim(job.job_id, "w", 60, 2)


def test_a_worker_that_was_only_frozen_takes_back_what_was_counted(job_store: JobStore, chunks: ChunkStore) -> None:
    job = cutting(job_store, chunks).job
    for _ in range(5):
        frozen = chunks.claim(job.job_id, 0, DEAD, 2)
        wait_until(lambda: f"{job.job_id}/0" in job_store.expired_leases())
        chunks.release(chunks.claim(job.job_id, 0, 60, 2))
        with pytest.raises(JobFenced):
            chunks.beat(frozen, 60)

    assert chunks.claim(job.job_id, 0, 60, 2).job.status == "processing"


@pytest.mark.parametrize("taken_on", [True, False])
def test_a_job_is_not_blamed_for_frozen_workers_whether_or_not_another_has_it(
    job_store: JobStore, taken_on: bool
) -> None:
    job = stored(job_store)
    for _ in range(5):
        frozen = job_store.claim(job.job_id, "w", DEAD, 2)
        wait_until(lambda: job_store.expire_lease(job.job_id))
        if taken_on:
            job_store.release(job.job_id, job_store.claim(job.job_id, "w2", 60, 2).token)
        with pytest.raises(JobFenced):
            job_store.beat(job.job_id, frozen.token, 1, 60)

    assert job_store.claim(job.job_id, "w", 60, 2).job.status == "processing"


def test_a_recording_that_stops_its_workers_for_longer_than_a_lease_does_not_circle_for_ever(
    job_store: JobStore,
) -> None:
    job = stored(job_store)

    def circle() -> bool:
        try:
            frozen = job_store.claim(job.job_id, "w", DEAD, 2)
        except JobConflict:
            return False
        wait_until(lambda: job_store.expire_lease(job.job_id))
        with pytest.raises(JobFenced):
            job_store.beat(job.job_id, frozen.token, 1, 60)
        return True

    rounds = sum(iter(circle, False))

    assert rounds == 12
    assert job_store.get(job.job_id).error_code == "worker_lost"


def test_fetching_is_never_blamed(job_store: JobStore) -> None:
    job = stored(job_store)

    for _ in range(4):
        lose_job(job_store, job, None)

    assert job_store.claim(job.job_id, "w", 60, 2, Risk()).job.status == "processing"


def test_work_that_is_handed_back_is_not_blamed(job_store: JobStore, chunks: ChunkStore) -> None:
    job = cutting(job_store, chunks).job

    for _ in range(3):
        chunks.release(chunks.claim(job.job_id, 0, 60, 1))

    assert chunks.claim(job.job_id, 0, 60, 1).job.status == "processing"
