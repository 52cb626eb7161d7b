"""Decoding of strangers' recordings in a process of its own, with limits on memory and time.

FFmpeg is a million lines of C that parse untrusted input. Here a recording that makes it crash, take gigabytes or
never end takes down only the process that decodes it: the worker sees a closed socket or looks at its clock, and the
recording is unreadable. The worker reads the recording, so the decoder needs no credentials and makes no connections;
blocks come while it reads, as they do in the worker's own process.
"""

import contextlib
import io
import os
import signal
import time
from collections.abc import Callable, Generator
from typing import Self

import msgspec
import numpy as np
import structlog

from actors.audio import protocol
from actors.audio.decode import DEFAULT, SAMPLE_RATE, DecodeOptions, Source
from actors.audio.flac import encode_flac
from actors.audio.forking import Forking
from actors.audio.protocol import DecodeRequest, Failure
from actors.errors import AudioError, AudioTooLong, AudioUnreadable, DecoderUnavailable
from storage.range_reader import LAST_WINDOW
from storage.structs import decode

log = structlog.get_logger()

#: While a decoder works, the lease and the clock are looked at this often.
_LOOK_SECONDS = 0.2

#: Bytes of JSON that a decoder may send.
_MAX_TEXT_BYTES = 2**20

#: How often a recording is decoded again at the same place after its decoder was killed from outside.
_MAX_KILLED = 1

_BROKEN = "the recording cannot be decoded: it breaks the decoder"


