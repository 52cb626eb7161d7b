"""The product's own processes as tests start them: dead when pytest is, their log in the test's folder."""

import socket
import sys
from pathlib import Path

import msgspec

from deploy.embedded.parts import Part
from deploy.embedded.running import Running
from storage.errors import QueueUnavailable
from storage.job_store import JobStore
from storage.settings import StorageSettings

ROOT = Path(__file__).resolve().parent.parent


def environment(*settings: msgspec.Struct, **more: str) -> dict[str, str]:
    """Settings as the environment variables they are read from; False and empty ones are left out."""
    given = {
        name.upper(): str(value)
        for struct in settings
        for name, value in msgspec.structs.asdict(struct).items()
        if value not in ("", False)
    }
    return {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **given, **more}


def new_worker(folder: Path, settings: StorageSettings, **more: str) -> Running:
    """A worker, not started; ready when it has announced itself. `more` are environment variables."""
    jobs = JobStore.connect(settings)
    part = Part(
        name="worker",
        argv=[sys.executable, "-m", "actors.worker"],
        env=environment(settings, **more),
        directory=folder,
    )

    def ready() -> bool:
        try:
            return f"{socket.gethostname()}:{running.pid}" in {worker.worker_id for worker in jobs.workers()}
        except QueueUnavailable:
            return False

    running = Running(part, ready)
    return running
