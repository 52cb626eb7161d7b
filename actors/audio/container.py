"""A part of a source as an open container, and the length that it claims."""

import math
import re
from types import TracebackType
from typing import Self

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError

from actors.audio.beginnings import is_streamed, name_of, promised_size
from actors.audio.source import SourcePart
from actors.audio.tracks import choose_track
from actors.audio.wav import RawFormat, WavHeader, continues, raw_format, read_wav_header, wrong_length
from actors.errors import AudioTooLong, AudioUnreadable

#: A recording whose header claims too much is looked at in so many places, and at most so many bytes of it.
_LOOKS, _LOOK_BYTES = 4, 32 * 2**20

#: Containers of which FFmpeg gives the length that they have, not the one that they claim.
_UNCLAIMED = ("caf", "w64")


class Opened:
    """A container to read, and what its own header says beside what FFmpeg makes of it."""

    def __init__(self, part: SourcePart) -> None:
        """
        Raises:
            AudioUnreadable: it is not audio or video.
        """
        self.part = part
        options: dict[str, str] = {}
        raw: RawFormat | None = None
        if part.seekable():
            if part.read_at(4, 4) == b"ftyp":
                # Else FFmpeg walks through all fragments of an MP4 to make an index, before it reads them: twice the
                # bytes.
                options["fflags"] = "+ignidx"
            part.seek(0)
        self._wav = read_wav_header(part.read_at) if part.seekable() else None
        self._goes_on = self._wav is not None and continues(self._wav, part.read_at, part.size)
        if self._goes_on:
            options["ignore_length"] = "1"
        if self._wav is not None and self._wav.big_endian:
            raw = raw_format(self._wav)
            part = _samples_of(part, self._wav, goes_on=self._goes_on)
        self.container = _open(part, options, raw)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.container.close()

    @property
    def claimed_channels(self) -> int:
        """What a WAV's header says, also where FFmpeg has no use for so many; 0: it is another container."""
        return self._wav.channels if self._wav is not None else 0

    def length_warning(self, stream: AudioStream, seconds: float, before: float) -> str | None:
        """A sentence where the header promises more than there was; `before`: seconds of the recording before it."""
        if self._wav is not None:
            return wrong_length(self._wav, self.part.size, before, goes_on=self._goes_on)
        if self.container.format.name in _UNCLAIMED and (promised := promised_size(self.part)):
            size = f"it has {self.part.size} bytes, its header says {promised}"
            return f"the recording breaks off after {before + seconds:.1f} s: {size}"
        claimed = _claimed(self.container, stream)
        if self.part.end is not None or claimed <= seconds + max(1.0, 0.02 * claimed):
            return None
        return f"the recording breaks off after {before + seconds:.1f} s, its header says {before + claimed:.1f} s"


def open_unless_long(part: SourcePart, max_seconds: float | None, audio_track: str | None) -> Opened:
    """
    Raises:
        AudioUnreadable: it is not audio or video, or has no such track.
        AudioTooLong: the header says so, and sound is found all the way there.
    """
    opened = Opened(part)
    claimed = (opened.container.duration or 0) / av.time_base
    if max_seconds is None or claimed <= max_seconds or not part.seekable():
        return opened
    with opened:
        stream = choose_track(opened.container, audio_track)
        part.source.allowance = _LOOK_BYTES
        if _goes_on(opened.container, stream, max_seconds):
            raise AudioTooLong(f"the recording lasts {claimed:.0f} s, the limit is {max_seconds:g} s")
    part.source.check()
    part.source.allowance = None
    return Opened(part)


def _open(part: SourcePart, options: dict[str, str], raw: RawFormat | None) -> InputContainer:
    # No protocol is called "none": whatever a file names (playlist, concat list, SDP), nothing else is opened.
    options = {"protocol_whitelist": "none", **options, **(raw.options if raw else {})}
    try:
        return av.open(part, mode="r", format=raw and raw.name, metadata_errors="ignore", options=options)
    except FFmpegError as error:
        part.source.check()
        raise AudioUnreadable(_why_not_opened(part.read_at(0, 64))) from error


def _samples_of(part: SourcePart, wav: WavHeader, *, goes_on: bool) -> SourcePart:
    """What lies behind the header."""
    begin = part.begin + wav.data_begin
    end = begin + wav.data_size
    known = not goes_on and not is_streamed(wav.data_size)
    return SourcePart(part.source, begin, end if known else part.end)


def _why_not_opened(beginning: bytes) -> str:
    if not beginning:
        return "the file is empty (0 bytes)"
    name = name_of(beginning)
    if name is not None:
        return f"the file begins as {name} but cannot be read: it is damaged or cut off"
    return "the file is not audio or video"


def _goes_on(container: InputContainer, stream: AudioStream, seconds: float) -> bool:
    """Whether there is sound in so many places, evenly spread, the last one after `seconds`."""
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


def _claimed(container: InputContainer, stream: AudioStream) -> float:
    """Seconds of sound that the header promises; 0.0 where it does not say."""
    if len(container.streams) > 1:
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        return _tagged_seconds(stream.metadata.get("DURATION", ""))
    claimed = (container.duration or 0) / av.time_base
    bytes_needed = claimed * (stream.codec_context.bit_rate or 0) / 8
    # What FFmpeg guesses from the size fits the size; a file that was cut off is too small for what it promises.
    return 0.0 if 0 < bytes_needed <= 1.01 * container.size else claimed


def _tagged_seconds(duration: str) -> float:
    """Seconds of Matroska's tag of a track, as 00:01:02.345000000; 0.0 if it is none."""
    found = re.fullmatch(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d{1,9})?)", duration)
    return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3]) if found else 0.0
