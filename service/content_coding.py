"""Refuses compressed bodies: a small one could expand to a large one, and recordings hardly compress."""

from typing import Any

from litestar import Request

from service.errors import ApiError
from storage.errors import quoted

_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def refuse_compressed(request: Request[Any, Any, Any]) -> None:
    """Litestar's before_request hook: runs after the guards, before the body is read.

    Raises:
        ApiError: unsupported_coding.
    """
    coding = request.headers.get("content-encoding", "").strip()
    if request.method in _WITH_BODY and coding.lower() not in ("", "identity"):
        detail = f"the body has Content-Encoding {quoted(coding)}; send it without one, uncompressed"
        # RFC 9110 asks for this header on a 415 for this reason.
        raise ApiError("unsupported_coding", detail, headers={"Accept-Encoding": "identity"})
