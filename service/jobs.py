"""Jobs, and uploads that go straight to the object store with presigned links."""

import asyncio
import time
from typing import Annotated, Any

import msgspec
import structlog
from litestar import Request, Response, delete, get, post
from litestar.concurrency import sync_to_thread
from litestar.datastructures import State
from litestar.params import Parameter

from actors.names import display_name, url_name
from actors.view import PARTS, JobView, UploadLinks
from service.backend import Backend
from service.clients import client_of
from service.errors import ApiError, invalid, problems
from service.idempotency import once_of_body
from service.options import NewJob, ObjectSource, UploadSource, UrlSource, fill_in, read_job
from service.subtitles import subtitle_rules
from service.view import (
    PARTIAL,
    JobList,
    part_size,
    part_sizes,
    read_include,
    so_far,
    view_job,
    view_upload,
)
from storage.errors import JobConflict, ObjectMissing, UploadMissing, UploadRefused
from storage.idempotency import Once
from storage.job import FINAL, Job, JobStatus, Source, Upload, is_job_id, new_job_id
from storage.keys import refusal, source_key
from storage.object_store import ObjectInfo
from storage.removal import OWN_PREFIXES, remove_job

log = structlog.get_logger()

_ANY = ("unauthorized", "rate_limited", "queue_unavailable", "queue_read_only")
_ANY_JOB = (*_ANY, "job_not_found")

JobId = Annotated[str, Parameter(description="As given when the job was made.")]


class Maker(msgspec.Struct, frozen=True):
    """Who asks for a job."""

    #: Whose the job will be.
    owner: str
    #: As limits count.
    client: str


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    job_id: str


@post(
    "/jobs",
    summary="Make a job",
    tags=["Jobs"],
    responses=problems(
        *_ANY,
        "invalid_body",
        "file_too_large",
        "body_too_large",
        "unsupported_coding",
        "invalid_parameter",
        "idempotency_conflict",
        "object_not_found",
        "url_not_allowed",
        "url_unreachable",
        "audio_unreadable",
        "storage_unavailable",
        "too_many_jobs",
        "client_jobs_exceeded",
        "upload_stalled",
    ),
)
async def create_job(request: Request[Any, Any, State], backend: Backend) -> Response[JobView]:
    """From an upload that follows (`awaiting_upload`, with links), an object that is in the bucket, or a url."""
    body = await request.body()
    new, once = read_job(body, backend.model_names), once_of_body(request, body)
    # Not cancelled with the request: it makes the job or undoes all of it.
    maker = Maker(request.state.owner, client_of(request))
    view = await asyncio.shield(sync_to_thread(_create, new, maker, backend, once))
    return Response(view, status_code=201, headers={"Location": f"/api/v1/status/{view.job_id}"})


@post(
    "/jobs/{job_id:str}/start",
    status_code=202,
    summary="Start an uploaded job",
    tags=["Jobs"],
    sync_to_thread=True,
    responses=problems(*_ANY_JOB, "upload_incomplete", "storage_unavailable"),
)
def start_job(request: Request[Any, Any, State], backend: Backend, job_id: JobId) -> Response[JobView]:
    """Check that the upload is whole and put the job into the queue. Calling it again is harmless."""
    job = backend.jobs.get(job_id, request.state.owner)
    if job.status is JobStatus.AWAITING_UPLOAD:
        # Links of the upload work on: what is transcribed is what lies there now, or nothing.
        digest = f"etag:{_complete_upload(job, backend).etag}"
        try:
            job = backend.jobs.start(job_id, msgspec.structs.replace(job.source, digest=digest))
        except JobConflict:
            job = backend.jobs.get(job_id, request.state.owner)  # Another start was quicker.
        else:
            job = backend.enqueue(job)
    return Response(view_job(job, backend), headers={"Location": f"/api/v1/status/{job_id}"})


@get(
    "/jobs/{job_id:str}/upload",
    summary="Links again, and what is there",
    tags=["Jobs"],
    sync_to_thread=True,
    responses=problems(*_ANY_JOB, "job_conflict", "storage_unavailable"),
)
def resume_upload(request: Request[Any, Any, State], backend: Backend, job_id: JobId) -> UploadLinks:
    """Fresh links for an upload that broke off; `uploaded` tells what need not be sent again."""
    job = backend.jobs.get(job_id, request.state.owner)
    if job.status is not JobStatus.AWAITING_UPLOAD:
        raise ApiError("job_conflict", f"the job is {job.status}: its upload is over", job_id=job_id)
    missing = _missing_parts(job, backend)
    there = set(part_sizes(job.source.size, job.upload.part_size) if job.upload else (1,)) - set(missing)
    return view_upload(job, backend, time.time(), there)


