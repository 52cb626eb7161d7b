"""What became of the objects in the inbox: which version of which object is a job already.

A version is an object's key, ETag, size and time. The job's id derives from it, so that whoever finds it, as often and
as many at once as may be, makes the same job. Once the job was accepted, a mark in the bucket says so: it outlives the
job's record, and so a lost Redis and the end of the retention. The index in Redis saves asking the bucket for marks
that are known; it may be lost. Keys, all in database 1:

    bs:inbox:known   sorted set: id of a version that is a job, or need not become one -> when it was last seen
    bs:inbox:new     sorted set: `{id} {key}` of a version not yet looked at twice -> when it was seen first
    bs:inbox:cursor  string: the key behind which the next look begins
    bs:inbox:tries   hash: id of a version that could not be taken -> in how many looks
"""

import hashlib
import threading
import time
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

import msgspec
import redis
import structlog

from storage.errors import ObjectMissing, StoreRefused
from storage.job import Job, Source, is_job_id
from storage.keys import beside, ingested_key
from storage.object_store import ObjectInfo, ObjectStore
from storage.redis_client import JOBS_DATABASE, connect, redis_errors
from storage.settings import StorageSettings
from storage.structs import decode

log = structlog.get_logger()

#: Metadata of what the service puts beside a recording: whose it is, and which job made it.
BESIDE_SOURCE, BESIDE_JOB = "bucketscribe-source", "bucketscribe-job"

#: An entry of what is known is refreshed when it is older, and dropped when nobody saw its object for twice as long.
_FRESH_SECONDS = 86_400


class Version(msgspec.Struct, frozen=True):
    """An object as it was when it was seen."""

    job_id: str
    key: str


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Says that a version became a job. It lies at storage.keys.ingested_key."""

    job_id: str
    key: str
    etag: str
    #: Bytes.
    size: int


def version_of(info: ObjectInfo) -> Version:
    """The id is one of storage.job's: its time is the object's, in whole seconds, as only lists tell fractions."""
    seconds = int(info.modified)
    facts = "\0".join((info.key, info.etag, str(info.size), str(seconds)))
    return Version(f"{seconds * 1000:012x}{hashlib.sha256(facts.encode()).hexdigest()[:10]}", info.key)


def known_etag(source: Source) -> str | None:
    """The version of the object that the job is about. None: the current one.

    Clients can replace an object in the inbox, and one that they upload with links, which work on after the start.
    """
    if source.type not in ("inbox", "upload") or source.digest is None or not source.digest.startswith("etag:"):
        return None
    return source.digest.removeprefix("etag:")


def about(job: Job) -> dict[str, str]:
    """Metadata of what is put beside the job's recording."""
    return {BESIDE_SOURCE: hashlib.sha256(job.source.key.encode()).hexdigest()[:32], BESIDE_JOB: job.job_id}


def failure_key(source: Source) -> str:
    """Where people who see the bucket alone read why their recording failed. A `.txt` is never a recording."""
    return beside(source.key, ".error.txt")


def tell_failure(job: Job, objects: ObjectStore) -> None:
    """Put the error beside the job's recording while that lies there, unless somebody else's file has the name."""
    key = failure_key(job.source)
    try:
        if known_etag(job.source) not in (None, objects.head(job.source.key).etag):
            return  # It was replaced: another job's.
        if is_beside(key, job, objects) is not False:
            objects.put(key, f"{job.error}\n".encode(), "text/plain; charset=utf-8", metadata=about(job))
    except ObjectMissing:
        return
    except StoreRefused as refusal:
        log.warning("failure not beside its recording", job_id=job.job_id, reason=str(refusal))


def drop_failure(job: Job, objects: ObjectStore) -> None:
    """What was told of an earlier version of the recording."""
    if is_beside(failure_key(job.source), job, objects):
        objects.delete(failure_key(job.source))


def is_beside(key: str, job: Job, objects: ObjectStore) -> bool | None:
    """Whether the object was put beside the job's recording, by whatever job; None: there is none."""
    try:
        return objects.head(key).metadata.get(BESIDE_SOURCE) == about(job)[BESIDE_SOURCE]
    except ObjectMissing:
        return None


def mark(job: Job, objects: ObjectStore) -> None:
    """Say that the job's version was accepted; to be said again before its record is removed."""
    source = job.source
    noted = Mark(job_id=job.job_id, key=source.key, etag=known_etag(source) or "", size=source.size)
    objects.put(ingested_key(job.job_id), msgspec.json.encode(noted), "application/json")


