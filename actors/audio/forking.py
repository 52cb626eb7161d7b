"""The worker's side of the process that forks decoders (decoding_process.py): started once, and again where it died."""

import os
import signal
import socket
import subprocess
import sys
import threading
from typing import NamedTuple

from actors.audio.protocol import COMMAND, END, READY, START
from actors.errors import DecoderUnavailable

#: How long the process may take to start, and to answer.
_START_SECONDS, _ANSWER_SECONDS = 120.0, 30.0

#: What it needs of the worker's environment. Credentials are not among it.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")


class Child(NamedTuple):
    """A process that waits for its recording."""

    pid: int
    connection: socket.socket


class Forking:
    """Safe to share between threads. The process dies with the thread that starts it (prctl's PR_SET_PDEATHSIG)."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def close(self) -> None:
        """End the process, and with it every child that is left."""
        with self._lock:
            self._stop()

    def new_child(self) -> Child:
        """
        Raises:
            DecoderUnavailable: none can be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                with self._lock:
                    pid = self._ask(START, 0, [theirs.fileno()])
                if pid < 0:
                    raise DecoderUnavailable(f"no process can be started to decode: {os.strerror(-pid)}")
            except BaseException:  # Whatever ends it here: nobody else closes this end.
                ours.close()
                raise
        return Child(pid, ours)

    def end_child(self, pid: int) -> int:
        """Kill a child, or reap a dead one. Returns its wait status.

        Where the process died that forked it, it died too: then as if it had been killed.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                return int(signal.SIGKILL)
            try:
                return self._exchange(END, pid, [])
            except OSError:
                self._stop()
                return int(signal.SIGKILL)

    def _ask(self, command: bytes, number: int, descriptors: list[int]) -> int:
        """The answer of the process; it is restarted where the old one is dead."""
        try:
            self._started()
            return self._exchange(command, number, descriptors)
        except OSError:
            self._stop()
        self._started()
        try:
            return self._exchange(command, number, descriptors)
        except OSError as error:
            self._stop()
            raise DecoderUnavailable("the process that starts decoders ends again and again") from error

    def _started(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._stop()
        self._control, theirs = socket.socketpair()
        with theirs:
            module = "actors.audio.decoding_process"
            arguments = [str(theirs.fileno()), str(self._memory_bytes), str(os.getpid())]
            environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            # One thread, so that it can be forked; the modules are where the worker's are.
            environment |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
            )
        self._control.settimeout(_START_SECONDS)
        try:
            ready = COMMAND.unpack(self._answer())[0] == READY
        except OSError:
            ready = False
        if not ready:
            self._stop()
            raise DecoderUnavailable("the process that decodes recordings does not start; its own log says why")
        self._control.settimeout(_ANSWER_SECONDS)

    def _exchange(self, command: bytes, number: int, descriptors: list[int]) -> int:
        assert self._control is not None
        socket.send_fds(self._control, [COMMAND.pack(command, number)], descriptors)
        answer: int = COMMAND.unpack(self._answer())[1]
        return answer

    def _answer(self) -> bytes:
        assert self._control is not None
        answer = self._control.recv(COMMAND.size, socket.MSG_WAITALL)
        if len(answer) < COMMAND.size:
            raise ConnectionResetError
        return answer

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._control = None
