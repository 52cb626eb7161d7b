"""`X-Request-Id`: on every answer, and as `request_id` in every log line about its request."""

import re
import secrets
from collections.abc import Iterable

from litestar.datastructures import MutableScopeHeaders
from litestar.types import Message, Scope

HEADER = "X-Request-Id"

#: A client's own id is taken over when it is one short word of printable ASCII.
_USABLE = re.compile(rb"[!-~]{1,128}")


def read_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The client's id, or a new one."""
    given = next((value for name, value in headers if name.lower() == HEADER.lower().encode()), b"")
    return given.decode() if _USABLE.fullmatch(given) else secrets.token_hex(8)


async def send_request_id(message: Message, scope: Scope) -> None:
    """A before_send hook."""
    if message["type"] == "http.response.start" and (request_id := scope.get("state", {}).get("request_id")):
        MutableScopeHeaders(message)[HEADER] = request_id
