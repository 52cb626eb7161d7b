"""The identity of a client for limits, and slots that one client cannot all take."""

import asyncio
import ipaddress
from collections import Counter
from typing import Any

from litestar.connection import ASGIConnection

from service.errors import ApiError


def client_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The API key's owner, or the address where no keys are set. Call it after require_key's guard."""
    return connection.state.owner or address_of(connection)


def address_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """The client's address; of IPv6 its network, since one host has 2**64 addresses."""
    # Behind trusted proxies uvicorn has put the client's own address here.
    host = connection.client.host if connection.client else "unknown"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else host


def share_of(most: int, wanted: int) -> int:
    """Slots of `most` that one client may take: `wanted`, 0 for half; never all of several."""
    return max(1, min(wanted or most // 2, most - 1))


class Places:
    """A limited number of slots, and a limit for each client."""

    def __init__(self, most: int, share: int, what: str, *, codes: tuple[str, str]) -> None:
        """`codes`: of the error where all are taken, and where one client's share is."""
        #: Slots that are not taken.
        self.free = most
        self._most, self._share, self._what, self._codes = most, share, what, codes
        self._taken: Counter[str] = Counter()
        #: Set when a slot is freed; replaced by a new event each time.
        self._left = asyncio.Event()

    def take(self, client: str) -> None:
        """
        Raises:
            ApiError: one of the two codes.
        """
        if self.free == 0:
            raise ApiError(self._codes[0], f"{self._most} {self._what} are open, which is the limit")
        if self._taken[client] >= self._share:
            raise ApiError(self._codes[1], f"this client has {self._share} {self._what} open, which is its limit")
        self.free -= 1
        self._taken[client] += 1

    async def take_soon(self, client: str, seconds: float) -> None:
        """As `take`, but a client at its limit waits up to `seconds` for one of its own slots."""
        try:
            async with asyncio.timeout(seconds):
                while self.free and self._taken[client] >= self._share:
                    await self._left.wait()
        except TimeoutError:
            pass
        self.take(client)

    def leave(self, client: str) -> None:
        self.free += 1
        self._taken[client] -= 1
        if self._taken[client] == 0:
            del self._taken[client]
        self._left.set()
        self._left = asyncio.Event()
