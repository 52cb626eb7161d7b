"""A short clip through the service as it is shipped, over faster-whisper's own defaults on the same clip."""

from scripts.benchmarks.benchmark import Bench, median_of, ratio_of
from scripts.benchmarks.overhead import in_both_ways
from scripts.benchmarks.running import running_stack


def run(bench: Bench) -> dict[str, float]:
    with running_stack(bench.folder / "stack") as stack:
        bench.say(f"{stack.plan.storage.default_model}, ENGINE={stack.plan.actors.engine}; both are told the language")
        service, bare = in_both_ways(bench, stack, "defaults", "en")
    return {
        "over_raw": ratio_of(service, bare),
        "service_ms": 1000 * median_of(service),
        "raw_ms": 1000 * median_of(bare),
    }
