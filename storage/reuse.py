"""Which finished jobs hold what a recording says: the same owner, the same bytes, the same wishes.

In Redis, database 1:

bs:same:{owner}:{digest of bytes and options}   list: ids of finished jobs, the newest first
"""

import hashlib
from typing import Any

import msgspec
import redis

from storage.job import Job
from storage.redis_client import JOBS_DATABASE, connect, redis_errors
from storage.settings import StorageSettings

#: Options that do not change what is stored.
_NOT_IN_RESULT = {"response_format", "priority", "webhook_url"}
#: Of jobs about one recording so many are remembered: when one is deleted, another may still be there.
_KEPT = 8
#: How long they are remembered where jobs are kept for ever, in seconds.
_LONGEST = 365 * 86_400


class FinishedJobs:
    """Raises QueueUnavailable when Redis does not answer."""

    def __init__(self, client: redis.Redis, kept_seconds: int) -> None:
        # As in JobStore: this client decodes, so that every answer is text.
        self._redis: Any = client
        self._kept_seconds = kept_seconds

    @classmethod
    def connect(cls, settings: StorageSettings) -> "FinishedJobs":
        return cls(connect(settings, JOBS_DATABASE), settings.retention_seconds or _LONGEST)

    @redis_errors()
    def like(self, job: Job) -> list[str]:
        """Ids of jobs that were completed, are the same owner's and have the same result. They may be gone."""
        return list(self._redis.lrange(_key(job), 0, -1))

    @redis_errors()
    def add(self, job: Job) -> None:
        """The job is completed."""
        key = _key(job)
        with self._redis.pipeline(transaction=True) as steps:
            steps.lrem(key, 0, job.job_id)
            steps.lpush(key, job.job_id)
            steps.ltrim(key, 0, _KEPT - 1)
            steps.expire(key, self._kept_seconds)
            steps.execute()


def _key(job: Job) -> str:
    options = {name: value for name, value in msgspec.structs.asdict(job.options).items() if name not in _NOT_IN_RESULT}
    facts = msgspec.json.encode([job.source.digest, job.source.size, options], order="sorted")
    return f"bs:same:{job.owner}:{hashlib.sha256(facts).hexdigest()}"
