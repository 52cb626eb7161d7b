"""`python -m actors.audio.decoding_process SOCKET MEMORY_BYTES PARENT`: forks a process for each recording.

Started once by a worker (isolated.py), it imports PyAV and then only waits: a fork takes milliseconds, where a new
interpreter would take a third of a second. It has one thread, so that forking is safe, and no credentials.

A decoder reads the recording through its socket and can do nothing else: no file or connection can be opened, no
process or thread begun, and no more memory taken than the limit. It dies with its parent, which dies with the worker.
"""

import contextlib
import ctypes
import gc
import io
import os
import resource
import signal
import socket
import sys
import traceback
import wave
from pathlib import Path

# PyAV imports it at the first file with subtitles: in a decoder that would be too late, it can open no file.
import av.subtitles.codeccontext  # noqa: F401
import msgspec
import numpy as np

from actors.audio.decode import DecodeOptions, decode_channels
from actors.audio.protocol import (
    BLOCK,
    COMMAND,
    DONE,
    END,
    FAILED,
    FETCH,
    LENGTH,
    MESSAGE,
    READY,
    START,
    DecodeRequest,
    Failure,
)
from actors.errors import AudioTooLong, AudioUnreadable
from storage.range_reader import RangeReader
from storage.structs import decode

#: prctl(2).
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

#: Signals that a terminal or a supervisor sends to the whole process group: the worker decides when a decoder ends.
_WORKERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: The only descriptor of a decoder beside its standard streams.
_CONNECTION = 3

#: Share of the memory limit that was used when a recording turned out to be unreadable: then that is why.
_SHORT_OF_MEMORY = 0.7


def main() -> None:
    descriptor, memory_bytes, parent = map(int, sys.argv[1:])
    for number in _WORKERS:
        signal.signal(number, signal.SIG_IGN)
    _die_with(parent)
    _warm_up()
    # What is here stays: collecting it in a child would copy its pages.
    gc.freeze()
    children: set[int] = set()
    with socket.socket(fileno=descriptor) as control:
        control.sendall(COMMAND.pack(READY, 0))
        while True:
            data, sockets, _, _ = socket.recv_fds(control, COMMAND.size, 1)
            if not data:
                return  # The worker is gone.
            command, number = COMMAND.unpack(data)
            if command == START:
                pid = _fork(control, sockets[0], memory_bytes)
                if pid > 0:
                    children.add(pid)
                control.sendall(COMMAND.pack(START, pid))
            else:
                control.sendall(COMMAND.pack(END, _end(number, children)))


def _warm_up() -> None:
    """Decode every kind of sound and nonsense once: what is imported or made at its first use is there for every child.

    A child cannot import anything: it may open no file.
    """
    tone = np.sin(np.arange(8000) / 5)
    left = np.stack([tone, np.zeros(8000)])
    out_of_phase, quiet = np.stack([tone, -tone]), np.stack([tone, tone]) / 1000
    for sound in (np.zeros((2, 8000)), left, out_of_phase, quiet):
        list(decode_channels(_recording(sound)))
        list(decode_channels(_recording(sound), DecodeOptions(separate=True)))
    try:
        list(decode_channels(io.BytesIO(bytes(1000))))
    except AudioUnreadable:
        pass


def _recording(sound: np.ndarray) -> io.BytesIO:
    """A WAV of 8 kHz. `sound`: from -1 to 1, shape (2, samples)."""
    recording = io.BytesIO()
    with wave.open(recording, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((sound.T * 30000).astype("<i2").tobytes())
    recording.seek(0)
    return recording


def _fork(control: socket.socket, descriptor: int, memory_bytes: int) -> int:
    """The child's process id, or a negative errno."""
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(descriptor)
        return -(error.errno or 1)
    if pid == 0:
        status = 1
        try:
            control.close()
            _die_with(parent)
            if descriptor != _CONNECTION:
                os.dup2(descriptor, _CONNECTION)
                os.close(descriptor)
            _confine(memory_bytes)
            _serve(socket.socket(fileno=_CONNECTION), memory_bytes)
            status = 0
        except BaseException:  # noqa: BLE001 The process's edge.
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(descriptor)
    return pid


def _end(pid: int, children: set[int]) -> int:
    """Kill a child, if it has not ended by itself. Returns its wait status."""
    if pid not in children:
        return signal.SIGKILL  # It died with the process that was here before this one.
    children.remove(pid)
    # A child that has ended keeps its id until it is waited for, so no other process can be killed.
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # It died before.


def _confine(memory_bytes: int) -> None:
    """Take this process every right that decoding does not need."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # Where the machine runs out of memory, this process goes before the worker; some containers refuse it.
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_NOFILE, _CONNECTION + 1)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, most))


def _serve(connection: socket.socket, memory_bytes: int) -> None:
    """Decode the one recording that the worker asks for."""
    (length,) = LENGTH.unpack(_receive(connection, LENGTH.size))
    request = decode(_receive(connection, length), DecodeRequest)

    def fetch(begin: int, end: int) -> bytes:
        connection.sendall(MESSAGE.pack(FETCH, begin, end, 0))
        return _receive(connection, end - begin)

    warnings: list[str] = []
    resident = _most_resident()
    try:
        source = RangeReader(fetch, request.size)
        for block in decode_channels(source, request.options, warnings):
            connection.sendall(MESSAGE.pack(BLOCK, *block.shape, source.tell()))
            connection.sendall(np.ascontiguousarray(block, np.float32).data)
    except ConnectionError:
        return  # The worker is gone.
    except Exception as error:  # noqa: BLE001 The process's edge: the worker decides what follows.
        short_of_memory = _most_resident() - resident > _SHORT_OF_MEMORY * memory_bytes
        text = msgspec.json.encode(_failure(error, short_of_memory=short_of_memory))
        connection.sendall(MESSAGE.pack(FAILED, len(text), 0, 0) + text)
    else:
        text = msgspec.json.encode(warnings)
        connection.sendall(MESSAGE.pack(DONE, len(text), 0, 0) + text)


def _failure(error: Exception, *, short_of_memory: bool) -> Failure:
    if isinstance(error, AudioTooLong):
        return Failure("too_long", str(error))
    # FFmpeg's own error for it is turned into AudioUnreadable, and where FFmpeg goes on without, nothing says so.
    if short_of_memory or isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
        return Failure("memory", "")
    if isinstance(error, AudioUnreadable):
        return Failure("unreadable", str(error))
    return Failure("broken", "".join(traceback.format_exception(error))[-4000:])


def _most_resident() -> int:
    """The most bytes that this process had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _receive(connection: socket.socket, length: int) -> bytes:
    """Exactly so many bytes. Raises ConnectionError where the worker is gone."""
    received = bytearray(length)
    view = memoryview(received)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise ConnectionResetError
        view = view[count:]
    return bytes(received)


if __name__ == "__main__":
    main()
