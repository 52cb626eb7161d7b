"""Errors of /detect-language, for clients such as Bazarr that read a language from every answer."""

from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Request, Response

from service.errors import Problem

PATH = "/detect-language"

_Handler = Callable[[Request[Any, Any, Any], Any], Response[Any]]


class DetectionProblem(Problem, frozen=True, kw_only=True):
    """A problem with the fields of a successful answer, which say that no language was found."""

    detected_language: str = "unknown"
    #: ISO 639-2's code for it.
    language_code: str = "und"


def with_language(handlers: dict[int | type[Exception], Any]) -> dict[int | type[Exception], Any]:
    """Wrap the application's handlers; answers of other routes stay the same."""
    return {kind: _with_language(handler) for kind, handler in handlers.items()}


def _with_language(handler: _Handler) -> _Handler:
    def answer(request: Request[Any, Any, Any], error: Any) -> Response[Any]:
        response = handler(request, error)
        if request.scope["path"] == PATH:
            problem: Problem = response.content
            response.content = DetectionProblem(**msgspec.structs.asdict(problem))
        return response

    return answer
