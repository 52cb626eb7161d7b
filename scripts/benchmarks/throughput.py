"""Audio seconds a second for eight recordings, over faster-whisper alone in a loop on the same cores."""

import time

from scripts.benchmarks.benchmark import Bench, in_turns, median_of, ratio_of
from scripts.benchmarks.client import Client, Content, post_form, wait_final
from scripts.benchmarks.raw import raw_engine
from scripts.benchmarks.running import running_stack
from scripts.benchmarks.speech import polyglot

_LENGTHS = [45.0, 75.0, 52.0, 61.0, 68.0, 48.0, 71.0, 57.0]


def run(bench: Bench) -> dict[str, float]:
    paths = polyglot(bench.folder, [6.0, 9.0] if bench.quick else _LENGTHS)
    contents = [Content.of(path) for path in paths]
    with running_stack(bench.folder / "stack", {"ENGINE": "sequential"}) as stack, raw_engine(stack) as raw:
        client = Client(stack.plan.api)
        durations: list[float] = []

        def through_service() -> float:
            began = time.perf_counter()
            jobs = [
                post_form(client, "/api/v1/transcribe-async", content).expect(202).json()["job_id"]
                for content in contents
            ]
            finished = [wait_final(client, job_id) for job_id in jobs]
            taken = time.perf_counter() - began
            durations[:] = [job["source"]["duration"] for job in finished]
            bench.say(f"service: {taken:.1f} s")
            return taken

        def alone() -> float:
            taken = raw.seconds(paths)
            bench.say(f"raw: {taken:.1f} s")
            return taken

        bench.say(raw.compared())
        first = post_form(client, "/api/v1/transcribe-async", contents[0]).expect(202).json()["job_id"]
        wait_final(client, first)
        raw.seconds(paths[:1])
        service, bare = in_turns(bench.rounds, through_service, alone)
    bench.say(f"{sum(durations):.0f} s of audio in {len(paths)} recordings")
    return {
        "over_raw": ratio_of(bare, service),
        "audio_seconds_per_second": sum(durations) / median_of(service),
        "raw_audio_seconds_per_second": sum(durations) / median_of(bare),
    }
