"""The classic API: a form with a recording, answered with the transcript or with a job."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from litestar import Request, Response, post
from litestar.concurrency import sync_to_thread
from litestar.datastructures import State

from actors.formats import FORMATS
from actors.names import display_name
from actors.view import JobView
from service.backend import Backend
from service.clients import client_of
from service.errors import ApiError, problems, raise_failure
from service.idempotency import key_of, once_of_form
from service.options import OptionFields, fill_in, read_form
from service.subtitles import subtitle_rules
from service.uploads import CLASSIC, Fields, FormShape
from service.view import view_job
from storage.errors import JobConflict, JobMissing, ObjectMissing, QueueUnavailable
from storage.job import FINAL, Job, JobStatus, Source, new_job_id
from storage.keys import result_key, source_key

log = structlog.get_logger()

UPLOAD_ERRORS = (
    *("invalid_body", "unauthorized", "file_too_large", "unsupported_media_type", "invalid_parameter", "file_missing"),
    *(
        "unsupported_coding",
        "audio_unreadable",
        "idempotency_conflict",
        "url_not_allowed",
        "url_unreachable",
        "upload_stalled",
        "rate_limited",
        "queue_unavailable",
        "queue_read_only",
        "storage_unavailable",
        "too_many_uploads",
        "client_uploads_exceeded",
        "too_many_jobs",
        "client_jobs_exceeded",
    ),
)
#: What may be answered in place of a transcript that was waited for.
WAIT_ERRORS = ("job_not_found", "object_not_found", "job_cancelled", "worker_lost", "model_unavailable")


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    #: `pending`, unless the job was made by an earlier request or has its results already.
    status: JobStatus
    message: str
    #: Relative to the API's address.
    status_url: str
    #: Seconds, from measured speed and the jobs before.
    estimated_time: int


@post(
    "/transcribe",
    status_code=200,
    summary="Transcribe and wait",
    tags=["Transcription"],
    responses=problems(
        *UPLOAD_ERRORS,
        *WAIT_ERRORS,
        "audio_too_long",
    ),
    request_max_body_size=None,
)
async def transcribe(request: Request[Any, Any, State], backend: Backend) -> Response[Any]:
    """The transcript in the asked format, as that format's own media type.

    The same job as the asynchronous call's, plus waiting: when the time runs out, or with `Prefer: respond-async`, the
    answer is 202 with the job, which goes on. When the client goes away the job is cancelled.
    """
    job, _ = await receive(request, backend, lambda fields: read_fields(fields, backend))
    if "respond-async" in [word.strip() for word in request.headers.get("prefer", "").lower().split(",")]:
        return await _still_running(job, backend, {"Preference-Applied": "respond-async"})
    if not await wait_final(request, backend, job.job_id, backend.settings.sync_timeout_seconds):
        return await _still_running(job, backend, {})
    return await sync_to_thread(_answer, job.job_id, backend)


@post(
    "/transcribe-async",
    status_code=202,
    summary="Transcribe in the background",
    tags=["Transcription"],
    responses=problems(*UPLOAD_ERRORS),
    request_max_body_size=None,
)
async def transcribe_async(request: Request[Any, Any, State], backend: Backend) -> Response[Accepted]:
    """A job, to be asked for at `status_url`."""
    job, _ = await receive(request, backend, lambda fields: read_fields(fields, backend))
    estimate = await sync_to_thread(_estimate, job, backend)
    accepted = Accepted(
        job_id=job.job_id,
        status=job.status,
        message="the recording waits for a worker" if job.status is JobStatus.PENDING else f"the job is {job.status}",
        status_url=_status_url(job),
        estimated_time=estimate,
    )
    return Response(accepted, status_code=202, headers=_job_headers(job, estimate))


def read_fields(fields: Fields, backend: Backend) -> OptionFields:
    """The classic form: of a field sent twice the last counts."""
    return read_form(dict(fields), backend.model_names)


async def receive(
    request: Request[Any, Any, State],
    backend: Backend,
    read: Callable[[Fields], OptionFields],
    shape: FormShape = CLASSIC,
    **fixed: Any,
) -> tuple[Job, Fields]:
    """The form's file is in the store and its job in the queue when this returns.

    `read`: what the fields ask for; `fixed`: options that no field can change. With an Idempotency-Key that came before
    it is the job that was made then, whatever has become of it.
    """
    default_model, layout = backend.storage_settings.default_model, subtitle_rules(backend.settings)
    hashed = backend.storage_settings.reuse_results or key_of(request) is not None
    now = time.time()
    job_id = new_job_id(now)
    form = await backend.uploads.receive(
        request,
        source_key(job_id),
        check_field=read,
        check_all=lambda fields: fill_in(read(fields), default_model, layout),
        shape=shape,
        hashed=hashed,
    )
    job = Job(
        job_id=job_id,
        owner=request.state.owner,
        status=JobStatus.PENDING,
        source=Source(
            type="form",
            key=source_key(job_id),
            filename=display_name(form.filename),
            size=form.size,
            content_type=form.content_type,
            digest=form.digest,
        ),
        options=msgspec.structs.replace(fill_in(read(form.fields), default_model, layout), **fixed),
        created_at=now,
    )
    once = once_of_form(request, job.source, job.options)
    # Not cancelled with the request: it makes the job or undoes all of it.
    return await asyncio.shield(sync_to_thread(backend.accept, job, once, client_of(request))), form.fields


async def wait_final(request: Request[Any, Any, State], backend: Backend, job_id: str, seconds: float) -> bool:
    """True: the job is final. False: the time is over. A client that goes away cancels its job; no thread is held."""
    final = asyncio.ensure_future(backend.events.wait_final(job_id, seconds))
    gone = asyncio.ensure_future(client_gone(request))
    try:
        await asyncio.wait({final, gone}, return_when=asyncio.FIRST_COMPLETED)
        if final.done():
            return final.result()
    finally:
        final.cancel()
        gone.cancel()
    await cancel_abandoned(request, backend, job_id)
    raise ApiError("client_disconnected", "the connection was closed before the transcript was there", job_id=job_id)


async def cancel_abandoned(request: Request[Any, Any, State], backend: Backend, job_id: str) -> None:
    """Nobody waits for the job any more; but who sent an Idempotency-Key means to come back for it."""
    if key_of(request) is not None:
        return
    try:
        await sync_to_thread(backend.cancel, job_id)
    except JobConflict:
        return  # It became final just now.
    log.info("client went away, job cancelled", job_id=job_id)


async def client_gone(request: Request[Any, Any, State]) -> None:
    """Returns when the connection is closed. The request must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(job_id: str, backend: Backend) -> Response[Any]:
    name = completed(job_id, backend).options.response_format
    return as_file(job_id, name, backend)


