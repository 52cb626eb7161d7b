"""A large form upload through the API, over the same bytes put straight into the store with a presigned link."""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from scripts.benchmarks.benchmark import Bench, BenchmarkFailed, in_turns, listed, median_of, ratio_of
from scripts.benchmarks.client import Answer, Client, Content, post_form
from scripts.benchmarks.running import RunningStack, running_stack
from scripts.benchmarks.watch import Watch

_PATH = "/api/v1/transcribe-async"
_AT_ONCE = 16
#: Bytes that the store does not know how to make smaller.
_NOISE = os.urandom(16 * 2**20)


def run(bench: Bench) -> dict[str, float]:
    large, small = (32 * 2**20, 2 * 2**20) if bench.quick else (2**30, 64 * 2**20)
    _check_disk(bench, large, small)
    # No worker: it would read what was uploaded while the next one is measured.
    with running_stack(bench.folder, workers=0) as stack:
        client = Client(stack.plan.api)
        _upload(stack, client, 64 * 1024)
        with Watch(stack.api.pid, stack.temporary) as watch:
            _upload(stack, client, large // 4)
            _put(stack, large // 4)
            form, direct = in_turns(bench.rounds, lambda: _upload(stack, client, large), lambda: _put(stack, large))
        bench.say(
            f"{large / 2**20:.0f} MiB as a form: {listed(form, 's')}; straight to the store: {listed(direct, 's')}"
        )
        bench.say(
            f"API: {watch.cpu_seconds * 2**30 / (large * (bench.rounds + 0.25)):.1f} s of CPU a GiB,"
            f" {watch.written_bytes / 2**10:.0f} KiB written to disk, its log included"
        )
        with Watch(stack.api.pid, stack.temporary) as crowd:
            accepted, refused = _at_once(bench, stack, small)
    return {
        "over_direct": ratio_of(direct, form),
        "mib_per_second": large / 2**20 / median_of(form),
        "memory_growth_mib": watch.memory_growth_mib,
        "temp_bytes": max(watch.temp_bytes, crowd.temp_bytes),
        "at_once_accepted": accepted,
        "at_once_refused": refused,
        "at_once_memory_growth_mib": crowd.memory_growth_mib,
    }


def _check_disk(bench: Bench, large: int, small: int) -> None:
    # The store gives the space of what was deleted back some minutes later.
    needed = round((2 * bench.rounds + 1) * large) + _AT_ONCE * small
    free = shutil.disk_usage(bench.folder).free
    if free < needed:
        raise BenchmarkFailed(
            f"{free / 2**30:.0f} GiB of disk are free, {needed / 2**30:.0f} GiB are needed: set TMPDIR"
        )


def _upload(stack: RunningStack, client: Client, size: int) -> float:
    """Seconds until the API has said that it has the recording; the job is removed again."""
    # What earlier ones left to be written must not slow this one down.
    os.sync()
    answer = post_form(client, _PATH, Content(size, _NOISE)).expect(202)
    client.send("DELETE", f"/api/v1/jobs/{answer.json()['job_id']}").expect(200)
    return answer.seconds


def _put(stack: RunningStack, size: int) -> float:
    key = "benchmark/direct"
    content = Content(size, _NOISE)
    link = stack.objects.presign_put(key, size, "application/octet-stream", 3600)
    address = urlsplit(link.url)
    headers = {"Content-Length": str(size), **link.headers}
    os.sync()
    answer = Client(link.url).send("PUT", f"{address.path}?{address.query}", content.blocks(), headers).expect(200)
    stack.objects.delete(key)
    return answer.seconds


def _at_once(bench: Bench, stack: RunningStack, size: int) -> tuple[int, int]:
    """How many of sixteen uploads that begin together are accepted, and how many are sent away."""
    allowed = stack.plan.service.max_concurrent_uploads
    together = threading.Barrier(_AT_ONCE)

    def one(_: int) -> Answer:
        together.wait()
        return post_form(Client(stack.plan.api), _PATH, Content(size, _NOISE))

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        answers = list(threads.map(one, range(_AT_ONCE)))
    accepted = [answer for answer in answers if answer.status == 202]
    refused = [answer for answer in answers if answer.status == 503 and answer.headers.get("retry-after")]
    waits = {answer.headers["retry-after"] for answer in refused}
    bench.say(
        f"{_AT_ONCE} uploads of {size / 2**20:.0f} MiB at once, MAX_CONCURRENT_UPLOADS={allowed}:"
        f" {len(accepted)} accepted, {len(refused)} refused with 503 and Retry-After {', '.join(sorted(waits))}"
    )
    if len(accepted) + len(refused) != _AT_ONCE:
        other = next(answer for answer in answers if answer not in accepted and answer not in refused)
        raise BenchmarkFailed(f"an upload was answered {other.status}: {other.body[:500].decode(errors='replace')}")
    return len(accepted), len(refused)
