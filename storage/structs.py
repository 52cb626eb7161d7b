"""Structs of JSON and of other objects, made in any thread.

msgspec makes a struct's table when it is first decoded, and shows it to other threads before it is filled: two that
decode such a struct at the same time end the process with SIGSEGV (seen with 0.22). Here one thread makes it.
"""

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

#: What decoding raises of bytes that are no JSON, or are nested deeper than any JSON that is meant.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_MAKING = threading.Lock()
_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {}


def decode(text: bytes | str, kind: type[T]) -> T:
    """What msgspec.json.decode(text, type=kind) gives.

    Raises:
        msgspec.ValidationError: it is JSON of another kind.
        msgspec.DecodeError: it is not JSON. So are bytes that are not UTF-8 and lists nested too deeply, for which
            msgspec lets Python's own errors through.
    """
    try:
        return _decoder(kind).decode(text)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(_reason(error)) from error


def convert(value: object, kind: type[T], *, strict: bool = True, from_attributes: bool = False) -> T:
    """What msgspec.convert gives, and raises."""
    _decoder(kind)
    return msgspec.convert(value, kind, strict=strict, from_attributes=from_attributes)


def why_not_json(error: Exception) -> str:
    """The message of an error of NOT_JSON, for a client."""
    return _reason(error).removeprefix("JSON is malformed: ")


def _reason(error: Exception) -> str:
    """In words that mean something without Python."""
    match error:
        case UnicodeDecodeError():
            return "it is not UTF-8"
        case RecursionError():
            return "it is nested too deeply"
        case _:
            return str(error)


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    with _MAKING:
        made = _DECODERS.get(kind)
        if made is None:
            made = _DECODERS[kind] = msgspec.json.Decoder(kind)
        return made
