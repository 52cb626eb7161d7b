"""What is transcribed of a long recording so far."""

from collections.abc import Sequence

import msgspec

from storage.chunk_result import ChunkResult
from storage.chunk_store import Chunk, ChunkStore
from storage.job_store import JobStore
from storage.keys import chunk_result_key
from storage.object_store import ObjectStore
from storage.structs import decode
from storage.transcript import Segment


class Growing:
    """The segments from the recording's beginning, in order and without gaps: those with which its transcript begins.

    Each chunk's result is read once. With separate channels the segments reach up to where every channel is done.
    """

    def __init__(self, job_id: str, jobs: JobStore, chunks: ChunkStore, objects: ObjectStore) -> None:
        #: Numbered from 0. It only grows.
        self.segments: list[Segment] = []
        #: Bytes of the results that were read.
        self.size = 0
        self._job_id, self._jobs, self._chunks, self._objects = job_id, jobs, chunks, objects
        self._read: set[int] = set()
        #: Segments that others may still come before, each with the number of its chunk.
        self._waiting: list[tuple[int, Segment]] = []

    def read(self) -> None:
        """Take in what was done since the last time; nothing of a recording without chunks.

        Raises:
            JobMissing: there is no such job.
            ObjectMissing: the job was completed meanwhile, or deleted.
        """
        # Asked in this order: where every chunk is announced, `known` are all there will be.
        job = self._jobs.get(self._job_id)
        known = self._chunks.chunks(self._job_id)
        done = self._chunks.done(self._job_id)
        by_channel: dict[int | None, list[Chunk]] = {}
        for chunk in known:
            by_channel.setdefault(chunk.channel, []).append(chunk)
        reached = [self._reached(chunks, done, whole=job.phase == "cut") for chunks in by_channel.values()]
        if job.phase != "cut" and len(reached) < (job.channels or 1):
            reached.append(0.0)  # Nobody knows yet where that channel's first chunk begins.
        self._settle(min(reached, default=0.0))

    def _reached(self, chunks: Sequence[Chunk], done: set[int], *, whole: bool) -> float:
        """Up to where one channel is read; `whole`: it has no more chunks than these, in the order of time."""
        end = 0.0
        for chunk in chunks:
            if chunk.number not in done or not self._take(chunk):
                return chunk.start
            end = chunk.end
        return float("inf") if whole else end

    def _take(self, chunk: Chunk) -> bool:
        """False: its result is another cut's or cannot be read, and will be made again."""
        if chunk.number in self._read:
            return True
        stored = self._objects.get(chunk_result_key(self._job_id, chunk.number))
        try:
            result = decode(stored, ChunkResult)
        except msgspec.DecodeError:
            return False
        if result.chunk != chunk:
            return False
        self._read.add(chunk.number)
        self.size += len(stored)
        self._waiting += [(chunk.number, segment) for segment in result.segments]
        return True

    def _settle(self, seconds: float) -> None:
        # As in transcript.merged. Segments' times are whole milliseconds and chunks' are not: a segment may begin a
        # little before its chunk.
        self._waiting.sort(key=lambda waiting: (waiting[1].start, waiting[1].end, waiting[0]))
        before = seconds if seconds == float("inf") else round(seconds, 3)
        settled = [segment for _, segment in self._waiting if segment.start < before]
        del self._waiting[: len(settled)]
        for segment in settled:
            self.segments.append(msgspec.structs.replace(segment, id=len(self.segments)))


def partial_segments(job_id: str, jobs: JobStore, chunks: ChunkStore, objects: ObjectStore) -> list[Segment]:
    """What there is of a job in work at this moment; raises as Growing.read."""
    growing = Growing(job_id, jobs, chunks, objects)
    growing.read()
    return growing.segments or jobs.told(job_id)
