"""`scripts/chaos`: run jobs while parts die, then count what is lost, doubled and wrong."""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from deploy.embedded.unsupervised import Unsupervised, unsupervised
from deploy.embedded.up import StackFailed
from scripts.faults.clients import Client, Crowd, GaveUp
from scripts.faults.poison import Poisoner
from scripts.faults.recovery import RecoveryWatch, Restart
from scripts.faults.speech import Known, known_recordings
from scripts.faults.strikes import Struck, Tormentor, plan_strikes
from scripts.faults.verdict import Verdict, judge

#: When no job has become final for so long, none will.
_STUCK_SECONDS = 400
#: Small chunks, so that there are many to lose, uploads in parts from 5 MiB, and to each worker its share of the cores;
#: all else is as it is shipped.
_SETTINGS = {
    "DEFAULT_MODEL": "tiny.en",
    "CHUNK_TARGET_SECONDS": "20",
    "CHUNK_MAX_SECONDS": "30",
    "SINGLE_UPLOAD_MAX_BYTES": str(5 * 2**20),
}


class Figures(msgspec.Struct, kw_only=True):
    accepted: int
    completed: int
    failed: int
    lost: int
    doubled: int
    wrong: int
    #: From a kill -9 of a worker to the restart of its work by another, while Redis and the store were up: the longest.
    recover_seconds: float | None
    recover_median_seconds: float | None
    #: Stretches of work that were lost with their worker and begun again.
    recovered: int
    #: Handed in by nobody who heard of it: the API was killed between making the job and answering.
    unheard: int
    #: Recordings that hurt their decoder, handed in beside the jobs, and those that did not fail as unreadable.
    poisons: int
    poisons_wrong: int
    audio_seconds: float
    seconds: float
    strikes: dict[str, int]
    trouble: dict[str, int]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="Kill the service's parts while jobs run.")
    parser.add_argument("--jobs", type=int, default=100, metavar="N")
    parser.add_argument("--kills", type=int, default=30, metavar="K", help="kills, freezes and stops, all together")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the same jobs and strikes again")
    parser.add_argument("--poisons", type=int, default=6, metavar="P", help="recordings that hurt their decoder")
    parser.add_argument("--workers", type=int, default=2, metavar="W")
    parser.add_argument("--long-seconds", type=float, default=240, help="length of the longest recording")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the stack's folder, logs and all, here")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as scratch:
            folder = arguments.logs or Path(scratch)
            with unsupervised(folder.resolve(), _settings(arguments.workers), workers=arguments.workers) as stack:
                figures, verdict = run(stack, arguments)
    except (StackFailed, GaveUp) as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    show(figures, verdict)
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    done = verdict.clean and figures.accepted == arguments.jobs
    return 0 if done and figures.poisons == arguments.poisons and not figures.poisons_wrong else 1


def run(stack: Unsupervised, arguments: argparse.Namespace) -> tuple[Figures, Verdict]:
    client = Client(stack.plan.api, arguments.seed)
    known = known_recordings(arguments.long_seconds)
    crowd = Crowd(client, known, arguments.jobs, 8 * arguments.workers, arguments.seed)
    references = undisturbed(client, crowd.recordings)
    strikes = plan_strikes(arguments.kills, arguments.seed, stack.plan.actors.lease_seconds)
    tormentor = Tormentor(stack, strikes, arguments.seed)
    watch = RecoveryWatch(stack.plan.storage)
    say(f"{arguments.jobs} jobs, {crowd.audio_seconds / 60:.0f} min of speech, {arguments.kills} strikes to come")
    began = time.monotonic()
    watch.start()
    crowd.start()
    poisoner = Poisoner(client, arguments.poisons, arguments.seed)
    poisoner.start(crowd.share_final)
    torment(crowd, tormentor, watch, began)
    crowd.stop()
    watch.stop()
    seconds = time.monotonic() - began
    poisoner.finish()
    verdict = judge(crowd.accepted, references, client, stack.plan.storage)
    verdict.reasons += [f"not handed in: {reason}" for reason in crowd.given_up]
    verdict.reasons += poisoner.reasons
    heard = {one.job_id for one in [*crowd.accepted, *poisoner.accepted]} | {
        job["job_id"] for job in references.values()
    }
    unheard = [job for job in client.jobs() if job["job_id"] not in heard]
    client.close()
    recoveries = [recovery.seconds for recovery in watch.recovered if not overshadowed(recovery, tormentor.struck)]
    figures = Figures(
        **{name: getattr(verdict, name) for name in ("accepted", "completed", "failed", "lost", "doubled", "wrong")},
        recover_seconds=round(max(recoveries), 1) if recoveries else None,
        recover_median_seconds=round(statistics.median(recoveries), 1) if recoveries else None,
        recovered=len(watch.recovered),
        unheard=len(unheard),
        poisons=len(poisoner.accepted),
        poisons_wrong=len(poisoner.reasons),
        audio_seconds=round(crowd.audio_seconds, 1),
        seconds=round(seconds, 1),
        strikes=dict(tormentor.counts()),
        trouble=dict(client.trouble),
    )
    return figures, verdict


