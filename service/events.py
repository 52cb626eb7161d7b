"""Live events: what happens to a job, told while it happens."""

from collections.abc import AsyncIterator
from typing import Literal

import msgspec
from litestar.response import Stream

from actors.view import JobView
from service.backend import Backend
from storage.job import JobStatus
from storage.transcript import Segment


class StatusChange(msgspec.Struct, frozen=True):
    status: JobStatus


class Progress(msgspec.Struct, frozen=True):
    #: 0 to 100; 100 only when the results are stored.
    progress: float


class JobEvent(msgspec.Struct, frozen=True):
    #: Where the listener is after it, for Last-Event-ID.
    id: str
    type: Literal["status", "progress", "segment", "completed", "failed", "cancelled"]
    #: A StatusChange, a Progress, a Segment; of the last three the job without its transcript.
    data: StatusChange | Progress | Segment | JobView


async def follow(backend: Backend, job_id: str, last_event_id: str = "") -> AsyncIterator[JobEvent]:
    """What happened to the job so far, and what happens, until its final event; no thread is held meanwhile.

    Every segment comes once and in order, and is the transcript's; all of them come before `completed`. From
    `last_event_id` on, if it is given. It ends without a final event when the job's record is gone.

    Raises:
        JobMissing: there is no such job.
    """
    raise NotImplementedError
    yield


def event_stream(backend: Backend, chunks: AsyncIterator[bytes]) -> Stream:
    """An answer of Server-Sent Events: `chunks` as they are, with comments that keep it alive; ended at shutdown.

    Raises:
        ApiError: too_many_listeners.
    """
    raise NotImplementedError
