"""API keys: who may call, and whose a job is. Where no keys are set, everyone may and every job is owned by "".

A key comes as `Authorization: Bearer`, in a header of its own (ours, or that of Azure), or as the password of Basic:
programs in which only an address can be set write it as http://any:KEY@host.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from service.errors import ApiError
from storage.settings import SettingsError

#: Headers that hold a key and nothing else: ours, and Azure's.
_KEY_HEADERS = ("x-api-key", "api-key")

_WAYS = "`Authorization: Bearer`, `X-API-Key`, `api-key`, or the password of HTTP Basic"
_REALM = "bucketscribe"


def read_keys(api_keys: str) -> list[bytes]:
    """
    Raises:
        SettingsError: something is set, but it holds no key; nobody means that as an open door.
    """
    keys = [key.strip().encode() for key in api_keys.split(",") if key.strip()]
    if api_keys and not keys:
        raise SettingsError("API_KEYS: it is set and holds no key; leave it empty to ask for none")
    return keys


def owner_of(key: bytes) -> str:
    """A digest, so that the key itself is nowhere in Redis or a log."""
    return hashlib.sha256(key).hexdigest()[:16]


def first_owner(api_keys: str) -> str:
    """Whose the jobs are that nobody asked for, as those of the inbox: the first key's."""
    keys = read_keys(api_keys)
    return owner_of(keys[0]) if keys else ""


def require_key(api_keys: str) -> Guard:
    """A guard, so it runs before the body is read. It leaves the owner in the connection's state."""
    owners = [(owner_of(key), key) for key in read_keys(api_keys)]

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        connection.state.owner = _owner(connection, owners) if owners else ""

    return guard


def _owner(connection: ASGIConnection[Any, Any, Any, Any], owners: list[tuple[str, bytes]]) -> str:
    given = _given(connection)
    # Every key is compared, so that the time taken tells nothing.
    matches = [owner for sent in given for owner, key in owners if hmac.compare_digest(key, sent)]
    if not matches:
        detail = "this API key is not known" if given else f"send a key as {_WAYS}"
        raise ApiError("unauthorized", detail, headers={"WWW-Authenticate": _challenge(connection)})
    return matches[0]


def _given(connection: ASGIConnection[Any, Any, Any, Any]) -> list[bytes]:
    """All keys in a request: a proxy's Basic password may be sent together with a key in a header."""
    headers = connection.headers
    scheme, _, token = headers.get("authorization", "").partition(" ")
    # Headers are read as Latin-1, in which each byte is a character.
    sent = [token.strip().encode("latin-1")] if scheme.lower() == "bearer" else []
    sent += [headers.get(name, "").strip().encode("latin-1") for name in _KEY_HEADERS]
    if scheme.lower() == "basic":
        sent.append(_password(token.strip()))
    return [key for key in sent if key]


def _password(credentials: str) -> bytes:
    """Of HTTP Basic (RFC 7617); the user where there is none, as in http://KEY@host. Empty: it cannot be read."""
    try:
        user, colon, password = base64.b64decode(credentials, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return b""
    return (password or user) if colon else b""


def _challenge(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """Basic is offered to programs alone: a browser would ask for a password, and send it on behalf of any page."""
    offered = f'Bearer realm="{_REALM}"'
    return offered if "sec-fetch-mode" in connection.headers else f'{offered}, Basic realm="{_REALM}", charset="UTF-8"'
