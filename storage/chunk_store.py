"""A job's chunks in Redis: what is announced, who holds it, what is done.

One worker cuts the recording and announces chunks while it reads; any worker does a chunk; whoever finishes the last
one assembles. Each of them holds a lease and a token, and what it writes after losing them is refused.
"""

import secrets
from typing import Any

import msgspec
import redis

from storage import chunk_scripts
from storage.errors import JobConflict, JobFenced, JobMissing, JobSuspect
from storage.job import Job
from storage.job_record import change_keys, job_keys
from storage.job_store import JobStore
from storage.redis_client import JOBS_DATABASE, connect, redis_errors
from storage.risk import ALONE, Risk, risk_args
from storage.settings import StorageSettings
from storage.structs import decode


class Chunk(msgspec.Struct, frozen=True):
    """A stretch of a recording, cut at silence. Times are seconds from the recording's start."""

    #: Counts from 0 in the order of time (with separate channels: of all channels together).
    number: int
    start: float
    end: float
    #: Seconds of the recording that are done with it: from the end of the chunk before, a channel's part of them.
    share: float
    #: Counts from 0; None: the channels were mixed.
    channel: int | None = None


class ChunkClaim(msgspec.Struct, frozen=True):
    """A worker's hold on a chunk."""

    job: Job
    chunk: Chunk
    token: str


