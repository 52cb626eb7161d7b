"""Requests that carry an Idempotency-Key: the same key makes one job, however often and by how many at once it is sent.

JobStore.create notes the key in the very step that makes the record, so that two requests cannot both make one. A key
is remembered for a day, or until its job is deleted. In Redis, database 1:

    bs:once:{owner}:{digest of the key}   hash: `job_id`, and the `fingerprint` of the request that made the job
"""

import hashlib
from typing import Any

import msgspec
import redis

from storage.errors import IdempotencyConflict
from storage.redis_client import JOBS_DATABASE, connect, redis_errors
from storage.settings import StorageSettings


class Once(msgspec.Struct, frozen=True):
    """A request that is to make one job."""

    #: In Redis. It derives from the client's, which may hold anything.
    key: str
    #: Digest of what was asked for.
    fingerprint: str


def once(owner: str, key: str, asked: bytes) -> Once:
    """`key` is as the client sent it; `asked` is what makes two requests the same."""
    known_by = hashlib.sha256(key.encode()).hexdigest()
    return Once(f"bs:once:{owner}:{known_by}", hashlib.sha256(asked).hexdigest())


class Requests:
    """The requests of the last day. Raises QueueUnavailable when Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        # As in JobStore: this client decodes, so that every answer is text.
        self._redis: Any = client

    @classmethod
    def connect(cls, settings: StorageSettings) -> "Requests":
        return cls(connect(settings, JOBS_DATABASE))

    @redis_errors()
    def made(self, once: Once) -> str | None:
        """Id of the job that the request has made already, None: it has made none, or none that is still there.

        Raises:
            IdempotencyConflict: another request has used the key.
        """
        made: dict[str, str] = self._redis.hgetall(once.key)
        if not made or not self._redis.exists(f"bs:job:{made['job_id']}"):
            return None
        if made["fingerprint"] != once.fingerprint:
            raise IdempotencyConflict("the Idempotency-Key was used for another request, which made another job")
        return made["job_id"]
