"""An hour of many kinds of speech through the service, over faster-whisper as it comes, in seconds and in word errors.

faster-whisper gets the worker's device, precision and number of cores, and is told the language, as the service is; for
the rest it has its own defaults. Nothing of the hour was used to choose the engine's settings.
"""

import os
from contextlib import ExitStack
from typing import Any

from scripts.benchmarks.benchmark import Bench, listed
from scripts.benchmarks.client import Client, Content, submit, timed, wait_final
from scripts.benchmarks.raw import Heard, Spoken, raw_engine, same_allocator
from scripts.benchmarks.running import running_stack
from scripts.benchmarks.speech import Mixture, clip, mixture, voices, write
from scripts.benchmarks.words import repeated_phrases, word_errors

_ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "67108864"}
_CORES = os.cpu_count() or 1

#: Name, workers, settings of each: what `--tried` measures.
TRIED: list[tuple[str, int, dict[str, str]]] = [
    ("as shipped", 1, {}),
    ("windowed, 2 threads of all cores", 1, {"ENGINE": "windowed"}),
    ("windowed, 1 thread of all cores", 1, {"ENGINE": "windowed", "WORKER_THREADS": "1"}),
    (
        f"windowed, {_CORES} threads of 1 core",
        1,
        {"ENGINE": "windowed", "WORKER_THREADS": str(_CORES), "WHISPER_THREADS": "1"},
    ),
    (
        f"windowed, {_CORES} workers of 1 thread of 1 core",
        _CORES,
        {"ENGINE": "windowed", "WORKER_THREADS": "1", "WHISPER_THREADS": "1"},
    ),
    ("windowed, memory kept", 1, {"ENGINE": "windowed", **_ALLOCATOR}),
    ("sequential, 2 threads of all cores", 1, {"ENGINE": "sequential"}),
    ("sequential, beam 1", 1, {"ENGINE": "sequential", "BEAM_SIZE": "1"}),
    (
        f"sequential, {_CORES} workers of 1 thread of 1 core",
        _CORES,
        {"ENGINE": "sequential", "WORKER_THREADS": "1", "WHISPER_THREADS": "1"},
    ),
    ("sequential, memory kept", 1, {"ENGINE": "sequential", **_ALLOCATOR}),
]


def run(bench: Bench) -> dict[str, float]:
    speech = voices(bench)
    hour = mixture(speech, 120 if bench.quick else 3600)
    path, warm = write(bench.folder / "hour.flac", [hour.recording.samples]), clip(bench.folder, 3.0)
    content = Content.of(path)
    taken: list[float] = []
    with ExitStack() as opened:
        stack = opened.enter_context(running_stack(bench.folder / "stack"))
        same = opened.enter_context(raw_engine(stack))
        own = same
        bench.say(f"{stack.plan.storage.default_model}, ENGINE={stack.plan.actors.engine}; {same.compared()}")
        if same_allocator(stack):
            bench.say("the worker's environment sets no allocator: raw faster-whisper runs in it once")
        else:
            own = opened.enter_context(raw_engine(stack, own_allocator=True))
        client = Client(stack.plan.api)
        wait_final(client, submit(client, Content.of(warm), language="en"))
        for engine in {own, same}:
            engine.hear([warm], "defaults")

        def through_service() -> dict[str, Any]:
            seconds, job = timed(client, content, language="en")
            taken.append(seconds)
            return job

        def alone(name: str, heard: Heard) -> Heard:
            bench.say(f"{name}: {heard.seconds:.1f} s")
            return heard

        # All of it takes long: the service before and after, each other side once.
        through_service()
        defaults = alone("faster-whisper, defaults", own.hear([path], "defaults"))
        batched = alone("faster-whisper, batched defaults", same.hear([path], "batched"))
        again = defaults if own is same else alone("defaults, worker's allocator", same.hear([path], "defaults"))
        job = through_service()
    ours = [Spoken(segment["start"], segment["end"], segment["text"]) for segment in job["result"]["segments"]]
    service = sum(taken) / len(taken)
    bench.say(f"service: {listed(taken, 's')} for {hour.recording.seconds:.0f} s of audio")
    if bench.tried:
        _try_settings(bench, mixture(speech, 60 if bench.quick else 600))
    text = hour.recording.text
    wer, wer_defaults = (word_errors(text, heard).percent for heard in (job["result"]["text"], defaults.text()))
    return {
        "over_defaults": defaults.seconds / service,
        "over_defaults_same_allocator": again.seconds / service,
        "over_batched": batched.seconds / service,
        "audio_seconds_per_second": hour.recording.seconds / service,
        "wer": wer,
        "wer_defaults": wer_defaults,
        "wer_batched": word_errors(text, batched.text()).percent,
        "wer_points_over_defaults": wer - wer_defaults,
        "repeats": len(repeated_phrases(text, job["result"]["text"])),
        "repeats_defaults": len(repeated_phrases(text, defaults.text())),
        **_by_part("wer", hour, ours),
        **_by_part("wer_defaults", hour, defaults.segments[0]),
    }


def _by_part(figure: str, hour: Mixture, segments: list[Spoken]) -> dict[str, float]:
    """A segment belongs to the part that its middle lies in."""
    heard = {name: "" for name, *_ in hour.parts}
    for segment in segments:
        middle = (segment.start + segment.end) / 2
        name = [name for name, start, *_ in hour.parts if start <= middle or start == 0][-1]
        heard[name] += segment.text
    return {f"{figure}_{name}": word_errors(text, heard[name]).percent for name, _, _, text in hour.parts}


def _try_settings(bench: Bench, spoken: Mixture) -> None:
    path, warm = write(bench.folder / "tried.flac", [spoken.recording.samples]), clip(bench.folder, 3.0)
    content = Content.of(path)
    rows = []
    for number, (name, workers, settings) in enumerate(TRIED[:2] if bench.quick else TRIED):
        with running_stack(bench.folder / f"tried-{number}", settings, workers=workers) as stack:
            client = Client(stack.plan.api)
            for job_id in [submit(client, Content.of(warm), language="en") for _ in range(2 * workers)]:
                wait_final(client, job_id)
            seconds, job = timed(client, content, language="en")
        wer = word_errors(spoken.recording.text, job["result"]["text"]).percent
        rows.append(f"{name:50} {spoken.recording.seconds / seconds:6.1f} × real time  {wer:5.2f} % word errors")
        bench.say(rows[-1])
