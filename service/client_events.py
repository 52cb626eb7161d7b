"""A job's story as it happens: live events, taken up again where a connection broke, or questions now and then.

Questions are for servers without live events, and for what stands between and keeps a stream to itself.
"""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
from httpx_sse import ServerSentEvent, SSEError

from service.client_errors import RequestRefused, WaitTimedOut, read
from service.client_http import ApiConnection
from service.client_types import Event, Job
from storage.structs import convert, decode
from storage.transcript import Segment

#: A server's comments keep a stream alive; one that is silent for so long is broken.
_SILENCE_SECONDS = 45.0
#: The same where there is a time to keep: comments would hold a stream beyond it.
_SILENCE_SECONDS_TIMED = 5.0
#: Streams in a row that brought nothing before the job is asked for instead.
_EMPTY_STREAMS = 3
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 3.0


class Story:
    """Follows one job: every event once, in order."""

    def __init__(self, api: ApiConnection, job_id: str, timeout_seconds: float | None) -> None:
        self._api = api
        self._job_id = job_id
        self._ends = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._segments = 0

    def events(self) -> Iterator[Event]:
        """Ends after the final event. `segment` comes in order and without gaps, from the beginning.

        Raises:
            WaitTimedOut, Unreachable, RequestRefused.
        """
        last_event_id, empty, pause = "", 0, _FIRST_PAUSE_SECONDS
        while empty < _EMPTY_STREAMS:
            empty += 1
            try:
                for event in self._stream(last_event_id):
                    empty, pause = 0, _FIRST_PAUSE_SECONDS
                    last_event_id = event.id or last_event_id
                    yield event
                    if event.final:
                        return
            except (httpx.TransportError, SSEError, msgspec.DecodeError):
                pass  # It broke, or something between garbled it. Taken up again below, where it stopped.
            except RequestRefused as error:
                if error.code == "job_not_found" or error.status in (401, 403):
                    raise
                if error.status < 500 and error.status != 429:
                    break  # This server has no live events.
            self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        yield from self._questions()

    def _stream(self, last_event_id: str) -> Iterator[Event]:
        seconds = _SILENCE_SECONDS if self._ends is None else min(_SILENCE_SECONDS_TIMED, self._left())
        with self._api.events(f"/jobs/{self._job_id}/events", last_event_id, max(seconds, 0.1)) as source:
            for sent in source.iter_sse():
                event = _read(sent)
                if event is None:
                    continue
                if event.segment is not None:
                    self._segments += 1
                yield event
                self._left()

    def _questions(self) -> Iterator[Event]:
        status, progress, pause = None, -1.0, _FIRST_PAUSE_SECONDS
        while True:
            job = self._ask("")
            if job.status is not status and not job.final:
                yield Event(type="status", status=job.status)
            if job.progress != progress or job.final:
                # The whole text comes with each answer, so it is asked for only where there is more of it.
                yield from self._new_segments(job)
                yield Event(type="progress", progress=job.progress)
                pause = _FIRST_PAUSE_SECONDS
            if job.final:
                yield convert({"type": job.status, "status": job.status}, Event)
                return
            status, progress = job.status, job.progress
            self._sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    def _new_segments(self, job: Job) -> Iterator[Event]:
        job = self._ask("result,partial")
        transcript = job.result or job.partial
        segments: list[Segment] = transcript.segments if transcript else []
        for segment in segments[self._segments :]:
            self._segments += 1
            yield Event(type="segment", segment=segment)

    def _ask(self, include: str) -> Job:
        return read(self._api.call("GET", f"/status/{self._job_id}", params={"include": include}), Job)

    def _sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, self._left()))

    def _left(self) -> float:
        """Seconds.

        Raises:
            WaitTimedOut.
        """
        if self._ends is None:
            return float("inf")
        left = self._ends - time.monotonic()
        if left <= 0:
            raise WaitTimedOut("wait_timed_out", f"job {self._job_id} is not final yet; it goes on")
        return left


def _read(sent: ServerSentEvent) -> Event | None:
    """None: a type that this client does not know yet.

    Raises:
        msgspec.DecodeError: it says something else than its type promises.
    """
    match sent.event:
        case "segment":
            return Event(type="segment", segment=decode(sent.data, Segment), id=sent.id)
        case "progress" | "status" | "completed" | "failed" | "cancelled":
            facts = decode(sent.data or "{}", dict[str, Any])
            known: dict[str, Any] = {name: facts[name] for name in ("progress", "status") if name in facts}
            event: dict[str, Any] = {"type": sent.event, "id": sent.id, **known}
            return convert(event, Event)
        case _:
            return None
