"""`python -m actors.alive`, a container's health check: exit 0 when a worker on this host was heard of lately."""

import socket
import sys

from storage.errors import QueueUnavailable
from storage.job_store import JobStore
from storage.settings import StorageSettings, read_settings


def main() -> int:
    try:
        workers = JobStore.connect(read_settings(StorageSettings)).workers()
    except QueueUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if any(worker.worker_id.startswith(f"{socket.gethostname()}:") for worker in workers) else 1


if __name__ == "__main__":
    sys.exit(main())
