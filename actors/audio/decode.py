"""Any recording → 16 kHz mono samples, read from whatever has `read` and `seek`, a block at a time.

The bytes come from strangers. What they are is found by looking at them, never from a name or a type. A file may not
make FFmpeg open anything else (a playlist would read files of this machine or call hosts of its network), and what a
damaged file still holds is used. Where several files were joined to one, all of them are decoded, one after the other.
"""

from collections.abc import Iterator

import msgspec
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

from actors.audio.beginnings import next_part, part_at, without_tags
from actors.audio.channels import fit, in_range, take_layout
from actors.audio.clock import Clock, Findings
from actors.audio.container import Opened, open_unless_long
from actors.audio.limits import check_channels, check_frame
from actors.audio.resampling import Resampling
from actors.audio.samples import BLOCK, BLOCK_SECONDS, SAMPLE_RATE, rounded
from actors.audio.source import GuardedSource, Source, SourcePart
from actors.audio.tracks import choose_track
from actors.errors import AudioTooLong, AudioUnreadable

__all__ = ["BLOCK_SECONDS", "DEFAULT", "SAMPLE_RATE", "DecodeOptions", "Source", "decode", "decode_channels"]

#: Damaged stretches of a container that are stepped over before the rest counts as lost.
_MAX_BREAKS = 1000

#: Files that were joined to one. A day of a radio station's stream has a new one for each song.
_MOST_PARTS = 2000


def decode(source: Source, max_seconds: float | None = None) -> Iterator[np.ndarray]:
    """Decode to mono: blocks of float32 samples in [-1, 1] at 16 kHz, shape (samples,). See `decode_channels`."""
    for block in decode_channels(source, DecodeOptions(max_seconds=max_seconds)):
        yield block[0]


class DecodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options and limits of decoding one recording."""

    #: Seconds that it may last; None: any number.
    max_seconds: float | None = None
    #: Each channel on its own; else they are mixed into one.
    separate: bool = False
    #: Channels that it may have; None: any number.
    max_channels: int | None = None
    #: Which of its audio streams: a number, counted from 1, or a language; None: the main one.
    audio_track: str | None = None


DEFAULT = DecodeOptions()


def decode_channels(
    source: Source, options: DecodeOptions = DEFAULT, warnings: list[str] | None = None
) -> Iterator[np.ndarray]:
    """Decode an audio stream of a file, its main one unless another is asked for, to 16 kHz, a block at a time.

    Yields float32 samples in [-1, 1], shape (channels, samples), at most 30 s each: 1.9 MB a channel, whatever the
    length of the source. Channels are mixed into one unless they are to be `separate`; then they are as many as the
    first frame has. There is at least one block. Where the container says that time passes without sound there is
    silence, so that times are a player's. Damaged stretches are skipped; once the last block is taken, `warnings` has
    a sentence about them, about times that cannot be right, about channels that cancel each other out, and about an
    end that came too early.

    Raises:
        AudioUnreadable: not audio or video, no audio stream, not the one that is asked for, too many channels, or not
            one sample of it can be decoded.
        AudioTooLong: it lasts longer than `options.max_seconds`. Raised as soon as that much is decoded, or at once
            where the header says so and sound is found all the way there. A header alone is not believed: a recorder
            that was switched off leaves one that claims hours, and where there is none FFmpeg guesses from the first
            frames.
        whatever `source` raises while it is read, unchanged.
    """
    guard = GuardedSource(source)
    findings = Findings()
    try:
        yield from _blocks(_samples(guard, options, findings), options.max_seconds)
    except FFmpegError as error:
        raise AudioUnreadable("the recording cannot be decoded: it is damaged or cut off") from error
    finally:
        guard.check()
    if warnings is not None:
        warnings += findings.sentences()


def _blocks(chunks: Iterator[np.ndarray], max_seconds: float | None) -> Iterator[np.ndarray]:
    """Gather samples, shape (channels, samples), into blocks of 30 s, the last one shorter."""
    block = np.empty((0, BLOCK), np.float32)
    filled, total = 0, 0
    for chunk in chunks:
        total += chunk.shape[1]
        if not len(block):
            block = np.empty((len(chunk), BLOCK), np.float32)
        if max_seconds is not None and total > max_seconds * SAMPLE_RATE:
            so_far = total / SAMPLE_RATE
            raise AudioTooLong(f"the recording lasts at least {so_far:.1f} s, the limit is {max_seconds:g} s")
        while chunk.shape[1]:
            taken, chunk = chunk[:, : BLOCK - filled], chunk[:, BLOCK - filled :]
            block[:, filled : filled + taken.shape[1]] = taken
            filled += taken.shape[1]
            if filled == BLOCK:
                yield rounded(in_range(block))
                block, filled = np.empty_like(block), 0
    if filled:
        yield rounded(in_range(block[:, :filled]))
    if not total:
        raise AudioUnreadable("nothing of the audio stream can be decoded: the file is damaged or cut off")


def _samples(guard: GuardedSource, options: DecodeOptions, findings: Findings) -> Iterator[np.ndarray]:
    """The samples of all parts of a file, shape (channels, samples), as many channels in each."""
    with _open_first(guard, options) as opened:
        yield from _part_samples(opened, guard, options, findings)
    part: SourcePart | None = opened.part
    for _ in range(_MOST_PARTS):
        part = next_part(part) if part is not None and guard.seekable else None
        if part is None:
            return
        before = findings.samples
        try:
            with Opened(part) as opened:
                yield from _part_samples(opened, guard, options, findings)
            if findings.samples == before:
                findings.told.append(_lost(findings.seconds, "nothing of it can be decoded"))
        except (AudioUnreadable, FFmpegError) as error:
            findings.told.append(_lost(findings.seconds, error))
    findings.told.append(_lost(findings.seconds, "too many files were joined"))


def _open_first(guard: GuardedSource, options: DecodeOptions) -> Opened:
    begin = without_tags(guard.read_at, 0) if guard.seekable else 0
    if begin:
        try:
            return open_unless_long(part_at(guard, begin), options.max_seconds, options.audio_track)
        except AudioUnreadable:
            guard.check()  # FFmpeg may see more in the whole of it.
    part = part_at(guard, 0) if guard.seekable else SourcePart(guard)
    return open_unless_long(part, options.max_seconds, options.audio_track)


def _lost(seconds: float, why: AudioUnreadable | FFmpegError | str) -> str:
    reason = "it is damaged or cut off" if isinstance(why, FFmpegError) else why
    return f"after {seconds:.1f} s another file follows in the recording, which was left out: {reason}"


def _part_samples(
    opened: Opened, guard: GuardedSource, options: DecodeOptions, findings: Findings
) -> Iterator[np.ndarray]:
    stream = choose_track(opened.container, options.audio_track)
    check_channels(opened.claimed_channels, options.max_channels)
    if stream.codec_context is None:
        raise AudioUnreadable("the audio stream has a codec that is not known")
    before, jumps = findings.seconds, findings.jumps
    for samples in _resampled_frames(opened.container, stream, guard, options, findings):
        findings.channels = findings.channels or len(samples)
        findings.samples += samples.shape[1]
        yield fit(samples, findings.channels)
    warning = opened.length_warning(stream, findings.seconds - before, before)
    if warning is not None and findings.jumps == jumps:
        findings.told.append(warning)


def _resampled_frames(
    container: InputContainer, stream: AudioStream, guard: GuardedSource, options: DecodeOptions, findings: Findings
) -> Iterator[np.ndarray]:
    """float32 samples at 16 kHz as they are decoded, and silence where time passes without."""
    layout = take_layout(stream)
    clock = Clock(container, findings)
    line: Resampling | None = None
    for packet in _packets(container, stream, findings):
        guard.check()
        for frame in _frames(packet, findings):
            check_frame(frame)
            missing = clock.missing_before(frame)
            # A stream may change its rate or channels on the way (joined files, broadcast); a resampler cannot.
            if line is None or missing or not line.fits(frame):
                if line is not None:
                    yield from line.finish()
                stated = layout if layout and layout.nb_channels == frame.layout.nb_channels else frame.layout
                line = Resampling(frame, stated, findings, separate=options.separate)
                check_channels(line.channels, options.max_channels)
                yield from _silence(missing, line.channels_out)
            yield from line.add(frame)
    guard.check()
    if line is not None:
        yield from line.finish()


def _silence(samples: int, channels: int) -> Iterator[np.ndarray]:
    for at in range(0, samples, BLOCK):
        yield np.zeros((channels, min(BLOCK, samples - at)), np.float32)


def _packets(container: InputContainer, stream: AudioStream, findings: Findings) -> Iterator["Packet[AudioStream]"]:
    """The stream's packets up to the end, stepping over what the container cannot make sense of."""
    for _ in range(_MAX_BREAKS):
        try:
            yield from container.demux(stream)
            return
        except FFmpegError:
            findings.breaks += 1


def _frames(packet: "Packet[AudioStream]", findings: Findings) -> Iterator[AudioFrame]:
    """The frames of a packet; none where it is damaged."""
    try:
        yield from packet.decode()
    except MemoryError:
        raise
    except FFmpegError:
        findings.packets += 1
