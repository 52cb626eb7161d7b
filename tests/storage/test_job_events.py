"""Waiting for a job: the end is seen whenever it came, by many at once, without a thread each."""

import asyncio
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
import pytest
import redis

from storage.errors import JobFenced
from storage.job import Job
from storage.job_events import BEGINNING, LAST, JobEvents
from storage.job_store import Claim, JobStore
from storage.redis_client import JOBS_DATABASE, connect
from storage.settings import StorageSettings
from storage.transcript import Segment
from tests.stack import Parts
from tests.storage.test_job_store import stored, wait_until

T = TypeVar("T")


def with_events(settings: StorageSettings, use: Callable[[JobEvents], Awaitable[T]]) -> T:
    async def run() -> T:
        events = JobEvents.connect(settings)
        try:
            return await use(events)
        finally:
            await events.close()

    # In a thread of its own: a browser of another test may keep an event loop in this one.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, run()).result()


def test_a_waiter_sees_the_end_that_comes_later(store_settings: StorageSettings, job_store: JobStore) -> None:
    job = stored(job_store)

    async def use(events: JobEvents) -> tuple[bool, float]:
        waiter = asyncio.create_task(events.wait_final(job.job_id, timeout_seconds=120))
        await asyncio.to_thread(job_store.claim, job.job_id, "w", 30, 3)
        began = time.monotonic()
        await asyncio.to_thread(job_store.cancel, job.job_id)
        return await waiter, time.monotonic() - began

    final, seconds = with_events(store_settings, use)

    assert final
    assert seconds < 4, "the waiter polled instead of being woken"


def test_a_late_waiter_sees_the_end_at_once(store_settings: StorageSettings, job_store: JobStore) -> None:
    job = job_store.cancel(stored(job_store).job_id)

    assert with_events(store_settings, lambda events: events.wait_final(job.job_id, timeout_seconds=120))


def test_a_waiter_whose_time_runs_out_is_told_that_the_job_goes_on(
    store_settings: StorageSettings, job_store: JobStore
) -> None:
    job = stored(job_store)

    assert not with_events(store_settings, lambda events: events.wait_final(job.job_id, timeout_seconds=0.2))


def test_a_waiter_of_a_deleted_job_does_not_wait_for_ever(store_settings: StorageSettings, job_store: JobStore) -> None:
    job = stored(job_store)
    job_store.delete(job.job_id)

    assert with_events(store_settings, lambda events: events.wait_final(job.job_id, timeout_seconds=120))


def test_a_hundred_waiters_need_no_thread_each(store_settings: StorageSettings, job_store: JobStore) -> None:
    job = stored(job_store)
    threads = 0

    async def use(events: JobEvents) -> list[bool]:
        nonlocal threads
        waiters = [asyncio.create_task(events.wait_final(job.job_id, timeout_seconds=120)) for _ in range(100)]
        await asyncio.wait(waiters, timeout=0.3)
        threads = threading.active_count()
        await asyncio.to_thread(job_store.cancel, job.job_id)
        return await asyncio.gather(*waiters)

    before = threading.active_count()
    answers = with_events(store_settings, use)

    assert all(answers)
    assert threads <= before + 5


async def all_of(events: JobEvents, job: Job, after: str = BEGINNING) -> list[str]:
    """Ids of the entries that follow, up to the last one."""
    found = []
    async with aclosing(events.entries(job.job_id, after)) as entries:
        async for entry in entries:
            found.append(entry.id)
            if entry.type in LAST:
                break
    return found


async def watched(events: JobEvents, *jobs: Job) -> None:
    """The jobs' streams are being read."""
    for job in jobs:

        def known(job: Job = job) -> bool:
            return events.known(job.job_id) != BEGINNING

        await asyncio.to_thread(wait_until, known)


def busy(jobs: JobStore, entries: int) -> tuple[Job, Claim]:
    """A job with more entries than are kept in memory."""
    job = stored(jobs)
    claim = jobs.claim(job.job_id, "w", lease_seconds=60, max_attempts=1)
    for tenth in range(entries):
        jobs.beat(job.job_id, claim.token, (tenth + 1) / 10, 60)
    return job, claim


def test_who_listens_gets_every_entry_once_and_in_order_however_far_behind(
    store_settings: StorageSettings, job_store: JobStore
) -> None:
    job, claim = busy(job_store, entries=450)

    async def use(events: JobEvents) -> list[list[str]]:
        early = [asyncio.create_task(all_of(events, job)) for _ in range(3)]
        await watched(events, job)
        for tenth in range(450, 900):
            await asyncio.to_thread(job_store.beat, job.job_id, claim.token, tenth / 10 + 0.1, 60)
        await asyncio.to_thread(job_store.cancel, job.job_id)
        stories = await asyncio.gather(*early)
        resumed = [await all_of(events, job, stories[0][cut]) for cut in (0, 449, 460, 700, 901)]
        return [
            *stories,
            *([*stories[0][: cut + 1], *rest] for cut, rest in zip((0, 449, 460, 700, 901), resumed, strict=True)),
        ]

    stories = with_events(store_settings, use)

    assert len(stories[0]) == 1 + 1 + 900 + 1
    assert all(story == stories[0] for story in stories)


