"""How containers begin, how long they say they are, and so where the next of several joined files begins."""

import re
from collections.abc import Callable, Iterator

from actors.audio.source import Following, GuardedSource, SourcePart

_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_ASF = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"

#: Offset, bytes, name: to tell a broken recording from something else altogether.
_NAMES = (
    (4, b"ftyp", "MP4 or MOV"),
    (0, b"RIFF", "WAV or AVI"),
    (0, b"RIFX", "WAV"),
    (0, b"RF64", "WAV"),
    (0, b"FORM", "AIFF"),
    (0, b"caff", "CAF"),
    (0, b"OggS", "Ogg"),
    (0, b"fLaC", "FLAC"),
    (0, b"ID3", "MP3"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (0, b"\x30\x26\xb2\x75", "WMA or WMV"),
    (0, b"FLV", "FLV"),
)

#: A whole file behind the end of another begins with one of these.
_FILE = re.compile(
    rb"RIFF....(?:WAVE|AVI )|RIFX....WAVE|(?:RF64|BW64)....WAVE|FORM....AIF[FC]|caff\x00\x01|OggS\x00[\x02\x06]"
    rb"|fLaC\x00|....ftyp|\x1aE\xdf\xa3|FLV\x01|TTA1|\.snd\x00\x00|" + re.escape(_W64) + b"|" + re.escape(_ASF),
    re.DOTALL,
)

#: What is looked for in the bytes of a container that FFmpeg reads past its end, or that does not say how long it is.
_FOLLOWING = {
    b"OggS": re.compile(rb"OggS\x00[\x02\x06]"),
    b"fLaC": re.compile(rb"fLaC[\x00\x80]\x00\x00\x22"),
    b"FLV\x01": re.compile(rb"FLV\x01[\x00-\x05]\x00\x00\x00\x09\x00\x00\x00\x00"),
    b"\x1aE\xdf\xa3": re.compile(rb"\x1aE\xdf\xa3(?:[\x80-\xff]|\x01\x00{6}.)\x42[\x82\x86\xf7]", re.DOTALL),
    b"RIFF": re.compile(rb"RIFF.{4}WAVEfmt ", re.DOTALL),
    b"TTA1": re.compile(rb"TTA1[\x01\x03]\x00[\x01-\x20]\x00"),
    b"ftyp": re.compile(rb"\x00{3}[\x10-\x80]ftyp[ -~]{4}"),
}

#: What writers put in place of a length that they do not know yet, of 32 bits and of 64.
_STREAMED, _UNKNOWN = (0xFFFFFF00, 0x7FFFF000, 0x80000000), 1 << 62

#: Top-level elements of a container that are stepped over in search of its end; tags before its beginning.
_MOST_ELEMENTS, _MOST_TAGS = 100, 16

#: Zeros between a tag and what it belongs to.
_MOST_PADDING = 64 * 1024

ReadAt = Callable[[int, int], bytes]


def name_of(beginning: bytes) -> str | None:
    """What a file begins as, for a message about one that cannot be opened."""
    return next((name for offset, magic, name in _NAMES if beginning[offset:].startswith(magic)), None)


def is_streamed(size: int) -> bool:
    """Whether a length of 32 bits only says that it was not known."""
    most, low, high = _STREAMED
    return size == 0 or size >= most or low <= size <= high


def without_tags(read_at: ReadAt, begin: int) -> int:
    """Where the recording begins behind ID3v2 and APEv2 tags and their padding. https://id3.org/id3v2.4.0-structure"""
    at = begin
    for _ in range(_MOST_TAGS):
        head = read_at(at, 32)
        if head[:3] == b"ID3" and len(head) > 10 and max(head[3:5]) < 0xFF and max(head[6:10]) < 0x80:
            size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
            at += 10 + size + (10 if head[5] & 0x10 else 0)
        elif head[:8] == b"APETAGEX":
            at += 32 + int.from_bytes(head[12:16], "little")
        else:
            break
    if at == begin or head.strip(b"\0"):
        return at
    padding = read_at(at, _MOST_PADDING)
    recording = padding.lstrip(b"\0")
    # An MP4 begins with zeros of its own: the length of its first box.
    return at + len(padding) - len(recording) - (3 if recording[1:5] == b"ftyp" else 0)


def part_at(source: GuardedSource, begin: int) -> SourcePart:
    """The container that begins here, or behind tags."""
    head = source.read_at(begin, 32)
    earliest = begin + 1
    pattern = _FOLLOWING.get(b"ftyp" if head[4:8] == b"ftyp" else head[:4])
    if head[:4] == b"OggS":
        # The streams of one recording all begin before the first page of any.
        earliest = _behind_first_pages(source.read_at, begin)
    part = SourcePart(source, begin, following=pattern and Following(pattern, earliest))
    if head[:4] in (b"RIFF", b".snd"):
        # FFmpeg reads AVI and AU on to the end of the file.
        part.end = _behind(part)
    return part


def next_part(part: SourcePart) -> SourcePart | None:
    """What was joined to a part that is read to its end; None: nothing that is known here."""
    source, begin = part.source, part.end or _behind(part)
    if begin is None:
        return None
    begin = without_tags(source.read_at, begin)
    return part_at(source, begin) if _FILE.match(source.read_at(begin, 32)) else None


def promised_size(part: SourcePart) -> int:
    """Bytes that a container should have by the lengths of its top-level elements; 0: it does not say."""
    return next((end - part.begin for end in _element_ends(part) if end > part.source.size), 0)


def _behind(part: SourcePart) -> int | None:
    """Where something else begins behind the last element that belongs to a container."""
    read_at = part.source.read_at
    return next((end for end in _element_ends(part) if _FILE.match(read_at(without_tags(read_at, end), 32))), None)


def _element_ends(part: SourcePart) -> Iterator[int]:
    at = part.begin
    for _ in range(_MOST_ELEMENTS):
        length = _element_length(part.source.read_at(at, 32)) if at < part.source.size else None
        if not length:
            return
        at += length
        yield at


def _element_length(head: bytes) -> int | None:
    """Bytes of the top-level element of a container that begins so; None: it does not say, or it is no such thing."""
    big, little = int.from_bytes(head[4:8], "big"), int.from_bytes(head[4:8], "little")
    if head[:4] in (b"RIFF", b"RIFX", b"FORM"):
        size = little if head[:4] == b"RIFF" else big
        return None if is_streamed(size) else 8 + size + size % 2
    if head[:4] in (b"RF64", b"BW64"):
        return 8 + int.from_bytes(head[20:28], "little")
    if head.startswith(_W64):
        size = int.from_bytes(head[16:24], "little")
        return size if 24 <= size < _UNKNOWN else None
    if head[:4] == b".snd":
        size = int.from_bytes(head[8:12], "big")
        return None if is_streamed(size) else big + size
    if head[:4] == b"caff":
        return 8
    return _box_length(head)


def _box_length(head: bytes) -> int | None:
    """A box of MP4, a chunk of CAF or an object of ASF."""
    size = int.from_bytes(head[:4], "big")
    if head[4:8] == b"moof":
        return None  # Fragments are many, and all of them are read anyway.
    if head[4:8].isalnum() and size == 1:
        return int.from_bytes(head[8:16], "big")
    if head[4:8].isalnum() and size >= 8:
        return size
    if head[:4].isalnum() and len(head) >= 12:
        size = int.from_bytes(head[4:12], "big")
        return 12 + size if size < _UNKNOWN else None
    size = int.from_bytes(head[16:24], "little")
    return size if 24 <= size < _UNKNOWN else None


def _behind_first_pages(read_at: ReadAt, begin: int) -> int:
    """Where the pages that begin the streams of an Ogg end. https://www.rfc-editor.org/rfc/rfc3533#section-6"""
    at = begin
    for _ in range(_MOST_ELEMENTS):
        page = read_at(at, 27)
        if len(page) < 27 or page[:4] != b"OggS" or not page[5] & 2:
            break
        at += 27 + page[26] + sum(read_at(at + 27, page[26]))
    return max(at, begin + 1)
