"""Status requests a second while the worker computes on every core, and how long the slowest hundredth takes."""

import socket
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from scripts.benchmarks.benchmark import Bench, BenchmarkFailed, listed, median_of
from scripts.benchmarks.client import Client, Content, post_form
from scripts.benchmarks.running import RunningStack, running_stack, wait_until_idle
from scripts.benchmarks.speech import polyglot

#: Each asks again as soon as it has its answer.
_CLIENTS = 8
_START_SECONDS = 180


def run(bench: Bench) -> dict[str, float]:
    seconds, rounds = (0.5, 1) if bench.quick else (5.0, bench.rounds)
    # Long enough to outlast the polling; whether it did is checked.
    (recording,) = polyglot(bench.folder, [300.0 if bench.quick else 900.0])
    with running_stack(bench.folder / "stack") as stack:
        client = Client(stack.plan.api)
        job_id = post_form(client, "/api/v1/transcribe-async", Content.of(recording)).expect(202).json()["job_id"]
        _wait_until_processing(client, job_id)
        _poll(stack, job_id, 0.2)
        busy = [_poll(stack, job_id, seconds) for _ in range(rounds)]
        status = client.get(f"/api/v1/status/{job_id}").expect(200).json()["status"]
        if status != "processing":
            raise BenchmarkFailed(f"the worker was not busy to the end: the job is {status}")
        client.send("POST", f"/api/v1/jobs/{job_id}/cancel").expect(200)
        wait_until_idle(stack.worker)
        idle = [_poll(stack, job_id, seconds) for _ in range(rounds)]
    per_second = [len(times) / seconds for times in busy]
    p99 = [_percentile(times, 99) for times in busy]
    bench.say(f"{_CLIENTS} clients, each asks again at once; p99 {listed(p99, 'ms')}")
    return {
        "per_second": median_of(per_second),
        "p50_ms": median_of([_percentile(times, 50) for times in busy]),
        "p99_ms": median_of(p99),
        "idle_per_second": median_of([len(times) / seconds for times in idle]),
        "idle_p99_ms": median_of([_percentile(times, 99) for times in idle]),
    }


def _poll(stack: RunningStack, job_id: str, seconds: float) -> list[float]:
    """The time of every answer, in seconds."""
    end = time.perf_counter() + seconds
    with ThreadPoolExecutor(_CLIENTS) as threads:
        return [
            taken
            for times in threads.map(lambda _: _ask_until(end, stack.plan.api, job_id), range(_CLIENTS))
            for taken in times
        ]


def _ask_until(end: float, api: str, job_id: str) -> list[float]:
    """The same bytes again and again: a client library would take more time than the service."""
    address = urlsplit(api)
    request = f"GET /api/v1/status/{job_id} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    taken = []
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (began := time.perf_counter()) < end:
            connection.sendall(request)
            _read_answer(connection)
            taken.append(time.perf_counter() - began)
    return taken


def _read_answer(connection: socket.socket) -> None:
    """
    Raises:
        BenchmarkFailed: it is not 200 with a Content-Length.
    """
    answer = b""
    while b"\r\n\r\n" not in answer:
        block = connection.recv(65536)
        if not block:
            raise BenchmarkFailed("the API closed a connection while it was polled")
        answer += block
    head, _, body = answer.partition(b"\r\n\r\n")
    length = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    if not head.startswith(b"HTTP/1.1 200 ") or not length:
        raise BenchmarkFailed(f"a status was answered {head.splitlines()[0].decode(errors='replace')}")
    missing = length[0] - len(body)
    while missing > 0:
        missing -= len(connection.recv(65536))


def _wait_until_processing(client: Client, job_id: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    # Some progress: the recording is read, and the engine has the cores.
    while (job := client.get(f"/api/v1/status/{job_id}").expect(200).json())["progress"] == 0:
        if job["status"] not in ("pending", "processing") or time.monotonic() > deadline:
            raise BenchmarkFailed(f"the job that keeps the worker busy is {job['status']}: {job.get('error')}")
        time.sleep(0.05)


def _percentile(seconds: list[float], percent: int) -> float:
    """In milliseconds."""
    return 1000 * statistics.quantiles(seconds, n=100)[percent - 1]
