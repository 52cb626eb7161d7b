"""Jobs in Redis: the only writer of a status.

Every change is one Lua script (job_scripts.py): it checks the status before and, where a worker writes, its token, and
keeps the indexes in step. So a cancel and a finish cannot both win, and a worker that lost its lease changes nothing.
"""

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
import redis

from storage import job_scripts
from storage.errors import (
    ClientJobsExceeded,
    JobConflict,
    JobFenced,
    JobMissing,
    JobSuspect,
    TooManyJobs,
    quoted,
)
from storage.idempotency import Once
from storage.job import FINAL, FOLLOWS, Job, JobStatus, Source
from storage.job_record import change_keys, dumps, events_key, from_hash, job_key, job_keys, to_hash
from storage.redis_client import JOBS_DATABASE, connect, redis_errors
from storage.risk import ALONE, Risk, risk_args
from storage.settings import StorageSettings
from storage.structs import decode
from storage.transcript import Segment

#: What a byte is taken to cost before anything was measured: 16 kB of audio a second, done at ten times its speed.
_SECONDS_A_BYTE = 1 / 160_000


class Claim(msgspec.Struct, frozen=True):
    """A worker's hold on a job: every write of its must show the token."""

    job: Job
    token: str


class JobPage(msgspec.Struct, frozen=True):
    jobs: list[Job]
    #: Jobs on all pages.
    total: int
    #: Where the next page begins; None on the last one.
    next_cursor: str | None


class WaitingLimit(msgspec.Struct, frozen=True):
    """How many jobs may wait for their upload or for a worker."""

    #: Whose job it is, as limits see it: a key's owner, an address, or the inbox.
    client: str
    #: Of the client.
    share: int
    #: In all.
    most: int


class WorkerState(msgspec.Struct, frozen=True):
    """What a worker says of itself."""

    worker_id: str
    device: str
    compute_type: str
    #: Names of the loaded models.
    models: list[str]
    threads: int
    #: Seconds since the epoch, by Redis's clock.
    seen_at: float = 0.0


