"""A short clip through the service and back, over faster-whisper alone on the same clip with the same settings."""

from scripts.benchmarks.benchmark import Bench, difference_of, in_turns, listed, median_of, ratio_of
from scripts.benchmarks.client import Client, Content, post_form
from scripts.benchmarks.raw import How, raw_engine
from scripts.benchmarks.running import RunningStack, running_stack
from scripts.benchmarks.speech import clip

_CLIP_SECONDS = 3.0
#: Clips in a round: a second is little to go by.
_CLIPS = 5


def run(bench: Bench) -> dict[str, float]:
    with running_stack(bench.folder / "stack", {"ENGINE": "sequential"}) as stack:
        service, bare = in_both_ways(bench, stack, "as the worker", None)
    return {
        "ratio": ratio_of(service, bare),
        "extra_ms": 1000 * difference_of(service, bare),
        "service_ms": 1000 * median_of(service),
        "raw_ms": 1000 * median_of(bare),
    }


def in_both_ways(bench: Bench, stack: RunningStack, how: How, language: str | None) -> tuple[list[float], list[float]]:
    """Seconds for the clip through the service, from request to transcript, and by faster-whisper alone."""
    recording = clip(bench.folder, _CLIP_SECONDS)
    content = Content.of(recording)
    fields = {"language": language} if language else {}
    with raw_engine(stack) as raw:
        client = Client(stack.plan.api)

        def through_service() -> float:
            return post_form(client, "/api/v1/transcribe", content, **fields).expect(200).seconds

        def alone() -> float:
            return raw.hear([recording], how, language).seconds

        bench.say(raw.compared())
        for _ in range(3):
            through_service()
            alone()
        service, bare = in_turns(1 if bench.quick else bench.rounds * _CLIPS, through_service, alone)
    bench.say(f"service: {listed(service, 's')}; raw: {listed(bare, 's')}")
    return service, bare
