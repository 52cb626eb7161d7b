"""How long a connection may take to be made, against a real server that says nothing."""

import socket
import ssl
import time
from collections.abc import Iterator

import httpcore
import pytest

from actors.guard import Guard
from actors.outgoing import GuardedBackend, open_pool, to_httpcore

LOOPBACK = Guard("127.0.0.0/8")


class Unwanted(Exception):
    """What the caller raises when it has enough."""


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are made and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_tls_has_only_what_the_connection_left_of_its_time(silent_port: int) -> None:
    stream = GuardedBackend(LOOPBACK, lambda: None).connect_tcp("127.0.0.1", silent_port, timeout=0.5)
    began = time.monotonic()

    with pytest.raises(httpcore.ConnectTimeout):
        stream.start_tls(ssl.create_default_context(), "127.0.0.1", timeout=60)

    stream.close()
    assert time.monotonic() - began < 30


def test_who_has_enough_while_the_connection_is_made_does_not_wait_for_tls(silent_port: int) -> None:
    asked: list[float] = []

    def still_wanted() -> None:
        asked.append(time.monotonic())
        if len(asked) > 1:
            raise Unwanted

    began = time.monotonic()
    with open_pool(LOOPBACK, still_wanted) as pool, pytest.raises(Unwanted):
        pool.request("GET", to_httpcore(f"https://127.0.0.1:{silent_port}/"), extensions={"timeout": {"connect": 60.0}})

    assert time.monotonic() - began < 30
