"""What is noted in the bucket beside a recording, so that a lost record can be made again.

The job's note is written before the record. The note of an end is written after it: the one atomic change of the record
decides how a job ends, and a note before it could tell of a cancel that came too late. A process that dies between the
two leaves the note to the janitor. A completed job needs none: its transcript says it. A deleted one has none left.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from storage.errors import ObjectExists, ObjectMissing
from storage.inbox import tell_failure
from storage.job import Job, JobStatus, Options, Source, Upload
from storage.keys import end_key, job_key, warnings_key
from storage.object_store import ObjectStore
from storage.structs import convert


class JobNote(msgspec.Struct, frozen=True, kw_only=True):
    """What a record begins with; its fields are those of Job."""

    job_id: str
    owner: str
    created_at: float
    source: Source
    options: Options
    #: Only of an upload: when its links end.
    expires_at: float | None = None
    upload: Upload | None = None


class EndNote(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended without a transcript."""

    status: Literal["failed", "cancelled"]
    completed_at: float | None = None
    error: str | None = None
    error_code: str | None = None


def note_job(job: Job, objects: ObjectStore) -> None:
    _put(job_key(job.job_id), convert(job, JobNote, from_attributes=True), objects)


def note_end(job: Job, objects: ObjectStore) -> None:
    """Of a job that has failed or was cancelled. The first note stays: no status follows a final one.

    Why a recording of the inbox failed is told beside it, too. Of a job that is being deleted nothing stays.
    """
    if job.source.type == "inbox" and job.status is JobStatus.FAILED:
        tell_failure(job, objects)
    try:
        _put(end_key(job.job_id), convert(job, EndNote, from_attributes=True), objects, if_absent=True)
    except ObjectExists:
        return
    try:
        objects.head(job_key(job.job_id))
    except ObjectMissing:
        # Whoever deletes the job goes on until nothing is left, so what was noted before its note went is gone, too.
        objects.delete(end_key(job.job_id))


def note_warnings(job_id: str, warnings: Sequence[str], objects: ObjectStore) -> None:
    """Before the job is completed, as its transcript."""
    _put(warnings_key(job_id), warnings, objects)


def _put(key: str, note: object, objects: ObjectStore, *, if_absent: bool = False) -> None:
    objects.put(key, msgspec.json.encode(note), "application/json", if_absent=if_absent)
