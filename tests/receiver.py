"""A real receiver of webhooks on 127.0.0.1, that answers as it is told to, and worse."""

import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from standardwebhooks import Webhook


class Received(msgspec.Struct, frozen=True):
    path: str
    #: Names in small letters.
    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str) -> dict[str, Any]:
        """The body, if signature and time are right: raises WebhookVerificationError else."""
        content: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return content


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        names = {name.lower(): value for name, value in self.headers.items()}
        answers = self.server.receiver.answers
        with self.server.receiver.changed:
            self.server.receiver.received.append(Received(self.path, names, body))
            answer = answers.popleft() if answers else status(204)
            self.server.receiver.changed.notify_all()
        self.close_connection = True
        try:
            answer(self)
        except OSError:
            pass  # The client went away, as it may.

    def log_message(self, format: str, *args: object) -> None:
        pass


Answer = Callable[[_Handler], None]


class _Server(ThreadingHTTPServer):
    receiver: "Receiver"


class Receiver:
    def __init__(self) -> None:
        self.received: list[Received] = []
        #: What the next requests are answered; 204 when there is nothing left.
        self.answers: deque[Answer] = deque()
        self.changed = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.receiver = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wait_for(self, number: int, seconds: float = 120) -> list[Received]:
        """The first requests, once there are so many."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.received) >= number, seconds), "nothing was posted in time"
            return self.received[:number]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def status(code: int, **headers: str) -> Answer:
    def answer(handler: _Handler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return answer


def freeze(handler: _Handler) -> None:
    """Say nothing until the client goes away."""
    handler.rfile.read(1)


def garbage(handler: _Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")


def _drip(handler: _Handler, content: bytes) -> None:
    for at in range(len(content)):
        handler.wfile.write(content[at : at + 1])
        handler.wfile.flush()
        time.sleep(0.05)


def drip_head(handler: _Handler) -> None:
    """A head that never ends, a byte at a time: no single read takes long."""
    _drip(handler, b"HTTP/1.1 200 OK\r\n" + b"X-More: of the same\r\n" * 1000)


def drip_body(handler: _Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    _drip(handler, b"o" * 100_000)


class Giant:
    """A body without end; `sent` counts its bytes."""

    sent = 0

    def __call__(self, handler: _Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while self.sent < 2**30:
            self.sent += handler.wfile.write(b"x" * 65_536)
