"""Every error that a client can see: one table of codes, and RFC 9457's problem+json as the only shape.

Handlers raise ApiError or let storage's errors rise; `HANDLERS` turns whatever arrives into a problem.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import msgspec
import msgspec.inspect
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, InternalServerException, ValidationException
from litestar.openapi.datastructures import ResponseSpec

from storage.errors import StorageError, TooManyJobs
from storage.job import Job

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"


class Kind(NamedTuple):
    status: int
    title: str


#: Code → HTTP status and title. A code is stable: clients branch on it.
KINDS: dict[str, Kind] = {
    "invalid_body": Kind(400, "The request body cannot be read"),
    "client_disconnected": Kind(400, "The client went away before its request was whole"),
    "invalid_request": Kind(400, "The request is not HTTP/1.1"),
    "unauthorized": Kind(401, "A valid API key is needed"),
    "host_not_allowed": Kind(403, "The API is not served under this host name"),
    "origin_not_allowed": Kind(403, "A page of this origin may not change anything"),
    "not_found": Kind(404, "There is nothing at this address"),
    "job_not_found": Kind(404, "There is no such job"),
    "model_not_found": Kind(404, "There is no such model"),
    "method_not_allowed": Kind(405, "This address does not know the method"),
    "headers_timeout": Kind(408, "The request's headers did not come in time"),
    "upload_stalled": Kind(408, "The client stopped sending, or sends too slowly"),
    "upload_expired": Kind(408, "The upload was not started in time"),
    "job_conflict": Kind(409, "The job's status does not allow this"),
    "job_cancelled": Kind(409, "The job was cancelled"),
    "webhook_missing": Kind(409, "Nobody waits for the job's end"),
    "upload_incomplete": Kind(409, "The upload is not whole"),
    "file_too_large": Kind(413, "The recording is too large"),
    "body_too_large": Kind(413, "The request body is too large"),
    "unsupported_media_type": Kind(415, "The body's media type is not understood"),
    "unsupported_coding": Kind(415, "The body is compressed"),
    "invalid_parameter": Kind(422, "A parameter has a value that is not allowed"),
    "file_missing": Kind(422, "The form has no recording"),
    "audio_unreadable": Kind(422, "The recording cannot be read as audio"),
    "audio_too_long": Kind(422, "The recording is too long"),
    "idempotency_conflict": Kind(422, "The Idempotency-Key was used for another request"),
    "object_not_found": Kind(422, "The bucket has no such object"),
    "url_not_allowed": Kind(422, "The service may not go to this url"),
    "url_unreachable": Kind(422, "The url's server cannot be reached"),
    "url_not_found": Kind(422, "The url's server has no such recording"),
    "url_refused": Kind(422, "The url's server does not give the recording"),
    "url_untrusted": Kind(422, "The certificate of the url's server is not valid"),
    "url_changed": Kind(422, "The recording changed while it was fetched"),
    "rate_limited": Kind(429, "Too many requests"),
    "client_jobs_exceeded": Kind(429, "Too many waiting jobs of one client"),
    "headers_too_large": Kind(431, "The request's headers are too large"),
    "internal_error": Kind(500, "Something went wrong that should not"),
    "stored_unreadable": Kind(500, "What is stored of the job cannot be read"),
    "worker_lost": Kind(500, "The recording stopped its workers again and again"),
    "url_failing": Kind(502, "The url's server fails"),
    "url_broken_off": Kind(502, "The url's server breaks off its answers"),
    "queue_unavailable": Kind(503, "The queue does not answer"),
    "queue_read_only": Kind(503, "The queue takes nothing new: its Redis is full or cannot write"),
    "storage_unavailable": Kind(503, "The object store does not answer"),
    "storage_refused": Kind(503, "The object store refuses the service"),
    "upload_not_found": Kind(503, "The object store lost the upload"),
    "bucket_missing": Kind(503, "The object store has no bucket yet"),
    "purged": Kind(503, "The queue was purged before a worker began"),
    "model_unavailable": Kind(503, "The model's weights are nowhere to be found"),
    "device_unavailable": Kind(503, "The device that should compute is not there"),
    "too_many_uploads": Kind(503, "Too many uploads at once"),
    "too_many_listeners": Kind(503, "Too many event streams at once"),
    "client_uploads_exceeded": Kind(503, "Too many uploads of one client at once"),
    "client_listeners_exceeded": Kind(503, "Too many event streams of one client at once"),
    "too_many_jobs": Kind(503, "Too many waiting jobs"),
    "too_many_connections": Kind(503, "Too many connections at once"),
    "still_running": Kind(504, "The transcript is not ready yet"),
    "url_timeout": Kind(504, "The url's server is too slow"),
}

#: What any route may answer.
ON_EVERY_ROUTE = ("host_not_allowed", "origin_not_allowed", "stored_unreadable", "internal_error")

#: What a client that gets a 429 or 503 should wait.
RETRY_AFTER_SECONDS = 5


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 9457, with a stable `code` and whatever facts the code has."""

    type: str
    title: str
    status: int
    #: A sentence with the fact and the limit.
    detail: str
    code: str
    #: The parameter that is wrong.
    field: str | msgspec.UnsetType = msgspec.UNSET
    #: The values that it may have.
    allowed: list[str] | msgspec.UnsetType = msgspec.UNSET
    #: Numbers of the parts that are not there, or not whole.
    missing: list[int] | msgspec.UnsetType = msgspec.UNSET
    job_id: str | msgspec.UnsetType = msgspec.UNSET


