"""Any recording → 16 kHz mono samples, read from whatever has `read` and `seek`, a block at a time.

The bytes come from strangers. What they are is found by looking at them, never from a name or a type. A file may not
make FFmpeg open anything else (a playlist would read files of this machine or call hosts of its network), and what a
damaged file still holds is used.
"""

import math
from collections.abc import Iterator
from typing import Protocol

import av
import msgspec
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard

from actors.audio.limits import check_frame, check_streams
from actors.errors import AudioTooLong, AudioUnreadable

#: Samples a second of everything that leaves this module: what Whisper was trained on.
SAMPLE_RATE = 16000

#: Seconds in a block.
BLOCK_SECONDS = 30

_BLOCK = BLOCK_SECONDS * SAMPLE_RATE

#: Damaged stretches of a container that are stepped over before the rest counts as lost.
_MAX_BREAKS = 1000

#: A recording whose header claims too much is looked at in so many places, and at most so many bytes of it.
_LOOKS, _LOOK_BYTES = 4, 32 * 2**20

#: Containers that tell a time with every packet, and seconds that a gap may have. In others (WAV, MP3, FLAC) samples
#: follow one another. A broadcast may begin its clock anew on the way: ffmpeg, too, believes it no more than 10 s.
_LONGEST_GAPS = {
    "matroska,webm": 3600.0,
    "mov,mp4,m4a,3gp,3g2,mj2": 3600.0,
    "flv": 3600.0,
    "asf": 3600.0,
    "mpegts": 10.0,
    "mpeg": 10.0,
}

#: Seconds that a frame may come early, and late, by its container's time. FFmpeg's own bound is as low for the first.
_EARLY, _LATE = 0.1, 1.0

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


def decode(source: Source, max_seconds: float | None = None) -> Iterator[np.ndarray]:
    """Decode to mono: blocks of float32 samples in [-1, 1] at 16 kHz, shape (samples,). See `decode_channels`."""
    for block in decode_channels(source, DecodeOptions(max_seconds=max_seconds)):
        yield block[0]


class DecodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a recording, and how much of it is allowed."""

    #: Seconds that it may last; None: any number.
    max_seconds: float | None = None
    #: Each channel on its own; else they are mixed into one.
    separate: bool = False


DEFAULT = DecodeOptions()


def decode_channels(
    source: Source, options: DecodeOptions = DEFAULT, warnings: list[str] | None = None
) -> Iterator[np.ndarray]:
    """Decode the audio stream that the file marks as its main one to 16 kHz, a block at a time.

    Yields float32 samples in [-1, 1], shape (channels, samples), at most 30 s each: 1.9 MB a channel, whatever the
    length of the source. Channels are mixed into one unless they are to be `separate`; then they are as many as the
    first frame has. There is at least one block. Where the container says that time passes without sound there is
    silence, so that times are a player's. Damaged stretches are skipped; once the last block is taken, `warnings` has
    a sentence about them, about times that cannot be right, and about an end that came too early.

    Raises:
        AudioUnreadable: not audio or video, no audio stream, or not one sample of it can be decoded.
        AudioTooLong: it lasts longer than `options.max_seconds`. Raised as soon as that much is decoded, or at once
            where the header says so and sound is found all the way there. A header alone is not believed: a recorder
            that was switched off leaves one that claims hours, and where there is none FFmpeg guesses from the first
            frames.
        whatever `source` raises while it is read, unchanged.
    """
    guard = _Guard(source)
    try:
        with _open_unless_long(guard, options.max_seconds) as container:
            stream = _audio_stream(container)
            damage = _Damage()
            samples = _samples(container, stream, guard, damage, separate=options.separate)
            yield from _blocks(samples, options.max_seconds)
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
        #: Bytes that may be read before the file seems to end; None: all of them.
        self.allowance: int | None = None

    def read(self, size: int) -> bytes:
        if self.allowance is not None:
            size = min(size, self.allowance)
            self.allowance -= size
        if self._error is None and size:
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
    # No protocol is called "none": whatever a file names (playlist, concat list, SDP), nothing else is opened.
    options = {"protocol_whitelist": "none"}
    if guard.seekable():
        if guard.beginning()[4:8] == b"ftyp":
            # Else FFmpeg walks through all fragments of an MP4 to make an index, before it reads them: twice the bytes.
            options["fflags"] = "+ignidx"
        guard.seek(0)
    try:
        return av.open(guard, mode="r", metadata_errors="ignore", options=options)
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
    check_streams(container)
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        kinds = sorted({stream.type for stream in container.streams})
        holds = f"it holds {' and '.join(kinds)}" if kinds else "it holds no stream at all"
        raise AudioUnreadable(f"the file has no audio stream: {holds}")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return stream


def _open_unless_long(guard: _Guard, max_seconds: float | None) -> InputContainer:
    container = _open(guard)
    claimed = (container.duration or 0) / av.time_base
    if max_seconds is None or claimed <= max_seconds or not guard.seekable():
        return container
    guard.allowance = _LOOK_BYTES
    with container:
        if _goes_on(container, max_seconds):
            raise AudioTooLong(f"the recording lasts {claimed:.0f} s, the limit is {max_seconds:g} s")
    guard.check()
    guard.allowance = None
    return _open(guard)


def _goes_on(container: InputContainer, seconds: float) -> bool:
    """Whether there is sound in so many places, evenly spread, the last one after `seconds`."""
    stream = _audio_stream(container)
    step = seconds / _LOOKS
    begin = (container.start_time or 0) / av.time_base
    try:
        return all(
            _first_after(container, stream, begin + step * number) < begin + step * (number + 1)
            for number in range(1, _LOOKS + 1)
        )
    except FFmpegError:
        return False


def _first_after(container: InputContainer, stream: AudioStream, seconds: float) -> float:
    """The time of the first packet from this time on; infinite if there is none."""
    container.seek(round(seconds * av.time_base))
    for packet in container.demux(stream):
        if packet.pts is not None and (time := float(packet.pts * packet.time_base)) >= seconds:
            return time
    return math.inf


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
        #: How often the container's times jumped further than can be believed, or back; seconds before the first time.
        self.jumps, self.first_jump = 0, 0.0

    def sentences(self, container: InputContainer, stream: AudioStream) -> list[str]:
        found = []
        if self.packets or self.breaks:
            found.append(f"{self.packets + self.breaks} damaged places of the recording were skipped")
        if self.jumps:
            found.append(
                f"the recording's clock jumps {self.jumps} times, first after {self.first_jump:.1f} s; ignored"
            )
        seconds = self.samples / SAMPLE_RATE
        claimed = _claimed(container, stream)
        if not self.jumps and claimed > seconds + max(1.0, 0.02 * claimed):
            found.append(f"the recording breaks off after {seconds:.1f} s, its header says {claimed:.1f} s")
        return found


def _claimed(container: InputContainer, stream: AudioStream) -> float:
    """Seconds of sound that the header promises; 0.0 where it does not say."""
    if len(container.streams) > 1:
        return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    claimed = (container.duration or 0) / av.time_base
    bytes_needed = claimed * (stream.codec_context.bit_rate or 0) / 8
    # What FFmpeg guesses from the size fits the size; a file that was cut off is too small for what it promises.
    return 0.0 if 0 < bytes_needed <= 1.01 * container.size else claimed


class _Clock:
    """The time of each frame in the recording, and what is missing before it."""

    def __init__(self, container: InputContainer, damage: _Damage) -> None:
        self._longest_gap = _LONGEST_GAPS.get(container.format.name)
        #: The container's time at which this clock began, and how far it has gone; both in seconds.
        self._begin = (container.start_time or 0) / av.time_base
        self._now = 0.0
        self._damage = damage

    def missing_before(self, frame: AudioFrame) -> int:
        """Samples at 16 kHz without sound that the container has before this frame, which comes next."""
        missing = 0.0
        if self._longest_gap is not None and frame.time is not None:
            early = frame.time - self._begin - self._now
            if not -_LATE <= early <= self._longest_gap:
                self._begin += early
                self._damage.first_jump = self._damage.first_jump or self._now
                self._damage.jumps += 1
            elif early > _EARLY:
                missing = early
        self._now += missing + frame.samples / frame.sample_rate
        return round(missing * SAMPLE_RATE)


def _samples(
    container: InputContainer, stream: AudioStream, guard: _Guard, damage: _Damage, *, separate: bool
) -> Iterator[np.ndarray]:
    """int16 samples at 16 kHz as they are decoded, shape (channels, samples), and silence where time passes without."""
    for samples in _resampled_frames(container, stream, guard, damage, separate=separate):
        damage.samples += samples.shape[1]
        yield samples


def _resampled_frames(
    container: InputContainer, stream: AudioStream, guard: _Guard, damage: _Damage, *, separate: bool
) -> Iterator[np.ndarray]:
    layout = "" if separate else "mono"
    resampler: AudioResampler | None = None
    kind = None
    clock = _Clock(container, damage)
    for packet in _packets(container, stream, damage):
        guard.check()
        for frame in _frames(packet, damage):
            check_frame(frame)
            layout = layout or frame.layout.name
            missing = clock.missing_before(frame)
            # A stream may change its rate or channels on the way (joined files, broadcast); a resampler cannot.
            if missing or (frame.format.name, frame.layout.name, frame.sample_rate) != kind:
                yield from _resampled(resampler, None)
                yield from _silence(missing, AudioLayout(layout).nb_channels)
                kind = (frame.format.name, frame.layout.name, frame.sample_rate)
                resampler = AudioResampler(format="s16p", layout=layout, rate=SAMPLE_RATE)
            # The clock knows the time: the resampler takes samples as they come.
            frame.pts = None
            yield from _resampled(resampler, frame)
    guard.check()
    yield from _resampled(resampler, None)


def _silence(samples: int, channels: int) -> Iterator[np.ndarray]:
    for at in range(0, samples, _BLOCK):
        yield np.zeros((channels, min(_BLOCK, samples - at)), np.int16)


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
        yield from (ready.to_ndarray() for ready in resampler.resample(frame))