def completed(job_id: str, backend: Backend) -> Job:
    """A job that is final, if it is completed.

    Raises:
        ApiError: with the job's own error, or job_cancelled.
    """
    job = backend.jobs.get(job_id)
    if job.status is JobStatus.CANCELLED:
        raise ApiError("job_cancelled", "the job was cancelled while its transcript was waited for", job_id=job_id)
    if job.status is not JobStatus.COMPLETED:
        raise_failure(job)
    return job


def stored(job_id: str, name: str, backend: Backend) -> bytes:
    """The transcript of a completed job in a format of FORMATS. Raises JobMissing: it was deleted."""
    try:
        return backend.objects.get(result_key(job_id, name))
    except ObjectMissing as error:
        raise JobMissing(f"job {job_id} was deleted in this moment") from error


def as_file(job_id: str, name: str, backend: Backend) -> Response[Any]:
    """The same, as that format's own media type."""
    return as_format(stored(job_id, name, backend), name, {"X-Job-Id": job_id})


def as_format(content: bytes, name: str, headers: dict[str, str] | None = None) -> Response[bytes]:
    """An answer that states a format's media type."""
    stated = media_type(name)
    # Litestar adds the charset to text/* itself, once more if it is there.
    given = stated.partition(";")[0] if stated.startswith("text/") else stated
    return Response(content, media_type=given, headers=headers)


def media_type(name: str) -> str:
    """A format's media type as a response states it."""
    return f"{FORMATS[name].media_type.partition(';')[0]}; charset=utf-8"


async def _still_running(job: Job, backend: Backend, headers: dict[str, str]) -> Response[JobView]:
    def answer() -> Response[JobView]:
        # Asked anew: it may have come far in the meantime.
        now = backend.jobs.get(job.job_id)
        estimate = _estimate(job, backend)
        return Response(view_job(now, backend), status_code=202, headers={**_job_headers(job, estimate), **headers})

    return await sync_to_thread(answer)


def _estimate(job: Job, backend: Backend) -> int:
    if job.status in FINAL:
        return 0
    try:
        return max(1, math.ceil(backend.jobs.estimate_seconds(job.source.size)))
    except QueueUnavailable:
        return 1  # The job is accepted; an estimate is not worth an error.


def _status_url(job: Job) -> str:
    return f"/api/v1/status/{job.job_id}"


def _job_headers(job: Job, estimate: int) -> dict[str, str]:
    return {"Location": _status_url(job), "Retry-After": str(max(1, min(estimate, 30))), "X-Job-Id": job.job_id}
