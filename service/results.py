"""Transcripts by their format, also while they grow."""

from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.concurrency import sync_to_thread
from litestar.datastructures import State
from litestar.params import Parameter

from actors import formats
from actors.layout import layout_of
from service.backend import Backend
from service.errors import ApiError, problems
from service.jobs import JobId
from service.transcribe import media_type
from service.view import so_far
from storage.job import JobStatus
from storage.keys import result_key

EXTENSIONS = {kind.extension: kind for kind in formats.FORMATS.values()}


@get(
    [f"/jobs/{{job_id:str}}/transcript.{extension}" for extension in EXTENSIONS],
    summary="The transcript as a file",
    tags=["Jobs"],
    responses=problems(
        "unauthorized",
        "rate_limited",
        "queue_unavailable",
        "job_not_found",
        "job_conflict",
        "invalid_parameter",
        "object_not_found",
        "storage_unavailable",
    ),
)
async def get_transcript(
    request: Request[Any, Any, State],
    backend: Backend,
    job_id: JobId,
    partial: Annotated[bool, Parameter(description="Of a job in work, what there is so far.")] = False,
) -> Response[bytes]:
    """Of a completed job; with `partial=true` of one in work too: from the beginning, in order, without gaps."""
    # In a thread by hand: Litestar wraps a handler of several paths more than once.
    extension = request.url.path.rpartition(".")[2]
    return await sync_to_thread(_read, backend, job_id, request.state.owner, extension, partial)


def _read(backend: Backend, job_id: str, owner: str, extension: str, partial: bool) -> Response[bytes]:
    kind = EXTENSIONS[extension]
    job = backend.jobs.get(job_id, owner)
    if job.status is JobStatus.COMPLETED:
        body = backend.objects.get(result_key(job_id, kind.name))
    elif partial and job.status in (JobStatus.PENDING, JobStatus.PROCESSING):
        body = formats.render(so_far(job, backend), kind.name, layout_of(job.options))
    else:
        raise ApiError("job_conflict", f"the job is {job.status} and has no transcript", job_id=job_id)
    return Response(body, media_type=media_type(kind.name))
