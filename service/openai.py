"""OpenAI's API, so that programs written for it work by changing the address: the same jobs as everywhere else.

Where the transcript is longer in coming than SYNC_TIMEOUT_SECONDS, or than the client says it waits, the answer is an
error that names the job: an SDK takes anything else for a transcript. The job goes on.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any

import msgspec
import structlog
from litestar import Request, Response, get, post
from litestar.concurrency import sync_to_thread
from litestar.datastructures import State
from litestar.params import Parameter

from service.backend import Backend
from service.clients import client_of
from service.errors import ApiError
from service.events import follow
from service.listeners import Place
from service.openai_answers import Said, TextDelta, TextDone, Transcription, VerboseTranscription, plain, verbose
from service.openai_errors import answer, openai_problems
from service.openai_form import SHAPE, Task, Wanted, find_model, read_options, read_wanted
from service.options import OptionFields
from service.transcribe import (
    UPLOAD_ERRORS,
    WAIT_ERRORS,
    as_file,
    cancel_abandoned,
    client_gone,
    completed,
    receive,
    stored,
    wait_final,
)
from service.uploads import Fields
from storage.errors import StorageError
from storage.models import MODELS, ModelInfo
from storage.structs import decode
from storage.transcript import Segment, Transcript

log = structlog.get_logger()

_ANY = ("unauthorized", "rate_limited", "queue_unavailable")
_AUDIO = (
    *UPLOAD_ERRORS,
    *WAIT_ERRORS,
    *("client_disconnected", "audio_too_long", "model_not_found", "still_running", "too_many_listeners"),
    "client_listeners_exceeded",
)

#: Margin before a client's stated timeout, so that the answer arrives before the client gives up and retries: a share
#: of the timeout, and at most so many seconds.
_SPARE_SHARE, _SPARE_SECONDS = 0.1, 5
#: Timeout headers of the SDKs: Python's for each read, Node's for the whole request.
_TIMEOUT_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")

#: A recording that cannot be read is found within it, and answered with its own status also where a stream was asked
#: for; after it the stream begins, so that no proxy takes the silence for an end.
_STATUS_SECONDS = 10

#: Jobs that nobody waits for any more, being cancelled.
_farewells: set[asyncio.Task[None]] = set()

#: When the weights were published, seconds since the epoch, by how their names begin; the longest beginning counts.
_PUBLISHED = {
    "": 1663718400,  # 2022-09-21
    "large-v2": 1670198400,  # 2022-12-05
    "large-v3": 1699228800,  # 2023-11-06
    "large-v3-turbo": 1727740800,  # 2024-10-01
    "distil-": 1698883200,  # 2023-11-02
    "distil-large-v3": 1711065600,  # 2024-03-22
    "distil-large-v3.5": 1742774400,  # 2025-03-24
}


class Model(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: str = "model"
    #: Seconds since the epoch.
    created: int
    owned_by: str


class Models(msgspec.Struct, frozen=True, kw_only=True):
    object: str = "list"
    data: list[Model]


@post(
    "/audio/transcriptions",
    status_code=200,
    summary="Transcribe",
    tags=["OpenAI's API"],
    responses=openai_problems(*_AUDIO),
    request_max_body_size=None,
)
async def create_transcription(request: Request[Any, Any, State], backend: Backend) -> Response[Any]:
    """As OpenAI's `audio.transcriptions.create`. `stream=true` sends the text of each segment as it is found."""
    return await _create(request, backend, "transcribe")


@post(
    "/audio/translations",
    status_code=200,
    summary="Translate into English",
    tags=["OpenAI's API"],
    responses=openai_problems(*_AUDIO),
    request_max_body_size=None,
)
async def create_translation(request: Request[Any, Any, State], backend: Backend) -> Response[Any]:
    """As OpenAI's `audio.translations.create`. Needs a model that knows more than English."""
    return await _create(request, backend, "translate")


@get(
    "/models",
    summary="Models",
    tags=["OpenAI's API"],
    sync_to_thread=False,
    responses=openai_problems(*_ANY),
)
def list_models(backend: Backend) -> Models:
    """What `model` may be; OpenAI's own names are the configured one."""
    return Models(data=[_model(name, backend) for name in backend.model_names.listed])


@get(
    "/models/{model:path}",
    summary="A model",
    tags=["OpenAI's API"],
    sync_to_thread=False,
    responses=openai_problems(*_ANY, "model_not_found"),
)
def get_model(backend: Backend, model: Annotated[str, Parameter(description="As `GET /v1/models` names it.")]) -> Model:
    """One of them."""
    # A hub's name has a slash in it, and a path comes with one before it.
    return _model(model.removeprefix("/"), backend)


def _model(name: str, backend: Backend) -> Model:
    info: ModelInfo = MODELS[find_model(name, backend.model_names) or backend.storage_settings.default_model]
    begins = max((begin for begin in _PUBLISHED if info.folder.startswith(begin)), key=len)
    return Model(id=name, created=_PUBLISHED[begins], owned_by=info.repository.partition("/")[0])


