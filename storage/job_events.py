"""What happens to jobs, for those who wait: one connection for all of them, and no thread.

JobStore's scripts write a stream a job. Its entries, by their field `type`: a status; `progress`; `segment`, of a
recording without chunks while it is in work; `chunk`, whose text is in its result object; `deleted`, the last one.

One task reads the streams of all jobs that are watched and keeps the newest entries of each. Who listens has a position
and takes what follows it, from there or, where that does not reach back far enough, from Redis. So there is no queue
for anyone: who is slow costs no memory, and who comes late misses nothing. When Redis goes away, everybody waits.
"""

import asyncio
import contextvars
import itertools
import secrets
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
import redis
import structlog

from storage.job import FINAL
from storage.redis_client import JOBS_DATABASE, connect_async, redis_errors
from storage.settings import StorageSettings

log = structlog.get_logger()

#: The position before a stream's first entry.
BEGINNING = "0-0"

#: After one of these types nothing comes.
LAST = frozenset({*FINAL, "deleted"})

#: Newest entries kept in memory of each watched job; who is further behind asks Redis, for as many at once.
_KEPT = 200
#: How long the reader waits for an entry before it looks whether the streams are still there, in milliseconds.
_BLOCK_MILLISECONDS = 5000
#: Entries that come within this time are read together, so that many busy jobs cost one request and not one each.
_TOGETHER_SECONDS = 0.01
#: How long everybody waits before Redis is asked again, when it does not answer.
_AWAY_SECONDS = 0.5
#: How long what woke the reader stays in Redis.
_WAKE_SECONDS = 60


class Entry(msgspec.Struct, frozen=True):
    #: `milliseconds-number`, ascending in a job's stream.
    id: str
    type: str
    fields: dict[str, str]


def order(entry_id: str) -> tuple[int, int]:
    """What ids are compared by.

    Raises:
        ValueError: it is not one of a stream's ids.
    """
    milliseconds, _, number = entry_id.partition("-")
    if not (milliseconds.isdecimal() and number.isdecimal() and max(len(milliseconds), len(number)) < 20):
        raise ValueError(f"{entry_id[:50]!r} is not the id of an entry")
    return int(milliseconds), int(number)


