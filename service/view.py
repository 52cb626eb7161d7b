"""A job as clients see it (api.md, section 2)."""

import unicodedata
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal, cast

import msgspec
from msgspec import UNSET, UnsetType

from actors.formats import FORMATS
from service.backend import Backend
from service.errors import invalid
from storage.errors import ObjectMissing
from storage.job import Job, JobStatus, Options
from storage.keys import result_key, source_key
from storage.partial import partial_segments
from storage.transcript import Transcript

#: What `?include=` may name.
PARTS = ("result", "files")
PARTIAL = "partial"

#: Bytes of a part of a presigned upload: so large that few links are needed, so small that a broken one costs little.
_UPLOAD_PART_BYTES = 16 * 2**20
#: Far below S3's 10 000: each link takes time to sign and space in the answer.
_MAX_PARTS = 1000
#: S3's limit of how long a link can work.
_MAX_LINK_SECONDS = 7 * 86400


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    filename: str
    #: Bytes.
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


class JobList(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first. The jobs come without their transcripts, and with links only where they are asked for."""

    jobs: list[JobView]
    #: Jobs on all pages.
    total: int
    #: For `?cursor=`; null on the last page.
    next_cursor: str | None


def read_include(text: str, known: Collection[str] = PARTS) -> frozenset[str]:
    """`?include=`: names, comma-separated."""
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    if unknown := sorted(names - set(known)):
        raise invalid("include", f"{unknown[0][:100]!r} is nothing that can be included", sorted(known))
    return names


def view_job(
    job: Job, backend: Backend, include: Collection[str] = PARTS, upload: UploadLinks | None = None
) -> JobView:
    """Reads the transcript from the store if it is included, so it blocks."""
    return JobView(
        job_id=job.job_id,
        status=job.status,
        progress=job.progress,
        created_at=_time(job.created_at),
        started_at=_time_or_none(job.started_at),
        completed_at=_time_or_none(job.completed_at),
        expires_at=_time_or_none(job.expires_at),
        source=SourceView(
            filename=job.source.filename,
            size=job.source.size,
            content_type=job.source.content_type,
            duration=job.duration,
        ),
        options=job.options,
        warnings=job.warnings,
        result=_result(job, backend) if "result" in include else UNSET,
        files=_files(job, backend) if "files" in include else UNSET,
        error=job.error,
        error_code=job.error_code,
        upload=upload or UNSET,
    )


def so_far(job: Job, backend: Backend) -> Transcript:
    """What is transcribed of a job in work; `duration` is how far it reaches."""
    try:
        segments = partial_segments(job.job_id, backend.chunks, backend.objects)
    except ObjectMissing:
        segments = []  # It was completed or deleted in this moment; the next look shows that.
    return Transcript(
        text="".join(segment.text for segment in segments).strip(),
        language=job.language or "",
        language_probability=job.language_probability or 0.0,
        duration=segments[-1].end if segments else 0.0,
        processing_time=0.0,
        segments=segments,
    )


def part_size(size: int) -> int:
    """Bytes of a part, whole MiB, of an upload of `size` bytes."""
    return max(_UPLOAD_PART_BYTES, -(-size // (_MAX_PARTS * 2**20)) * 2**20)


def part_sizes(size: int, each: int) -> dict[int, int]:
    """Part number, from 1 → its bytes."""
    return {number: min(each, size - begin) for number, begin in enumerate(range(0, size, each), start=1)}


def view_upload(job: Job, backend: Backend, now: float, uploaded: Collection[int] | None = None) -> UploadLinks:
    """Fresh links. `uploaded`: numbers of the parts that the store has, 1 for a single upload; None: nobody asked."""
    ends = job.expires_at or now + backend.storage_settings.upload_expires_seconds
    seconds = max(1, min(round(ends - now), _MAX_LINK_SECONDS))
    expires_at = _time(now + seconds)
    key = source_key(job.job_id)
    if job.upload is None:
        put = backend.objects.presign_put(key, job.source.size, job.source.content_type, seconds)
        there = UNSET if uploaded is None else 1 in uploaded
        return UploadLinks(url=put.url, headers=put.headers, uploaded=there, expires_at=expires_at)
    parts = [
        PartLink(
            number=number,
            url=backend.objects.presign_part(key, job.upload.upload_id, number, size, seconds),
            size=size,
            uploaded=UNSET if uploaded is None else number in uploaded,
        )
        for number, size in part_sizes(job.source.size, job.upload.part_size).items()
    ]
    return UploadLinks(part_size=job.upload.part_size, parts=parts, expires_at=expires_at)


def display_name(filename: str) -> str:
    """A client's file name as text for people: its last component without control and direction characters."""
    last = filename.replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(character for character in last if not _is_hidden(character))
    return shown.strip()[:255] or "recording"


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in _DIRECTIONS


#: Characters that turn the text around them, with which a name can pretend to be another.
_DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def _result(job: Job, backend: Backend) -> Transcript | None:
    if job.status is not JobStatus.COMPLETED:
        return None
    try:
        stored = backend.objects.get(result_key(job.job_id, "json"))
    except ObjectMissing:
        return None  # Deleted in this moment.
    # The stored JSON goes out as it is: parsing hours of segments to write them again would be the API's largest work.
    return cast(Transcript, cast(Any, msgspec.Raw(stored)))


def _files(job: Job, backend: Backend) -> dict[str, FileLink]:
    seconds = backend.storage_settings.link_seconds
    expires_at = datetime.fromtimestamp(datetime.now(UTC).timestamp() + seconds, UTC)
    stem = PurePosixPath(job.source.filename).stem or "recording"
    links = {}
    for name, size in job.files.items():
        kind = FORMATS[name]
        url = backend.objects.presign_get(
            result_key(job.job_id, name), f"{stem}.{kind.extension}", kind.media_type, seconds
        )
        links[kind.extension] = FileLink(url=url, size=size, expires_at=expires_at)
    return links


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _time_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else _time(seconds)