async def _create(request: Request[Any, Any, State], backend: Backend, task: Task) -> Response[Any]:
    place = backend.listeners.place(client_of(request))

    def read(fields: Fields) -> OptionFields:
        options = read_options(fields, task, backend.model_names)
        if read_wanted(fields, task).stream:
            # As soon as it is known: where there is no place nothing is uploaded in vain, and no job is made.
            place.take()
        return options

    try:
        job, fields = await receive(request, backend, read, SHAPE)
        wanted = read_wanted(fields, task)
        if wanted.stream:
            return await _stream(request, backend, job.job_id, place)
    except BaseException:  # Also CancelledError: the server stops.
        place.leave()
        raise
    place.leave()
    seconds = patience_seconds(request.headers, backend.settings.sync_timeout_seconds)
    if not await wait_final(request, backend, job.job_id, seconds):
        raise ApiError(
            "still_running",
            f"the transcript was not ready within {seconds:g} s; the job goes on, see /api/v1/status/{job.job_id}",
            job_id=job.job_id,
        )
    return await sync_to_thread(_answer, job.job_id, backend, wanted)


def patience_seconds(headers: Mapping[str, str], limit_seconds: float) -> float:
    """Seconds to wait for a transcript: the client's timeout less a margin, up to the limit."""
    waits = [seconds for name in _TIMEOUT_HEADERS if (seconds := _seconds(headers.get(name, ""))) > 0]
    return min([limit_seconds, *(seconds - min(seconds * _SPARE_SHARE, _SPARE_SECONDS) for seconds in waits)])


def _seconds(text: str) -> float:
    """0: it is not a finite number."""
    try:
        seconds = float(text)
    except ValueError:
        return 0
    return seconds if math.isfinite(seconds) else 0


def _answer(job_id: str, backend: Backend, wanted: Wanted) -> Response[Any]:
    # Our own field `task` is taken too: what was done is in the job.
    task: Task = "translate" if completed(job_id, backend).options.task == "translate" else "transcribe"
    if wanted.format not in ("json", "verbose_json"):
        return as_file(job_id, wanted.format, backend)
    content: Transcription | VerboseTranscription
    if wanted.format == "json":
        content = plain(_said(job_id, backend), task)
    else:
        content = verbose(decode(stored(job_id, "json", backend), Transcript), task, wanted)
    return Response(content, headers={"X-Job-Id": job_id})


def _said(job_id: str, backend: Backend) -> Said:
    return decode(stored(job_id, "json", backend), Said)


# While the text is found


async def _stream(request: Request[Any, Any, State], backend: Backend, job_id: str, place: Place) -> Response[Any]:
    texts = _texts(backend, job_id)
    first = asyncio.ensure_future(anext(texts, None))
    gone = asyncio.ensure_future(client_gone(request))
    try:
        await asyncio.wait({first, gone}, timeout=_STATUS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise ApiError("client_disconnected", "the connection was closed before the transcript", job_id=job_id)
        if first.done():
            first.result()  # A job that failed by now is answered with its own status.
        events = _events(request, backend, job_id, first, texts)
        await anext(events)
        stream = backend.listeners.stream(events, place)
    except BaseException:  # Also CancelledError: the server stops.
        _leave(request, backend, job_id, first, texts)
        raise
    finally:
        gone.cancel()
    stream.headers["X-Job-Id"] = job_id
    return stream


async def _texts(backend: Backend, job_id: str) -> AsyncGenerator[str]:
    """Of the segments, in order; it ends when the job is completed, and raises what `completed` raises."""
    async for event in follow(backend, job_id):
        if isinstance(event.data, Segment):
            yield event.data.text
    await sync_to_thread(completed, job_id, backend)


async def _events(
    request: Request[Any, Any, State],
    backend: Backend,
    job_id: str,
    first: "asyncio.Future[str | None]",
    texts: AsyncGenerator[str],
) -> AsyncGenerator[bytes]:
    """The first one is empty and not to be sent: it has begun, so that its end comes also when nobody reads it."""
    done = False
    try:
        yield b""
        text = await first
        if text is not None:
            text = text.lstrip()
        while text is not None:
            yield _event(TextDelta(delta=text))
            text = await anext(texts, None)
        said = await sync_to_thread(_said, job_id, backend)
        done = True
        yield _event(TextDone(text=said.text))
    except Exception as error:  # noqa: BLE001 The stream's edge: the status is sent, so what fails is told in the stream.
        yield _event(answer(request, error).content)
    finally:
        if not done:
            _leave(request, backend, job_id, first, texts)


def _event(data: msgspec.Struct) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _leave(
    request: Request[Any, Any, State],
    backend: Backend,
    job_id: str,
    first: "asyncio.Future[str | None]",
    texts: AsyncGenerator[str],
) -> None:
    """Nobody listens any more, so nobody wants the job. In a task of its own: what was cancelled cannot wait."""

    async def leave() -> None:
        first.cancel()
        await asyncio.wait({first})
        await texts.aclose()
        if backend.listeners.ended:
            return  # The server stops, and the job goes on as any other does.
        try:
            await cancel_abandoned(request, backend, job_id)
        except StorageError as error:
            # Deleted meanwhile, or Redis does not answer: then it goes on, and is kept like any other.
            log.info("abandoned job not cancelled", job_id=job_id, reason=str(error))

    task = asyncio.ensure_future(leave())
    _farewells.add(task)
    task.add_done_callback(_farewells.discard)
