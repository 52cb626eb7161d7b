"""The whole embedded stack as `scripts/up` starts it, on free ports and in an empty folder; killed in the end."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil

from deploy.embedded.running import Running
from deploy.embedded.stack import Stack
from deploy.embedded.unsupervised import temporary_folder, unsupervised
from deploy.embedded.up import StackFailed
from scripts.benchmarks.benchmark import BenchmarkFailed
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
        with unsupervised(folder, settings or {}, workers=workers) as stack:
            yield RunningStack(stack.plan, stack.api, stack.workers, stack.jobs, stack.objects)
    except StackFailed as error:
        raise BenchmarkFailed(str(error)) from error


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
