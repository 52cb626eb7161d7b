"""The whole embedded stack as `scripts/up` starts it, on free ports and in an empty folder; killed in the end."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

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
    worker: Running | None
    jobs: JobStore
    objects: ObjectStore

    @property
    def temporary(self) -> Path:
        """The API's TMPDIR: empty at first."""
        return temporary_folder(self.api.part.directory)


@contextmanager
def running_stack(folder: Path, *, worker: bool = True, **settings: str) -> Iterator[RunningStack]:
    """`settings` are environment variables, over those of this process. With no worker, jobs stay pending.

    Raises:
        BenchmarkFailed: the weights are not to be had, or a part did not start.
    """
    try:
        if worker:
            fetch_weights(plan(_environment(folder, settings)))
    except StackFailed as error:
        raise BenchmarkFailed(str(error)) from error
    # Ports are drawn now, for they are only free, not ours.
    stack = plan(_environment(folder, settings))
    jobs = JobStore.connect(stack.storage)
    redis, store, work, api = (_own_folder(stack, part) for part in stack.parts())
    started: dict[str, Running] = {
        "redis": Running(redis, lambda: redis_answers(stack.stack.redis_port, stack.stack.redis_password)),
        "store": Running(store, lambda: store_answers(stack.stack.s3_port)),
        "worker": Running(work, lambda: _announced(jobs)),
        "api": Running(api, lambda: http_answers(stack.service.api_port)),
    }
    if not worker:
        del started["worker"]
    with ExitStack() as stopping:
        try:
            for running in started.values():
                # What they hold is thrown away, so nothing is gained by letting them end in peace.
                stopping.callback(running.kill)
                running.start(timeout_seconds=120)
        except PartFailed as error:
            raise BenchmarkFailed(str(error)) from error
        objects = ObjectStore(stack.storage)
        objects.prepare()
        yield RunningStack(stack, started["api"], started.get("worker"), jobs, objects)


def temporary_folder(directory: Path) -> Path:
    return directory / "tmp"


def _environment(folder: Path, settings: dict[str, str]) -> dict[str, str]:
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
        **settings,
    }


def _own_folder(stack: Stack, part: Part) -> Part:
    """Our own programs in a folder of their own too, with an empty TMPDIR, so that every file they write is seen."""
    if part.name in ("redis", "store"):
        return part
    directory = stack.folder / part.name
    temporary_folder(directory).mkdir(parents=True)
    env = {**stack.environment, **part.env, "TMPDIR": str(temporary_folder(directory))}
    return msgspec.structs.replace(part, directory=directory, env=env)


def _announced(jobs: JobStore) -> bool:
    try:
        return bool(jobs.workers())
    except QueueUnavailable:
        return False
