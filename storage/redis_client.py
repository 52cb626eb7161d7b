"""Redis connections with time-outs and retries, and its errors by our names."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from storage.errors import QueueReadOnly, QueueUnavailable
from storage.settings import StorageSettings

#: Databases: the queue's own, so that Dramatiq's maintenance does not walk over the jobs.
QUEUE_DATABASE, JOBS_DATABASE = 0, 1

#: Three quick tries bridge a dropped connection; a longer outage is the caller's to answer. A Redis that hangs is asked
#: once: each try would take the whole time-out, and when it wakes up it does all of them.
_BACKOFF = ExponentialBackoff(cap=1.0, base=0.05)
_TRIES = 3
_DROPPED = (redis.ConnectionError,)
_CONNECTION: dict[str, Any] = {"socket_connect_timeout": 2, "socket_timeout": 10, "health_check_interval": 30}


def connect(settings: StorageSettings, database: int, *, decode: bool = True) -> redis.Redis:
    """A thread-safe client; it connects when first used."""
    retry = Retry(_BACKOFF, _TRIES, _DROPPED)
    return redis.Redis.from_url(settings.redis_url, db=database, retry=retry, decode_responses=decode, **_CONNECTION)


def connect_async(settings: StorageSettings, database: int) -> "redis.asyncio.Redis":
    retry = AsyncRetry(_BACKOFF, _TRIES, _DROPPED)
    return redis.asyncio.Redis.from_url(
        settings.redis_url, db=database, retry=retry, decode_responses=True, **_CONNECTION
    )


@contextmanager
def redis_errors() -> Iterator[None]:
    """Raise QueueUnavailable where Redis is away or restarting, QueueReadOnly where it is full."""
    try:
        yield
    except redis.RedisError as error:
        if reason := _why_read_only(error):
            raise QueueReadOnly(f"Redis takes no writes: {reason}") from error
        raise QueueUnavailable(f"Redis does not answer: {error}") from error


#: Beginnings of the errors with which Redis refuses writes alone, and what they say.
_READ_ONLY = {
    "OOM": "its memory is full",
    "MISCONF": "it cannot save to its disk",
    "READONLY": "it is a replica",
    "NOREPLICAS": "it has too few replicas",
}


def _why_read_only(error: redis.RedisError) -> str | None:
    """None: the error says something else."""
    # redis-py takes the beginning away where it has a class for it.
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return _READ_ONLY["OOM"]
    if isinstance(error, redis.exceptions.ReadOnlyError):
        return _READ_ONLY["READONLY"]
    return _READ_ONLY.get(str(error).partition(" ")[0])
