#!/usr/bin/env python3
"""Empty the queue: every job that waits for a worker fails with the code `purged`; jobs in work go on."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deploy import packages

packages.require()

from actors.broker import make_broker
from deploy.environment import read_environment, unreachable_hint
from storage.errors import JobConflict, JobMissing, QueueUnavailable, StorageError
from storage.job import Job
from storage.job_store import JobStore
from storage.notes import note_end
from storage.object_store import ObjectStore
from storage.redis_client import redis_errors
from storage.settings import SettingsError, StorageSettings, read_settings

REASON = "the queue was purged before a worker began this job"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    arguments = parser.parse_args()
    try:
        environment = read_environment()
        settings = read_settings(StorageSettings, environment)
        jobs = JobStore.connect(settings)
        waiting = len(jobs.pending_longer_than(0))
        if not arguments.yes and not agreed(waiting):
            print("nothing was changed")
            return 1
        print(f"✓ purged jobs: {purge(jobs, settings)}")
    except QueueUnavailable as error:
        print(f"✗ Redis is not connected: {error}{unreachable_hint(environment, 'REDIS_URL')}", file=sys.stderr)
        return 1
    except (SettingsError, StorageError) as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    return 0


def agreed(waiting: int) -> bool:
    try:
        return input(f"Fail the {waiting} jobs that wait? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def purge(jobs: JobStore, settings: StorageSettings) -> int:
    """The number of jobs failed. One that a worker begins between the look and the change fails too."""
    purged: list[Job] = []
    # The store hands them out in portions.
    while failed := [job for job_id in jobs.pending_longer_than(0) for job in fail(jobs, job_id)]:
        purged += failed
    # Their messages would be harmless: a worker drops those of a final job. A new job's message that goes with them is
    # sent again by the janitor.
    broker = make_broker(settings)
    with redis_errors():
        broker.flush_all()
    try:
        objects = ObjectStore(settings)
        for job in purged:
            note_end(job, objects)
    except StorageError as error:
        print(f"  a worker will note it in the bucket later: {error}", file=sys.stderr)
    return len(purged)


def fail(jobs: JobStore, job_id: str) -> list[Job]:
    """The job that has failed now; none that ended or was deleted meanwhile."""
    try:
        return [jobs.fail(job_id, "purged", REASON)]
    except (JobConflict, JobMissing):
        return []


if __name__ == "__main__":
    sys.exit(main())
