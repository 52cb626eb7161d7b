"""Transcripts by their format, also while they grow."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get
from litestar.concurrency import sync_to_thread
from litestar.datastructures import State
from litestar.params import Parameter

from actors import formats, rules
from actors.layout import layout_of
from service.backend import Backend
from service.errors import ApiError, problems
from service.jobs import JobId
from service.subtitles import SubtitleFields, read_rules
from service.transcribe import as_format
from service.view import so_far
from storage.job import Job, JobStatus
from storage.keys import result_key
from storage.structs import decode
from storage.transcript import Transcript

EXTENSIONS = {kind.extension: kind for kind in formats.FORMATS.values()}


class Asked(msgspec.Struct, frozen=True):
    kind: formats.Format
    partial: bool
    report: bool
    rules: SubtitleFields


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
    report: Annotated[bool, Parameter(description="As JSON, which cues break which rules of subtitles.")] = False,
) -> Response[bytes]:
    """Of a completed job; with `partial=true` of one in work too: from the beginning, in order, without gaps.

    Subtitles are laid out anew where a rule is given; the others are the job's. Nothing is transcribed again.
    """
    kind = EXTENSIONS[request.scope["path"].rpartition(".")[2]]
    asked = Asked(kind, partial, report, read_rules(request.query_params))
    # In a thread by hand: Litestar wraps a handler of several paths more than once.
    return await sync_to_thread(_answer, backend, job_id, request.state.owner, asked)


def _answer(backend: Backend, job_id: str, owner: str, asked: Asked) -> Response[bytes]:
    kind = asked.kind
    job = backend.jobs.get(job_id, owner)
    in_work = job.status in (JobStatus.PENDING, JobStatus.PROCESSING)
    if job.status is not JobStatus.COMPLETED and not (asked.partial and in_work):
        raise ApiError("job_conflict", f"the job is {job.status} and has no transcript", job_id=job_id)
    layout = asked.rules.over(layout_of(job.options))
    if asked.report:
        body = msgspec.json.encode(rules.report(_transcript(job, backend), layout))
        return as_format(body, "json")
    as_stored = layout == layout_of(job.options) or not kind.laid_out
    if job.status is JobStatus.COMPLETED and as_stored:
        body = backend.objects.get(result_key(job_id, kind.name))
    else:
        body = formats.render(_transcript(job, backend), kind.name, layout)
    return as_format(body, kind.name)


def _transcript(job: Job, backend: Backend) -> Transcript:
    if job.status is JobStatus.COMPLETED:
        return decode(backend.objects.get(result_key(job.job_id, "json")), Transcript)
    return so_far(job, backend)
