"""Any recording → 16 kHz mono samples, read from whatever has `read` and `seek`, a block at a time.

The bytes come from strangers. What they are is found by looking at them, never from a name or a type. A file may not
make FFmpeg open anything else (a playlist would read files of this machine or call hosts of its network), and what a
damaged file still holds is used.
"""

import io
from collections.abc import Iterator
from typing import Protocol

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard

from actors.errors import AudioTooLong, AudioUnreadable

#: Samples a second of everything that leaves this module: what Whisper was trained on.
SAMPLE_RATE = 16000

#: Seconds in a block.
BLOCK_SECONDS = 30

_BLOCK = BLOCK_SECONDS * SAMPLE_RATE

#: Damaged stretches of a container that are stepped over before the rest counts as lost.
_MAX_BREAKS = 1000

#: How containers begin, to tell a broken recording from something else altogether: offset, bytes, name.
_BEGINNINGS = (
    (4, b"ftyp", "MP4 or MOV"),
    (0, b"RIFF", "WAV or AVI"),
    (0, b"OggS", "Ogg"),
    (0, b"fLaC", "FLAC"),
    (0, b"ID3", "MP3"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (0, b"\x30\x26\xb2\x75", "WMA or WMV"),
    (0, b"FLV", "FLV"),
)


class Source(Protocol):
    """An open binary file: io.BytesIO, storage's RangeReader, what `open(path, "rb")` gives."""

    def read(self, size: int, /) -> bytes | None: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...
    def seekable(self) -> bool: ...


def encode_flac(samples: np.ndarray) -> bytes:
    """A FLAC file of 16 kHz mono. Samples that `decode` gave come back from it as they are, bit for bit."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        whole = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
        for at in range(0, len(whole), SAMPLE_RATE):
            frame = AudioFrame.from_ndarray(whole[None, at : at + SAMPLE_RATE], format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            frame.pts = at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def decode(source: Source, max_seconds: float | None = None) -> Iterator[np.ndarray]:
    """Decode to mono: blocks of float32 samples in [-1, 1] at 16 kHz, shape (samples,). See `decode_channels`."""
    for block in decode_channels(source, max_seconds):
        yield block[0]


def decode_channels(
    source: Source, max_seconds: float | None = None, warnings: list[str] | None = None, *, separate: bool = False
) -> Iterator[np.ndarray]:
    """Decode the audio stream that the file marks as its main one to 16 kHz, a block at a time.

    Yields float32 samples in [-1, 1], shape (channels, samples), at most 30 s each: 1.9 MB a channel, whatever the
    length of the source. Channels are mixed into one unless they are to be `separate`; then they are as many as the
    first frame has. There is at least one block. Damaged stretches are skipped; once the last block is taken,
    `warnings` has a sentence about them, and about an end that came before its time.

    Raises:
        AudioUnreadable: not audio or video, no audio stream, or not one sample of it can be decoded.
        AudioTooLong: it lasts longer than `max_seconds`. Raised as soon as that much is decoded, or at once where the
            header says so and the file is as large as that takes. A header alone is not believed: a recorder that was
            switched off leaves one that claims hours.
        whatever `source` raises while it is read, unchanged.
    """
    guard = _Guard(source)
    try:
        with _open(guard) as container:
            stream = _audio_stream(container)
            if max_seconds is not None:
                _refuse_long(container, stream, max_seconds)
            damage = _Damage()
            yield from _blocks(_samples(container, stream, guard, damage, separate=separate), max_seconds)
            if warnings is not None:
                warnings += damage.sentences(container, stream)
    except FFmpegError as error:
        raise AudioUnreadable("the recording cannot be decoded: it is damaged or cut off") from error
    finally:
        guard.check()


class _Guard:
    """The source as PyAV sees it, which remembers what the source raises.

    FFmpeg turns an error into an end of file or into one of its own, and PyAV repeats a read for ever that raised what
    is not an Exception (a time limit, say). So the first error ends the file here and is raised by `check`.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._error: BaseException | None = None

    def read(self, size: int) -> bytes:
        if self._error is None:
            try:
                return self._source.read(size) or b""
            except BaseException as error:  # noqa: BLE001 Raised again by `check`.
                self._error = error
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        if self._error is None:
            try:
                return self._source.seek(offset, whence)
            except OSError:
                raise  # The source cannot seek (there): FFmpeg goes on without where it can.
            except BaseException as error:  # noqa: BLE001 Raised again by `check`.
                self._error = error
        return -1

    def tell(self) -> int:
        return self._source.tell()

    def seekable(self) -> bool:
        return self._source.seekable()

    def beginning(self) -> bytes:
        """The first bytes, for a message about a file that could not be opened."""
        self.seek(0)
        return self.read(64)

    def check(self) -> None:
        """Raise what the source raised, if it did."""
        if self._error is not None:
            raise self._error


def _open(guard: _Guard) -> InputContainer:
    try:
        # No protocol is called "none": whatever a file names (playlist, concat list, SDP), nothing else is opened.
        return av.open(guard, mode="r", metadata_errors="ignore", options={"protocol_whitelist": "none"})
    except FFmpegError as error:
        guard.check()
        raise AudioUnreadable(_why_not_opened(guard.beginning())) from error


def _why_not_opened(beginning: bytes) -> str:
    if not beginning:
        return "the file is empty (0 bytes)"
    for offset, magic, name in _BEGINNINGS:
        if beginning[offset:].startswith(magic):
            return f"the file begins as {name} but cannot be read: it is damaged or cut off"
    return "the file is not audio or video"


def _audio_stream(container: InputContainer) -> AudioStream:
    """The main audio stream, with all others set to be discarded, so that their bytes need not be read."""
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        kinds = sorted({stream.type for stream in container.streams})
        holds = f"it holds {' and '.join(kinds)}" if kinds else "it holds no stream at all"
        raise AudioUnreadable(f"the file has no audio stream: {holds}")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream


def _refuse_long(container: InputContainer, stream: AudioStream, max_seconds: float) -> None:
    """Refuse before decoding where the header claims too much and the file has nine tenths of the bytes it takes."""
    claimed = (container.duration or 0) / av.time_base
    bytes_needed = claimed * (stream.codec_context.bit_rate or 0) / 8
    if claimed > max_seconds and 0 < bytes_needed * 0.9 <= container.size:
        raise AudioTooLong(f"the recording lasts {claimed:.0f} s, the limit is {max_seconds:g} s")


def _blocks(chunks: Iterator[np.ndarray], max_seconds: float | None) -> Iterator[np.ndarray]:
    """Gather int16 samples, shape (channels, samples), into float32 blocks of 30 s, the last one shorter."""
    block = np.empty((0, _BLOCK), np.float32)
    filled, total = 0, 0
    for chunk in chunks:
        total += chunk.shape[1]
        if not len(block):
            block = np.empty((len(chunk), _BLOCK), np.float32)
        if max_seconds is not None and total > max_seconds * SAMPLE_RATE:
            so_far = total / SAMPLE_RATE
            raise AudioTooLong(f"the recording lasts at least {so_far:.1f} s, the limit is {max_seconds:g} s")
        while chunk.shape[1]:
            taken, chunk = chunk[:, : _BLOCK - filled], chunk[:, _BLOCK - filled :]
            np.multiply(taken, 1 / 32768, out=block[:, filled : filled + taken.shape[1]], dtype=np.float32)
            filled += taken.shape[1]
            if filled == _BLOCK:
                yield block
                block, filled = np.empty_like(block), 0
    if filled:
        yield block[:, :filled].copy()
    if not total:
        raise AudioUnreadable("nothing of the audio stream can be decoded: the file is damaged or cut off")


class _Damage:
    """What was stepped over, and how far the recording went."""

    def __init__(self) -> None:
        self.packets = 0
        self.breaks = 0
        self.samples = 0

    def sentences(self, container: InputContainer, stream: AudioStream) -> list[str]:
        found = []
        if self.packets or self.breaks:
            found.append(f"{self.packets + self.breaks} damaged places of the recording were skipped")
        seconds = self.samples / SAMPLE_RATE
        claimed = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        if claimed > seconds + max(1.0, 0.02 * claimed):
            found.append(f"the recording breaks off after {seconds:.1f} s, its header says {claimed:.1f} s")
        return found


def _samples(
    container: InputContainer, stream: AudioStream, guard: _Guard, damage: _Damage, *, separate: bool
) -> Iterator[np.ndarray]:
    """int16 samples at 16 kHz as they are decoded, shape (channels, samples)."""
    for samples in _resampled_frames(container, stream, guard, damage, separate=separate):
        damage.samples += samples.shape[1]
        yield samples


def _resampled_frames(
    container: InputContainer, stream: AudioStream, guard: _Guard, damage: _Damage, *, separate: bool
) -> Iterator[np.ndarray]:
    layout = "" if separate else "mono"
    resampler: AudioResampler | None = None
    kind = None
    for packet in _packets(container, stream, damage):
        guard.check()
        for frame in _frames(packet, damage):
            # A stream may change its rate or channels on the way (joined files, broadcast); a resampler cannot.
            if (frame.format.name, frame.layout.name, frame.sample_rate) != kind:
                yield from _resampled(resampler, None)
                kind = (frame.format.name, frame.layout.name, frame.sample_rate)
                layout = layout or frame.layout.name
                resampler = AudioResampler(format="s16p", layout=layout, rate=SAMPLE_RATE)
            # Broken time stamps must not stop it: samples follow one another as they come.
            frame.pts = None
            yield from _resampled(resampler, frame)
    guard.check()
    yield from _resampled(resampler, None)


def _packets(container: InputContainer, stream: AudioStream, damage: _Damage) -> Iterator["Packet[AudioStream]"]:
    """The stream's packets up to the end, stepping over what the container cannot make sense of."""
    for _ in range(_MAX_BREAKS):
        try:
            yield from container.demux(stream)
            return
        except FFmpegError:
            damage.breaks += 1


def _frames(packet: "Packet[AudioStream]", damage: _Damage) -> Iterator[AudioFrame]:
    """The frames of a packet; none where it is damaged."""
    try:
        yield from packet.decode()
    except MemoryError:
        raise
    except FFmpegError:
        damage.packets += 1


def _resampled(resampler: AudioResampler | None, frame: AudioFrame | None) -> Iterator[np.ndarray]:
    """The samples that are ready once `frame` is in; None: those that are left."""
    if resampler is not None:
        for ready in resampler.resample(frame):
            yield ready.to_ndarray()