class ApiError(Exception):
    """An answer that is an error: a code of the table, a sentence, facts that Problem has fields for, and headers."""

    def __init__(self, code: str, detail: str, *, headers: dict[str, str] | None = None, **facts: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.facts = facts


def invalid(field: str, reason: str, allowed: Sequence[object] = ()) -> ApiError:
    """`invalid_parameter` that names the field and, where they can be listed, the values that it may have."""
    names = [str(value) for value in allowed]
    detail = f"{field}: {reason}" + (f"; allowed: {', '.join(names)}" if names else "")
    facts: dict[str, Any] = {"allowed": names} if names else {}
    return ApiError("invalid_parameter", detail, field=field, **facts)


def explain(kind: type[msgspec.Struct], error: msgspec.ValidationError) -> ApiError:
    """msgspec's error about a `kind`, as "Invalid enum value 'x' - at `$.task`", answered with the allowed values."""
    message, _, path = str(error).partition(" - at `$.")
    field = path.rstrip("`")
    if named := re.search(r"(?:unknown|required) field `([^`]*)`", message):
        field = f"{field}.{named[1]}" if field else named[1]
    if not field:
        return ApiError("invalid_body", _plain(message))
    step = msgspec.inspect.type_info(kind)
    for name in field.split("."):
        step = _field_type(step, name)
    if named and "required" in named[0]:
        return ApiError("invalid_parameter", f"{field} is missing", field=field)
    return invalid(field[:100], _plain(message), _allowed(step))


#: msgspec's names of types → JSON's, as msgspec itself says `object`, `array` and `null`.
_JSON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def _plain(message: str) -> str:
    """msgspec's message about a value, with JSON's names of types and without values or regular expressions."""
    if message.startswith(("Invalid enum value", "Invalid value")):
        return "this is not one of its values"
    if message.startswith("Object contains unknown field"):
        return "there is no such field"
    if " matching regex " in message:
        return "this does not have the right format"
    return re.sub(r"\b(str|int|float|bool)\b(?=[^`]*`)", lambda name: _JSON_TYPES[name[0]], message[:300])


def _field_type(owner: msgspec.inspect.Type, name: str) -> msgspec.inspect.Type:
    if isinstance(owner, msgspec.inspect.Metadata):
        return _field_type(owner.type, name)
    if isinstance(owner, msgspec.inspect.UnionType):
        tags = [one.tag for one in owner.types if isinstance(one, msgspec.inspect.StructType) and one.tag_field == name]
        if tags:
            return msgspec.inspect.LiteralType(values=tuple(tags))
    if isinstance(owner, msgspec.inspect.StructType):
        for field in owner.fields:
            if field.encode_name == name:
                return field.type
    return msgspec.inspect.AnyType()


def _allowed(kind: msgspec.inspect.Type) -> list[object]:
    match kind:
        case msgspec.inspect.LiteralType(values=values):
            return list(values)
        case msgspec.inspect.EnumType(cls=cls):
            return [member.value for member in cls]
        case msgspec.inspect.UnionType(types=types):
            return [value for one in types for value in _allowed(one)]
        case msgspec.inspect.Metadata(type=inner):
            return _allowed(inner)
        case msgspec.inspect.BoolType():
            return ["true", "false"]
        case msgspec.inspect.IntType(ge=low, le=high) | msgspec.inspect.FloatType(ge=low, le=high):
            return [f"{low:g} to {high:g}"] if low is not None and high is not None else []
        case _:
            return []


def problems(*codes: str) -> dict[int, ResponseSpec]:
    """What a route documents: these codes, and those that any route may answer."""
    by_status: dict[int, list[str]] = {}
    for code in (*codes, *ON_EVERY_ROUTE):
        by_status.setdefault(KINDS[code].status, []).append(code)
    return {
        status: ResponseSpec(
            data_container=Problem,
            description="; ".join(f"`{code}`: {KINDS[code].title}" for code in sorted(set(members))),
            media_type=MEDIA_TYPE,
            generate_examples=False,
        )
        for status, members in by_status.items()
    }


def raise_failure(job: Job) -> NoReturn:
    """Answer a job that did not complete with its own error."""
    if job.error_code not in KINDS:
        log.error("job failed with a code that has no answer", job_id=job.job_id, code=job.error_code)
    code = job.error_code if job.error_code in KINDS else "internal_error"
    raise ApiError(code, job.error or KINDS[code].title, job_id=job.job_id)


def new_problem(code: str, detail: str, **facts: Any) -> Problem:
    """With what the table says of the code."""
    status, title = KINDS[code]
    return Problem(
        type=f"urn:bucketscribe:problem:{code}", title=title, status=status, detail=detail, code=code, **facts
    )


def _answer(code: str, detail: str, headers: dict[str, str], **facts: Any) -> Response[Problem]:
    problem = new_problem(code, detail, **facts)
    if problem.status in (429, 503):
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS), **headers}
    return Response(problem, status_code=problem.status, media_type=MEDIA_TYPE, headers=headers)


