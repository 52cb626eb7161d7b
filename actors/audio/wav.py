"""The header of a WAV: what FFmpeg does not tell of it, and the big-endian kind, which it takes for the other.

https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE/WAVE.html; RF64: https://tech.ebu.ch/docs/tech/tech3306.pdf
"""

import string
import struct
from typing import NamedTuple

from actors.audio.beginnings import ReadAt, is_streamed
from actors.errors import AudioUnreadable

#: Chunks before the samples that are looked at.
_MOST_CHUNKS = 100

#: Seconds by which a header may be wrong: some writers count a few bytes too many.
_TOLERANCE_SECONDS = 0.1

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE

#: Of big-endian samples: format tag and bytes of a sample → FFmpeg's name of the raw format.
_RAW_FORMATS = {
    (_PCM, 1): "u8",
    (_PCM, 2): "s16be",
    (_PCM, 3): "s24be",
    (_PCM, 4): "s32be",
    (_FLOAT, 4): "f32be",
    (_FLOAT, 8): "f64be",
    (_ALAW, 1): "alaw",
    (_MULAW, 1): "mulaw",
}

_LETTERS = frozenset((string.ascii_letters + string.digits + " _").encode())


class WavHeader(NamedTuple):
    big_endian: bool
    #: PCM, float, …; where the header names one in its extension, that one.
    format_tag: int
    channels: int
    sample_rate: int
    bytes_per_second: int
    #: Bytes of a sample of each channel.
    block_align: int
    #: A bit for each loudspeaker; 0: the file states no layout.
    mask: int
    #: Where the samples begin, and how many bytes of them there should be.
    data_begin: int
    data_size: int

    @property
    def seconds(self) -> float:
        return self.data_size / self.bytes_per_second if self.bytes_per_second else 0.0


def read_wav_header(read_at: ReadAt) -> WavHeader | None:
    """None: it is no WAV, or its header is not whole."""
    head = read_at(0, 12)
    if head[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or head[8:] != b"WAVE":
        return None
    order = ">" if head[:4] == b"RIFX" else "<"
    at, kind, long_size = 12, b"", 0
    for _ in range(_MOST_CHUNKS):
        chunk = read_at(at, 8)
        if len(chunk) < 8:
            break
        name, (size,) = chunk[:4], struct.unpack(order + "I", chunk[4:])
        if name == b"data":
            whole = long_size if size == 0xFFFFFFFF and long_size else size
            return _header(order, kind, at + 8, whole) if len(kind) >= 16 else None
        if name == b"fmt ":
            kind = read_at(at + 8, min(size, 40))
        elif name == b"ds64":
            long_size = int.from_bytes(read_at(at + 16, 8), "little")
        at += 8 + size + size % 2
    return None


def _header(order: str, kind: bytes, data_begin: int, data_size: int) -> WavHeader:
    tag, channels, rate, bytes_per_second, block_align, _ = struct.unpack(order + "HHIIHH", kind[:16])
    mask = 0
    if tag == _EXTENSIBLE and len(kind) >= 28:
        mask, tag = struct.unpack(order + "II", kind[20:28])
    return WavHeader(
        order == ">", tag, channels, rate, bytes_per_second, block_align, mask, data_begin, data_size
    )  # fmt: skip


class RawFormat(NamedTuple):
    """How PyAV is told to open samples without a header."""

    name: str
    options: dict[str, str]


def raw_format(header: WavHeader) -> RawFormat:
    """Of a big-endian WAV.

    Raises:
        AudioUnreadable: its samples are compressed, or there are none of such a size.
    """
    sample_bytes = header.block_align // header.channels if header.channels else 0
    name = _RAW_FORMATS.get((header.format_tag, sample_bytes))
    if name is None:
        raise AudioUnreadable(
            f"the file is a big-endian WAV (RIFX) of a kind that cannot be decoded: format {header.format_tag:#06x} "
            f"with {8 * sample_bytes} bits"
        )
    stated = header.mask.bit_count() == header.channels
    layout = hex(header.mask) if stated else f"{header.channels} channels"
    return RawFormat(name, {"sample_rate": str(header.sample_rate), "ch_layout": layout})


def continues(header: WavHeader, read_at: ReadAt, size: int) -> bool:
    """Whether samples go on where the header says that they end: nothing there looks like a chunk or a tag.

    `size`: bytes of the whole file.
    """
    end = header.data_begin + header.data_size
    beyond = size - end
    if is_streamed(header.data_size) or beyond < _TOLERANCE_SECONDS * header.bytes_per_second:
        return False
    # A chunk begins at an even place, which some writers do not know.
    for at in (end, end + 1):
        chunk = read_at(at, 8)
        if not chunk.strip(b"\0") or chunk[:3] in (b"ID3", b"TAG") or _LETTERS.issuperset(chunk[:4]):
            return False
    return True


def wrong_length(header: WavHeader, size: int, before: float, *, goes_on: bool) -> str | None:
    """A sentence about samples that are missing, or that the header does not know of; None: its length is right.

    `before`: seconds of the recording before this file.
    """
    if is_streamed(header.data_size) or not header.bytes_per_second:
        return None
    found, claimed = before + (size - header.data_begin) / header.bytes_per_second, before + header.seconds
    if goes_on:
        return f"the recording's header says {claimed:.1f} s, but it goes on to {found:.1f} s: all of it was read"
    if found < claimed - _TOLERANCE_SECONDS:
        return f"the recording breaks off after {found:.1f} s, its header says {claimed:.1f} s"
    return None