def undisturbed(client: Client, known: list[Known]) -> dict[str, dict[str, Any]]:
    """Name of a recording → its job, completed while nothing else happens."""
    crowd = Crowd(client, known, 0, 1, 0)
    crowd.accepted = [client.submit(recording, "form", "normal") for recording in known]
    crowd.start()
    began = moved_at = time.monotonic()
    left = len(known)
    while left:
        time.sleep(0.1)
        if (now := sum(one.final_at is None for one in crowd.accepted)) < left:
            left, moved_at = now, time.monotonic()
        if time.monotonic() > moved_at + _STUCK_SECONDS:
            raise GaveUp("the undisturbed run does not go on")
    crowd.stop()
    jobs = {one.known.name: one.job for one in crowd.accepted if one.job is not None}
    for name, job in jobs.items():
        if job["status"] != "completed":
            raise GaveUp(f"{name} is {job['status']} without any fault: {job['error']}")
    say(f"{len(jobs)} recordings transcribed undisturbed in {time.monotonic() - began:.0f} s")
    return jobs


def torment(crowd: Crowd, tormentor: Tormentor, watch: RecoveryWatch, began: float) -> None:
    """Strike and mend until every job is final and every part is back, or until nothing moves any more."""
    share, moved_at = 0.0, time.monotonic()
    while share < 1 or not tormentor.done:
        if struck := tormentor.tick(share):
            if struck.deed == "kill" and struck.part.startswith("worker"):
                watch.worker_killed(struck.at)
            lasting = f" for {struck.seconds:.0f} s" if struck.deed == "freeze" else ""
            say(f"{struck.at - began:6.1f} s  {share:4.0%}  {struck.deed} {struck.part}{lasting}")
        if (now := crowd.share_final()) > share:
            share, moved_at = now, time.monotonic()
        if time.monotonic() > moved_at + _STUCK_SECONDS:
            say(f"nothing has moved for {_STUCK_SECONDS} s")
            return
        time.sleep(0.05)


def overshadowed(restart: Restart, struck: list[Struck]) -> bool:
    """Whether Redis or the store was away in between: then nobody can begin anything, and that is another figure."""
    return any(
        strike.part in ("redis", "store")
        and strike.at < restart.restarted_at
        and strike.at + strike.seconds + 1 > restart.killed_at
        for strike in struck
    )


def show(figures: Figures, verdict: Verdict) -> None:
    print()
    for reason in verdict.reasons:
        print(f"✗ {reason}")
    for name in ("strikes", "trouble"):
        listed = ", ".join(f"{what} ×{count}" for what, count in sorted(getattr(figures, name).items()))
        print(f"{name:>24}  {listed or 'none'}")
    for name, value in msgspec.structs.asdict(figures).items():
        if not isinstance(value, dict):
            print(f"{name:>24}  {'none seen' if value is None else value}")


def say(fact: str) -> None:
    print(f"    {fact}  (load {os.getloadavg()[0]:.1f})", flush=True)


def _settings(workers: int) -> dict[str, str]:
    """The environment of whoever runs this wins: ENGINE=sequential scripts/chaos."""
    settings = {**_SETTINGS, "WHISPER_THREADS": str(max(1, (os.cpu_count() or 1) // workers))}
    return {name: os.environ.get(name) or value for name, value in settings.items()}


if __name__ == "__main__":
    sys.exit(main())
