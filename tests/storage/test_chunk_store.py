"""Chunks in a real Redis: announced, claimed, fenced, counted once."""

import pytest

from storage.chunk_store import Chunk, ChunkStore
from storage.errors import JobConflict, JobFenced
from storage.job import Job
from storage.job_store import Claim, JobStore
from storage.settings import StorageSettings
from tests.storage.test_job_store import stored, wait_until


@pytest.fixture
def chunks(store_settings: StorageSettings, job_store: JobStore) -> ChunkStore:
    return ChunkStore.connect(store_settings, job_store)


def cutting(jobs: JobStore) -> tuple[Job, Claim]:
    job = stored(jobs)
    return job, jobs.claim(job.job_id, "cutter", lease_seconds=60, max_attempts=3)


def announce(chunks: ChunkStore, claim: Claim, number: int, parallel: int = 2) -> list[int]:
    chunk = Chunk(number, number * 10.0, number * 10.0 + 9, 10.0)
    return chunks.announce(claim.job.job_id, claim.token, chunk, parallel, length_estimate="50")


def test_no_more_chunks_are_on_their_way_than_the_job_may_have(chunks: ChunkStore, job_store: JobStore) -> None:
    job, claim = cutting(job_store)

    sent = [announce(chunks, claim, number) for number in range(4)]
    last, after_one = chunks.finish(chunks.claim(job.job_id, 0, 60, 3), parallel=2)

    assert sent == [[0], [1], [], []]
    assert (last, after_one) == (False, [2])


def test_whoever_finishes_the_last_chunk_is_told_once_every_chunk_is_announced(
    chunks: ChunkStore, job_store: JobStore
) -> None:
    job, claim = cutting(job_store)
    for number in range(2):
        announce(chunks, claim, number)

    before = [chunks.finish(chunks.claim(job.job_id, 0, 60, 3), 2)[0]]
    all_done = chunks.finish_cut(job.job_id, claim.token, duration="20.0")
    before.append(chunks.finish(chunks.claim(job.job_id, 1, 60, 3), 2)[0])

    assert (before, all_done) == ([False, True], False)
    assert job_store.get(job.job_id).phase == "cut"


def test_who_finishes_the_cut_is_told_when_every_chunk_is_done_already(chunks: ChunkStore, job_store: JobStore) -> None:
    job, claim = cutting(job_store)
    announce(chunks, claim, 0)
    chunks.finish(chunks.claim(job.job_id, 0, 60, 3), 2)

    assert chunks.finish_cut(job.job_id, claim.token, duration="10.0")


def test_progress_is_the_share_of_the_audio_and_counts_a_chunk_once(chunks: ChunkStore, job_store: JobStore) -> None:
    job, claim = cutting(job_store)
    for number in range(3):
        announce(chunks, claim, number)

    chunks.finish(chunks.claim(job.job_id, 0, 60, 3), 2)
    with pytest.raises(JobConflict, match="done"):
        chunks.claim(job.job_id, 0, 60, 3)
    chunks.finish(chunks.claim(job.job_id, 2, 60, 3), 2)

    assert job_store.get(job.job_id).progress == 40.0
    assert chunks.done(job.job_id) == {0, 2}


def test_a_frozen_worker_of_a_chunk_that_wakes_up_changes_nothing(chunks: ChunkStore, job_store: JobStore) -> None:
    job, claim = cutting(job_store)
    announce(chunks, claim, 0)
    frozen = chunks.claim(job.job_id, 0, 0.05, 3)
    wait_until(lambda: chunks.expire_lease(job.job_id, 0))
    other = chunks.claim(job.job_id, 0, 60, 3)

    for write in (
        lambda: chunks.beat(frozen, 60),
        lambda: chunks.finish(frozen, 2),
        lambda: chunks.fail(frozen, "internal_error", "late"),
        lambda: chunks.release(frozen),
    ):
        with pytest.raises(JobFenced):
            write()
    chunks.finish(other, 2)

    assert job_store.get(job.job_id).status == "processing"
    assert chunks.done(job.job_id) == {0}


def test_a_cancel_fences_who_cuts_and_who_has_a_chunk(chunks: ChunkStore, job_store: JobStore) -> None:
    job, claim = cutting(job_store)
    announce(chunks, claim, 0)
    chunk = chunks.claim(job.job_id, 0, 60, 3)

    job_store.cancel(job.job_id)

    with pytest.raises(JobFenced, match="cancelled"):
        announce(chunks, claim, 1)
    with pytest.raises(JobFenced, match="cancelled"):
        chunks.finish(chunk, 2)
    assert not [name for name in job_store.expired_leases() if job.job_id in name]


def test_a_cutter_that_died_is_followed_by_another_and_announces_nothing_twice(
    chunks: ChunkStore, job_store: JobStore
) -> None:
    job = stored(job_store)
    dead = job_store.claim(job.job_id, "dead", lease_seconds=0.05, max_attempts=3)
    announce(chunks, dead, 0)
    done = chunks.claim(job.job_id, 0, 60, 3)
    wait_until(lambda: job_store.expire_lease(job.job_id))

    heir = job_store.claim(job.job_id, "heir", lease_seconds=60, max_attempts=3)
    with pytest.raises(JobFenced):
        announce(chunks, dead, 1)
    again = announce(chunks, heir, 0)
    chunks.finish(done, 2)

    assert again == []
    assert [chunk.number for chunk in chunks.chunks(job.job_id)] == [0]


def test_a_chunk_that_kills_its_workers_fails_the_job(chunks: ChunkStore, job_store: JobStore) -> None:
    job, claim = cutting(job_store)
    announce(chunks, claim, 0)
    for _ in range(2):
        chunks.claim(job.job_id, 0, 0.02, 2)
        wait_until(lambda: chunks.expire_lease(job.job_id, 0))

    with pytest.raises(JobConflict):
        chunks.claim(job.job_id, 0, 60, 2)

    failed = job_store.get(job.job_id)
    assert (failed.status, failed.error_code) == ("failed", "worker_lost")
    assert failed.error == "the worker died 2 times on one stretch, the limit is 2"


def test_a_deleted_job_leaves_nothing_of_its_chunks(chunks: ChunkStore, job_store: JobStore) -> None:
    job, claim = cutting(job_store)
    announce(chunks, claim, 0)
    chunks.claim(job.job_id, 0, 0.01, 3)

    job_store.delete(job.job_id)

    assert chunks.chunks(job.job_id) == []
    assert not [name for name in job_store.expired_leases() if job.job_id in name]
