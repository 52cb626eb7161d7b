"""Event streams whose client goes away at the worst moments, asked as a server asks: by ASGI."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from litestar import Litestar, get
from litestar.response import Stream

from service.errors import ApiError
from service.listeners import Listeners
from tests.service.asgi import scope


async def asked(
    listeners: Listeners,
    chunks: AsyncGenerator[bytes],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    """One request, from its beginning to the end of its answer."""

    @get("/events")
    async def handler() -> Stream:
        return listeners.stream(chunks)

    await Litestar([handler], openapi_config=None)(scope("GET", "/events"), receive, send)  # type: ignore[arg-type]


def test_the_chunks_are_closed_with_the_answer_when_the_client_goes_while_one_is_sent() -> None:
    closed = False

    async def chunks() -> AsyncGenerator[bytes]:
        nonlocal closed
        try:
            while True:
                yield b"data: 1\n\n"
        finally:
            await asyncio.sleep(0)
            closed = True

    async def run() -> tuple[bool, int]:
        listeners, sending, told = Listeners(1, 15), asyncio.Event(), chunks()

        async def receive() -> dict[str, object]:
            await sending.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.body":
                sending.set()
                await asyncio.Event().wait()

        await asked(listeners, told, receive, send)
        return closed, listeners.free

    assert asyncio.run(run()) == (True, 1)


def test_the_chunks_are_closed_with_the_answer_when_the_client_is_gone_before_the_first_one() -> None:
    closed = False

    async def chunks() -> AsyncGenerator[bytes]:
        nonlocal closed
        try:
            yield b"not sent"
            yield b"never asked for"
        finally:
            closed = True

    async def run() -> tuple[bool, int]:
        listeners, told = Listeners(1, 15), chunks()
        await anext(told)

        async def receive() -> dict[str, object]:
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            pass

        await asked(listeners, told, receive, send)
        return closed, listeners.free

    assert asyncio.run(run()) == (True, 1)


def test_a_burst_does_not_get_more_places_than_there_are() -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        yield b""

    async def run() -> int:
        listeners = Listeners(2, 15)
        listeners.stream(chunks())
        listeners.stream(chunks())
        with pytest.raises(ApiError, match="2 event streams are open"):
            listeners.stream(chunks())
        return listeners.free

    assert asyncio.run(run()) == 0


def test_a_place_is_given_back_once_however_often_it_is_left() -> None:
    listeners = Listeners(2, 15)
    place = listeners.place()

    place.leave()
    place.take()
    place.take()
    taken = listeners.free
    place.leave()
    place.leave()

    assert (taken, listeners.free) == (1, 2)
