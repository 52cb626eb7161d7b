"""Minimum rate of a request's body, so that a slow client cannot keep its slot and its connection forever."""

import asyncio
import time
from typing import Any

from litestar.types import Receive

from service.errors import ApiError


class BodyRate:
    """Counts only the time in which the server waits for the client, so a slow store fails no upload."""

    def __init__(self, idle_seconds: float, min_bytes_per_second: int) -> None:
        self._seconds = idle_seconds
        #: Bytes that must arrive while the server waits `idle_seconds` in all.
        self._least = max(1, round(min_bytes_per_second * idle_seconds))

    def limited(self, receive: Receive) -> Receive:
        """Wrap an ASGI receive: it raises ApiError upload_stalled where the body arrives too slowly."""
        waited = 0.0
        received = 0
        ended = False

        async def receive_in_time() -> Any:
            nonlocal waited, received, ended
            if ended:
                return await receive()  # From here on it only reports that the client disconnected.
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._seconds - waited):
                    message = await receive()
            except TimeoutError as error:
                detail = f"{received} bytes arrived in {self._seconds:g} s, the minimum is {self._least}"
                raise ApiError("upload_stalled", detail, headers={"Connection": "close"}) from error
            waited += time.monotonic() - began
            if message["type"] == "http.request":
                received += len(message["body"])
                ended = not message.get("more_body", False)
            if received >= self._least:
                waited, received = 0.0, 0
            return message

        return receive_in_time
