"""The least speed of a request's body: a client that sends slower would keep its place, and its connection, forever."""

import asyncio
import time
from typing import Any

from litestar.types import Receive

from service.errors import ApiError


class BodyRate:
    """Only the time that the server waits for the client counts, so a slow store is nobody's fault."""

    def __init__(self, idle_seconds: float, min_bytes_per_second: int) -> None:
        self._seconds = idle_seconds
        #: What must come while the server waits `idle_seconds` in all.
        self._least = max(1, round(min_bytes_per_second * idle_seconds))

    def limited(self, receive: Receive) -> Receive:
        """The same messages; what is received raises ApiError upload_stalled where the body comes too slowly."""
        waited = 0.0
        received = 0
        ended = False

        async def receive_in_time() -> Any:
            nonlocal waited, received, ended
            if ended:
                return await receive()  # Whoever waits now, waits for the client to go.
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._seconds - waited):
                    message = await receive()
            except TimeoutError as error:
                detail = f"{received} bytes came in {self._seconds:g} s, the least is {self._least}"
                raise ApiError("upload_stalled", detail, headers={"Connection": "close"}) from error
            waited += time.monotonic() - began
            if message["type"] == "http.request":
                received += len(message["body"])
                ended = not message.get("more_body", False)
            if received >= self._least:
                waited, received = 0.0, 0
            return message

        return receive_in_time
