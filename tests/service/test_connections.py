"""What a server reads of a request before it knows what is asked: headers have a deadline and a size."""

import resource
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import httptools
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.forms import END, connection, head, part

GET = b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n"
LIMIT = 64 * 1024


@pytest.fixture(scope="module")
def hasty_api(start_api: StartApi, quiet_settings: StorageSettings) -> Api:
    """Waits a second for headers."""
    return start_api(quiet_settings, HEADER_SECONDS="1")


def answer(opened: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    received = b""
    try:
        while block := opened.recv(65536):
            received += block
    except ConnectionResetError:
        pass
    return received


def until(opened: socket.socket, end: bytes) -> bytes:
    received = b""
    while end not in received:
        block = opened.recv(65536)
        assert block, received
        received += block
    return received


def trickle(opened: socket.socket, line: Callable[[int], bytes]) -> bytes:
    """Send a line every now and then until the server has had enough; returns what it said last."""
    opened.settimeout(0.1)
    received = b""
    for number in range(200):
        try:
            opened.sendall(line(number))
            while block := opened.recv(65536):
                received += block
            return received
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return received
    raise AssertionError("the connection stays open")


def test_half_open_connections_are_closed_after_the_deadline(hasty_api: Api) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(connection(hasty_api.url)) for _ in range(100)]
        for one in opened[::2]:
            one.sendall(GET)
        served = hasty_api.client.get("/health/live").status_code
        answers = [answer(one) for one in opened]

    assert served == 200
    assert all(told.startswith(b"HTTP/1.1 408 ") and b'"headers_timeout"' in told for told in answers[::2])
    assert set(answers[1::2]) == {b""}


def test_headers_that_trickle_in_do_not_prolong_the_deadline(hasty_api: Api) -> None:
    with connection(hasty_api.url) as opened:
        opened.sendall(GET)

        assert b" 408 " in trickle(opened, lambda number: b"X-%d: 1\r\n" % number)


@pytest.mark.parametrize("line", [b"\r\n", b"X-1: 1\r\n"], ids=["empty lines", "headers"])
def test_the_second_request_of_a_connection_has_the_same_deadline(hasty_api: Api, line: bytes) -> None:
    with connection(hasty_api.url) as opened:
        opened.sendall(GET + b"\r\n")
        until(opened, b'"alive"}')
        if line != b"\r\n":
            opened.sendall(GET)

        assert b" 408 " in trickle(opened, lambda number: line)


def test_an_upgrade_leads_around_no_limit(hasty_api: Api) -> None:
    upgrade = (
        GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
    )
    with connection(hasty_api.url) as opened:
        opened.sendall(upgrade + b"\r\n")
        answered = until(opened, b'"alive"}')

        trickle(opened, lambda number: b"x")

    assert answered.startswith(b"HTTP/1.1 200 ")
    assert "No supported WebSocket library" not in hasty_api.log()


def test_a_request_that_was_sent_early_waits_for_the_answer_before(
    start_api: StartApi, quiet_settings: StorageSettings
) -> None:
    api = start_api(quiet_settings, HEADER_SECONDS="1", KEEP_ALIVE_SECONDS="1")
    source = {"type": "upload", "filename": "a.mp3", "size": 5}
    job_id = api.client.post("/api/v1/jobs", json={"source": source}).json()["job_id"]
    with connection(api.url) as opened:
        opened.sendall(b"GET /api/v1/jobs/%s/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % job_id.encode() + GET)

        # Three signs of life: longer than the deadline of what follows.
        received = b""
        while received.count(b": still here") < 3:
            received += opened.recv(65536)

    assert b" 408 " not in received


def test_more_connections_than_the_server_has_files_for_are_turned_away(
    start_api: StartApi, quiet_settings: StorageSettings
) -> None:
    api = start_api(quiet_settings, MAX_LISTENERS="1", HEADER_SECONDS="600")
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, min(2048, most)), most))
    with ExitStack() as stack:
        # The test's own client keeps some open.
        opened = [stack.enter_context(connection(api.url)) for _ in range(1030)]

        told = answer(opened[-1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))

    assert told.startswith(b"HTTP/1.1 503 ")
    assert b"too_many_connections" in told
    assert b"retry-after: " in told


