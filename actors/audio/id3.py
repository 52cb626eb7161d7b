"""ID3v2 tags (https://id3.org/id3v2.4.0-structure) in front of a recording, which may hold pictures of any size."""

from actors.audio.decode import Source

#: A tag up to this size stays for FFmpeg to read: it costs nothing, and a file is then decoded as it is.
_MAX_TAG_BYTES = 2**20

_HEADER_BYTES, _FOOTER_BYTES, _HAS_FOOTER = 10, 10, 0x10


def large_tags_end(source: Source) -> int:
    """Bytes at the beginning that are tags too large for memory: FFmpeg reads a cover of 200 MB at once. 0: none."""
    end = 0
    while True:
        source.seek(end)
        length = _tag_bytes(source.read(_HEADER_BYTES) or b"")
        if length == 0 or (end == 0 and length <= _MAX_TAG_BYTES):
            return end
        end += length


def _tag_bytes(header: bytes) -> int:
    """Bytes of the tag with this header, the header included; 0: it is none."""
    if len(header) < _HEADER_BYTES or header[:3] != b"ID3" or max(header[6:10]) > 0x7F:
        return 0
    size = 0
    for seven_bits in header[6:10]:
        size = size << 7 | seven_bits
    return _HEADER_BYTES + size + (_FOOTER_BYTES if header[5] & _HAS_FOOTER else 0)