def is_marked(version: Version, objects: ObjectStore) -> bool:
    try:
        objects.head(ingested_key(version.job_id))
    except ObjectMissing:
        return False
    return True


class InboxIndex:
    """Raises QueueUnavailable from every method when Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        # As in JobStore: this client decodes, so that every answer is text.
        self._redis: Any = client

    @classmethod
    def connect(cls, settings: StorageSettings) -> "InboxIndex":
        return cls(connect(settings, JOBS_DATABASE))

    @redis_errors()
    def known(self, job_ids: Collection[str]) -> set[str]:
        """Those of the ids that need no look. Entries that grow old are refreshed, so that they stay."""
        if not job_ids:
            return set()
        seen = dict(zip(job_ids, self._redis.zmscore("bs:inbox:known", list(job_ids)), strict=True))
        known = {job_id for job_id, at in seen.items() if at is not None}
        self._note([job_id for job_id in known if seen[job_id] < time.time() - _FRESH_SECONDS])
        return known

    @redis_errors()
    def note_known(self, *job_ids: str) -> None:
        self._note(job_ids)

    @redis_errors()
    def remember(self, versions: Iterable[Version]) -> None:
        """To be looked at again. Those that are remembered keep their time."""
        entries = {f"{version.job_id} {version.key}": time.time() for version in versions}
        if entries:
            self._redis.zadd("bs:inbox:new", entries, nx=True)

    @redis_errors()
    def remembered(self, since_seconds: float, limit: int) -> list[Version]:
        """Those that were seen first so long ago, the earliest first."""
        entries = self._redis.zrange(
            "bs:inbox:new", "-inf", time.time() - since_seconds, byscore=True, offset=0, num=limit
        )
        return [Version(*entry.split(" ", 1)) for entry in entries]

    @redis_errors()
    def waiting(self) -> int:
        """How many are remembered."""
        return int(self._redis.zcard("bs:inbox:new"))

    @redis_errors()
    def forget(self, version: Version) -> None:
        """It is done with, or it is gone."""
        self._redis.zrem("bs:inbox:new", f"{version.job_id} {version.key}")

    @redis_errors()
    def count_try(self, version: Version) -> int:
        """In how many looks it could not be taken, this one included."""
        return int(self._redis.hincrby("bs:inbox:tries", version.job_id, 1))

    @redis_errors()
    def cursor(self) -> str:
        """The key behind which the next look begins; empty: at the beginning."""
        return self._redis.get("bs:inbox:cursor") or ""

    @redis_errors()
    def set_cursor(self, key: str) -> None:
        self._redis.set("bs:inbox:cursor", key)

    @redis_errors()
    def drop_unseen(self) -> None:
        """Objects that are gone need no entry. Tries are counted anew: five of them take less than a day."""
        self._redis.zremrangebyscore("bs:inbox:known", "-inf", time.time() - 2 * _FRESH_SECONDS)
        self._redis.delete("bs:inbox:tries")

    def _note(self, job_ids: Collection[str]) -> None:
        if job_ids:
            self._redis.zadd("bs:inbox:known", dict.fromkeys(job_ids, time.time()))


def sweep_marks(
    index: InboxIndex, objects: ObjectStore, stopping: threading.Event, older_than_seconds: float = _FRESH_SECONDS
) -> int:
    """Remove the marks of versions that are gone or replaced: they cannot come again. Returns how many there were."""
    removed = 0
    old = (
        item.key
        for item in objects.list("ingested/")
        if is_job_id(_marked_id(item.key)) and item.modified <= time.time() - older_than_seconds
    )
    while some := list(islice(old, 1000)):
        # What a look has seen lately is there. Of the others the bucket is asked, for the index may be lost.
        known = index.known([_marked_id(key) for key in some])
        for key in some:
            if stopping.is_set():
                return removed
            if _marked_id(key) not in known and _is_outlived(key, objects):
                objects.delete(key)
                removed += 1
    return removed


def _marked_id(key: str) -> str:
    return key.removeprefix("ingested/").removesuffix(".json")


def _is_outlived(key: str, objects: ObjectStore) -> bool:
    """Whether the version that the mark tells of lies in the bucket no more."""
    try:
        noted = decode(objects.get(key), Mark)
        return version_of(objects.head(noted.key)).job_id != _marked_id(key)
    except msgspec.DecodeError:
        return False  # Not a mark of ours.
    except StoreRefused:
        return False  # An object that the store does not show to the service.
    except ObjectMissing:
        return True
