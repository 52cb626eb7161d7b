"""From the kill -9 of a worker in the middle of a chunk until another worker, or the same again, has the chunk."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.embedded.running import Running
from scripts.benchmarks.benchmark import Bench, BenchmarkFailed, listed
from scripts.benchmarks.chunks import ChunkWatch, Claim
from scripts.benchmarks.client import Client, Content, submit
from scripts.benchmarks.running import RunningStack, running_stack
from scripts.benchmarks.speech import mixture, voices, write

#: Into a chunk, so that it is the middle of one.
_INTO_SECONDS = 0.5
#: Until every worker has as many chunks in hand as it can.
_TRIES = 5


def run(bench: Bench) -> dict[str, float]:
    hour = Content.of(
        write(bench.folder / "hour.flac", [mixture(voices(bench), 400 if bench.quick else 3600).recording.samples])
    )
    settings = {}
    if bench.quick:
        settings = {
            "LEASE_SECONDS": "3",
            "JANITOR_SECONDS": "1",
            "CHUNK_TARGET_SECONDS": "15",
            "CHUNK_MAX_SECONDS": "30",
        }
    kills = 1 if bench.quick else 3
    with running_stack(bench.folder / "stack", settings, workers=2) as stack:
        actors = stack.plan.actors
        bench.say(f"{stack.plan.storage.default_model}, ENGINE={actors.engine}, LEASE_SECONDS={actors.lease_seconds}")
        threads = actors.worker_threads
        by_other: list[float] = []
        with _long_job(stack, hour) as watch:
            for number in range(kills):
                victim = stack.workers[number % 2]
                by_other += _kill(watch, victim, 2 * threads, restart=False)
                victim.start()
        stack.workers[1].stop()
        by_same: list[float] = []
        with _long_job(stack, hour) as watch:
            for _ in range(kills):
                by_same += _kill(watch, stack.workers[0], threads, restart=True)
    bench.say(
        f"another worker had the lost chunks after {listed(by_other, 's')}; the same after {listed(by_same, 's')}"
    )
    return {"seconds": max(by_other), "seconds_restarted": max(by_same), "chunks_lost": len(by_other) + len(by_same)}


@contextmanager
def _long_job(stack: RunningStack, content: Content) -> Iterator[ChunkWatch]:
    """Cut, and in work; cancelled in the end."""
    client = Client(stack.plan.api)
    job_id = submit(client, content, language="en")
    with ChunkWatch(stack, job_id) as watch:
        watch.wait("it was cut", watch.is_cut)
        yield watch
    client.send("POST", f"/api/v1/jobs/{job_id}/cancel")


def _kill(watch: ChunkWatch, victim: Running, in_work: int, *, restart: bool) -> list[float]:
    """Seconds until each of the victim's chunks was claimed again; they are done when it returns."""
    for _ in range(_TRIES):
        watch.wait("all workers had chunks", lambda: len(watch.held) >= in_work)
        time.sleep(_INTO_SECONDS)
        before = watch.held
        victim.kill()
        killed = time.time()
        if restart:
            victim.start()
        watch.wait_until_done(before)
        lost = {claim: _again(watch, claim, killed) for claim in before}
        if any(lost.values()):
            return [seconds for seconds in lost.values() if seconds is not None]
        if not restart:
            victim.start()
    raise BenchmarkFailed(f"{_TRIES} kills met no chunk in work")


def _again(watch: ChunkWatch, lost: Claim, killed: float) -> float | None:
    """Seconds after the kill at which another claim of the same chunk was seen; None: it had survived."""
    later = [
        held.first_seen - killed
        for claim, held in list(watch.claims.items())
        if claim[0] == lost[0] and claim != lost and held.first_seen >= killed
    ]
    return min(later, default=None)