class ChunkStore:
    """Raises QueueUnavailable from every method when Redis does not answer."""

    def __init__(self, client: redis.Redis, jobs: JobStore, retention_seconds: int) -> None:
        self._redis: Any = client
        self._jobs = jobs
        self._retention_seconds = retention_seconds
        self._announce = client.register_script(chunk_scripts.ANNOUNCE)
        self._finish_cut = client.register_script(chunk_scripts.FINISH_CUT)
        self._claim = client.register_script(chunk_scripts.CLAIM_CHUNK)
        self._beat = client.register_script(chunk_scripts.BEAT_CHUNK)
        self._finish = client.register_script(chunk_scripts.FINISH_CHUNK)
        self._release = client.register_script(chunk_scripts.RELEASE_CHUNK)
        self._fail = client.register_script(chunk_scripts.FAIL_CHUNK)
        self._expire = client.register_script(chunk_scripts.EXPIRE_CHUNK)
        self._stranded = client.register_script(chunk_scripts.STRANDED)

    @classmethod
    def connect(cls, settings: StorageSettings, jobs: JobStore) -> "ChunkStore":
        return cls(connect(settings, JOBS_DATABASE), jobs, settings.retention_seconds)

    # Who cuts

    @redis_errors()
    def announce(self, job_id: str, token: str, chunk: Chunk, parallel: int, **facts: str) -> list[int]:
        """The chunk's object is stored: it may be done. Returns the chunks to send now, as many as `parallel` allows.

        Announcing twice is harmless. `facts` become fields of the record.

        Raises:
            JobFenced: the job was cancelled, deleted or taken over.
        """
        text = msgspec.json.encode(chunk).decode()
        reply = self._announce(keys=change_keys(job_id), args=[token, chunk.number, text, parallel, *_flat(facts)])
        return [int(number) for number in _owned(job_id, reply)]

    @redis_errors()
    def finish_cut(self, job_id: str, token: str, **facts: str) -> bool:
        """Every chunk is announced. True: they are all done already, and the caller assembles."""
        reply = self._finish_cut(keys=change_keys(job_id), args=[token, *_flat(facts)])
        return _owned(job_id, reply) == ["all"]

    # Who does a chunk

    @redis_errors()
    def claim(
        self, job_id: str, number: int, lease_seconds: float, max_attempts: int, risk: Risk | None = ALONE
    ) -> ChunkClaim:
        """Own a chunk that nobody holds. What happened to who held it before counts as risk.py says.

        Raises:
            JobConflict: it is done, another worker holds it, the job is not in work, or as many workers died of the
                chunk as may, which fails the job.
            JobSuspect: it must be claimed by a worker that has nothing else in hand.
        """
        token = secrets.token_hex(8)
        args: list[str | float] = [number, token, lease_seconds, max_attempts, self._retention_seconds]
        reply: list[str] = self._claim(keys=job_keys(job_id), args=[*args, *risk_args(risk)])
        if reply[0] == "missing":
            raise JobMissing(f"there is no job {job_id!r}")
        if reply[0] == "suspect":
            raise JobSuspect(f"chunk {number} of job {job_id} is to be done alone")
        if reply[0] != "ok":
            raise JobConflict(f"chunk {number} cannot be taken: {reply[0]}, its job is {reply[1]}")
        return ChunkClaim(self._jobs.get(job_id), decode(reply[2], Chunk), token)

    @redis_errors()
    def beat(self, claim: ChunkClaim, lease_seconds: float) -> None:
        """Renew the lease. Raises JobFenced: the job was cancelled or deleted, or the chunk taken over."""
        args: list[str | float] = [claim.chunk.number, claim.token, lease_seconds]
        _owned(claim.job.job_id, self._beat(keys=job_keys(claim.job.job_id), args=args))

    @redis_errors()
    def finish(self, claim: ChunkClaim, parallel: int) -> tuple[bool, list[int]]:
        """The chunk's result is stored. Returns whether it was the last one, and the chunks to send now."""
        reply = self._finish(
            keys=change_keys(claim.job.job_id), args=[claim.chunk.number, claim.token, claim.chunk.share, parallel]
        )
        last, *numbers = _owned(claim.job.job_id, reply)
        return last == "all", [int(number) for number in numbers]

    @redis_errors()
    def fail(self, claim: ChunkClaim, code: str, message: str) -> None:
        """The chunk cannot be done: its job has failed."""
        args: list[str | int] = [claim.chunk.number, claim.token, code, message, self._retention_seconds]
        _owned(claim.job.job_id, self._fail(keys=change_keys(claim.job.job_id), args=args))

    @redis_errors()
    def release(self, claim: ChunkClaim) -> None:
        """Hand a chunk back unfinished; the attempt does not count."""
        args: list[str | int] = [claim.chunk.number, claim.token]
        _owned(claim.job.job_id, self._release(keys=change_keys(claim.job.job_id), args=args))

    # Everybody

    @redis_errors()
    def chunks(self, job_id: str) -> list[Chunk]:
        """What is announced, by number."""
        texts = self._redis.hvals(f"bs:chunks:{job_id}")
        return sorted((decode(text, Chunk) for text in texts), key=lambda chunk: chunk.number)

    @redis_errors()
    def done(self, job_id: str) -> set[int]:
        """Numbers of the chunks whose results are stored."""
        return {int(number) for number in self._redis.smembers(f"bs:done:{job_id}")}

    @redis_errors()
    def forget(self, job_id: str) -> None:
        """The job is completed: its chunks are of no more use."""
        self._redis.delete(*job_keys(job_id)[2:])

    # What the janitor asks

    @redis_errors()
    def expire_lease(self, job_id: str, number: int) -> bool:
        """Free a chunk whose lease ran out for another worker; False: it moved on in the meantime."""
        reply: list[str] = self._expire(keys=change_keys(job_id), args=[number])
        if reply[0] == "missing":
            self._redis.zrem("bs:leases", f"{job_id}/{number}")
        return reply[0] == "ok"

    @redis_errors()
    def stranded(self, job_id: str) -> tuple[bool, list[int]]:
        """Whether a worker has the job or one of its chunks, and the chunks sent that are neither done nor held."""
        reply: list[str] = self._stranded(keys=job_keys(job_id))
        if reply[0] != "ok":
            return True, []
        return reply[2] == "held", [int(number) for number in reply[3:]]


def _flat(facts: dict[str, str]) -> list[str]:
    return [part for item in facts.items() for part in item]


def _owned(job_id: str, reply: list[str]) -> list[str]:
    """What follows `ok` and the status in a script's answer."""
    outcome, *rest = reply
    if outcome != "ok":
        raise JobFenced(f"job {job_id} is {rest[0] if rest else 'deleted'} and not this worker's")
    return rest[1:]
