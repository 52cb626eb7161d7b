"""Three hours against five minutes in memory, and how soon the first text of an hour can be read."""

import os
import re
import time
from pathlib import Path

from scripts.benchmarks.benchmark import Bench, BenchmarkFailed, listed, median_of
from scripts.benchmarks.client import Client, Content, submit, timed, upload, wait_final
from scripts.benchmarks.running import RunningStack, running_stack, wait_until_idle
from scripts.benchmarks.speech import clip, mixture, repeated, voices

_MINUTE = 60.0
_POLL_SECONDS = 0.02


def run(bench: Bench) -> dict[str, float]:
    model = os.environ.get("DEFAULT_MODEL") or "tiny.en"
    short, hour, hours = (1.2, 2, 3) if bench.quick else (5, 60, 180)
    speech = voices(bench)
    content = {}
    for minutes in (short, hour, hours):
        # Every kind of speech in each: strong noise takes another way, and more memory, than clean reading.
        spoken = mixture(speech, min(minutes, 20) * _MINUTE).recording
        content[minutes] = Content.of(repeated(bench.folder / f"{minutes}-minutes.mp3", spoken, minutes * _MINUTE))
    warm = Content.of(clip(bench.folder, 3.0))
    with running_stack(bench.folder / "stack", {"DEFAULT_MODEL": model}) as stack:
        bench.say(f"{model}, ENGINE={stack.plan.actors.engine}")
        # Which chunks meet in memory is chance: short runs are cheap to repeat.
        low = [_peak_mib(bench, stack, warm, content[short]) for _ in range(bench.rounds)]
        high = _peak_mib(bench, stack, warm, content[hours])
        first = [_first_segment(stack, content[hour]) for _ in range(bench.rounds)]
    bench.say(f"peak for {short:g} min: {listed(low, 'MiB')}; for {hours:g} min: {high:.1f} MiB")
    bench.say(f"first segment of {hour:g} min after {listed(first, 's')}")
    return {
        "memory_ratio": high / median_of(low),
        "peak_mib": high,
        "first_segment_seconds": median_of(first),
    }


def _peak_mib(bench: Bench, stack: RunningStack, warm: Content, content: Content) -> float:
    """Of a worker that did nothing before but a clip."""
    stack.worker.stop()
    stack.worker.start()
    client = Client(stack.plan.api)
    wait_final(client, submit(client, warm, language="en"))
    seconds, job = timed(client, content, language="en")
    bench.say(f"{job['source']['duration'] / _MINUTE:.0f} min took {seconds:.1f} s")
    return _high_water_mib(stack.worker.pid)


def _high_water_mib(pid: int) -> float:
    """The kernel's own account of the most that was ever resident. Linux: it reads /proc."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        raise BenchmarkFailed("peak memory is read from /proc, which is not there")
    kibibytes = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    if kibibytes is None:
        raise BenchmarkFailed("the kernel tells no VmHWM")
    return int(kibibytes[1]) / 1024


def _first_segment(stack: RunningStack, content: Content) -> float:
    """Seconds from the answer to `start` until a segment can be read."""
    client = Client(stack.plan.api)
    job_id = upload(client, content, language="en")
    client.send("POST", f"/api/v1/jobs/{job_id}/start").expect(202)
    began = time.perf_counter()
    while (
        not (job := client.get(f"/api/v1/status/{job_id}?include=partial").expect(200).json())
        .get("partial", {})
        .get("segments")
    ):
        if job["status"] not in ("pending", "processing"):
            raise BenchmarkFailed(f"no segment could be read before the job was {job['status']}: {job.get('error')}")
        time.sleep(_POLL_SECONDS)
    seconds = time.perf_counter() - began
    client.send("POST", f"/api/v1/jobs/{job_id}/cancel")
    wait_until_idle(stack.worker)
    return seconds
