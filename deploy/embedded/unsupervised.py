"""The whole stack as `scripts/up` starts it but without its supervisor, for those who break it on purpose.

On free ports and in a folder of its own, with as many workers as are wanted; all of it is killed in the end.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from deploy.embedded.parts import STORE_PORTS, Part, free_port
from deploy.embedded.running import PartFailed, Running, http_answers, redis_answers, store_answers
from deploy.embedded.stack import Stack, plan
from deploy.embedded.up import StackFailed, fetch_weights
from deploy.environment import ROOT
from storage.errors import QueueUnavailable
from storage.job_store import JobStore
from storage.object_store import ObjectStore


class Unsupervised(msgspec.Struct, frozen=True):
    """Each part may be killed, paused and started again by whoever has this; nothing else starts it."""

    plan: Stack
    redis: Running
    store: Running
    #: Its process alone, as each worker's; TMPDIR of its own.
    api: Running
    workers: list[Running]
    jobs: JobStore
    objects: ObjectStore


@contextmanager
def unsupervised(folder: Path, settings: Mapping[str, str], *, workers: int = 1) -> Iterator[Unsupervised]:
    """`settings` are environment variables, over those of this process. With no worker, jobs stay pending.

    Raises:
        StackFailed: the weights are not to be had, or a part did not start.
    """
    if workers:
        fetch_weights(plan(_environment(folder, settings)))
    # Ports are drawn now, for they are only free, not ours.
    planned = plan(_environment(folder, settings))
    jobs = JobStore.connect(planned.storage)
    redis, store, work, api = planned.parts()
    stack = Unsupervised(
        plan=planned,
        redis=Running(redis, lambda: redis_answers(planned.stack.redis_port, planned.stack.redis_password)),
        store=Running(store, lambda: store_answers(planned.stack.s3_port)),
        api=Running(_own_folder(planned, api), lambda: http_answers(planned.service.api_port)),
        workers=[_worker(planned, work, number, jobs) for number in range(1, workers + 1)],
        jobs=jobs,
        objects=ObjectStore(planned.storage),
    )
    with ExitStack() as stopping:
        try:
            for running in (stack.redis, stack.store, stack.api, *stack.workers):
                # What they hold is thrown away, so nothing is gained by letting them end in peace.
                stopping.callback(running.kill)
                running.start(timeout_seconds=120)
        except PartFailed as error:
            raise StackFailed(str(error)) from error
        stack.objects.prepare()
        yield stack


def temporary_folder(directory: Path) -> Path:
    """TMPDIR of the part that has this folder: empty at first."""
    return directory / "tmp"


def _environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    first = free_port(STORE_PORTS + 2)
    return {
        **os.environ,
        "BUCKETSCRIBE_DATA": str(folder),
        # Weights are the checkout's: fetched once, not once a run.
        "MODEL_DIR": os.environ.get("MODEL_DIR") or str(ROOT / "data/models"),
        "S3_PORT": str(first),
        "REDIS_PORT": str(first + STORE_PORTS),
        "API_PORT": str(first + STORE_PORTS + 1),
        "PYTHONPATH": str(ROOT),
        **settings,
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
