"""Errors of /detect-language, for clients that read a language from whatever is answered, as Bazarr does."""

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Request, Response

from service.errors import Problem

PATH = "/detect-language"

_Handler = Callable[[Request[Any, Any, Any], Any], Response[Any]]


class DetectionProblem(Problem, frozen=True, kw_only=True):
    """A problem that says in the fields of an answer that no language was found."""

    detected_language: str = "unknown"
    #: ISO 639-2's code for it.
    language_code: str = "und"


def with_language(handlers: dict[int | type[Exception], Any]) -> dict[int | type[Exception], Any]:
    """The application's handlers; those of other addresses answer as before."""
    return {kind: _with_language(handler) for kind, handler in handlers.items()}


def _with_language(handler: _Handler) -> _Handler:
    def answer(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
        response = handler(request, error)
        if request.url.path == PATH:
            problem: Problem = response.content
            response.content = DetectionProblem(**msgspec.structs.asdict(problem))
        return response

    return answer
