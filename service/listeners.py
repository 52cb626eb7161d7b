"""Open event streams: limited in all and for each client, kept alive, and ended together when the server stops."""

import asyncio
from collections.abc import AsyncGenerator

from litestar.background_tasks import BackgroundTask
from litestar.response import Stream

from service.clients import Places

#: Server-Sent Events: a line that begins with a colon says nothing.
#: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
_COMMENT = b": still here\n\n"

_HEADERS = {
    # Also to proxies: an event that is held back or told to another is of no use.
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}


class Listeners:
    def __init__(self, most: int, keep_alive_seconds: float, share: int | None = None) -> None:
        """`share`: how many of them one client may open; None: all."""
        codes = ("too_many_listeners", "client_listeners_exceeded")
        self._places = Places(most, most if share is None else share, "event streams", codes=codes)
        self.keep_alive_seconds = keep_alive_seconds
        #: The server stops.
        self.ended = False
        #: What the streams wait for.
        self.waiting: set[asyncio.Future[bytes | None]] = set()
        #: Streams whose answer is not over.
        self.open: set[_Told] = set()

    @property
    def free(self) -> int:
        """Slots that are not taken."""
        return self._places.free

    def place(self, client: str = "") -> "Place":
        """For a stream to come; it is not taken yet."""
        return Place(self._places, client)

    def stream(self, chunks: AsyncGenerator[bytes], place: "Place | None" = None) -> Stream:
        """An answer of Server-Sent Events: `chunks` as they are, and a comment whenever there is none for long.

        Nothing waits in memory for a client that is slow: the next chunk is asked for when the last one is sent. When
        the answer is over, however it ended, the chunks are closed and the place is free.

        Raises:
            ApiError: too_many_listeners or client_listeners_exceeded.
        """
        place = place or self.place()
        place.take()
        told = _Told(self, chunks, place)
        self.open.add(told)
        # The end is not left to generators: one that was not begun does not run its `finally`, and one that waits for
        # its chunk to be sent is closed when the garbage is collected.
        return Stream(told, media_type="text/event-stream", headers=_HEADERS, background=BackgroundTask(told.close))

    def end(self) -> None:
        """End every stream where it is. Its client asks again, with the id of the last event that it has seen."""
        self.ended = True
        for waiting in self.waiting:
            waiting.cancel()


class Place:
    """Of one stream. Taken once and given back once, however often that is asked for."""

    def __init__(self, places: Places, client: str) -> None:
        self._places, self._client = places, client
        self._taken = False

    def take(self) -> None:
        """
        Raises:
            ApiError: too_many_listeners or client_listeners_exceeded.
        """
        if not self._taken:
            self._places.take(self._client)
            self._taken = True

    def leave(self) -> None:
        if self._taken:
            self._taken = False
            self._places.leave(self._client)


class _Told:
    """The bytes of one stream."""

    def __init__(self, listeners: Listeners, chunks: AsyncGenerator[bytes], place: Place) -> None:
        self._listeners, self._chunks, self._place = listeners, chunks, place
        #: The next chunk, being waited for.
        self._following: asyncio.Future[bytes | None] | None = None

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        waiting = self._listeners.waiting
        try:
            while not self._listeners.ended:
                following = self._following = asyncio.ensure_future(_next(self._chunks))
                waiting.add(following)
                following.add_done_callback(waiting.discard)
                while not (await asyncio.wait({following}, timeout=self._listeners.keep_alive_seconds))[0]:
                    yield _COMMENT
                if following.cancelled() or (chunk := following.result()) is None:
                    return
                yield chunk
        finally:
            self._leave()

    async def close(self) -> None:
        self._leave()
        if self._following is not None:
            await asyncio.wait({self._following})
        await self._chunks.aclose()

    def _leave(self) -> None:
        self._listeners.open.discard(self)
        self._place.leave()
        if self._following is not None:
            self._following.cancel()


async def _next(chunks: AsyncGenerator[bytes]) -> bytes | None:
    return await anext(chunks, None)