class JobEvents:
    """Of one event loop."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        # As in JobStore: this client decodes, so that every answer is text.
        self._redis: Any = client
        self._watched: dict[str, _Watched] = {}
        self._reader: asyncio.Task[None] | None = None
        self._waker: asyncio.Task[None] | None = None
        #: A stream that the reader reads too: an entry in it ends its waiting.
        self._wake_key = f"bs:wake:{secrets.token_hex(8)}"

    @classmethod
    def connect(cls, settings: StorageSettings) -> "JobEvents":
        return cls(connect_async(settings, JOBS_DATABASE))

    async def entries(self, job_id: str, after: str = BEGINNING) -> AsyncGenerator[Entry]:
        """What follows the position, and what happens from now on; it ends when the job's stream is gone.

        To be closed when it is not read to its end (contextlib.aclosing).
        """
        watched = self._watch(job_id)
        try:
            while not watched.gone:
                arrived = watched.arrived
                page = watched.after(after)
                if page is None:
                    page = await self._page(job_id, after)
                for entry in page:
                    yield entry
                    after = entry.id
                if not page:
                    await arrived.wait()
        finally:
            watched.listeners -= 1
            if watched.listeners == 0:
                del self._watched[job_id]

    async def newest(self, job_id: str) -> Entry | None:
        """The last thing that happened. Raises QueueUnavailable."""
        with redis_errors():
            found = await self._redis.xrevrange(_key(job_id), count=1)
        return _entry(found[0]) if found else None

    def known(self, job_id: str) -> str:
        """The newest position that this process has heard of; of a job that nobody watches, the beginning."""
        watched = self._watched.get(job_id)
        return watched.newest if watched and watched.newest else BEGINNING

    async def wait_final(self, job_id: str, timeout_seconds: float) -> bool:
        """True: the job is completed, failed, cancelled or gone. False: the time ran out, the job goes on."""
        try:
            async with asyncio.timeout(timeout_seconds), aclosing(self.entries(job_id)) as entries:
                async for entry in entries:
                    if entry.type in LAST:
                        break
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        for task in (self._reader, self._waker):
            if task is not None:
                task.cancel()
        await self._redis.aclose()

    def _watch(self, job_id: str) -> "_Watched":
        watched = self._watched.get(job_id)
        if watched is None:
            watched = self._watched[job_id] = _Watched()
            # In contexts of their own: they belong to no request, even if one happens to start them.
            if self._reader is None or self._reader.done():
                self._reader = asyncio.create_task(self._read(), context=contextvars.Context())
            elif self._waker is None or self._waker.done():
                self._waker = asyncio.create_task(self._wake(), context=contextvars.Context())
        watched.listeners += 1
        return watched

    async def _page(self, job_id: str, after: str) -> list[Entry]:
        while True:
            try:
                return [_entry(one) for one in await self._redis.xrange(_key(job_id), min=f"({after}", count=_KEPT)]
            except redis.RedisError:
                await asyncio.sleep(_AWAY_SECONDS)

    # The reader

    async def _read(self) -> None:
        away, woken = False, BEGINNING
        while self._watched:
            try:
                await self._begin()
                positions = {
                    _key(job_id): watched.newest for job_id, watched in self._watched.items() if watched.newest
                }
                found = await self._redis.xread(
                    {**positions, self._wake_key: woken}, count=_KEPT, block=_BLOCK_MILLISECONDS
                )
                for key, entries in found:
                    if key == self._wake_key:
                        woken = entries[-1][0]
                    elif watched := self._watched.get(key.rpartition(":")[2]):
                        watched.add([_entry(one) for one in entries])
                if not found:
                    await self._look()
            except Exception as error:  # noqa: BLE001 Whatever it was: all who listen wait for this task alone.
                if not away:
                    log.warning("events wait for Redis", reason=repr(error))
                away = True
                await asyncio.sleep(_AWAY_SECONDS)
            else:
                away = False
                await asyncio.sleep(_TOGETHER_SECONDS)

    async def _begin(self) -> None:
        """Find the ends of the streams that are watched since just now."""
        new = [job_id for job_id, watched in self._watched.items() if watched.newest is None]
        if not new:
            return
        async with self._redis.pipeline(transaction=False) as steps:
            for job_id in new:
                steps.xrevrange(_key(job_id), count=1)
            ends = await steps.execute()
        for job_id, end in zip(new, ends, strict=True):
            if watched := self._watched.get(job_id):
                watched.begin(end[0][0] if end else None)

    async def _look(self) -> None:
        """A stream is gone when its job was deleted long ago, or Redis was lost."""
        job_ids = [job_id for job_id, watched in self._watched.items() if watched.newest is not None]
        async with self._redis.pipeline(transaction=False) as steps:
            for job_id in job_ids:
                steps.exists(_key(job_id))
            there = await steps.execute()
        for job_id, exists in zip(job_ids, there, strict=True):
            if not exists and (watched := self._watched.get(job_id)):
                watched.begin(None)

    async def _wake(self) -> None:
        """End the reader's waiting, so that it reads the new streams too."""
        while any(watched.newest is None and not watched.gone for watched in self._watched.values()):
            try:
                async with self._redis.pipeline(transaction=False) as steps:
                    steps.xadd(self._wake_key, {"type": "wake"}, maxlen=1)
                    steps.expire(self._wake_key, _WAKE_SECONDS)
                    await steps.execute()
            except redis.RedisError:
                pass  # Then the reader does not wait for entries either, but for Redis.
            await asyncio.sleep(5 * _TOGETHER_SECONDS)


class _Watched:
    """A job whose stream is read: its newest entries, for all who listen to it."""

    def __init__(self) -> None:
        self.listeners = 0
        #: Position up to which the stream was read; None: not looked at yet.
        self.newest: str | None = None
        #: There is no such stream any more.
        self.gone = False
        #: Set when there is something new; each time it is another one.
        self.arrived = asyncio.Event()
        self._entries: deque[Entry] = deque(maxlen=_KEPT)
        #: `_entries` are all that follow this position.
        self._since = BEGINNING

    def begin(self, newest: str | None) -> None:
        """Where reading begins, at the stream's end; None: there is no stream."""
        if newest is None:
            self.gone = True
        else:
            self.newest = self._since = newest
        self._ring()

    def add(self, entries: list[Entry]) -> None:
        for entry in entries:
            if len(self._entries) == _KEPT:
                self._since = self._entries[0].id
            self._entries.append(entry)
        self.newest = entries[-1].id
        self._ring()

    def after(self, position: str) -> list[Entry] | None:
        """The entries that follow; None: they reach back further than what is kept."""
        if position == self.newest:
            return []
        behind = order(position)
        if self.newest is None or behind < order(self._since):
            return None
        newer = itertools.takewhile(lambda entry: order(entry.id) > behind, reversed(self._entries))
        return list(newer)[::-1]

    def _ring(self) -> None:
        self.arrived.set()
        self.arrived = asyncio.Event()


def _key(job_id: str) -> str:
    return f"bs:events:{job_id}"


def _entry(found: tuple[str, dict[str, str]]) -> Entry:
    entry_id, fields = found
    return Entry(entry_id, fields["type"], fields)
