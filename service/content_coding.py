"""Refuses bodies that come compressed: a small one could become a large one, and recordings hardly get smaller."""

from typing import Any

from litestar import Request

from service.errors import ApiError
from storage.errors import quoted

_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


def refuse_compressed(request: Request[Any, Any, Any]) -> None:
    """A hook of Litestar's: after the guards, before the body is read.

    Raises:
        ApiError: unsupported_coding.
    """
    coding = request.headers.get("content-encoding", "").strip()
    if request.method in _WITH_BODY and coding.lower() not in ("", "identity"):
        detail = f"the body comes with Content-Encoding {quoted(coding)}; send it as it is, without one"
        # As RFC 9110 wants it of a 415 with this reason.
        raise ApiError("unsupported_coding", detail, headers={"Accept-Encoding": "identity"})