class IsolatedDecoder:
    """Decodes recordings, each in a process of its own, in any number of threads at once."""

    def __init__(self, memory_bytes: int, seconds: float) -> None:
        """A decoder may take `memory_bytes`, and `seconds` longer than the sound that it has given lasts."""
        self._memory_bytes = memory_bytes
        self._seconds = seconds
        self._forking = Forking(memory_bytes)

    def start(self) -> None:
        """Have a process at hand, so that the first recording need not wait, and see that it decodes.

        Raises:
            DecoderUnavailable: it cannot.
        """
        try:
            list(self.decode_channels(io.BytesIO(encode_flac(np.zeros(SAMPLE_RATE, np.float32)))))
        except AudioUnreadable as error:
            raise DecoderUnavailable(f"recordings cannot be decoded in processes of their own: {error}") from error

    def close(self) -> None:
        """End every process."""
        self._forking.close()

    def decode_channels(
        self,
        source: Source,
        options: DecodeOptions = DEFAULT,
        warnings: list[str] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Generator[np.ndarray, None, None]:
        """As `decode.decode_channels`, of a source that can seek.

        `check` is called several times a second while a decoder works; what it raises ends the decoder.

        Raises:
            AudioUnreadable: also where decoding crashes, takes too much memory or too long.
            DecoderUnavailable: no process can be started.
        """
        given, killed = 0, 0
        while True:
            at, before = 0, given
            try:
                with contextlib.closing(self._decoded(source, options, warnings, check)) as blocks:
                    for block in blocks:
                        # Decoded a second time, what was given the first time is left out.
                        new = block[:, max(0, given - at) :]
                        at += block.shape[1]
                        given = max(given, at)
                        if new.shape[1]:
                            yield new
                return
            except _Killed:
                # What goes forward is not to blame.
                killed = killed + 1 if given == before else 1
                log.warning("decoder killed", decoded_seconds=round(given / SAMPLE_RATE, 1), times=killed)
                if killed > _MAX_KILLED:
                    reason = f"the recording cannot be decoded: its decoder was killed {killed} times"
                    raise AudioUnreadable(reason) from None

    def _decoded(
        self, source: Source, options: DecodeOptions, warnings: list[str] | None, check: Callable[[], None]
    ) -> Generator[np.ndarray, None, None]:
        """Decode in one process, from the beginning."""
        size = source.seek(0, os.SEEK_END)
        with _Decoder(self._forking, self._seconds, check) as decoder:
            decoder.ask(DecodeRequest(size, options))
            while True:
                match decoder.message():
                    case protocol.FETCH, begin, end, _ if begin < end <= min(size, begin + LAST_WINDOW):
                        decoder.send(_read(source, begin, end))
                    case protocol.BLOCK, channels, samples, at if 0 < channels * samples * 4 <= self._memory_bytes:
                        block = decoder.samples(channels, samples)
                        # The decoder reads ahead: here the source is where this block ends.
                        source.seek(min(at, size))
                        yield block
                    case protocol.DONE, length, _, _ if length <= _MAX_TEXT_BYTES:
                        found = decode(decoder.text(length), list[str])
                        if warnings is not None:
                            warnings += found
                        return
                    case protocol.FAILED, length, _, _ if length <= _MAX_TEXT_BYTES:
                        raise self._error(decode(decoder.text(length), Failure))
                    case _:
                        raise AudioUnreadable(_BROKEN)

    def _error(self, failure: Failure) -> AudioError:
        match failure.kind:
            case "too_long":
                return AudioTooLong(failure.message)
            case "unreadable":
                return AudioUnreadable(failure.message)
            case "memory":
                limit = self._memory_bytes / 2**20
                return AudioUnreadable(f"decoding the recording takes more memory than the limit of {limit:.0f} MiB")
            case "broken":
                log.error("decoder broke", traceback=failure.message)
                return AudioUnreadable(_BROKEN)


class _Killed(Exception):
    """The decoder was killed from outside: the recording may be valid."""


class _Decoder:
    """A decoding process and the time that it has taken, from `with` to its end."""

    def __init__(self, forking: Forking, seconds: float, check: Callable[[], None]) -> None:
        self._forking = forking
        self._seconds = seconds
        self._check = check
        #: Seconds that were waited for the decoder, and seconds of sound that it gave.
        self._waited, self._given = 0.0, 0.0

    def __enter__(self) -> Self:
        self._pid, self._socket = self._forking.new_child()
        self._socket.settimeout(_LOOK_SECONDS)
        self._status: int | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._socket.close()

    def ask(self, request: DecodeRequest) -> None:
        text = msgspec.json.encode(request)
        self.send(protocol.LENGTH.pack(len(text)) + text)

    def message(self) -> tuple[bytes, int, int, int]:
        """The next message, but for what follows it."""
        self._check()
        kind, *numbers = protocol.MESSAGE.unpack(self.text(protocol.MESSAGE.size))
        return kind, numbers[0], numbers[1], numbers[2]

    def samples(self, channels: int, samples: int) -> np.ndarray:
        block = np.empty((channels, samples), np.float32)
        self._receive(memoryview(block.data).cast("B"))
        self._given += samples / SAMPLE_RATE
        return block

    def text(self, length: int) -> bytes:
        received = bytearray(length)
        self._receive(memoryview(received))
        return bytes(received)

    def send(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            left = left[self._patiently(lambda: self._socket.send(left)) :]  # noqa: B023 Called at once.

    def _receive(self, into: memoryview) -> None:
        while into:
            count = self._patiently(lambda: self._socket.recv_into(into))  # noqa: B023
            if not count:
                raise self._death()
            into = into[count:]

    def _patiently(self, step: Callable[[], int]) -> int:
        """Repeat a step of the socket until it is done or the decoder has had its time."""
        while True:
            began = time.monotonic()
            try:
                return step()
            except TimeoutError:
                self._check()
            except ConnectionError:
                raise self._death() from None
            finally:
                # A worker that was frozen meanwhile waited no longer than it looks.
                self._waited += min(time.monotonic() - began, 2 * _LOOK_SECONDS)
            if self._waited > self._seconds + self._given:
                raise AudioUnreadable(
                    f"decoding the recording took {self._waited:.0f} s for {self._given:.0f} s of sound, "
                    f"the limit is {self._seconds:g} s more than it lasts"
                )

    def _death(self) -> Exception:
        """Why the decoder ended before it was done."""
        status = self._end()
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number == signal.SIGKILL:
                return _Killed()
            return AudioUnreadable(f"the recording cannot be decoded: it ends the decoder with {_name(number)}")
        return AudioUnreadable(_BROKEN)

    def _end(self) -> int:
        if self._status is None:
            self._status = self._forking.end_child(self._pid)
        return self._status


def _name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _read(source: Source, begin: int, end: int) -> bytes:
    """Exactly these bytes."""
    source.seek(begin)
    pieces, left = [], end - begin
    while left:
        piece = source.read(left)
        if not piece:
            raise EOFError(f"the recording ends at byte {end - left} and not where it said")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
