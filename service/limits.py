"""How often one client may call: counted in Redis, so across processes, and told in RateLimit-* headers."""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard, Message, Scope

from service.errors import ApiError
from storage.rate_limit import Allowance, RateLimit

RATE_HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")


def limit_rate(rate_limit: RateLimit) -> Guard:
    """A guard that runs after require_key's: the key's owner is counted, or the address where no keys are set."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        # Behind trusted proxies uvicorn has put the client's own address here.
        identity = connection.state.owner or (connection.client.host if connection.client else "unknown")
        allowance = await rate_limit.hit(identity)
        connection.state.allowance = allowance
        if not allowance.granted:
            raise ApiError(
                "rate_limited",
                f"{allowance.limit} requests in {allowance.window_seconds} s are allowed",
                headers={"Retry-After": str(allowance.reset_seconds)},
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
