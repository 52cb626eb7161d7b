"""From the PUT of an object into the inbox to its pending job: found by looking, and told by a notification."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

from scripts.benchmarks.benchmark import Bench, BenchmarkFailed, listed, median_of
from scripts.benchmarks.client import Client
from scripts.benchmarks.running import RunningStack, running_stack
from storage.errors import JobMissing
from storage.inbox import version_of

#: What lies in the inbox: no worker hears it.
_RECORDING = bytes(1024)
#: How often is looked whether the job is there, in seconds.
_WATCH_SECONDS = 0.01


def run(bench: Bench) -> dict[str, float]:
    found_count, told_count = (2, 3) if bench.quick else (8 * bench.rounds, 20 * bench.rounds)
    settings = {"INBOX_SECONDS": "1"} if bench.quick else {}
    with running_stack(bench.folder / "stack", settings, workers=0) as stack:
        interval = stack.plan.service.inbox_seconds
        with ThreadPoolExecutor(found_count) as threads:
            # Spread over the intervals, so that every moment between two looks is met.
            found = list(threads.map(lambda number: _find(stack, number, 0.37 * interval * number), range(found_count)))
        told = [_tell(stack, number) for number in range(told_count)]
    over_put = [seconds / put for put, seconds in told]
    bench.say(f"INBOX_SECONDS={interval}; found after {listed(found, 's')}")
    return {
        "found_seconds": median_of(found),
        "found_over_interval": median_of(found) / interval,
        "found_over_interval_most": max(found) / interval,
        "told_seconds": median_of([seconds for _, seconds in told]),
        "told_over_put": median_of(over_put),
    }


def _find(stack: RunningStack, number: int, after_seconds: float) -> float:
    time.sleep(after_seconds)
    key = f"inbox/found-{number}.wav"
    stack.objects.put(key, _RECORDING, "audio/wav")
    began = time.perf_counter()
    _wait_for_job(stack, key)
    return time.perf_counter() - began


def _tell(stack: RunningStack, number: int) -> tuple[float, float]:
    """Seconds of the PUT alone, and from its end until a notification that is sent then has made the job."""
    key, bucket = f"inbox/told-{number}.wav", stack.plan.storage.s3_bucket
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}
    body = json.dumps({"Records": [record]}).encode()
    began = time.perf_counter()
    stack.objects.put(key, _RECORDING, "audio/wav")
    there = time.perf_counter()
    headers = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
    Client(stack.plan.api).send("POST", "/api/v1/events/s3", [body], headers).expect(200)
    _wait_for_job(stack, key)
    return there - began, time.perf_counter() - there


def _wait_for_job(stack: RunningStack, key: str) -> None:
    job_id = version_of(stack.objects.head(key)).job_id
    deadline = time.monotonic() + 20 + 5 * stack.plan.service.inbox_seconds
    while True:
        try:
            stack.jobs.get(job_id)
            return
        except JobMissing as error:
            if time.monotonic() > deadline:
                raise BenchmarkFailed(f"{key} did not become a job") from error
            time.sleep(_WATCH_SECONDS)
