"""A job as clients see it (api.md, section 2): the API answers with it, and a webhook is posted it."""

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal, cast

import msgspec
from msgspec import UNSET, UnsetType

from actors.formats import FORMATS
from storage.errors import ObjectMissing
from storage.job import Job, JobStatus, Options, SourceType
from storage.keys import result_key
from storage.object_store import ObjectStore
from storage.structs import decode
from storage.transcript import Transcript

#: What `include` may name.
PARTS = ("result", "files")


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    type: SourceType
    #: Only of what lay in the bucket before: where.
    key: str | UnsetType = UNSET
    filename: str
    #: Bytes; 0: not fetched yet.
    size: int
    content_type: str | None
    #: Seconds of audio, once known.
    duration: float | None


class FileLink(msgspec.Struct, frozen=True, kw_only=True):
    """A presigned GET link: the bytes come from the object store."""

    url: str
    #: Bytes.
    size: int
    expires_at: datetime


class PartLink(msgspec.Struct, frozen=True, kw_only=True):
    #: Counts from 1.
    number: int
    url: str
    #: Bytes: exactly so many, they are signed.
    size: int
    #: Only when the links are asked for again: the store has this part.
    uploaded: bool | UnsetType = UNSET


class UploadLinks(msgspec.Struct, frozen=True, kw_only=True):
    """Either one link with its headers, or the links of all parts."""

    method: Literal["PUT"] = "PUT"
    url: str | UnsetType = UNSET
    #: To be sent as they are: they are signed.
    headers: dict[str, str] | UnsetType = UNSET
    #: Bytes of every part but the last.
    part_size: int | UnsetType = UNSET
    parts: list[PartLink] | UnsetType = UNSET
    #: Only of a single link that is asked for again: the store has the recording.
    uploaded: bool | UnsetType = UNSET
    expires_at: datetime


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    status: JobStatus
    #: 0 to 100; 100 only when the results are stored.
    progress: float
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None
    source: SourceView
    options: Options
    #: What was not as it should be and did not keep the job from completing.
    warnings: list[str]
    #: Only with `?include=partial`, while the job is in work: from the beginning, in order, without gaps.
    partial: Transcript | UnsetType = UNSET
    #: Once completed, unless left out by `?include=`.
    result: Transcript | UnsetType | None = UNSET
    #: Format → link, once completed, unless left out by `?include=`.
    files: dict[str, FileLink] | UnsetType = UNSET
    error: str | None
    error_code: str | None
    #: Only where an upload is to be done.
    upload: UploadLinks | UnsetType = UNSET


def view_job(
    job: Job,
    objects: ObjectStore,
    link_seconds: int,
    include: Collection[str] = PARTS,
    upload: UploadLinks | None = None,
) -> JobView:
    """Reads the transcript from the store if it is included, so it blocks. `link_seconds`: how long its links work."""
    return JobView(
        job_id=job.job_id,
        status=job.status,
        progress=job.progress,
        created_at=utc(job.created_at),
        started_at=_time_or_none(job.started_at),
        completed_at=_time_or_none(job.completed_at),
        expires_at=_time_or_none(job.expires_at),
        source=SourceView(
            type=job.source.type,
            key=job.source.key if job.source.type in ("object", "inbox") else UNSET,
            filename=job.source.filename,
            size=job.source.size,
            content_type=job.source.content_type,
            duration=job.duration,
        ),
        options=job.options,
        warnings=job.warnings,
        result=_result(job, objects) if "result" in include else UNSET,
        files=_files(job, objects, link_seconds) if "files" in include else UNSET,
        error=job.error,
        error_code=job.error_code,
        upload=upload or UNSET,
    )


def _result(job: Job, objects: ObjectStore) -> Transcript | None:
    if job.status is not JobStatus.COMPLETED:
        return None
    try:
        stored = objects.get(result_key(job.job_id, "json"))
    except ObjectMissing:
        return None  # Deleted in this moment.
    # The stored JSON goes out as it is: parsing hours of segments to write them again would be the API's largest work.
    # Only where it is damaged it must not, since the whole answer would be no JSON.
    decode(stored, dict[str, msgspec.Raw])
    return cast(Transcript, cast(Any, msgspec.Raw(stored)))


def _files(job: Job, objects: ObjectStore, seconds: int) -> dict[str, FileLink]:
    expires_at = datetime.fromtimestamp(datetime.now(UTC).timestamp() + seconds, UTC)
    stem = PurePosixPath(job.source.filename).stem or "recording"
    links = {}
    for name, size in job.files.items():
        kind = FORMATS[name]
        url = objects.presign_get(result_key(job.job_id, name), f"{stem}.{kind.extension}", kind.media_type, seconds)
        links[kind.extension] = FileLink(url=url, size=size, expires_at=expires_at)
    return links


def utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _time_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else utc(seconds)
