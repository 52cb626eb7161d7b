#!/usr/bin/env python3
"""Make the jobs that Redis lost again, from what lies in the bucket, and send their messages.

Jobs that Redis still knows are left alone: it may run while the service runs, and as often as one likes. A job that
cannot be read from the bucket is skipped with the reason; then the exit code is 1.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deploy import packages

packages.require()

import msgspec

from actors.broker import make_broker
from actors.recovery import Outcome, Recovery
from deploy.environment import read_environment, unreachable_hint
from storage.errors import QueueUnavailable, StorageError
from storage.job_store import JobStore
from storage.object_store import ObjectStore
from storage.settings import SettingsError, StorageSettings, read_settings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")
    parser.add_argument("--json", action="store_true", help="print every job, as JSON")
    arguments = parser.parse_args()
    try:
        environment = read_environment()
        settings = read_settings(StorageSettings, environment)
        jobs = JobStore.connect(settings)
        jobs.check()
        recovery = Recovery(jobs, ObjectStore(settings), make_broker(settings), settings, dry_run=arguments.dry_run)
        outcomes = list(recovery.run())
    except QueueUnavailable as error:
        print(f"✗ Redis is not connected: {error}{unreachable_hint(environment, 'REDIS_URL')}", file=sys.stderr)
        return 1
    except (SettingsError, StorageError) as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(msgspec.json.encode({"dry_run": arguments.dry_run, **counts(outcomes), "jobs": outcomes}).decode())
    else:
        for outcome in outcomes:
            if outcome.what == "skipped":
                print(f"  {outcome.job_id} skipped: {outcome.reason}")
        print(summary(outcomes, dry_run=arguments.dry_run))
    return 1 if counts(outcomes)["skipped"] else 0


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    found = Counter(outcome.what for outcome in outcomes)
    return {what: found[what] for what in ("recovered", "skipped", "there")}


def summary(outcomes: Sequence[Outcome], *, dry_run: bool) -> str:
    """As `12 recovered: 8 completed, 3 pending, 1 awaiting upload; 0 skipped`."""
    found = counts(outcomes)
    statuses = Counter(outcome.status.replace("_", " ") for outcome in outcomes if outcome.status is not None)
    of_them = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
    return (
        f"{found['recovered']} {'to be recovered' if dry_run else 'recovered'}{': ' if of_them else ''}{of_them}; "
        f"{found['skipped']} skipped" + (f"; {found['there']} were there" if found["there"] else "")
    )


if __name__ == "__main__":
    sys.exit(main())
