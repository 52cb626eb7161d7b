"""What is read of watched jobs, once for all who listen to them in this process: segments, and how a job ended."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import structlog
from litestar.concurrency import sync_to_thread

from actors.view import JobView, view_job
from storage.chunk_store import ChunkStore
from storage.errors import BucketMissing, JobMissing, ObjectMissing, QueueUnavailable, StoreRefused, StoreUnavailable
from storage.job import Job, JobStatus
from storage.job_events import order
from storage.job_store import JobStore
from storage.keys import result_key
from storage.object_store import ObjectStore
from storage.partial import Growing
from storage.structs import decode
from storage.transcript import Segment, Transcript

log = structlog.get_logger()

T = TypeVar("T")

#: Who listens is told as soon as storage answers again.
_OUTAGES = (QueueUnavailable, StoreUnavailable, StoreRefused, BucketMissing)
_OUTAGE_SECONDS = 1.0
#: Reads at once for all who listen, each in a thread: most of the threads are for requests, also while the store hangs.
_READS = 4
#: Segments that are handed to one who listens at a time: what a slow one keeps from being freed.
_PAGE = 100
#: How long a job's end is not asked for again; its links work much longer.
_END_SECONDS = 60
#: How long a story is kept when nobody listens any more: a connection that breaks is soon there again.
_KEPT_SECONDS = 60
#: What a story costs besides its segments: the job as it ended, with its links.
STORY_BYTES = 16 * 1024


class _Story:
    """Of one job."""

    def __init__(self, growing: Growing) -> None:
        self.lock = asyncio.Lock()
        self.growing = growing
        #: Position in the job's events up to which `growing` was read.
        self.as_of = "0-0"
        self.transcript: list[Segment] | None = None
        #: Bytes of its JSON.
        self.transcript_size = 0
        self.end: JobView | None = None
        self.end_at = 0.0

    @property
    def size(self) -> int:
        return STORY_BYTES + self.growing.size + self.transcript_size


class Stories:
    """Memory is bounded: what was not asked for longest goes first, and is read again when somebody asks."""

    def __init__(
        self,
        jobs: JobStore,
        chunks: ChunkStore,
        objects: ObjectStore,
        link_seconds: int,
        max_bytes: int,
        kept_seconds: float = _KEPT_SECONDS,
    ) -> None:
        """`max_bytes`: of the JSON of what is kept; the story that is asked for is kept whatever its size.

        `kept_seconds`: how long a story outlives the last one who listens to it.
        """
        self._jobs, self._chunks, self._objects = jobs, chunks, objects
        self._link_seconds = link_seconds
        self._max_bytes = max_bytes
        self._kept_seconds = kept_seconds
        self._stories: OrderedDict[str, _Story] = OrderedDict()
        #: Of each job, how many.
        self._listeners: Counter[str] = Counter()
        self._reads = asyncio.Semaphore(_READS)

    def __len__(self) -> int:
        """How many jobs something is kept of."""
        return len(self._stories)

    @asynccontextmanager
    async def listening(self, job_id: str) -> AsyncIterator[None]:
        """Somebody is told of the job. What was read for it is forgotten when nobody is for a while."""
        self._listeners[job_id] += 1
        try:
            yield
        finally:
            self._listeners[job_id] -= 1
            if not self._listeners[job_id]:
                del self._listeners[job_id]
                asyncio.get_running_loop().call_later(self._kept_seconds, self._forget, job_id)

    async def so_far(self, job_id: str, number: int, position: str) -> list[Segment]:
        """The next segments of a job in chunks, from `number` on, as of a position in its events; at last none.

        None too when the job is completed or gone: then its next event says so.
        """
        story = self._story(job_id)
        async with story.lock:
            if order(story.as_of) < order(position):
                try:
                    await self._patiently(story.growing.read)
                except (ObjectMissing, JobMissing):
                    pass
                story.as_of = position
                self._bound(job_id)
        return story.growing.segments[number : number + _PAGE]

    async def rest(self, job_id: str, number: int) -> list[Segment]:
        """The next segments of a completed job's transcript, from `number` on; at last none.

        Raises:
            ObjectMissing: the job was deleted.
        """
        story = self._story(job_id)
        async with story.lock:
            if story.transcript is None:
                stored = await self._patiently(lambda: self._objects.get(result_key(job_id, "json")))
                story.transcript = decode(stored, Transcript).segments
                story.transcript_size = len(stored)
                # It begins with what there was so far.
                story.growing = self._growing(job_id)
                self._bound(job_id)
        return story.transcript[number : number + _PAGE]

    async def end(self, last: Job) -> JobView:
        """The job as it ended, without its transcript. `last`: as it was known, in case that it is deleted."""
        story = self._story(last.job_id)
        async with story.lock:
            if story.end is None or time.monotonic() > story.end_at + _END_SECONDS:
                story.end = await self._patiently(lambda: self._view(last))
                story.end_at = time.monotonic()
        return story.end

    def deleted(self, last: Job) -> JobView:
        gone = msgspec.structs.replace(last, status=JobStatus.CANCELLED, error="the job was deleted", files={})
        return view_job(gone, self._objects, self._link_seconds, ())

    def _view(self, last: Job) -> JobView:
        try:
            return view_job(self._jobs.get(last.job_id), self._objects, self._link_seconds, ("files",))
        except JobMissing:
            return self.deleted(last)

    def _story(self, job_id: str) -> _Story:
        story = self._stories.get(job_id)
        if story is None:
            story = self._stories[job_id] = _Story(self._growing(job_id))
            self._bound(job_id)
        self._stories.move_to_end(job_id)
        return story

    def _growing(self, job_id: str) -> Growing:
        return Growing(job_id, self._jobs, self._chunks, self._objects)

    def _forget(self, job_id: str) -> None:
        if job_id not in self._listeners:
            self._stories.pop(job_id, None)

    def _bound(self, asked: str) -> None:
        total = sum(story.size for story in self._stories.values())
        for job_id in list(self._stories):
            if total <= self._max_bytes:
                return
            if job_id != asked:
                total -= self._stories.pop(job_id).size

    async def _patiently(self, read: Callable[[], T]) -> T:
        while True:
            try:
                async with self._reads:
                    return await sync_to_thread(read)
            except _OUTAGES as error:
                log.warning("events wait for storage", reason=str(error))
            await asyncio.sleep(_OUTAGE_SECONDS)