@pytest.mark.parametrize(
    "request_head",
    [
        GET + b"X-Large: " + b"x" * LIMIT + b"\r\n\r\n",
        GET + b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(70)) + b"\r\n",
        b"GET /health/live?" + b"x" * LIMIT + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Large: "
        + b"x" * 8 * LIMIT,
        b"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 8 * LIMIT,
    ],
    ids=["one header", "many headers", "query", "trailer", "chunk extension"],
)
def test_what_is_larger_than_the_limit_is_refused(quiet_api: Api, request_head: bytes) -> None:
    with connection(quiet_api.url) as opened:
        with suppress(ConnectionResetError, BrokenPipeError):
            opened.sendall(request_head)

        told = answer(opened)

    # Where the request is under way, the connection ends.
    assert b" 431 " in told or request_head.startswith(b"POST")
    assert b"invalid_body" not in told


def test_a_second_request_that_is_too_large_leaves_the_first_its_answer(quiet_api: Api) -> None:
    with connection(quiet_api.url) as opened:
        opened.sendall(GET + b"\r\n" + GET + b"X-Large: " + b"x" * LIMIT + b"\r\n\r\n")

        told = answer(opened)

    assert told.startswith(b"HTTP/1.1 200 ")
    assert told.count(b"HTTP/1.1 200 ") == 1


def test_a_huge_header_is_not_read_to_its_end(quiet_api: Api) -> None:
    sent = 0
    with connection(quiet_api.url) as opened:
        opened.sendall(GET + b"X-Large: ")
        try:
            while sent < 150 * 2**20:
                sent += opened.send(b"x" * 2**16)
        except (ConnectionResetError, BrokenPipeError):
            pass
        told = answer(opened)

    assert sent < 150 * 2**20
    assert told == b"" or b" 431 " in told


def test_headers_just_below_the_limit_are_read(quiet_api: Api) -> None:
    with connection(quiet_api.url) as opened:
        opened.sendall(GET + b"X-Large: " + b"x" * (LIMIT - 200) + b"\r\nConnection: close\r\n\r\n")

        assert answer(opened).startswith(b"HTTP/1.1 200 ")


def test_large_bodies_and_requests_behind_them_do_not_count_as_headers(quiet_api: Api) -> None:
    body = b"x" * 300_000
    post = b"POST /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with connection(quiet_api.url) as opened:
        opened.sendall((post + GET + b"\r\n") * 3 + GET + b"Connection: close\r\n\r\n")

        told = answer(opened)

    assert [told.count(b"HTTP/1.1 %d " % status) for status in (405, 200, 431)] == [3, 4, 0]


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
def test_what_is_no_request_is_answered_with_a_problem(quiet_api: Api, data: bytes) -> None:
    with connection(quiet_api.url) as opened:
        opened.sendall(data)

        told = answer(opened)

    assert told.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in told
    assert b'"invalid_request"' in told
    assert b"x-request-id: " in told


def test_a_body_that_trickles_in_is_given_up(start_api: StartApi, quiet_settings: StorageSettings) -> None:
    api = start_api(quiet_settings, UPLOAD_IDLE_SECONDS="1", MIN_UPLOAD_BYTES_PER_SECOND="1000")
    for path in ("/api/v1/jobs", "/api/v1/transcribe-async", "/v1/audio/transcriptions"):
        with connection(api.url) as opened:
            opened.sendall(head(path, Content_Length="100000") + part("file", b"sound", "a.mp3")[:-2])

            told = trickle(opened, lambda number: b"x")

        assert told.startswith(b"HTTP/1.1 408 "), path
        assert b"upload_stalled" in told
        assert b"the minimum is 1000" in told
    assert "level=error" not in api.log()


def test_a_slow_body_that_comes_at_the_least_rate_is_taken(
    start_api: StartApi, quiet_settings: StorageSettings
) -> None:
    api = start_api(quiet_settings, UPLOAD_IDLE_SECONDS="2", MIN_UPLOAD_BYTES_PER_SECOND="100")
    form = part("file", b"sound" * 1000, "a.mp3") + END
    with connection(api.url) as opened:
        opened.sendall(head("/api/v1/transcribe-async", Content_Length=str(len(form)), Connection="close"))
        # It takes longer than the time over which the rate is measured.
        for begin in range(0, len(form), 250):
            opened.sendall(form[begin : begin + 250])
            time.sleep(0.15)

        assert answer(opened).startswith(b"HTTP/1.1 202 ")


def test_uvicorn_still_has_what_the_protocol_relies_on() -> None:
    parts = {"data_received", "connection_made", "connection_lost", "send_400_response", "_unsupported_upgrade_warning"}
    callbacks = {"on_message_begin", "on_url", "on_header", "on_headers_complete", "on_body", "on_message_complete"}

    assert parts | callbacks <= vars(HttpToolsProtocol).keys()
    assert "response_complete" in RequestResponseCycle.__init__.__code__.co_names
    assert issubclass(httptools.HttpParserCallbackError, httptools.HttpParserError)
