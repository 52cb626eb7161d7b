"""The header `Idempotency-Key`: a client that does not know whether its request arrived sends it again, with its key.

What makes two requests the same is what makes the job: the recording and what is asked for, not the bytes of a form,
whose boundaries differ each time.
"""

from typing import Any

import msgspec
from litestar import Request

from service.errors import invalid
from storage.idempotency import Once, once
from storage.job import Options, Source

HEADER = "Idempotency-Key"
MAX_CHARACTERS = 255


def key_of(request: Request[Any, Any, Any]) -> str | None:
    """
    Raises:
        ApiError: invalid_parameter, it is empty or too long.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return None
    if not 0 < len(key.strip()) <= MAX_CHARACTERS:
        raise invalid(HEADER, f"1 to {MAX_CHARACTERS} characters, as a UUID")
    return key.strip()


def once_of_body(request: Request[Any, Any, Any], body: bytes) -> Once | None:
    """Of a request with a JSON body. None: it has no key."""
    key = key_of(request)
    return once(request.state.owner, key, body) if key is not None else None


def once_of_form(request: Request[Any, Any, Any], source: Source, options: Options) -> Once | None:
    """Of a request whose form has this recording, with its digest. None: it has no key."""
    key = key_of(request)
    asked = [source.filename, source.digest, options]
    return once(request.state.owner, key, msgspec.json.encode(asked)) if key is not None else None
