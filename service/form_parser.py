"""Reads multipart/form-data as clients write it: https://www.rfc-editor.org/rfc/rfc7578."""

from collections.abc import Iterator
from typing import Any

from multipart import MultipartSegment, PushMultipartParser

from actors.names import disposition_name

#: A form is a file and a few fields; what is beyond is an attack or a mistake.
_MAX_SEGMENTS = 64


class FormParser(PushMultipartParser):  # type: ignore[misc]  # The library has no types.
    """Takes a form in pieces of any size, and ignores what RFC 2046 says to ignore.

    That is the text before the first boundary and after the last one, and blanks between a boundary and the end of its
    line (section 5.1.1, transport padding). The library refuses blanks, and the name of the boundary in a preamble.
    """

    def __init__(self, boundary: str) -> None:
        # Every byte is a character of Latin-1, so the headers come through unharmed to be decoded below.
        super().__init__(boundary, max_segment_count=_MAX_SEGMENTS, header_charset="latin-1")
        self._line = b"\r\n--" + self.boundary
        #: The last bytes that were read, in which a boundary may have begun. The first one needs no line end before it.
        self._tail = b"\r\n"
        self._is_preamble = True
        self._is_padding = False

    def parse(self, chunk: bytes) -> Iterator[Any]:
        """The library's events, of a piece of the body that is not empty."""
        begin = len(self._tail)
        seen, searched = self._tail + chunk, 0
        while begin < len(seen):
            if self._is_padding:
                rest = seen[begin:].lstrip(b" \t")
                begin = len(seen) - len(rest)
                self._is_padding = not rest
                continue
            found = seen.find(self._line, searched)
            end = len(seen) if found < 0 else found + len(self._line)
            if not self._is_preamble:
                yield from super().parse(seen[begin:end])
            elif found >= 0:
                yield from super().parse(self._line.removeprefix(b"\r\n"))
                self._is_preamble = False
            self._is_padding = found >= 0
            begin = searched = end
        # One byte less than a boundary, so that none is found twice.
        self._tail = seen[1 - len(self._line) :]

    def _create_segment(self, headerlist: list[tuple[str, str]]) -> MultipartSegment:
        headers = [(name, _decoded(value)) for name, value in headerlist]
        segment = super()._create_segment(headers)
        disposition = segment.header("Content-Disposition", "")
        given = disposition.lower()
        if "filename*=" in given or ("filename=" in given and 'filename="' not in given):
            # Older clients send names beyond ASCII as `filename*`, which forms should not have; others no quotes.
            segment.filename = disposition_name(disposition) or segment.filename
        return segment


def _decoded(header: str) -> str:
    """UTF-8, as every browser sends it, else Latin-1."""
    sent = header.encode("latin-1")
    try:
        return sent.decode()
    except UnicodeDecodeError:
        return header
