"""The outbox on a real Valkey: every end is in it, one worker at a time has a job, nothing is lost on the way."""

from collections.abc import Callable, Iterator

import msgspec
import pytest

from storage.chunk_store import Chunk, ChunkStore
from storage.errors import JobConflict
from storage.job import Job, JobStatus
from storage.job_store import JobStore
from storage.outbox import ASKED_SECONDS, TAKEN_SECONDS, Attempt, Outbox
from storage.redis_client import JOBS_DATABASE, connect
from storage.settings import StorageSettings
from tests.stack import Parts
from tests.storage.test_job_store import a_job


class Desk:
    """The outbox, and what puts into it."""

    def __init__(self, settings: StorageSettings) -> None:
        self.jobs = JobStore.connect(settings)
        self.chunks = ChunkStore.connect(settings, self.jobs)
        self.outbox = Outbox.connect(settings)
        self.redis = connect(settings, JOBS_DATABASE)

    def created(self, status: JobStatus = JobStatus.PENDING) -> Job:
        job = a_job(status=status)
        self.jobs.create(job)
        return job

    def ended(self) -> str:
        """A job that is final, and alone in the outbox."""
        self.redis.delete("bs:outbox")
        return self.jobs.cancel(self.created().job_id).job_id

    def make_due(self, job_id: str) -> None:
        """As if the time had passed."""
        self.redis.zadd("bs:outbox", {job_id: 0})


@pytest.fixture(scope="module")
def settings(parts: Parts, store_settings: StorageSettings) -> Iterator[StorageSettings]:
    redis = parts.start_redis()
    yield msgspec.structs.replace(store_settings, redis_url=redis.url)
    redis.running.kill()


@pytest.fixture
def desk(settings: StorageSettings) -> Desk:
    return Desk(settings)


def complete(desk: Desk) -> str:
    job_id = desk.created().job_id
    desk.jobs.complete(job_id, desk.jobs.claim(job_id, "w", 30, 3).token, {"json": 2}, 1.0)
    return job_id


def fail_by_worker(desk: Desk) -> str:
    job_id = desk.created().job_id
    desk.jobs.fail(job_id, "audio_unreadable", "no audio", desk.jobs.claim(job_id, "w", 30, 3).token)
    return job_id


def wear_out(desk: Desk) -> str:
    job_id = desk.created().job_id
    with pytest.raises(JobConflict):
        desk.jobs.claim(job_id, "w", 30, max_attempts=0)
    return job_id


def _with_a_chunk(desk: Desk) -> str:
    job_id = desk.created().job_id
    claim = desk.jobs.claim(job_id, "w", 30, 3)
    desk.chunks.announce(job_id, claim.token, Chunk(0, 0.0, 60.0, 1.0), 1)
    return job_id


def fail_by_chunk(desk: Desk) -> str:
    job_id = _with_a_chunk(desk)
    desk.chunks.fail(desk.chunks.claim(job_id, 0, 30, 3), "audio_unreadable", "no audio")
    return job_id


def wear_out_a_chunk(desk: Desk) -> str:
    job_id = _with_a_chunk(desk)
    with pytest.raises(JobConflict):
        desk.chunks.claim(job_id, 0, 30, 0)
    return job_id


def cancel(desk: Desk) -> str:
    return desk.jobs.cancel(desk.created().job_id).job_id


def fail_before_the_upload(desk: Desk) -> str:
    return desk.jobs.fail(desk.created(JobStatus.AWAITING_UPLOAD).job_id, "upload_expired", "too late").job_id


@pytest.mark.parametrize(
    "end",
    [complete, fail_by_worker, wear_out, fail_by_chunk, wear_out_a_chunk, cancel, fail_before_the_upload],
)
def test_however_a_job_ends_it_is_in_the_outbox(desk: Desk, end: Callable[[Desk], str]) -> None:
    desk.redis.delete("bs:outbox")

    job_id = end(desk)

    assert desk.outbox.due("t") == [job_id]


def test_a_job_in_work_is_not_in_the_outbox(desk: Desk) -> None:
    desk.redis.delete("bs:outbox")
    job_id = _with_a_chunk(desk)

    assert desk.outbox.due("t") == []
    assert desk.outbox.deliveries(job_id).next_at is None


def test_what_was_asked_for_is_not_due_again_until_its_message_may_be_lost(desk: Desk) -> None:
    job_id = desk.ended()
    now = float(desk.redis.time()[0])

    first, second = desk.outbox.due("t1"), desk.outbox.due("t2")

    assert (first, second) == ([job_id], [])
    assert desk.redis.zscore("bs:outbox", job_id) == pytest.approx(now + ASKED_SECONDS, abs=20)


def test_of_a_message_that_comes_twice_only_one_is_taken(desk: Desk) -> None:
    job_id = desk.ended()
    desk.outbox.due("t")

    first, second = desk.outbox.take(job_id), desk.outbox.take(job_id)

    assert first is not None
    assert second is None


