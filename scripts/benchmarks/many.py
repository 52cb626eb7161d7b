"""A hundred voice messages that arrive at once, over faster-whisper's defaults in a loop on the same cores."""

import time
from concurrent.futures import ThreadPoolExecutor

from scripts.benchmarks.benchmark import Bench, in_turns, listed, median_of, ratio_of
from scripts.benchmarks.client import Client, Content, submit, wait_final
from scripts.benchmarks.raw import raw_engine
from scripts.benchmarks.running import running_stack
from scripts.benchmarks.speech import short_clips, voices, write
from scripts.benchmarks.words import summed, word_errors


def run(bench: Bench) -> dict[str, float]:
    clips = short_clips(voices(bench), 6 if bench.quick else 100)
    paths = [write(bench.folder / f"clip-{number}.wav", [clip.samples]) for number, clip in enumerate(clips)]
    contents = [Content.of(path) for path in paths]
    texts: dict[str, list[str]] = {}
    with running_stack(bench.folder / "stack") as stack, raw_engine(stack) as raw:
        client = Client(stack.plan.api)
        bench.say(f"{stack.plan.storage.default_model}, ENGINE={stack.plan.actors.engine}; {raw.compared()}")

        def through_service() -> float:
            began = time.perf_counter()
            with ThreadPoolExecutor(stack.plan.service.max_concurrent_uploads) as threads:
                jobs = list(threads.map(lambda content: submit(client, content, language="en"), contents))
            texts["service"] = [wait_final(client, job_id)["result"]["text"] for job_id in jobs]
            return time.perf_counter() - began

        def alone() -> float:
            heard = raw.hear(paths, "defaults")
            texts["raw"] = [heard.text(number) for number in range(len(paths))]
            return heard.seconds

        wait_final(client, submit(client, contents[0], language="en"))
        raw.hear(paths[:1], "defaults")
        service, bare = in_turns(bench.rounds, through_service, alone)
    bench.say(f"{len(clips)} clips; service: {listed(service, 's')}; raw: {listed(bare, 's')}")
    wrong = {
        side: summed(word_errors(clip.text, text) for clip, text in zip(clips, heard, strict=True)).percent
        for side, heard in texts.items()
    }
    return {
        "over_raw": ratio_of(bare, service),
        "service_ms_a_clip": 1000 * median_of(service) / len(clips),
        "raw_ms_a_clip": 1000 * median_of(bare) / len(clips),
        "wer": wrong["service"],
        "wer_points_over_raw": wrong["service"] - wrong["raw"],
    }
