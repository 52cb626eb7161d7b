"""Reads multipart/form-data as clients write it: https://www.rfc-editor.org/rfc/rfc7578."""

from multipart import MultipartSegment, PushMultipartParser

from actors.names import disposition_name

#: A form is a file and a few fields; what is beyond is an attack or a mistake.
_MAX_SEGMENTS = 64


class FormParser(PushMultipartParser):  # type: ignore[misc]  # The library has no types.
    """Takes a form in pieces of any size. What comes before its first boundary and after its last is passed over.

    So RFC 2046 wants it, and a body's last two bytes may well come in a read of their own. A strict parser of this
    library refuses both.
    """

    def __init__(self, boundary: str) -> None:
        # Every byte is a character of Latin-1, so the headers come through unharmed to be decoded below.
        super().__init__(boundary, max_segment_count=_MAX_SEGMENTS, header_charset="latin-1")

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