def _answer_api_error(request: Request[Any, Any, Any], error: ApiError) -> Response[Problem]:
    return _answer(error.code, error.detail, error.headers, **error.facts)


def _answer_storage_error(request: Request[Any, Any, Any], error: StorageError) -> Response[Problem]:
    kind = KINDS.get(error.code)
    if kind is None:
        return _answer_unexpected(request, error)
    if kind.status < 500 or isinstance(error, TooManyJobs):
        return _answer(error.code, str(error), {})
    # The message names internal hosts: it is for the log.
    log.error("storage failed", path=request.scope["path"], code=error.code, reason=str(error))
    return _answer(error.code, f"{kind.title}. Try again later.", {})


def _answer_unreadable(request: Request[Any, Any, Any], error: msgspec.DecodeError) -> Response[Problem]:
    """An object that the service wrote was damaged or replaced in the store: what clients send is answered earlier."""
    log.error("stored document unreadable", path=request.scope["path"], reason=str(error))
    return _answer("stored_unreadable", "an object that is needed for this was damaged or replaced in the store", {})


def _answer_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """Litestar's own errors: routing, bodies and parameters that do not fit."""
    headers = dict(error.headers or {})
    if isinstance(error, ValidationException):
        return _answer_invalid(request, error)
    if isinstance(error, InternalServerException) and "disconnected" in error.detail:
        log.info("client went away", path=request.scope["path"])
        return _answer("client_disconnected", "the connection was closed", headers)
    match error.status_code:
        case 404:
            return _answer("not_found", f"nothing is at {request.scope['path'][:200]}", headers)
        case 405:
            return _answer("method_not_allowed", f"allowed: {headers.get('allow', '')}", headers)
        case 413:
            return _answer("body_too_large", "the body is larger than this route reads", headers)
        case 415:
            return _answer("unsupported_media_type", error.detail, headers)
        case 400:
            return _answer("invalid_body", error.detail, headers)
        case _:
            return _answer_unexpected(request, error)


def _answer_invalid(request: Request[Any, Any, Any], error: ValidationException) -> Response[Problem]:
    """A query parameter that does not fit; bodies are decoded by service/options.py."""
    first: dict[str, Any] = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
    field, message = str(first.get("key", "")), str(first.get("message", error.detail))
    parameter = request.route_handler.parsed_fn_signature.parameters.get(field)
    allowed = _allowed(msgspec.inspect.type_info(parameter.annotation)) if parameter else []
    return _answer_api_error(request, invalid(field, _plain(message), allowed))


def _answer_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    log.error("request failed", method=request.method, path=request.scope["path"], exc_info=error)
    return _answer("internal_error", "the request failed; the service's log says why", {})


#: For Litestar(exception_handlers=...).
HANDLERS: dict[int | type[Exception], Any] = {
    ApiError: _answer_api_error,
    StorageError: _answer_storage_error,
    HTTPException: _answer_http_error,
    msgspec.DecodeError: _answer_unreadable,
    Exception: _answer_unexpected,
}
