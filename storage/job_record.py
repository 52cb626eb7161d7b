"""A job as the hash that Redis keeps of it, and the names of its keys."""

import secrets
from typing import Any

import msgspec

from storage.job import Job
from storage.structs import convert, decode

#: Fields of the record that are Structs or dicts, kept as JSON.
_NESTED = {"source", "options", "files", "upload", "warnings"}


def to_hash(job: Job) -> dict[str, str]:
    return {
        name: dumps(value) if name in _NESTED else str(value)
        for name, value in msgspec.structs.asdict(job).items()
        if value is not None and value != {} and value != []
    }


def from_hash(record: dict[str, str]) -> Job:
    fields: dict[str, Any] = dict(record)
    for name in _NESTED & fields.keys():
        fields[name] = decode(fields[name], object)
    return convert(fields, Job, strict=False)


def dumps(value: object) -> str:
    return msgspec.json.encode(value).decode()


def job_key(job_id: str) -> str:
    return f"bs:job:{job_id}"


def events_key(job_id: str) -> str:
    return f"bs:events:{job_id}"


def job_keys(job_id: str) -> list[str]:
    """What the scripts take as KEYS: record, events, chunks, finished chunks."""
    return [job_key(job_id), events_key(job_id), f"bs:chunks:{job_id}", f"bs:done:{job_id}"]


def change_keys(job_id: str) -> list[str]:
    """Those, and a key of this change's own: when redis-py repeats it, it gets its first answer from there."""
    return [*job_keys(job_id), f"bs:answer:{secrets.token_hex(8)}"]
