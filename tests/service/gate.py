"""A stretch of network between a client and a server that tests can narrow, count and cut."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Gate:
    """Passes bytes on to the address of a URL; `url` is its own. Every connection has two threads."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._target = (address.hostname or "", address.port or 80)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        #: Bytes that clients may still send; None: as many as they like.
        self.allowed: int | None = None
        #: Bytes that clients have sent.
        self.passed = 0
        #: How many connections clients have made.
        self.connections = 0
        self._open = threading.Condition()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def allow(self, count: int | None) -> None:
        with self._open:
            self.allowed, self.passed = count, 0
            self._open.notify_all()

    def cut(self) -> None:
        """Every connection there is breaks off; new ones are made."""
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.close()
        self.allow(None)
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # Closed.
            while True:
                client, _ = self._listening.accept()
                self.connections += 1
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while block := source.recv(65536):
                if counted:
                    self._count(len(block))
                target.sendall(block)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _count(self, size: int) -> None:
        with self._open:
            self._open.wait_for(lambda: self.allowed is None or self.passed < self.allowed)
            self.passed += size


@contextmanager
def gate_to(url: str) -> Iterator[Gate]:
    gate = Gate(url)
    yield gate
    gate.close()
