"""Listeners of live events held by one API process: what each of them costs, and how soon all of them hear."""

import asyncio
import statistics
import time
from urllib.parse import urlsplit

import psutil

from scripts.benchmarks.benchmark import Bench, BenchmarkFailed, median_of
from scripts.benchmarks.running import RunningStack, running_stack
from storage.job import Job, JobStatus, Options, Source, new_job_id
from storage.keys import source_key

_LISTENERS = 500
#: How long a listener may wait for what it is told.
_SECONDS = 30.0


class Listener:
    """A connection that reads a job's events, by hand: a client library would take more time than the service."""

    def __init__(self, api: str, job_id: str) -> None:
        self.job_id = job_id
        self._api = urlsplit(api)
        self._read = b""

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self._api.hostname, self._api.port)
        request = f"GET /api/v1/jobs/{self.job_id}/events HTTP/1.1\r\nHost: {self._api.netloc}\r\n\r\n"
        self._writer.write(request.encode())
        await self.hears("status")

    async def hears(self, event: str) -> float:
        """The time at which the event has come.

        Raises:
            BenchmarkFailed: it does not come.
        """
        wanted = f"event: {event}\n".encode()
        try:
            async with asyncio.timeout(_SECONDS):
                while wanted not in self._read:
                    block = await self._reader.read(65536)
                    if not block:
                        raise BenchmarkFailed(f"a stream ended without {event}: {self._read[-200:]!r}")
                    self._read += block
        except TimeoutError:
            raise BenchmarkFailed(f"a listener did not hear of {event} within {_SECONDS:g} s") from None
        return time.perf_counter()

    def close(self) -> None:
        self._writer.close()


def run(bench: Bench) -> dict[str, float]:
    listeners = 50 if bench.quick else _LISTENERS
    with running_stack(bench.folder / "stack", workers=0) as stack:
        # The first ones load what all of them need.
        asyncio.run(_round(stack, 20, jobs=20))
        one = [asyncio.run(_round(stack, listeners, jobs=1)) for _ in range(bench.rounds)]
        own = [asyncio.run(_round(stack, listeners, jobs=listeners)) for _ in range(bench.rounds)]
    bench.say(f"{listeners} listeners, all of one job and then each of its own; no worker runs")
    return {
        "listeners": listeners,
        # The most: memory that a round left behind is used again by the next.
        "kib_each": max(figures["kib_each"] for figures in own + one),
        "threads": max(figures["threads"] for figures in own + one),
        "one_job_last_ms": median_of([figures["last_ms"] for figures in one]),
        "own_jobs_median_ms": median_of([figures["median_ms"] for figures in own]),
        "own_jobs_last_ms": median_of([figures["last_ms"] for figures in own]),
    }


async def _round(stack: RunningStack, listeners: int, jobs: int) -> dict[str, float]:
    """Every listener hears the beginning and the end of its job; raises BenchmarkFailed where one does not."""
    process = psutil.Process(stack.api.pid)
    made = [await asyncio.to_thread(_job, stack) for _ in range(jobs)]
    before = process.memory_info().rss
    listening = [Listener(stack.plan.api, made[number % jobs]) for number in range(listeners)]
    # As many at once as a server's backlog takes.
    for number in range(0, listeners, 50):
        await asyncio.gather(*(listener.open() for listener in listening[number : number + 50]))
    grown, threads = process.memory_info().rss - before, process.num_threads()
    hearing = [asyncio.create_task(listener.hears("cancelled")) for listener in listening]
    told = {}
    for job_id in made:
        told[job_id] = time.perf_counter()
        await asyncio.to_thread(stack.jobs.cancel, job_id)
    heard = await asyncio.gather(*hearing)
    waits = [1000 * (at - told[listener.job_id]) for at, listener in zip(heard, listening, strict=True)]
    for listener in listening:
        listener.close()
    return {
        "kib_each": max(grown, 0) / 1024 / listeners,
        "threads": threads,
        "median_ms": statistics.median(waits),
        "last_ms": max(waits),
    }


def _job(stack: RunningStack) -> str:
    """One that waits for a worker."""
    job_id = new_job_id()
    stack.jobs.create(
        Job(
            job_id=job_id,
            owner="",
            status=JobStatus.PENDING,
            source=Source(type="form", key=source_key(job_id), filename="talk.mp3", size=1),
            options=Options(model=stack.plan.storage.default_model),
            created_at=time.time(),
        )
    )
    return job_id