def test_a_message_that_nobody_asked_for_is_not_taken(desk: Desk) -> None:
    job_id = desk.ended()

    assert desk.outbox.take(job_id) is None
    assert desk.outbox.take("0" * 22) is None


def test_what_a_dead_worker_had_is_due_again_and_its_late_word_decides_nothing(desk: Desk) -> None:
    job_id = desk.ended()
    desk.outbox.due("t")
    frozen = desk.outbox.take(job_id)
    assert frozen is not None
    held_until = desk.redis.zscore("bs:outbox", job_id)
    desk.make_due(job_id)

    due = desk.outbox.due("t")
    taken = desk.outbox.take(job_id)
    desk.outbox.settle(job_id, frozen, Attempt(at=1.0, seconds=0.1, status=200))

    assert held_until == pytest.approx(frozen.at + TAKEN_SECONDS, abs=20)
    assert due == [job_id]
    assert taken is not None
    deliveries = desk.outbox.deliveries(job_id)
    assert [attempt.status for attempt in deliveries.attempts] == [200]
    assert deliveries.next_at is not None


def test_a_failure_is_counted_and_due_when_it_says(desk: Desk) -> None:
    job_id = desk.ended()
    desk.outbox.due("t")
    first = desk.outbox.take(job_id)
    assert first is not None
    attempt = Attempt(at=first.at, seconds=0.25, status=500, next_at=first.at + 7.0)

    desk.outbox.settle(job_id, first, attempt)

    assert desk.outbox.deliveries(job_id).attempts == [attempt]
    assert desk.outbox.deliveries(job_id).next_at == pytest.approx(first.at + 7.0)
    desk.make_due(job_id)
    desk.outbox.due("t")
    second = desk.outbox.take(job_id)
    assert second is not None
    assert (second.failures, second.began) == (1, first.began)


def test_what_is_delivered_leaves_the_outbox_and_stays_in_the_log(desk: Desk) -> None:
    job_id = desk.ended()
    desk.outbox.due("t")
    taken = desk.outbox.take(job_id)
    assert taken is not None

    desk.outbox.settle(job_id, taken, Attempt(at=taken.at, seconds=0.1, status=204))

    assert desk.outbox.deliveries(job_id).next_at is None
    assert [attempt.status for attempt in desk.outbox.deliveries(job_id).attempts] == [204]
    assert desk.redis.exists(f"bs:delivery:{job_id}") == 0


def test_what_is_asked_for_again_begins_anew(desk: Desk) -> None:
    job_id = desk.ended()
    desk.outbox.due("t")
    first = desk.outbox.take(job_id)
    assert first is not None
    desk.outbox.settle(job_id, first, Attempt(at=first.at, seconds=0.1, status=500))

    asked = desk.outbox.ask(job_id)

    assert asked
    assert desk.outbox.due("t") == [job_id]
    second = desk.outbox.take(job_id)
    assert second is not None
    assert (second.failures, second.began >= first.began) == (0, True)


def test_what_has_nobody_to_go_to_is_dropped_unless_it_was_asked_for_since(desk: Desk) -> None:
    dropped = desk.ended()
    desk.outbox.due("t1")
    desk.outbox.drop(dropped, "t1")
    wanted = desk.ended()
    desk.outbox.due("t2")
    desk.outbox.ask(wanted)
    desk.outbox.drop(wanted, "t2")

    assert desk.outbox.deliveries(dropped).next_at is None
    assert desk.outbox.deliveries(wanted).next_at is not None


def test_a_deleted_job_leaves_nothing_whoever_still_has_it(desk: Desk) -> None:
    job_id = desk.ended()
    desk.outbox.due("t")
    taken = desk.outbox.take(job_id)
    assert taken is not None

    desk.jobs.delete(job_id)
    desk.outbox.settle(job_id, taken, Attempt(at=taken.at, seconds=0.1, status=500, next_at=taken.at + 5))

    assert not desk.outbox.ask(job_id)
    assert desk.redis.zscore("bs:outbox", job_id) is None
    assert desk.redis.exists(f"bs:delivery:{job_id}", f"bs:deliveries:{job_id}") == 0


def test_the_log_of_a_job_keeps_the_latest_hundred(desk: Desk) -> None:
    job_id = desk.ended()
    for number in range(103):
        desk.make_due(job_id)
        desk.outbox.due("t")
        taken = desk.outbox.take(job_id)
        assert taken is not None
        desk.outbox.settle(job_id, taken, Attempt(at=float(number), seconds=0.1, status=500, next_at=taken.at))

    attempts = desk.outbox.deliveries(job_id).attempts

    assert [attempts[0].at, attempts[-1].at, len(attempts)] == [3.0, 102.0, 100]