@get(
    "/status/{job_id:str}",
    summary="A job",
    tags=["Jobs"],
    sync_to_thread=True,
    responses=problems(*_ANY_JOB, "invalid_parameter", "storage_unavailable"),
)
def get_status(
    request: Request[Any, Any, State],
    backend: Backend,
    job_id: JobId,
    include: Annotated[
        str,
        Parameter(description="What to send with the job: `result`, `files`, `partial` (the text so far), or none."),
    ] = "result,files",
) -> JobView:
    """How far it is; once completed also the transcript and links to the files."""
    parts = read_include(include, (*PARTS, PARTIAL))
    job = backend.jobs.get(job_id, request.state.owner)
    view = view_job(job, backend, parts)
    if PARTIAL in parts and job.status not in FINAL:
        view = msgspec.structs.replace(view, partial=so_far(job, backend))
    return view


@get(
    "/jobs",
    summary="Jobs, newest first",
    tags=["Jobs"],
    sync_to_thread=True,
    responses=problems(*_ANY, "invalid_parameter"),
)
def list_jobs(
    request: Request[Any, Any, State],
    backend: Backend,
    status: JobStatus | None = None,
    limit: Annotated[int, Parameter(ge=1, le=200, description="Jobs on a page.")] = 50,
    cursor: Annotated[str, Parameter(description="`next_cursor` of the page before; empty: the first page.")] = "",
    include: Annotated[str, Parameter(description="`files`: links to each job's files, too.")] = "",
) -> JobList:
    """A page of jobs, without their transcripts."""
    parts = read_include(include, {"files"})
    if cursor and not is_job_id(cursor):
        raise invalid("cursor", "take next_cursor from the page before")
    page = backend.jobs.list_jobs(request.state.owner, status, limit, cursor or None)
    jobs = [view_job(job, backend, parts) for job in page.jobs]
    return JobList(jobs=jobs, total=page.total, next_cursor=page.next_cursor)


@post(
    "/jobs/{job_id:str}/cancel",
    status_code=200,
    summary="Cancel a job",
    tags=["Jobs"],
    sync_to_thread=True,
    responses=problems(*_ANY_JOB, "job_conflict", "storage_unavailable"),
)
def cancel_job(request: Request[Any, Any, State], backend: Backend, job_id: JobId) -> JobView:
    """A running one stops at its next segment."""
    job = backend.jobs.get(job_id, request.state.owner)
    try:
        cancelled = backend.cancel(job_id)
    except JobConflict as error:
        status = backend.jobs.get(job_id, request.state.owner).status
        raise ApiError("job_conflict", f"the job is {status} already", job_id=job_id) from error
    if job.status is JobStatus.AWAITING_UPLOAD and job.upload is not None:
        backend.objects.abort_upload(job.source.key, job.upload.upload_id)
    return view_job(cancelled, backend)


@delete(
    "/jobs/{job_id:str}",
    status_code=200,
    summary="Delete a job",
    tags=["Jobs"],
    sync_to_thread=True,
    responses=problems(*_ANY_JOB, "storage_unavailable"),
)
def delete_job(request: Request[Any, Any, State], backend: Backend, job_id: JobId) -> Deleted:
    """The recording, the results and the record are gone; a running job is cancelled first."""
    remove_job(backend.jobs.get(job_id, request.state.owner), backend.jobs, backend.objects)
    return Deleted(message="the job and all that was kept of it are deleted", job_id=job_id)


def _create(new: NewJob, maker: Maker, backend: Backend, once: Once | None) -> JobView:
    now = time.time()
    # Before anything is asked for: what the request named may be gone by now, its job is not.
    if (earlier := backend.made(once)) is not None:
        return _view_new(earlier, backend, now)
    job_id = new_job_id(now)
    options = fill_in(new, backend.storage_settings.default_model, subtitle_rules(backend.settings))
    if not isinstance(new.source, UploadSource):
        source = (
            _object_source(new.source.key, backend)
            if isinstance(new.source, ObjectSource)
            else _url_source(new.source, job_id, backend)
        )
        job = Job(
            job_id=job_id,
            owner=maker.owner,
            status=JobStatus.PENDING,
            source=source,
            options=options,
            created_at=now,
        )
        return view_job(backend.accept(job, once, maker.client), backend)
    job = Job(
        job_id=job_id,
        owner=maker.owner,
        status=JobStatus.AWAITING_UPLOAD,
        source=_upload_source(new.source, job_id, backend),
        options=options,
        created_at=now,
        expires_at=now + backend.storage_settings.upload_expires_seconds,
    )
    if job.source.size > backend.settings.single_upload_max_bytes:
        upload_id = backend.objects.start_upload(job.source.key, job.source.content_type)
        job = msgspec.structs.replace(job, upload=Upload(upload_id=upload_id, part_size=part_size(job.source.size)))
    return _view_new(backend.accept(job, once, maker.client), backend, now)


