"""Live events: what happens to a job, told while it happens.

Statuses and progress come from the job's stream in Redis. So does the text of a short recording, while it is in work;
that of a long one comes from the results of its chunks, in the order of time, and that of a completed one from its
transcript. Since each of them begins with the one before, a number is enough to know which segments somebody has: an
event's id is the position in the stream and that number.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from litestar import Request, Response, get
from litestar.concurrency import sync_to_thread
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Parameter

from actors.view import JobView
from service.backend import Backend
from service.clients import client_of
from service.errors import invalid, problems
from service.jobs import JobId
from storage.errors import ObjectMissing
from storage.job import FINAL, Job, JobStatus
from storage.job_events import BEGINNING, LAST, Entry, order
from storage.structs import decode
from storage.transcript import Segment

_STATUSES = frozenset(JobStatus)


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


@get(
    "/jobs/{job_id:str}/events",
    summary="What happens to a job, live",
    tags=["Jobs"],
    responses={
        204: ResponseSpec(None, description="Everything was told: the last event was seen.", generate_examples=False),
        **problems(
            "unauthorized",
            "rate_limited",
            "queue_unavailable",
            "job_not_found",
            "invalid_parameter",
            "too_many_listeners",
            "client_listeners_exceeded",
        ),
    },
)
async def get_events(
    request: Request[Any, Any, State],
    backend: Backend,
    job_id: JobId,
    last_event_id: Annotated[
        str, Parameter(header="Last-Event-ID", description="Go on after this event; empty: from the beginning.")
    ] = "",
) -> Response[Any]:
    """Server-Sent Events: `status`, `progress` and `segment` as they come, the story so far first.

    The stream ends after `completed`, `failed` or `cancelled`, which carry the job without its transcript. The text of
    all `segment`s is the transcript's.
    """
    job = await sync_to_thread(backend.jobs.get, job_id, request.state.owner)
    position = await _position(backend, job, last_event_id)
    if position is None:
        # To a browser it means that there is nothing to come back for.
        return Response(None, status_code=204)
    place = backend.listeners.place(client_of(request))
    return backend.listeners.stream(_encoded(_told(backend, job, position)), place)


async def follow(backend: Backend, job_id: str, last_event_id: str = "") -> AsyncGenerator[JobEvent]:
    """What happened to the job so far, and what happens, until its final event; no thread is held meanwhile.

    Every segment comes once and in order, and is the transcript's; all of them come before `completed`. From
    `last_event_id` on, if it is given. It ends without a final event when the job's record is gone. Outages of Redis
    and of the store are waited out.

    Raises:
        JobMissing: there is no such job.
        QueueUnavailable: Redis does not answer in the beginning.
    """
    job = await sync_to_thread(backend.jobs.get, job_id)
    position = await _position(backend, job, last_event_id)
    if position is None:
        return
    async with aclosing(_told(backend, job, position)) as events:
        async for event in events:
            yield event


class Position(NamedTuple):
    """How far somebody was told."""

    #: The last entry of the job's stream of which nothing is left to tell.
    entry: str
    #: How many segments were told.
    segments: int

    def __str__(self) -> str:
        return f"{self.entry}/{self.segments}"


def _read_position(last_event_id: str) -> Position:
    """
    Raises:
        ApiError: it is not one of our ids.
    """
    if not last_event_id:
        return Position(BEGINNING, 0)
    entry, _, segments = last_event_id.partition("/")
    try:
        order(entry)
        if not segments.isdecimal():  # int() takes signs and spaces too.
            raise ValueError(f"{segments[:50]!r} is not a number of segments")
        return Position(entry, int(segments[:10]))
    except ValueError as error:
        raise invalid("Last-Event-ID", "send the id of an event as it came, or nothing") from error


async def _position(backend: Backend, job: Job, last_event_id: str) -> Position | None:
    """Where the telling goes on; None: everything was told.

    Raises:
        ApiError: it is not one of our ids.
        QueueUnavailable: Redis does not answer.
    """
    position = _read_position(last_event_id)
    if not last_event_id and job.status not in FINAL:
        return position
    newest = await backend.events.newest(job.job_id)
    if newest is not None and order(position.entry) < order(newest.id):
        return position
    if job.status in FINAL or (newest is not None and newest.type in LAST):
        return None
    # Who has seen more than there is has seen all there is: Redis may have lost its last second, and a stream that
    # waits for a time to come would tell nothing.
    return position._replace(entry=newest.id if newest is not None else BEGINNING)


async def _told(backend: Backend, job: Job, position: Position) -> AsyncGenerator[JobEvent]:
    entry_id, count = position
    stories = backend.stories
    async with stories.listening(job.job_id), aclosing(backend.events.entries(job.job_id, entry_id)) as entries:
        async for entry in entries:
            if entry.type in LAST:
                async for event in _ending(backend, job, entry, Position(entry_id, count)):
                    yield event
                return
            if entry.type == "chunk":
                known = max(entry.id, backend.events.known(job.job_id), key=order)
                while segments := await stories.so_far(job.job_id, count, known):
                    for segment in segments:
                        count += 1
                        # The entry before: who comes back with this id has more to hear of this one.
                        yield JobEvent(f"{entry_id}/{count}", "segment", segment)
            elif entry.type == "segment":
                # One that was missed, because another worker told it long ago, comes from the transcript.
                if int(entry.fields["number"]) == count:
                    count += 1
                    segment = decode(entry.fields["segment"], Segment)
                    yield JobEvent(f"{entry.id}/{count}", "segment", segment)
            elif entry.type == "progress":
                yield JobEvent(f"{entry.id}/{count}", "progress", Progress(float(entry.fields["progress"])))
            elif entry.type in _STATUSES:
                yield JobEvent(f"{entry.id}/{count}", "status", StatusChange(JobStatus(entry.type)))
            entry_id = entry.id


async def _ending(backend: Backend, job: Job, entry: Entry, position: Position) -> AsyncGenerator[JobEvent]:
    """The segments that are left, and the final event."""
    count = position.segments
    if entry.type == JobStatus.COMPLETED:
        try:
            while segments := await backend.stories.rest(job.job_id, count):
                for segment in segments:
                    count += 1
                    yield JobEvent(f"{position.entry}/{count}", "segment", segment)
        except ObjectMissing:
            yield JobEvent(f"{entry.id}/{count}", "cancelled", backend.stories.deleted(job))
            return
    ended: dict[str, Literal["completed", "failed"]] = {"completed": "completed", "failed": "failed"}
    view = backend.stories.deleted(job) if entry.type == "deleted" else await backend.stories.end(job)
    yield JobEvent(f"{entry.id}/{count}", ended.get(entry.type, "cancelled"), view)


async def _encoded(events: AsyncGenerator[JobEvent]) -> AsyncGenerator[bytes]:
    """As the standard has it: https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    # With the first event: how soon, in milliseconds, to come back when the connection breaks.
    before = "retry: 1000\n"
    async with aclosing(events):
        async for event in events:
            head = f"{before}id: {event.id}\nevent: {event.type}\ndata: ".encode()
            yield head + msgspec.json.encode(event.data) + b"\n\n"
            before = ""
