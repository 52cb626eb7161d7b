"""`scripts/bench`: run benchmarks one after another, print a table, write the figures as JSON."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from deploy.embedded.running import PartFailed
from scripts.benchmarks import (
    clip,
    command,
    events,
    fair,
    ingest,
    languages,
    long,
    many,
    overhead,
    poll,
    quality,
    recover,
    render,
    scale,
    speed,
    throughput,
    upload,
)
from scripts.benchmarks.benchmark import Bench, Benchmark, BenchmarkFailed, Target
from storage.errors import StorageError

BENCHMARKS: dict[str, Benchmark] = {
    "upload": Benchmark(
        "speed of a 1 GiB form upload over a direct presigned PUT; its memory and temporary disk; 16 uploads at once",
        upload.run,
        {"over_direct": Target(least=0.70), "memory_growth_mib": Target(most=64), "temp_bytes": Target(most=0)},
    ),
    "overhead": Benchmark(
        "time of a 3 s clip on a warm worker, over raw faster-whisper with the same settings",
        overhead.run,
        {"ratio": Target(most=1.25), "extra_ms": Target(most=150)},
    ),
    "throughput": Benchmark(
        "audio seconds a second for 8 recordings, over raw faster-whisper in a loop on the same cores",
        throughput.run,
        {"over_raw": Target(least=0.95)},
    ),
    "poll": Benchmark("status requests a second with a busy worker, and their p99", poll.run),
    "long": Benchmark(
        "a worker's peak memory for 180 min over that for 5 min; time from start to the first segment of 60 min",
        long.run,
        {"memory_ratio": Target(most=1.10), "first_segment_seconds": Target(most=2)},
    ),
    "speed": Benchmark(
        "audio seconds a second for 60 min of many kinds of speech, over faster-whisper's own defaults; word errors",
        speed.run,
        {
            "over_defaults": Target(least=2.3),
            "over_defaults_same_allocator": Target(least=2.0),
            "over_batched": Target(least=1.1),
            "wer_points_over_defaults": Target(most=0.5),
        },
    ),
    "clip": Benchmark(
        "time of a 3 s clip on a warm worker, over faster-whisper's own defaults",
        clip.run,
        {"over_raw": Target(most=0.7)},
    ),
    "many": Benchmark(
        "100 clips of 2 to 5 s at once, over faster-whisper's own defaults in a loop on the same cores",
        many.run,
        {"over_raw": Target(least=3)},
    ),
    "scale": Benchmark(
        "what a second worker of one thread gains on 60 min, over what a second bare engine gains",
        scale.run,
        {"efficiency": Target(least=0.95)},
    ),
    "fair": Benchmark(
        "the wait of a short clip behind a 60 min recording, one worker", fair.run, {"wait_chunks": Target(most=1)}
    ),
    "quality": Benchmark(
        "text invented on silence and noise, word errors a language with both engines, repeated phrases",
        quality.run,
        {"words_from_silence_and_noise": Target(most=0), "repeats": Target(most=0)},
    ),
    "languages": Benchmark(
        "how often the language of a clip is detected, over faster-whisper's own detection",
        languages.run,
        {"right_over_faster_whisper": Target(least=1)},
    ),
    "recover": Benchmark(
        "from the kill -9 of a worker to the restart of what it had in work",
        recover.run,
        {"seconds": Target(most=20), "seconds_restarted": Target(most=20)},
    ),
    "events": Benchmark(
        "500 listeners of live events on one API process: memory each, threads, milliseconds until the last one hears",
        events.run,
        {"listeners": Target(least=500), "kib_each": Target(most=100), "threads": Target(most=50)},
    ),
    "ingest": Benchmark(
        "seconds from the PUT of an object into the inbox to its pending job: found by looking, told by a notification",
        ingest.run,
        {"found_over_interval": Target(most=2), "told_seconds": Target(most=1)},
    ),
    "client": Benchmark(
        "speed of a 1 GiB recording sent by the command line in parts, over one presigned PUT of the same file",
        command.run,
        {"over_put": Target(least=0.8)},
    ),
    "render": Benchmark(
        "subtitles of three hours with the times of words: cues a second, and the time over lines filled by textwrap",
        render.run,
        {"seconds": Target(most=1), "over_textwrap": Target(most=8)},
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure the service: ratios within one run.")
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write {name: {figure: value}} here")
    parser.add_argument("--rounds", type=int, default=3, help="how often both sides are measured (default: 3)")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes: only shows that it works")
    parser.add_argument("--tried", action="store_true", help="speed: other settings too, as a table to choose by")
    parser.add_argument("--list", action="store_true", help="say what each measures, and its targets")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
    chosen = {name: BENCHMARKS[name] for name in arguments.names or BENCHMARKS}
    if arguments.list:
        for name, benchmark in chosen.items():
            targets = ", ".join(f"{figure} {target}" for figure, target in benchmark.targets.items())
            print(f"{name:12} {benchmark.what} {f'({targets})' if targets else ''}")
        return 0
    rounds = 1 if arguments.quick else arguments.rounds
    measured, failed = measure(chosen, rounds, quick=arguments.quick, tried=arguments.tried)
    print_table(measured)
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(measured)) + b"\n")
    return 1 if failed else 0


def measure(
    chosen: dict[str, Benchmark], rounds: int, *, quick: bool, tried: bool
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The figures of those that could be measured, and the names of those that could not."""
    measured: dict[str, dict[str, float]] = {}
    failed: list[str] = []
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, rounds {rounds}{', quick' if quick else ''}")
    for name, benchmark in chosen.items():
        print(f"{name}: {benchmark.what}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"bench-{name}-", ignore_cleanup_errors=True) as folder:
            try:
                figures = benchmark.run(Bench(folder=Path(folder), rounds=rounds, quick=quick, tried=tried))
            except (BenchmarkFailed, PartFailed, StorageError) as error:
                print(f"    ✗ {error}", flush=True)
                failed.append(name)
                continue
        measured[name] = {figure: round(value, 4) for figure, value in figures.items()}
        print(f"    took {time.monotonic() - began:.0f} s", flush=True)
    return measured, failed


def print_table(measured: dict[str, dict[str, float]]) -> None:
    print(f"\n{'benchmark':12} {'figure':30} {'value':>12}   target")
    for name, figures in measured.items():
        for figure, value in figures.items():
            target = BENCHMARKS[name].targets.get(figure)
            verdict = "" if target is None else f"{target} {'✓' if target.met(value) else '✗ missed'}"
            print(f"{name:12} {figure:30} {value:>12,.2f}   {verdict}".rstrip())


if __name__ == "__main__":
    sys.exit(main())
