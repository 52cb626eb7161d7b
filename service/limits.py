"""How often one client may call: counted in Redis, so across processes, and told in RateLimit-* headers.

Wrong keys are counted by address in the memory of each process, without Redis.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard, Message, Scope

from service.clients import address_of, client_of
from service.errors import ApiError
from storage.errors import QueueReadOnly
from storage.rate_limit import Allowance, LocalRateLimit, RateLimit

#: A request without any of these is not counted as a guess.
_KEY_HEADERS = ("authorization", "x-api-key", "api-key")
#: Limit of remembered pairs of address and key.
_MOST_KNOWN = 10_000

#: Methods allowed uncounted while Redis takes no writes: reads, and deletes, which make room.
_WITHOUT_ROOM = frozenset({"GET", "HEAD", "DELETE"})

RATE_HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")


def limit_rate(rate_limit: RateLimit) -> Guard:
    """A guard that runs after require_key's: the key's owner is counted, or the address where no keys are set."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        try:
            allowance = await rate_limit.hit(client_of(connection))
        except QueueReadOnly:
            if connection.scope.get("method") not in _WITHOUT_ROOM:
                raise
            return
        connection.state.allowance = allowance
        if not allowance.granted:
            raise ApiError(
                "rate_limited",
                f"{allowance.limit} requests in {allowance.window_seconds} s are allowed",
                headers={"Retry-After": str(allowance.reset_seconds)},
            )

    return guard


def limit_wrong_keys(require_key: Guard, wrong_keys: LocalRateLimit) -> Guard:
    """A guard as `require_key` that refuses all keys from an address after too many wrong ones.

    Keys that were accepted from that address before still work, so that one client behind a proxy cannot lock out
    the others.
    """
    known: set[tuple[str, str]] = set()

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        address = address_of(connection)
        wait_seconds = await wrong_keys.wait_seconds(address)
        try:
            if (checking := require_key(connection, handler)) is not None:
                await checking
        except ApiError as error:
            if error.code != "unauthorized" or not any(map(connection.headers.get, _KEY_HEADERS)):
                raise
            if not wait_seconds:
                await wrong_keys.hit(address)
                raise
        else:
            client = (address, connection.state.get("owner", ""))
            if not wait_seconds and len(known) < _MOST_KNOWN:
                known.add(client)
            if not wait_seconds or client in known:
                return
        raise ApiError(
            "rate_limited",
            f"too many wrong API keys from this address; the limit is {wrong_keys.rate}",
            headers={"Retry-After": str(wait_seconds)},
        )

    return guard


async def tell_rate(message: Message, scope: Scope) -> None:
    """A before_send hook: the headers go on every counted answer, errors too."""
    allowance: Allowance | None = scope.get("state", {}).get("allowance")
    if allowance is not None and message["type"] == "http.response.start":
        headers = MutableScopeHeaders(message)
        values = (allowance.limit, allowance.remaining, allowance.reset_seconds)
        for name, value in zip(RATE_HEADERS, values, strict=True):
            headers[name] = str(value)
