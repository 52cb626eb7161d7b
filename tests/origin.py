"""A real server of recordings on 127.0.0.1, that serves ranges, breaks off, lies, drips and redirects as it is told."""

import re
import ssl
import threading
from collections.abc import Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec


class Served(msgspec.Struct, kw_only=True):
    """What lies at a path."""

    body: bytes = b""
    content_type: str = "audio/wav"
    etag: str | None = '"one"'
    #: Seconds since the epoch.
    modified: float | None = None
    #: Known by another ETag each time that it is asked for.
    restless: bool = False
    ranges: bool = True
    #: Bytes of a range that are given at once.
    most: int | None = None
    headers: dict[str, str] = {}
    #: Answered first, one a request.
    statuses: list[int] = []
    #: Bytes after which the connection is cut, one a request.
    breaks: list[int] = []
    #: Bytes after which nothing more is sent until `go` is set; `paused` tells that it has come so far.
    pause_at: int | None = None
    go: threading.Event = msgspec.field(default_factory=threading.Event)
    paused: threading.Event = msgspec.field(default_factory=threading.Event)
    #: What Content-Length says beyond the truth.
    lie: int = 0
    #: Sent in chunks, so that no length is told.
    chunked: bool = False
    #: One byte at a time, so many seconds apart.
    drip_seconds: float | None = None


class Asked(msgspec.Struct, frozen=True):
    path: str
    #: Names in small letters.
    headers: dict[str, str]
    #: As it was answered.
    status: int


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        self.close_connection = True
        try:
            self._answer(self.server.origin.served.get(self.path.partition("?")[0]))
        except OSError:
            pass  # The client went away, as it may.

    def _answer(self, served: Served | None) -> None:
        if served is None or served.statuses:
            self._begin(404 if served is None else served.statuses.pop(0))
            self._end_headers({"Content-Length": "0", **(served.headers if served else {})})
            return
        if served.restless:
            served.etag = f'"{len(self.server.origin.asked)}"'
        begin = self._begins(served)
        rest = served.body[begin:][: served.most if begin else None]
        self._begin(206 if begin else 200)
        if begin and "Content-Range" not in served.headers:
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(rest) - 1}/{len(served.body)}")
        modified = formatdate(served.modified, usegmt=True) if served.modified else None
        fields: dict[str, str | None] = {"Content-Type": served.content_type, "ETag": served.etag}
        fields |= {"Last-Modified": modified, **served.headers}
        if served.chunked:
            fields["Transfer-Encoding"] = "chunked"
        else:
            fields["Content-Length"] = str(len(rest) + served.lie)
        self._end_headers(fields)
        self._send(served, rest, begin)

    def _begin(self, status: int) -> None:
        names = {name.lower(): value for name, value in self.headers.items()}
        self.server.origin.asked.append(Asked(self.path, names, status))
        self.send_response(status)

    def _end_headers(self, fields: Mapping[str, str | None]) -> None:
        for name, value in fields.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def _begins(self, served: Served) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        known = served.etag or (served.modified and formatdate(served.modified, usegmt=True))
        if not served.ranges or asked is None or self.headers.get("If-Range", known) != known:
            return 0
        return int(asked[1])

    def _send(self, served: Served, rest: bytes, begin: int) -> None:
        cut = served.breaks.pop(0) if served.breaks else len(rest)
        step = 1 if served.drip_seconds else 64 * 1024
        for at in range(0, min(cut, len(rest)), step):
            if served.pause_at is not None and begin + at >= served.pause_at:
                served.paused.set()
                served.go.wait(240)
            if served.drip_seconds and self.server.origin.closed.wait(served.drip_seconds):
                return
            block = rest[at : min(at + step, cut)]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if served.chunked else block)
        if served.chunked and cut >= len(rest):
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    origin: "Origin"
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # A client that does not trust the certificate, say.


class Origin:
    def __init__(self, certificate: ssl.SSLContext | None = None) -> None:
        #: Path → what is there.
        self.served: dict[str, Served] = {}
        self.asked: list[Asked] = []
        self.closed = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.origin = self
        if certificate is not None:
            self._server.socket = certificate.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def ranges(self) -> list[str | None]:
        """The Range of each request, in order."""
        return [asked.headers.get("range") for asked in self.asked]

    def close(self) -> None:
        self.closed.set()
        for served in self.served.values():
            served.go.set()
        self._server.shutdown()
        self._server.server_close()
