"""Requests counted in Redis, so across processes: a sliding window, one atomic script a request.

What each process counts for itself is in its memory.
"""

import math
import time
from typing import Any

import limits
import msgspec
import redis.asyncio
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

from storage.redis_client import JOBS_DATABASE, connect_async, redis_errors
from storage.settings import SettingsError, StorageSettings


class Allowance(msgspec.Struct, frozen=True):
    granted: bool
    #: Requests in a window.
    limit: int
    #: Requests left.
    remaining: int
    #: Until there is more.
    reset_seconds: int
    window_seconds: int


def read_rate(text: str) -> limits.RateLimitItem:
    """A number and a time, as `600/minute` or `10 per 5 seconds`.

    Raises:
        SettingsError: the rate cannot be read, or allows nothing.
    """
    try:
        rate = limits.parse(text)
    except ValueError as error:
        raise SettingsError(f"RATE_LIMIT: {text!r} is not a rate as `600/minute`") from error
    if rate.amount < 1 or rate.multiples < 1:
        raise SettingsError(f"RATE_LIMIT: {text!r} allows nothing; leave it empty for no limit")
    return rate


class RateLimit:
    def __init__(self, client: "redis.asyncio.Redis", rate: limits.RateLimitItem) -> None:
        options: Any = {"connection_pool": client.connection_pool}
        storage = RedisStorage("async+redis://", implementation="redispy", key_prefix="bs:rate", **options)
        self._client = client
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._rate = rate

    @classmethod
    def connect(cls, settings: StorageSettings, rate: str) -> "RateLimit":
        """No I/O. Raises SettingsError: the rate cannot be read."""
        return cls(connect_async(settings, JOBS_DATABASE), read_rate(rate))

    async def hit(self, identity: str) -> Allowance:
        """Count one request of `identity`. Raises QueueUnavailable when Redis does not answer."""
        with redis_errors():
            granted = await self._limiter.hit(self._rate, identity)
            window = await self._limiter.get_window_stats(self._rate, identity)
        return Allowance(
            granted=granted,
            limit=self._rate.amount,
            remaining=max(0, window.remaining),
            reset_seconds=max(1, math.ceil(window.reset_time - time.time())),
            window_seconds=self._rate.get_expiry(),
        )

    async def close(self) -> None:
        await self._client.aclose()


class LocalRateLimit:
    """Counts in this process alone, in a window that begins with the first hit."""

    def __init__(self, rate: str) -> None:
        """Raises SettingsError: the rate cannot be read."""
        self.rate = rate
        self._rate = read_rate(rate)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    async def hit(self, identity: str) -> None:
        await self._limiter.hit(self._rate, identity)

    async def wait_seconds(self, identity: str) -> int:
        """Until `identity` may go on; 0: it may now."""
        if await self._limiter.test(self._rate, identity):
            return 0
        window = await self._limiter.get_window_stats(self._rate, identity)
        return max(1, math.ceil(window.reset_time - time.time()))
