"""The whole embedded stack as `scripts/up` starts it, on free ports and in an empty folder; killed in the end."""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import psutil

from deploy.embedded.parts import STORE_PORTS, Part, free_port
from deploy.embedded.running import PartFailed, Running, http_answers, redis_answers, store_answers
from deploy.embedded.stack import Stack, plan
from deploy.embedded.up import StackFailed, fetch_weights
from deploy.environment import ROOT
from scripts.benchmarks.benchmark import BenchmarkFailed
from storage.errors import QueueUnavailable
from storage.job_store import JobStore
from storage.object_store import ObjectStore


class RunningStack(msgspec.Struct, frozen=True):
    plan: Stack
    #: Its process alone; TMPDIR of its own.
    api: Running
    #: All of them run; a benchmark may stop, kill and start them.
    workers: list[Running]
    jobs: JobStore
    objects: ObjectStore

    @property
    def worker(self) -> Running:
        """The first one.

        Raises:
            BenchmarkFailed: the stack was started without any.
        """
        if not self.workers:
            raise BenchmarkFailed("this stack has no worker")
        return self.workers[0]

    @property
    def temporary(self) -> Path:
        """The API's TMPDIR: empty at first."""
        return temporary_folder(self.api.part.directory)


@contextmanager
def running_stack(
    folder: Path, settings: Mapping[str, str] | None = None, *, workers: int = 1
) -> Iterator[RunningStack]:
    """`settings` are environment variables, over those of this process. With no worker, jobs stay pending.

    Raises:
        BenchmarkFailed: the weights are not to be had, or a part did not start.
    """
    try:
        if workers:
            fetch_weights(plan(_environment(folder, settings)))
    except StackFailed as error:
        raise BenchmarkFailed(str(error)) from error
    # Ports are drawn now, for they are only free, not ours.
    stack = plan(_environment(folder, settings))
    jobs = JobStore.connect(stack.storage)
    redis, store, work, api = stack.parts()
    service = Running(_own_folder(stack, api), lambda: http_answers(stack.service.api_port))
    crew = [_worker(stack, work, number, jobs) for number in range(1, workers + 1)]
    parts = [
        Running(redis, lambda: redis_answers(stack.stack.redis_port, stack.stack.redis_password)),
        Running(store, lambda: store_answers(stack.stack.s3_port)),
        *crew,
        service,
    ]
    with ExitStack() as stopping:
        try:
            for running in parts:
                # What they hold is thrown away, so nothing is gained by letting them end in peace.
                stopping.callback(running.kill)
                running.start(timeout_seconds=120)
        except PartFailed as error:
            raise BenchmarkFailed(str(error)) from error
        objects = ObjectStore(stack.storage)
        objects.prepare()
        yield RunningStack(stack, service, crew, jobs, objects)


def wait_until_idle(worker: Running, timeout_seconds: float = 180) -> None:
    """A cancel takes effect between segments: wait until the worker has computed nothing for a moment.

    Raises:
        BenchmarkFailed: it goes on.
    """
    deadline = time.monotonic() + timeout_seconds
    process = psutil.Process(worker.pid)
    process.cpu_percent()
    while process.cpu_percent(0.3) > 20:
        if time.monotonic() > deadline:
            raise BenchmarkFailed("the worker goes on with a cancelled job")


def temporary_folder(directory: Path) -> Path:
    return directory / "tmp"


def _environment(folder: Path, settings: Mapping[str, str] | None) -> dict[str, str]:
    first = free_port(STORE_PORTS + 2)
    return {
        **os.environ,
        "BUCKETSCRIBE_DATA": str(folder),
        # Weights are the checkout's: fetched once, not once a benchmark.
        "MODEL_DIR": os.environ.get("MODEL_DIR") or str(ROOT / "data/models"),
        "S3_PORT": str(first),
        "REDIS_PORT": str(first + STORE_PORTS),
        "API_PORT": str(first + STORE_PORTS + 1),
        "PYTHONPATH": str(ROOT),
        **(settings or {}),
    }


def _own_folder(stack: Stack, part: Part) -> Part:
    """Our own programs in a folder of their own too, with an empty TMPDIR, so that every file they write is seen."""
    directory = stack.folder / part.name
    temporary_folder(directory).mkdir(parents=True)
    env = {**stack.environment, **part.env, "TMPDIR": str(temporary_folder(directory))}
    return msgspec.structs.replace(part, directory=directory, env=env)


def _worker(stack: Stack, part: Part, number: int, jobs: JobStore) -> Running:
    """Ready when this very process has announced itself."""

    def announced() -> bool:
        try:
            return f"{socket.gethostname()}:{running.pid}" in {worker.worker_id for worker in jobs.workers()}
        except QueueUnavailable:
            return False

    running = Running(_own_folder(stack, msgspec.structs.replace(part, name=f"worker-{number}")), announced)
    return running
