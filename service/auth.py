"""API keys: who may call, and whose a job is. Where no keys are set, everyone may and every job is owned by ""."""

import hashlib
import hmac
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from service.errors import ApiError
from storage.settings import SettingsError


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
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key", "")
    # Every key is compared, so that the time taken tells nothing.
    matches = [owner for owner, key in owners if hmac.compare_digest(key, given.encode())]
    if not matches:
        detail = "this API key is not known" if given else "send a key as `Authorization: Bearer` or `X-API-Key`"
        raise ApiError("unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="bucketscribe"'})
    return matches[0]
