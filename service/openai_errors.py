"""Errors under /v1 in OpenAI's shape, made from the problems of service/errors.py: its clients know no other."""

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.openapi.datastructures import ResponseSpec

from service.errors import HANDLERS, KINDS, ON_EVERY_ROUTE, Problem

PREFIX = "/v1/"

#: Our code → OpenAI's; the others keep their names.
_CODES = {"unauthorized": "invalid_api_key", "rate_limited": "rate_limit_exceeded"}
#: What is wrong with a request is 400 there: the SDK's BadRequestError.
_STATUSES = {415: 400, 422: 400}
#: The exception: clients react to its status by sending the body in another form.
_KEPT = "unsupported_coding"

_Handler = Callable[[Request[Any, Any, Any], Any], Response[Problem]]


class OpenAIError(msgspec.Struct, frozen=True, kw_only=True):
    """All four are always there."""

    #: A sentence with the fact and the limit.
    message: str
    type: str
    #: The field that is wrong.
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    error: OpenAIError


def shaped_by_address(handlers: dict[int | type[Exception], Any]) -> dict[int | type[Exception], Any]:
    """The application's handlers, so that also what no route answers has the shape that its address promises."""
    return {kind: _shaped(handler) for kind, handler in handlers.items()}


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[ErrorBody]:
    """An error as it is answered under /v1."""
    handler = next(handler for kind, handler in HANDLERS.items() if isinstance(kind, type) and isinstance(error, kind))
    return _in_openais_shape(handler(request, error))


def openai_problems(*codes: str) -> dict[int, ResponseSpec]:
    """What a route documents, as service.errors.problems."""
    by_status: dict[int, list[str]] = {}
    for code in (*codes, *ON_EVERY_ROUTE):
        by_status.setdefault(_status(code, KINDS[code].status), []).append(code)
    return {
        status: ResponseSpec(
            data_container=ErrorBody,
            description="; ".join(f"`{_CODES.get(code, code)}`: {KINDS[code].title}" for code in sorted(set(members))),
            generate_examples=False,
        )
        for status, members in by_status.items()
    }


def _shaped(handler: _Handler) -> Callable[[Request[Any, Any, Any], Any], Response[Any]]:
    def answer(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
        response = handler(request, error)
        return _in_openais_shape(response) if request.scope["path"].startswith(PREFIX) else response

    return answer


def _in_openais_shape(response: Response[Problem]) -> Response[ErrorBody]:
    problem = response.content
    error = OpenAIError(
        message=problem.detail,
        type=_type(problem.status),
        param=problem.field if isinstance(problem.field, str) else None,
        code=_CODES.get(problem.code, problem.code),
    )
    headers = {**response.headers}
    if isinstance(problem.job_id, str):
        # The SDK would send the whole recording again, twice, and the job would end as this one did.
        headers |= {"X-Job-Id": problem.job_id, "X-Should-Retry": "false"}
    return Response(ErrorBody(error=error), status_code=_status(problem.code, problem.status), headers=headers)


def _status(code: str, status: int) -> int:
    return status if code == _KEPT else _STATUSES.get(status, status)


def _type(status: int) -> str:
    if status == 429:
        return "requests"
    return "server_error" if status >= 500 else "invalid_request_error"
