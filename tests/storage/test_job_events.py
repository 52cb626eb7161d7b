"""Waiting for a job: the end is seen whenever it came, by many at once, without a thread each."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from storage.job_events import JobEvents
from storage.job_store import JobStore
from storage.settings import StorageSettings
from tests.storage.test_job_store import stored

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
        waiter = asyncio.create_task(events.wait_final(job.job_id, timeout_seconds=30))
        await asyncio.to_thread(job_store.claim, job.job_id, "w", 30, 3)
        began = time.monotonic()
        await asyncio.to_thread(job_store.cancel, job.job_id)
        return await waiter, time.monotonic() - began

    final, seconds = with_events(store_settings, use)

    assert final
    assert seconds < 4, "the waiter polled instead of being woken"


def test_a_late_waiter_sees_the_end_at_once(store_settings: StorageSettings, job_store: JobStore) -> None:
    job = job_store.cancel(stored(job_store).job_id)

    assert with_events(store_settings, lambda events: events.wait_final(job.job_id, timeout_seconds=30))


def test_a_waiter_whose_time_runs_out_is_told_that_the_job_goes_on(
    store_settings: StorageSettings, job_store: JobStore
) -> None:
    job = stored(job_store)

    assert not with_events(store_settings, lambda events: events.wait_final(job.job_id, timeout_seconds=0.2))


def test_a_waiter_of_a_deleted_job_does_not_wait_for_ever(store_settings: StorageSettings, job_store: JobStore) -> None:
    job = stored(job_store)
    job_store.delete(job.job_id)

    assert with_events(store_settings, lambda events: events.wait_final(job.job_id, timeout_seconds=30))


def test_a_hundred_waiters_need_no_thread_each(store_settings: StorageSettings, job_store: JobStore) -> None:
    job = stored(job_store)
    threads = 0

    async def use(events: JobEvents) -> list[bool]:
        nonlocal threads
        waiters = [asyncio.create_task(events.wait_final(job.job_id, timeout_seconds=30)) for _ in range(100)]
        await asyncio.wait(waiters, timeout=0.3)
        threads = threading.active_count()
        await asyncio.to_thread(job_store.cancel, job.job_id)
        return await asyncio.gather(*waiters)

    before = threading.active_count()
    answers = with_events(store_settings, use)

    assert all(answers)
    assert threads <= before + 5
