"""API keys: who may call, and whose a job is. Where no keys are set, everyone may and every job is owned by ""."""

import hashlib
import hmac
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from service.errors import ApiError


class RequireKey:
    """A guard, so it runs before the body is read. It leaves the owner in the connection's state."""

    def __init__(self, api_keys: str) -> None:
        keys = [key.strip().encode() for key in api_keys.split(",") if key.strip()]
        #: Owner and key; the owner is a digest, so that the key itself is nowhere in Redis or a log.
        self._keys = [(hashlib.sha256(key).hexdigest()[:16], key) for key in keys]

    async def __call__(self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        connection.state.owner = self._owner(connection) if self._keys else ""

    def _owner(self, connection: ASGIConnection[Any, Any, Any, Any]) -> str:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key", "")
        # Every key is compared, so that the time taken tells nothing.
        matches = [owner for owner, key in self._keys if hmac.compare_digest(key, given.encode())]
        if not matches:
            detail = "this API key is not known" if given else "send a key as `Authorization: Bearer` or `X-API-Key`"
            raise ApiError("unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="bucketscribe"'})
        return matches[0]