def test_all_jobs_are_read_by_one_connection(store_settings: StorageSettings, job_store: JobStore) -> None:
    jobs = [stored(job_store) for _ in range(20)]
    client = connect(store_settings, JOBS_DATABASE)
    name = secrets.token_hex(4)
    # Services of other tests read events too, and a connection shows its last command while it is idle.
    named = msgspec.structs.replace(store_settings, redis_url=f"{store_settings.redis_url}?client_name={name}")

    def waiting() -> int:
        return sum(
            one["name"] == name and one["cmd"] == "xread" and "b" in one["flags"] for one in client.client_list()
        )

    async def use(events: JobEvents) -> int:
        listeners = [asyncio.create_task(all_of(events, job)) for job in jobs]
        await watched(events, *jobs)
        connections = max([await asyncio.to_thread(waiting) for _ in range(50)])
        for job in jobs:
            await asyncio.to_thread(job_store.cancel, job.job_id)
        assert [len(found) for found in await asyncio.gather(*listeners)] == [2] * 20
        return connections

    assert with_events(named, use) == 1


def test_a_listener_who_comes_later_need_not_wait_until_the_reader_has_looked_round(
    store_settings: StorageSettings, job_store: JobStore
) -> None:
    first, second = stored(job_store), stored(job_store)

    async def use(events: JobEvents) -> float:
        one = asyncio.create_task(all_of(events, first))
        await watched(events, first)
        began = time.monotonic()
        other = asyncio.create_task(all_of(events, second))
        await watched(events, second)
        seconds = time.monotonic() - began
        one.cancel()
        other.cancel()
        return seconds

    assert with_events(store_settings, use) < 4, "it waits five seconds for the next entry"


def test_nothing_is_lost_and_nothing_repeated_when_redis_goes_away(
    fresh_settings: StorageSettings, parts: Parts
) -> None:
    redis = parts.start_redis()
    settings = msgspec.structs.replace(fresh_settings, redis_url=redis.url)
    jobs = JobStore.connect(settings)
    job, _ = busy(jobs, entries=5)

    async def use(events: JobEvents) -> list[str]:
        listener = asyncio.create_task(all_of(events, job))
        await watched(events, job)
        await asyncio.to_thread(redis.running.kill)
        await asyncio.to_thread(redis.running.start)
        await asyncio.to_thread(jobs.cancel, job.job_id)
        return await asyncio.wait_for(listener, 120)

    found = with_events(settings, use)

    assert len(found) == len(set(found)) == 1 + 1 + 5 + 1


def test_the_reader_goes_on_whatever_stopped_it(store_settings: StorageSettings, job_store: JobStore) -> None:
    job = stored(job_store)

    class Stumbling(redis.asyncio.Redis):
        stumbled = False

        async def xread(self, *args: Any, **kwargs: Any) -> Any:
            if not self.stumbled:
                self.stumbled = True
                raise RuntimeError("nothing that a client of Redis should raise")
            return await super().xread(*args, **kwargs)

    async def run() -> tuple[bool, bool]:
        client: Any = Stumbling.from_url(store_settings.redis_url, db=JOBS_DATABASE, decode_responses=True)
        events = JobEvents(client)
        waiter = asyncio.create_task(events.wait_final(job.job_id, timeout_seconds=120))
        await watched(events, job)
        await asyncio.to_thread(job_store.cancel, job.job_id)
        try:
            return await waiter, client.stumbled
        finally:
            await events.close()

    assert asyncio.run(run()) == (True, True)


def segment(number: int, text: str = "") -> Segment:
    return Segment(number, float(number), number + 1.0, text or f" {number}", 0.5)


def test_a_segment_is_told_once_whoever_tells_it_and_how_often(job_store: JobStore) -> None:
    job = stored(job_store)
    claim = job_store.claim(job.job_id, "w", lease_seconds=0.01, max_attempts=3)

    job_store.tell(claim, 0, [segment(0), segment(1)], "en", 0.9)
    job_store.tell(claim, 0, [segment(0), segment(1)], "en", 0.9)
    job_store.tell(claim, 1, [segment(1, " another"), segment(2)], "fr", 0.1)
    wait_until(lambda: job_store.expire_lease(job.job_id))
    other = job_store.claim(job.job_id, "other", lease_seconds=60, max_attempts=3)
    with pytest.raises(JobFenced):
        job_store.tell(claim, 3, [segment(3, " too late")], "en", 0.9)
    job_store.tell(other, 3, [segment(3)], "en", 0.9)

    assert [said.text for said in job_store.told(job.job_id)] == [" 0", " 1", " 2", " 3"]
    record = job_store.get(job.job_id)
    assert (record.language, record.language_probability) == ("en", 0.9)


def test_a_completed_job_keeps_no_text_in_redis(job_store: JobStore) -> None:
    job = stored(job_store)
    claim = job_store.claim(job.job_id, "w", lease_seconds=60, max_attempts=3)
    job_store.tell(claim, 0, [segment(number) for number in range(200)], "en", 0.9)

    job_store.complete(job.job_id, claim.token, {"json": 1}, 200.0)

    assert job_store.told(job.job_id) == []
