"""Runs a part without the supervisor, for tests and benchmarks: start, stop, kill, and wait until it answers."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from deploy.embedded.parts import HOST, Part
from deploy.embedded.with_parent import tied_to_parent


class PartFailed(Exception):
    """A part ended while it was waited for, or did not answer in time; the message ends with its last log lines."""


class Running:
    """One part as a child process. It is killed with the process that started it, even when that dies by kill -9."""

    def __init__(self, part: Part, ready: Callable[[], bool]) -> None:
        """`ready` asks the part, without waiting, whether it can be used."""
        self.part = part
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        return self.part.directory / f"{self.part.name}.log"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise PartFailed(f"{self.part.name} is not running")
        return self._process.pid

    def start(self, timeout_seconds: float = 180) -> None:
        """Start it and return when it can be used.

        Raises:
            PartFailed: it ended, or it did not answer in time.
        """
        process = self.launch()
        deadline = time.monotonic() + timeout_seconds
        while not self.ready():
            if process.poll() is not None:
                raise PartFailed(f"{self.part.name} ended with {process.returncode}: {self._last_lines()}")
            if time.monotonic() > deadline:
                self.kill()
                raise PartFailed(f"{self.part.name} did not answer in {timeout_seconds:.0f} s: {self._last_lines()}")
            time.sleep(0.02)

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start it and return at once."""
        self.part.directory.mkdir(parents=True, exist_ok=True)
        self.log_path.touch(mode=0o600)
        with self.log_path.open("ab") as log:
            self._process = _spawn(self.part, log)
        return self._process

    def ready(self) -> bool:
        """Whether it can be used now."""
        return self._ready()

    def ended(self) -> bool:
        """Whether its process is gone, by whatever cause."""
        return self._process is None or self._process.poll() is not None

    def terminate(self) -> None:
        """Ask it to end (SIGTERM) and return at once."""
        os.kill(self.pid, signal.SIGTERM)

    def stop(self, timeout_seconds: float = 120) -> None:
        """Ask it to end (SIGTERM) and wait; kill it when that takes too long. Not running is fine."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """kill -9: what it had not written is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start it again on the same folder and ports."""
        self.kill()
        self.start()

    def _last_lines(self) -> str:
        return " | ".join(self.log_path.read_text(errors="replace").splitlines()[-5:])


def store_answers(port: int) -> bool:
    """True when SeaweedFS's S3 service says that it is well."""
    return b" 200 " in _ask(port, b"GET /healthz HTTP/1.0\r\n\r\n").partition(b"\r\n")[0]


def redis_answers(port: int, password: str) -> bool:
    """True when Valkey has read its data and takes commands."""
    return b"+PONG" in _ask(port, f"AUTH {password}\r\nPING\r\nQUIT\r\n".encode())


def http_answers(port: int) -> bool:
    """True when a server of HTTP answers, whatever it says."""
    return _ask(port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/")


def _ask(port: int, request: bytes) -> bytes:
    """What comes back until the other side closes; nothing when it cannot be reached."""
    answer = b""
    try:
        with socket.create_connection((HOST, port), timeout=2) as connection:
            connection.sendall(request)
            while block := connection.recv(4096):
                answer += block
    except OSError:
        # Not listening yet, or closed before it was read to the end: what there is decides.
        return answer
    return answer


def _spawn(part: Part, log: IO[bytes]) -> subprocess.Popen[bytes]:
    # The kernel counts the thread that starts it as the parent: start parts from a thread that stays.
    return subprocess.Popen(
        tied_to_parent("KILL", part.argv),
        cwd=part.directory,
        env={**os.environ, **part.env},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        # What it writes is the owner's alone, as with scripts/up.
        umask=0o077,
        # A group of its own: Ctrl-C in a terminal reaches the starter, which then stops its parts in order.
        process_group=0,
    )
