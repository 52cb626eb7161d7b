"""What a second worker gains on one long recording, beside what a second bare engine gains on the same chunks."""

import os
from concurrent.futures import ThreadPoolExecutor

from scripts.benchmarks.benchmark import Bench, in_turns, listed, median_of, ratio_of
from scripts.benchmarks.chunks import cut_into_files
from scripts.benchmarks.client import Client, Content, submit, timed, wait_final
from scripts.benchmarks.raw import raw_engine
from scripts.benchmarks.running import running_stack
from scripts.benchmarks.speech import clip, mixture, voices, write


def run(bench: Bench) -> dict[str, float]:
    model = os.environ.get("DEFAULT_MODEL") or "tiny.en"
    path = write(bench.folder / "hour.flac", [mixture(voices(bench), 150 if bench.quick else 3600).recording.samples])
    hour, warm = Content.of(path), clip(bench.folder, 3.0)
    settings = {"DEFAULT_MODEL": model, "WORKER_THREADS": "1", "WHISPER_THREADS": "1"}
    if bench.quick:
        settings |= {"CHUNK_TARGET_SECONDS": "15", "CHUNK_MAX_SECONDS": "30"}
    with (
        running_stack(bench.folder / "stack", settings, workers=2) as stack,
        raw_engine(stack) as one,
        raw_engine(stack) as other,
    ):
        client = Client(stack.plan.api)
        second = stack.workers[1]
        chunks = cut_into_files(path, bench.folder / "chunks", stack.plan.actors)
        bench.say(f"{model}, ENGINE={stack.plan.actors.engine}, workers of one thread, {len(chunks)} chunks")
        for engine in (one, other):
            engine.hear([warm], "engine")

        def through_service() -> float:
            # One clip for each worker, so that all of them are warm.
            for job_id in [submit(client, Content.of(warm), language="en") for _ in range(4)]:
                wait_final(client, job_id)
            return timed(client, hour, language="en")[0]

        def by_two_workers() -> float:
            second.start()
            return through_service()

        def by_one_worker() -> float:
            second.stop()
            return through_service()

        def by_two_engines() -> float:
            with ThreadPoolExecutor(2) as threads:
                halves = [
                    threads.submit(one.hear, chunks[::2], "engine"),
                    threads.submit(other.hear, chunks[1::2], "engine"),
                ]
                return max(half.result().seconds for half in halves)

        def by_one_engine() -> float:
            return one.hear(chunks, "engine").seconds

        # All of it takes minutes: once is enough, whatever the rounds.
        one_worker, two_workers = in_turns(1, by_one_worker, by_two_workers)
        two_engines, one_engine = in_turns(1, by_two_engines, by_one_engine)
    bench.say(
        f"workers: {listed([*one_worker, *two_workers], 's')}; engines: {listed([*one_engine, *two_engines], 's')}"
    )
    gained, possible = ratio_of(one_worker, two_workers), ratio_of(one_engine, two_engines)
    return {
        "two_workers_over_one": gained,
        "raw_two_over_one": possible,
        "efficiency": gained / possible,
        "one_worker_over_one_engine": ratio_of(one_engine, one_worker),
        "two_workers_over_two_engines": ratio_of(two_engines, two_workers),
        "two_workers_seconds": median_of(two_workers),
    }
