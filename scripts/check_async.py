#!/usr/bin/env python3
"""Say whether queue, workers and store are well. Exit code 1: one of them is not, or a setting is missing."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deploy import packages

packages.require()

from actors.broker import make_broker, queue_depths
from deploy.environment import read_environment, unreachable_hint
from storage.errors import QueueUnavailable, StorageError, StoreUnavailable
from storage.job_store import JobStore
from storage.object_store import ObjectStore
from storage.settings import SettingsError, StorageSettings, read_settings


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        environment = read_environment()
        settings = read_settings(StorageSettings, environment)
    except SettingsError as error:
        print(f"✗ {error}")
        return 1
    checks = [
        check_queue(settings, unreachable_hint(environment, "REDIS_URL")),
        check_store(settings, unreachable_hint(environment, "S3_ENDPOINT_URL")),
    ]
    return 0 if all(checks) else 1


def check_queue(settings: StorageSettings, hint: str) -> bool:
    """Redis, who works, and what waits. `hint` is added where it cannot be reached."""
    broker = make_broker(settings)
    try:
        workers = JobStore.connect(settings).workers()
        depths = queue_depths(broker)
    except QueueUnavailable as error:
        print(f"✗ Redis is not connected: {error}{hint}")
        return False
    print("✓ Redis is connected")
    print(f"{'✓' if workers else '✗'} workers active: {len(workers)}")
    for worker in workers:
        print(f"    {worker.worker_id}: {worker.device} {worker.compute_type}, {', '.join(worker.models)}")
    for name, depth in depths.items():
        print(f"✓ queue {name}: {depth}")
    return bool(workers)


def check_store(settings: StorageSettings, hint: str) -> bool:
    try:
        ObjectStore(settings).check()
    except StoreUnavailable as error:
        print(f"✗ store: {error}{hint}")
        return False
    except StorageError as error:
        print(f"✗ store: {error}")
        return False
    print(f"✓ store: bucket {settings.s3_bucket} at {settings.s3_endpoint_url}")
    return True


if __name__ == "__main__":
    sys.exit(main())
