"""What happens to a job, for those who wait: no thread is held, one Redis connection a waiter."""

import asyncio
from typing import Any

import redis

from storage.job import FINAL
from storage.redis_client import JOBS_DATABASE, connect_async, redis_errors
from storage.settings import StorageSettings


class JobEvents:
    """Reads the stream that JobStore's scripts write. Raises QueueUnavailable when Redis does not answer."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        # As in JobStore: this client decodes, so that every answer is text.
        self._redis: Any = client

    @classmethod
    def connect(cls, settings: StorageSettings) -> "JobEvents":
        return cls(connect_async(settings, JOBS_DATABASE))

    async def wait_final(self, job_id: str, timeout_seconds: float) -> bool:
        """True: the job is completed, failed, cancelled or gone. False: the time ran out, the job goes on."""
        ends = asyncio.get_running_loop().time() + timeout_seconds
        key, position = f"bs:events:{job_id}", "0"
        with redis_errors():
            while (left := ends - asyncio.get_running_loop().time()) > 0:
                answer = await self._redis.xread({key: position}, count=1000, block=max(1, round(min(left, 5) * 1000)))
                events = answer[0][1] if answer else []
                if any(fields["type"] in FINAL for _, fields in events):
                    return True
                position = events[-1][0] if events else position
                if not answer and not await self._redis.exists(key):
                    return True
        return False

    async def close(self) -> None:
        await self._redis.aclose()