class JobStore:
    """Raises QueueUnavailable from every method when Redis does not answer."""

    def __init__(self, client: redis.Redis, retention_seconds: int) -> None:
        # redis-py types every answer as text or bytes; this client decodes, so all of them are text.
        self._redis: Any = client
        self._retention_seconds = retention_seconds
        self._create = client.register_script(job_scripts.CREATE)
        self._transition = client.register_script(job_scripts.TRANSITION)
        self._claim = client.register_script(job_scripts.CLAIM)
        self._beat = client.register_script(job_scripts.BEAT)
        self._tell = client.register_script(job_scripts.TELL)
        self._release = client.register_script(job_scripts.RELEASE)
        self._fetched = client.register_script(job_scripts.FETCHED)
        self._expire_lease = client.register_script(job_scripts.EXPIRE_LEASE)
        self._delete = client.register_script(job_scripts.DELETE)
        self._record_work = client.register_script(job_scripts.RECORD_WORK)

    @classmethod
    def connect(cls, settings: StorageSettings) -> "JobStore":
        return cls(connect(settings, JOBS_DATABASE), settings.retention_seconds)

    @redis_errors()
    def check(self) -> None:
        self._redis.ping()

    @redis_errors()
    def check_writes(self) -> None:
        """Raises QueueReadOnly: Redis answers, but takes nothing new."""
        self._redis.set("bs:check", "1", ex=60)

    # The record

    @redis_errors()
    def create(self, job: Job, once: Once | None = None, limit: WaitingLimit | None = None) -> bool:
        """Store a job and index it; all or nothing. With a `limit`, the job is pending or awaits its upload.

        False: there is one, it was deleted not long ago, or the request `once` has made another.

        Raises:
            TooManyJobs, ClientJobsExceeded: the limit is reached.
        """
        expires = "" if job.expires_at is None else job.expires_at
        fields = [part for item in to_hash(job).items() for part in item]
        limits = (limit.client, limit.share, limit.most) if limit else ("", "", "")
        made = self._create(
            keys=[*job_keys(job.job_id), *([once.key] if once else [])],
            args=[
                *(job.job_id, job.owner, str(job.status), job.created_at, expires),
                *(once.fingerprint if once else "", *limits, *fields),
            ],
        )
        if limit and made == -1:
            raise TooManyJobs(f"{limit.most} jobs wait, which is the limit")
        if limit and made == -2:
            raise ClientJobsExceeded(f"{limit.share} jobs of this client wait, which is its limit")
        return bool(made)

    @redis_errors()
    def get(self, job_id: str, owner: str | None = None) -> Job:
        """Raises JobMissing: there is no such job, or it is not this owner's."""
        record = self._redis.hgetall(job_key(job_id))
        if not record or (owner is not None and record["owner"] != owner):
            raise JobMissing(f"there is no job {quoted(job_id)}")
        return from_hash(record)

    @redis_errors()
    def list_jobs(
        self, owner: str, status: JobStatus | None = None, limit: int = 50, cursor: str | None = None
    ) -> JobPage:
        """Jobs of one owner, newest first. `cursor` is the last id of the page before."""
        index = f"bs:jobs:{owner}:{status}" if status else f"bs:jobs:{owner}"
        ids = self._redis.zrange(
            index, f"({cursor}" if cursor else "+", "-", desc=True, bylex=True, offset=0, num=limit + 1
        )
        with self._redis.pipeline(transaction=False) as steps:
            for job_id in ids[:limit]:
                steps.hgetall(job_key(job_id))
            steps.zcard(index)
            *records, total = steps.execute()
        return JobPage(
            jobs=[from_hash(record) for record in records if record],
            total=total,
            next_cursor=ids[limit - 1] if len(ids) > limit else None,
        )

    def start(self, job_id: str, source: Source | None = None) -> Job:
        """The upload is whole: the job waits for a worker. `source`: with what is known of it by now."""
        facts = {"source": dumps(source)} if source is not None else {}
        self._change(job_id, JobStatus.PENDING, only=JobStatus.AWAITING_UPLOAD, **facts)
        return self.get(job_id)

    def cancel(self, job_id: str) -> Job:
        """Raises JobConflict: the job is final already."""
        self._change(job_id, JobStatus.CANCELLED)
        return self.get(job_id)

    def fail(self, job_id: str, code: str, message: str, token: str = "") -> Job:
        """With a token, only the worker that owns the job may say so."""
        self._change(job_id, JobStatus.FAILED, token=token, error_code=code, error=message)
        return self.get(job_id)

    @redis_errors()
    def delete(self, job_id: str) -> None:
        """Remove the record. Its objects are to be removed before: the record is what names them."""
        self._delete(keys=job_keys(job_id))

    # A worker's hold

    @redis_errors()
    def claim(
        self, job_id: str, worker: str, lease_seconds: float, max_attempts: int, risk: Risk | None = ALONE
    ) -> Claim:
        """Own a job that waits, or whose worker's lease ran out. What happened to that worker counts as risk.py says.

        Raises:
            JobConflict: another worker holds it, it is final, or as many workers died of it as may, which fails it.
            JobSuspect: it must be claimed by a worker that has nothing else in hand.
        """
        token = secrets.token_hex(8)
        args: list[str | float] = [token, worker, lease_seconds, max_attempts, self._retention_seconds]
        outcome, status = _answer(self._claim(keys=job_keys(job_id), args=[*args, *risk_args(risk)]))
        if outcome == "ok":
            return Claim(self.get(job_id), token)
        if outcome == "missing":
            raise JobMissing(f"there is no job {job_id!r}")
        if outcome == "suspect":
            raise JobSuspect(f"job {job_id} is to be done alone")
        if outcome == "exhausted":
            raise JobConflict(f"job {job_id} killed its workers {max_attempts} times and has failed")
        raise JobConflict(f"job {job_id} is {status}")

    @redis_errors()
    def beat(self, job_id: str, token: str, progress: float, lease_seconds: float) -> None:
        """Renew the lease and tell the progress, 0 to 100; it never goes back.

        Raises:
            JobFenced: the job was cancelled, deleted or taken over: whoever beats must stop.
        """
        outcome, status = _answer(self._beat(keys=job_keys(job_id), args=[token, lease_seconds, round(progress, 1)]))
        if outcome != "ok":
            raise JobFenced(f"job {job_id} is {status or 'deleted'} and not this worker's")

    @redis_errors()
    def tell(self, claim: Claim, number: int, segments: Sequence[Segment], language: str, probability: float) -> None:
        """Put what is found of a recording without chunks among its events: `segments`, the first of them `number`.

        Telling twice is harmless: a number that was told stays as it was.

        Raises:
            JobFenced: the job was cancelled, deleted or taken over.
        """
        job_id = claim.job.job_id
        args: list[str | float] = [claim.token, number, language, probability, *map(dumps, segments)]
        outcome, status = _answer(self._tell(keys=job_keys(job_id), args=args))
        if outcome != "ok":
            raise JobFenced(f"job {job_id} is {status or 'deleted'} and not this worker's")

    @redis_errors()
    def told(self, job_id: str) -> list[Segment]:
        """What workers told of a recording without chunks that is not completed."""
        entries = self._redis.xrange(events_key(job_id))
        texts = [fields["segment"] for _, fields in entries if fields["type"] == "segment"]
        return [decode(text, Segment) for text in texts]

    def complete(
        self, job_id: str, token: str, files: dict[str, int], duration: float, warnings: Sequence[str] = ()
    ) -> None:
        """The commit point: the results are stored. Raises JobFenced when the job is not this worker's any more."""
        sizes, sentences, length = dumps(files), dumps(warnings), str(duration)
        self._change(
            job_id, JobStatus.COMPLETED, token=token, files=sizes, duration=length, warnings=sentences, progress="100"
        )

    @redis_errors()
    def release(self, job_id: str, token: str) -> None:
        """Hand a job back unfinished. The attempt does not count: the recording was not to blame."""
        outcome, status = _answer(self._release(keys=change_keys(job_id), args=[token]))
        if outcome != "ok":
            raise JobFenced(f"job {job_id} is {status or 'deleted'} and not this worker's")

    @redis_errors()
    def fetched(self, job_id: str, token: str, source: Source) -> Job:
        """The recording of a url is in the store and noted: whoever held the job hands it on to be transcribed."""
        outcome, status = _answer(self._fetched(keys=change_keys(job_id), args=[token, dumps(source)]))
        if outcome != "ok":
            raise JobFenced(f"job {job_id} is {status or 'deleted'} and not this worker's")
        return self.get(job_id)

    # What the janitor asks

    @redis_errors()
    def expired_leases(self, limit: int = 100) -> list[str]:
        """Ids of jobs, and `{id}/{number}` of chunks, whose workers went silent."""
        return self._before("bs:leases", self._now(), limit)

    @redis_errors()
    def expire_lease(self, job_id: str) -> bool:
        """Free a job whose lease ran out for another worker; False: it moved on in the meantime."""
        outcome, _ = _answer(self._expire_lease(keys=change_keys(job_id)))
        if outcome == "missing":
            self._redis.zrem("bs:leases", job_id)
        return outcome == "ok"

    @redis_errors()
    def expired(self, limit: int = 100) -> list[str]:
        """Jobs to be removed: kept long enough, or uploads never started."""
        return self._before("bs:expiring", self._now(), limit)

    @redis_errors()
    def pending_longer_than(self, seconds: float, limit: int = 10_000) -> list[str]:
        return self._before("bs:status:pending", self._now() - seconds, limit)

    @redis_errors()
    def processing_longer_than(self, seconds: float, limit: int = 10_000) -> list[str]:
        return self._before("bs:status:processing", self._now() - seconds, limit)

    @redis_errors()
    def deleted(self, seconds: float, limit: int = 1000) -> list[str]:
        """Ids deleted longer ago than this, and not forgotten since."""
        return self._before("bs:deleted", self._now() - seconds, limit)

    @redis_errors()
    def forget_deleted(self, job_id: str) -> None:
        self._redis.zrem("bs:deleted", job_id)

    @redis_errors()
    def redis_up_seconds(self) -> int:
        """Since Redis was started. While it was not up, nobody could renew a lease."""
        return int(self._redis.info("server")["uptime_in_seconds"])

    @redis_errors()
    def due(self, name: str, seconds: float) -> bool:
        """True for the first of all processes that asks within this time: it is the one to do it."""
        return bool(self._redis.set(f"bs:due:{name}", 1, nx=True, px=round(seconds * 1000)))

    # Workers and their speed

    @redis_errors()
    def announce_worker(self, state: WorkerState) -> None:
        self._redis.hset("bs:workers", state.worker_id, dumps(msgspec.structs.replace(state, seen_at=self._now())))

    @redis_errors()
    def withdraw_worker(self, worker_id: str) -> None:
        self._redis.hdel("bs:workers", worker_id)

    @redis_errors()
    def workers(self, max_age_seconds: float = 20) -> list[WorkerState]:
        """Workers that gave a sign of life lately; those silent for an hour are forgotten."""
        now = self._now()
        states = [decode(text, WorkerState) for text in self._redis.hvals("bs:workers")]
        for state in states:
            if state.seen_at < now - 3600:
                self._redis.hdel("bs:workers", state.worker_id)
        return [state for state in states if state.seen_at >= now - max_age_seconds]

    @redis_errors()
    def record_work(self, size: int, seconds: float) -> None:
        """A recording of `size` bytes took `seconds` of a worker."""
        self._record_work(keys=["bs:work"], args=[size, seconds])

    @redis_errors()
    def estimate_seconds(self, size: int) -> float:
        """How long until a recording of `size` bytes is done, from measured speed and the jobs before it."""
        with self._redis.pipeline(transaction=False) as steps:
            steps.hgetall("bs:work")
            steps.zcard("bs:status:pending")
            steps.zcard("bs:status:processing")
            work, pending, processing = steps.execute()
        measured = {name: float(value) for name, value in work.items()}
        own = size * (measured["seconds"] / max(measured["bytes"], 1.0) if measured else _SECONDS_A_BYTE)
        each = measured["seconds"] / measured["jobs"] if measured else own
        before = int(pending) + int(processing)
        return own + each * before / max(1, len(self.workers()))

    # Details

    @redis_errors()
    def _change(
        self, job_id: str, to: JobStatus, *, only: JobStatus | None = None, token: str = "", **fields: str
    ) -> None:
        before = {only} if only else FOLLOWS[to]
        outcome, status = _answer(
            self._transition(
                keys=change_keys(job_id),
                args=[
                    str(to),
                    f",{','.join(sorted(before))},",
                    token,
                    self._retention_seconds if to in FINAL else "",
                    *[part for item in fields.items() for part in item],
                ],
            )
        )
        if outcome == "ok":
            return
        if token:
            raise JobFenced(f"job {job_id} is {status or 'deleted'} and not this worker's")
        if outcome == "missing":
            raise JobMissing(f"there is no job {job_id!r}")
        raise JobConflict(f"job {job_id} is {status} and cannot become {to}")

    def _before(self, index: str, now: float, limit: int) -> list[str]:
        """Ids whose time in the index has come, the earliest first."""
        return list(self._redis.zrange(index, "-inf", str(now), byscore=True, offset=0, num=limit))

    def _now(self) -> float:
        seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6


def _answer(reply: list[str]) -> tuple[str, str | None]:
    """A script's answer: the outcome and the status, None when the job is missing."""
    return reply[0], reply[1] if len(reply) > 1 else None
