"""What came of the accepted jobs, beside an undisturbed run of the same recordings."""

from collections import Counter
from typing import Any

import msgspec

from scripts.faults.clients import Accepted, Client
from storage.redis_client import JOBS_DATABASE, connect
from storage.settings import StorageSettings

_FILES = {"json", "srt", "vtt", "txt", "tsv"}


class Verdict(msgspec.Struct, kw_only=True):
    accepted: int = 0
    completed: int = 0
    failed: int = 0
    #: Accepted and without a record, never final, cancelled by nobody, or completed without all of its results.
    lost: int = 0
    #: Completed more than once, with a stretch twice in the transcript, or with a result that was replaced later.
    doubled: int = 0
    #: Completed with another transcript than the undisturbed run's.
    wrong: int = 0
    #: One sentence for each of them.
    reasons: list[str] = []

    @property
    def clean(self) -> bool:
        return self.accepted == self.completed and not (self.failed or self.lost or self.doubled or self.wrong)


def judge(
    accepted: list[Accepted], references: dict[str, dict[str, Any]], client: Client, settings: StorageSettings
) -> Verdict:
    """`references`: name of a recording → its job, transcribed undisturbed. Everything runs again by now."""
    verdict = Verdict(accepted=len(accepted), reasons=[])
    redis: Any = connect(settings, JOBS_DATABASE)
    for one in accepted:
        job = client.status(one.job_id)
        status = job["status"] if job is not None else "without a record"
        events = [event["type"] for _, event in redis.xrange(f"bs:events:{one.job_id}")]

        def say(what: str, one: Accepted = one) -> None:
            verdict.reasons.append(f"{one.job_id} ({one.known.name} by {one.way}) {what}")

        if status == "failed" and job is not None:
            verdict.failed += 1
            say(f"failed: {job['error_code']}: {job['error']}")
            continue
        if status != "completed" or job is None:
            verdict.lost += 1
            say(f"is {status} after {' '.join(events)}")
            continue
        verdict.completed += 1
        if missing := _missing(job, client):
            verdict.lost += 1
            say(f"is completed without {missing}")
            continue
        if reason := _doubled(job["result"], events, one.job):
            verdict.doubled += 1
            say(reason)
        elif reason := _wrong(job["result"], references[one.known.name]["result"]):
            verdict.wrong += 1
            say(reason)
    return verdict


def _missing(job: dict[str, Any], client: Client) -> str:
    """Results that are not there, or not as long as the record says."""
    if job["result"] is None or set(job["files"]) != _FILES:
        return f"all files: {sorted(job['files'])}"
    broken = [kind for kind, link in job["files"].items() if len(client.fetch(link["url"])) != link["size"]]
    return ", ".join(broken)


def _doubled(result: dict[str, Any], events: list[str], first_seen: dict[str, Any] | None) -> str:
    if (times := events.count("completed")) != 1:
        return f"was completed {times} times"
    stretches = Counter((segment.get("channel"), segment["start"], segment["end"]) for segment in result["segments"])
    if twice := [stretch for stretch, count in stretches.items() if count > 1]:
        return f"has a stretch twice: {twice[0]}"
    if first_seen is not None and first_seen["status"] == "completed" and first_seen["result"] != result:
        return "had another transcript when it was completed"
    return ""


def _wrong(result: dict[str, Any], reference: dict[str, Any]) -> str:
    """Decoding at temperature 0 is exact: every segment has the same text at the same time, whoever transcribed it."""
    found, wanted = (_segments(transcript) for transcript in (result, reference))
    if found == wanted and result["text"] == reference["text"] and result["language"] == reference["language"]:
        return ""
    for number, (one, other) in enumerate(zip(found, wanted, strict=False)):
        if one != other:
            return f"differs at segment {number}: {one} instead of {other}"
    return f"has {len(found)} segments instead of {len(wanted)}"


def _segments(transcript: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (segment.get("channel"), segment["start"], segment["end"], segment["text"], segment.get("words"))
        for segment in transcript["segments"]
    ]
