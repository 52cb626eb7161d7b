"""Open event streams: so many at most, kept alive, and ended together when the server is to stop."""

import asyncio
from collections.abc import AsyncIterator

from litestar.response import Stream

from service.errors import ApiError

#: Server-Sent Events: a line that begins with a colon says nothing.
#: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
_COMMENT = b": still here\n\n"

_HEADERS = {
    # Also to proxies: an event that is held back or told to another is of no use.
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
}


class Listeners:
    def __init__(self, most: int, keep_alive_seconds: float) -> None:
        self._most = most
        self._keep_alive_seconds = keep_alive_seconds
        self._open = 0
        #: The server stops.
        self.ended = False
        #: What the streams wait for.
        self._waiting: set[asyncio.Future[bytes | None]] = set()

    def stream(self, chunks: AsyncIterator[bytes]) -> Stream:
        """An answer of Server-Sent Events: `chunks` as they are, and a comment whenever there is none for long.

        Nothing waits in memory for a client that is slow: the next chunk is asked for when the last one is sent.

        Raises:
            ApiError: too_many_listeners.
        """
        if self._open >= self._most:
            raise ApiError("too_many_listeners", f"{self._most} event streams are open, which is the limit")
        return Stream(self._kept_alive(chunks), media_type="text/event-stream", headers=_HEADERS)

    def end(self) -> None:
        """End every stream where it is. Its client asks again, with the id of the last event that it has seen."""
        self.ended = True
        for waiting in self._waiting:
            waiting.cancel()

    async def _kept_alive(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._open += 1
        following: asyncio.Future[bytes | None] | None = None
        try:
            while not self.ended:
                following = asyncio.ensure_future(_next(chunks))
                self._waiting.add(following)
                while not (await asyncio.wait({following}, timeout=self._keep_alive_seconds))[0]:
                    yield _COMMENT
                self._waiting.discard(following)
                if following.cancelled() or (chunk := following.result()) is None:
                    return
                yield chunk
        finally:
            self._open -= 1
            if following is not None:
                self._waiting.discard(following)
                # Ends the chunks too, wherever they are.
                following.cancel()


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    return await anext(chunks, None)