def _view_new(job: Job, backend: Backend, now: float) -> JobView:
    """With the links of its upload where that is still to be done."""
    awaits = job.status is JobStatus.AWAITING_UPLOAD
    return view_job(job, backend, upload=view_upload(job, backend, now) if awaits else None)


def _upload_source(given: UploadSource, job_id: str, backend: Backend) -> Source:
    _refuse_too_large(given.size, backend)
    return Source(
        type="upload",
        key=source_key(job_id),
        filename=display_name(given.filename),
        size=given.size,
        content_type=given.content_type,
    )


def _url_source(given: UrlSource, job_id: str, backend: Backend) -> Source:
    backend.check_url("source.url", given.url)
    return Source(type="url", key=source_key(job_id), filename=url_name(given.url), size=0, url=given.url)


def _object_source(key: str, backend: Backend) -> Source:
    if (reason := refusal(key)) is not None:
        raise invalid("source.key", reason)
    if key.startswith(OWN_PREFIXES):
        raise invalid("source.key", f"keys under {', '.join(OWN_PREFIXES)} are the service's own")
    info = backend.objects.head(key)
    _refuse_too_large(info.size, backend)
    if info.size == 0:
        raise ApiError("audio_unreadable", "the recording is empty (0 bytes)")
    return Source(
        type="object", key=key, filename=display_name(key), size=info.size, content_type=info.content_type or None
    )


def _refuse_too_large(size: int, backend: Backend) -> None:
    limit = backend.storage_settings.max_file_size
    if size > limit:
        raise ApiError("file_too_large", f"the recording has {size} bytes, the limit is {limit}")


def _complete_upload(job: Job, backend: Backend) -> ObjectInfo:
    """The recording as it lies in the store, as long as was said.

    Raises:
        ApiError: upload_incomplete.
    """
    missing = _missing_parts(job, backend)
    if missing:
        detail = "nothing has been uploaded yet, or its size is not the one announced"
        if job.upload is not None:
            total = len(part_sizes(job.source.size, job.upload.part_size))
            detail = f"{len(missing)} of {total} parts are missing or of another size"
        raise ApiError("upload_incomplete", detail, missing=missing, job_id=job.job_id)
    if job.upload is not None:
        try:
            parts = backend.objects.list_parts(job.source.key, job.upload.upload_id)
            backend.objects.complete_upload(job.source.key, job.upload.upload_id, parts)
        except UploadMissing:
            pass  # Another start completed it.
        except UploadRefused as error:
            raise ApiError(
                "upload_incomplete", "a part changed while the upload was completed", job_id=job.job_id
            ) from error
    uploaded = _uploaded(job, backend)
    if uploaded is None:
        raise ApiError(
            "upload_incomplete", f"the object is not the {job.source.size} bytes that were said", job_id=job.job_id
        )
    return uploaded


def _missing_parts(job: Job, backend: Backend) -> list[int]:
    """Numbers of the parts that are not there or have another size; a single upload is its part 1."""
    if job.upload is None:
        return [] if _uploaded(job, backend) else [1]
    expected = part_sizes(job.source.size, job.upload.part_size)
    try:
        parts = backend.objects.list_parts(job.source.key, job.upload.upload_id)
    except UploadMissing:
        # Completed already, by a start that did not get further; or aborted.
        return [] if _uploaded(job, backend) else list(expected)
    there = {part.number: part.size for part in parts}
    return [number for number, size in expected.items() if there.get(number) != size]


def _uploaded(job: Job, backend: Backend) -> ObjectInfo | None:
    """The object, if it is there and as long as was said."""
    try:
        info = backend.objects.head(job.source.key)
    except ObjectMissing:
        return None
    return info if info.size == job.source.size else None
