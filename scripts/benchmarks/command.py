"""A large recording sent by the command line, in parts side by side, over one put of the same file."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from scripts.benchmarks.benchmark import Bench, BenchmarkFailed, in_turns, listed, median_of, ratio_of
from scripts.benchmarks.client import Client
from scripts.benchmarks.running import RunningStack, running_stack

_BLOCK = 2**20


def run(bench: Bench) -> dict[str, float]:
    size = 96 * 2**20 if bench.quick else 2**30
    _check_disk(bench, size)
    recording = bench.folder / "recording.wav"
    _write(recording, size)
    # No worker: it would read what was uploaded while the next one is measured.
    with running_stack(bench.folder, workers=0) as stack:
        _put(stack, recording)
        command, put = in_turns(bench.rounds, lambda: _send(bench, stack, recording), lambda: _put(stack, recording))
    bench.say(f"{size / 2**20:.0f} MiB by the command line: {listed(command, 's')}; one put: {listed(put, 's')}")
    return {
        "over_put": ratio_of(put, command),
        "mb_per_second": size / 1e6 / median_of(command),
        "put_mb_per_second": size / 1e6 / median_of(put),
    }


def _check_disk(bench: Bench, size: int) -> None:
    # The store gives the space of what was deleted back some minutes later; parts are copied into one object.
    needed = (3 * bench.rounds + 2) * size
    free = shutil.disk_usage(bench.folder).free
    if free < needed:
        raise BenchmarkFailed(
            f"{free / 2**30:.0f} GiB of disk are free, {needed / 2**30:.0f} GiB are needed: set TMPDIR"
        )


def _write(path: Path, size: int) -> None:
    """Bytes that the store does not know how to make smaller."""
    noise = os.urandom(16 * 2**20)
    with path.open("wb") as file:
        for _ in range(size // len(noise)):
            file.write(noise)


def _send(bench: Bench, stack: RunningStack, recording: Path) -> float:
    """Seconds of the whole command, until the service has checked the upload and taken the job; it is removed again."""
    os.sync()
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "transcribe", str(recording), "--no-wait", "--quiet"],
        env={**os.environ, "BUCKETSCRIBE_URL": stack.plan.api, "XDG_STATE_HOME": str(bench.folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise BenchmarkFailed(f"the command ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    Client(stack.plan.api).send("DELETE", f"/api/v1/jobs/{done.stdout.strip()}").expect(200)
    return seconds


def _put(stack: RunningStack, recording: Path) -> float:
    key, size = "benchmark/direct", recording.stat().st_size
    link = stack.objects.presign_put(key, size, "application/octet-stream", 3600)
    address = urlsplit(link.url)
    headers = {"Content-Length": str(size), **link.headers}
    os.sync()
    answer = Client(link.url).send("PUT", f"{address.path}?{address.query}", _blocks(recording), headers).expect(200)
    stack.objects.delete(key)
    return answer.seconds


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
