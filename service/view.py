"""A job for those who ask: lists, the text so far, the links of an upload."""

from collections.abc import Collection

import msgspec
from msgspec import UNSET

from actors import view
from actors.view import PARTS, JobView, PartLink, UploadLinks
from service.backend import Backend
from service.errors import invalid
from storage.errors import ObjectMissing, quoted
from storage.job import Job
from storage.keys import source_key
from storage.partial import partial_segments
from storage.transcript import Transcript

PARTIAL = "partial"

#: Bytes of a part of a presigned upload: so large that few links are needed, so small that a broken one costs little.
_UPLOAD_PART_BYTES = 16 * 2**20
#: Far below S3's 10 000: each link takes time to sign and space in the answer.
_MAX_PARTS = 1000
#: S3's limit of how long a link can work.
_MAX_LINK_SECONDS = 7 * 86400


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
        raise invalid("include", f"{quoted(unknown[0])} is nothing that can be included", sorted(known))
    return names


def view_job(
    job: Job, backend: Backend, include: Collection[str] = PARTS, upload: UploadLinks | None = None
) -> JobView:
    """Reads the transcript from the store if it is included, so it blocks."""
    return view.view_job(job, backend.objects, backend.storage_settings.link_seconds, include, upload)


def so_far(job: Job, backend: Backend) -> Transcript:
    """What is transcribed of a job in work; `duration` is how far it reaches."""
    try:
        segments = partial_segments(job.job_id, backend.jobs, backend.chunks, backend.objects)
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
    expires_at = view.utc(now + seconds)
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
