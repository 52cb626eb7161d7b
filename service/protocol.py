"""One client connection: uvicorn's HTTP/1.1 protocol, with limits for what uvicorn reads before a request is routed.

uvicorn waits for the end of a request's headers forever and keeps all of them in memory. Here they have a deadline and
a size, and so have chunk lines, trailers and the rest of a body whose request has been answered already. Neither
pipelining nor an `Upgrade` header leads around the limits. The rate of bodies is limited in service/body_rate.py.
"""

import asyncio
import secrets
from typing import Any

import msgspec
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import KINDS, MEDIA_TYPE, RETRY_AFTER_SECONDS, new_problem

log = structlog.get_logger()

#: How long the rest of a body is read and dropped after its answer, so that the client gets to read the answer.
_LINGER_SECONDS = 30


class ConnectionLimits(msgspec.Struct, frozen=True):
    #: Time from the first byte of a request, or from the connection, until its headers are complete.
    header_seconds: float
    #: Bytes of a request line with its headers and trailers.
    header_bytes: int
    #: Connections open at once.
    connections: int


class _HeadersTooLarge(Exception):
    """Stops the parser; httptools reports it as its own error."""


class LimitedProtocol(HttpToolsProtocol):
    """Answers 408, 431 or 503 and closes the connection where a limit is passed."""

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._limits = limits
        #: The next bytes belong to a request line or to headers.
        self._in_headers = True
        self._received = False
        #: Nothing more is read.
        self._refused = False
        #: Parsed bytes of the request line, the headers and the trailers.
        self._header_bytes = 0
        #: Bytes since the parser last reported something: of an unfinished header, or of a chunk line.
        self._unparsed_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse("too_many_connections", f"{self._limits.connections} connections are open, which is the limit")
            return
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        if self._linger is not None:
            self._linger.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._received = True
        if self._in_headers:
            self._start_deadline()
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        if self._unparsed_bytes > self._limits.header_bytes:
            self._refuse_headers()
        elif self._linger is None and not self._in_headers and self.cycle.response_complete:
            self._linger = self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    # What the parser reports

    def on_message_begin(self) -> None:
        self._header_bytes = self._unparsed_bytes = 0
        self._start_deadline()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # With the colon, a space and the end of the line.
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unparsed_bytes = 0
        self._in_headers = False
        self._stop_deadline()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed_bytes = 0
        self._in_headers = True
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        super().on_message_complete()

    # uvicorn's own answers

    def send_400_response(self, msg: str) -> None:
        if self._header_bytes > self._limits.header_bytes:
            self._refuse_headers()
        else:
            self._refuse("invalid_request", "this is not an HTTP/1.1 request")

    def _unsupported_upgrade_warning(self) -> None:
        """The request is answered as any other: nothing here speaks another protocol."""

    def _count(self, size: int) -> None:
        self._unparsed_bytes = 0
        self._header_bytes += size
        if self._header_bytes > self._limits.header_bytes:
            raise _HeadersTooLarge

    def _start_deadline(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._limits.header_seconds, self._expire)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if self._is_answering():
            self._start_deadline()  # Of a request that was sent while the one before is being answered.
        elif self._received:
            self._refuse("headers_timeout", f"the headers were not complete after {self._limits.header_seconds:g} s")
        else:
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse_headers(self) -> None:
        self._refuse("headers_too_large", f"the headers have more than {self._limits.header_bytes} bytes")

    def _refuse(self, code: str, detail: str) -> None:
        """Answer and close. While a request before is being answered, that answer is the last one."""
        log.info("connection refused", code=code, client=self.client[0] if self.client else None)
        self._refused = True
        if self._is_answering() and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return
        if not self._is_answering():
            self.transport.write(_answer(code, detail))
        self.transport.close()


def _answer(code: str, detail: str) -> bytes:
    """A whole HTTP response with a problem."""
    status = KINDS[code].status
    body = msgspec.json.encode(new_problem(code, detail))
    headers = {
        "content-type": MEDIA_TYPE,
        "content-length": str(len(body)),
        "cache-control": "no-store",
        "x-request-id": secrets.token_hex(8),
        "connection": "close",
        **({"retry-after": str(RETRY_AFTER_SECONDS)} if status == 503 else {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[status] + lines.encode() + b"\r\n" + body
