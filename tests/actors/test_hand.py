"""What a worker has in hand: jobs beside each other, and suspects alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from actors.hand import Hand
from actors.lease import Stopping
from storage.errors import JobConflict
from storage.job import Job
from storage.job_store import Claim, JobStore
from storage.risk import Risk
from tests.storage.test_job_store import stored, wait_until


@pytest.fixture
def hand() -> Hand:
    return Hand(threading.Event())


def a_suspect(jobs: JobStore) -> Job:
    """A job that was lost twice beside another."""
    job = stored(jobs)
    for _ in range(2):
        jobs.claim(job.job_id, "dead", 0.01, 3, Risk([stored(jobs).job_id]))
        wait_until(lambda: job.job_id in jobs.expired_leases())
    return job


def test_what_is_in_hand_is_known_to_what_is_claimed_beside_it(hand: Hand, job_store: JobStore) -> None:
    first, second, third = (stored(job_store) for _ in range(3))
    seen: list[Risk] = []

    def claim(job: Job, risk: Risk) -> Claim:
        seen.append(risk)
        return job_store.claim(job.job_id, "w", 60, 3, risk)

    with hand.holding(first.job_id, lambda risk: claim(first, risk)):
        with hand.holding(second.job_id, lambda risk: claim(second, risk)):
            pass
        with hand.holding(third.job_id, lambda risk: claim(third, risk)):
            pass

    assert seen == [Risk([]), Risk([first.job_id]), Risk([first.job_id])]


def test_a_suspect_waits_for_what_is_in_hand_and_nothing_is_begun_beside_it(hand: Hand, job_store: JobStore) -> None:
    before, suspect, after = stored(job_store), a_suspect(job_store), stored(job_store)
    done = [threading.Event() for _ in range(3)]
    began = [threading.Event() for _ in range(3)]
    order: list[str] = []

    def work(index: int, job: Job) -> None:
        with hand.holding(job.job_id, lambda risk: job_store.claim(job.job_id, "w", 60, 3, risk)):
            order.append(f"{index} begins")
            began[index].set()
            assert done[index].wait(20)
            order.append(f"{index} ends")

    with ThreadPoolExecutor(3) as pool:
        pool.submit(work, 0, before)
        assert began[0].wait(20)
        works = [pool.submit(work, 1, suspect)]
        wait_until(lambda: hand.is_reserved)
        works.append(pool.submit(work, 2, after))
        for event in done:
            event.set()
        for each in works:
            each.result()

    assert order == ["0 begins", "0 ends", "1 begins", "1 ends", "2 begins", "2 ends"]


def test_a_suspect_that_waits_gives_way_when_the_worker_stops(job_store: JobStore) -> None:
    stopping = threading.Event()
    hand = Hand(stopping)
    held, suspect = stored(job_store), a_suspect(job_store)

    with hand.holding(held.job_id, lambda risk: job_store.claim(held.job_id, "w", 60, 3, risk)):
        stopping.set()
        with (
            pytest.raises(Stopping),
            hand.holding(suspect.job_id, lambda risk: job_store.claim(suspect.job_id, "w", 60, 3, risk)),
        ):
            pass


def test_what_cannot_be_claimed_is_not_in_hand(hand: Hand, job_store: JobStore) -> None:
    job = stored(job_store)
    job_store.cancel(job.job_id)

    with (
        pytest.raises(JobConflict),
        hand.holding(job.job_id, lambda risk: job_store.claim(job.job_id, "w", 60, 3, risk)),
    ):
        pass
    other = stored(job_store)
    with hand.holding(other.job_id, lambda risk: job_store.claim(other.job_id, "w", 0.01, 1, risk)):
        wait_until(lambda: other.job_id in job_store.expired_leases())

    # It was all that there was in hand, so its loss counts.
    with pytest.raises(JobConflict):
        job_store.claim(other.job_id, "w", 60, 1)
    assert job_store.get(other.job_id).error_code == "worker_lost"
