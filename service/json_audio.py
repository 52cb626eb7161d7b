"""A JSON body with a recording in it as base64, read in pieces: `{"model": "base", "input_audio": {"data": "UklGR…"}}`.

Open WebUI and OpenRouter's clients send it. The recording is decoded as it arrives and not kept in memory; the rest,
which is short, becomes a JSON document with an empty string in the recording's place.
"""

import binascii
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from storage.structs import decode

#: Size of the body without the recording.
_MAX_BYTES = 256 * 1024
#: What comes before the base64 in a data URL: `data:audio/wav;base64,`.
_MAX_PREFIX_BYTES = 256

_PATH = ["input_audio", "data"]
_MARK = re.compile(rb'["{}\[\],]')
_TEXT_MARK = re.compile(rb'["\\]')
_SPACE = b" \t\r\n"
#: Escapes of JSON that may stand in base64: a slash, and the ends of its lines.
_ESCAPES = {b"\\/": b"/", b"\\n": b"", b"\\r": b"", b"\\t": b""}


class JsonAudioInvalid(ValueError):
    """The recording in a JSON body cannot be read; the message says why."""


class JsonAudio:
    """Takes the body in pieces of any size."""

    def __init__(self) -> None:
        self._kept = bytearray()
        #: Of each bracket that is open, in turn: the name in it at which the body stands; None in a list.
        self._names: list[str | None] = []
        self._is_name_next = False
        self._read = self._read_between
        #: A name as far as it has come; None: it is a value's text that is being read.
        self._name: bytearray | None = None
        self._escape = b""
        self._base64: _Base64 | None = None

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Decoded bytes of the recording. The first are empty: they say that it begins.

        Raises:
            JsonAudioInvalid: it is no base64, or there is a second one, or the body is too long without it.
        """
        position = 0
        while position < len(piece):
            audio, position = self._read(piece, position)
            if audio is not None:
                yield audio
            if len(self._kept) > _MAX_BYTES:
                raise JsonAudioInvalid(f"the body has more than {_MAX_BYTES} bytes besides the recording")

    @property
    def before(self) -> dict[str, Any]:
        """The members before the recording, while that is being read. Raises as `rest`."""
        return decode(bytes(self._kept) + b'"}}', dict[str, Any])

    @property
    def rest(self) -> dict[str, Any]:
        """All but the recording, at the body's end.

        Raises:
            msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is no JSON object.
        """
        return decode(bytes(self._kept), dict[str, Any])

    @property
    def has_audio(self) -> bool:
        return self._base64 is not None

    # Each reads a piece from a position and returns decoded audio, if any, and the next position.

    def _read_between(self, piece: bytes, position: int) -> tuple[bytes | None, int]:
        found = _MARK.search(piece, position)
        end = found.end() if found else len(piece)
        self._kept += piece[position:end]
        if found is None:
            return None, end
        match found[0]:
            case b"{" | b"[":
                self._names.append("" if found[0] == b"{" else None)
                self._is_name_next = found[0] == b"{"
            case b"}" | b"]":
                del self._names[-1:]
                self._is_name_next = False
            case b",":
                self._is_name_next = bool(self._names) and self._names[-1] is not None
            case _ if not self._is_name_next and self._names == _PATH:
                return self._begin_audio(), end
            case _:
                self._name = bytearray(b'"') if self._is_name_next else None
                self._read = self._read_text
        return None, end

    def _read_text(self, piece: bytes, position: int) -> tuple[bytes | None, int]:
        """A name, or a value's text."""
        if self._escape:
            # What follows a backslash; of \uXXXX the rest holds no mark.
            end, self._escape = position + 1, b""
        else:
            found = _TEXT_MARK.search(piece, position)
            end = found.end() if found else len(piece)
            if found and found[0] == b"\\":
                self._escape = b"\\"
            elif found:
                self._read = self._read_between
        self._kept += piece[position:end]
        if self._name is not None:
            self._name += piece[position:end]
            if self._read == self._read_between:
                self._names[-1] = _unquoted(bytes(self._name))
                self._is_name_next = False
        return None, end

    def _begin_audio(self) -> bytes:
        if self._base64 is not None:
            raise JsonAudioInvalid("one recording a request, there is a second")
        self._base64 = _Base64()
        self._read = self._read_audio
        return b""

    def _read_audio(self, piece: bytes, position: int) -> tuple[bytes | None, int]:
        assert self._base64 is not None
        if self._escape:
            wanted = 6 if self._escape[:2] == b"\\u" or piece[position : position + 1] == b"u" else 2
            end = position + wanted - len(self._escape)
            self._escape += piece[position:end]
            if len(self._escape) < wanted:
                return None, len(piece)
            text, self._escape = _unescaped(self._escape), b""
            return self._base64.decode(text), end
        found = _TEXT_MARK.search(piece, position)
        audio = self._base64.decode(piece[position : found.start() if found else len(piece)])
        if found is None:
            return audio, len(piece)
        if found[0] == b"\\":
            self._escape = b"\\"
        else:
            audio += self._base64.finish()
            self._kept += b'"'
            self._read = self._read_between
        return audio, found.end()


def as_fields(body: dict[str, Any]) -> list[tuple[str, str]]:
    """The members as text fields of a form. Objects are left out: no option is one."""
    return [
        (name, _text(value))
        for name, given in body.items()
        for value in (given if isinstance(given, list) else [given])
        if isinstance(value, str | bool | int | float)
    ]


def audio_name(body: dict[str, Any]) -> str:
    """A file name for the recording; such a body mostly states only its format."""
    match body.get("input_audio"):
        case {"filename": str(name)} if name:
            return name
        case {"format": str(format)} if format.isalnum() and len(format) <= 10:
            return f"audio.{format}"
        case _:
            return "audio"


def _text(value: str | bool | float) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


class _Base64:
    """Text of RFC 4648 in pieces, with or without line ends and padding; a data URL's prefix is dropped."""

    def __init__(self) -> None:
        self._left = b""
        self._is_at_prefix = True

    def decode(self, text: bytes) -> bytes:
        self._left += text.translate(None, _SPACE)
        if self._is_at_prefix:
            if len(self._left) < _MAX_PREFIX_BYTES:
                return b""
            self._drop_prefix()
        # Not the last four: padding is at the end alone.
        whole = max(len(self._left) - 4, 0) // 4 * 4
        done, self._left = self._left[:whole], self._left[whole:]
        return _decoded(done)

    def finish(self) -> bytes:
        if self._is_at_prefix:
            self._drop_prefix()
        return _decoded(self._left + b"=" * (-len(self._left) % 4))

    def _drop_prefix(self) -> None:
        self._is_at_prefix = False
        if self._left[:5].lower() == b"data:":
            prefix, _, self._left = self._left.partition(b",")
            if not prefix.lower().endswith(b";base64"):
                raise JsonAudioInvalid("the recording's data URL is not base64")


def _decoded(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error as error:
        raise JsonAudioInvalid("the recording is not base64") from error


def _unescaped(escape: bytes) -> bytes:
    if escape in _ESCAPES:
        return _ESCAPES[escape]
    text = _unquoted(b'"' + escape + b'"').encode()
    if len(text) != 1:
        raise JsonAudioInvalid("the recording is not base64")
    return text


def _unquoted(text: bytes) -> str:
    try:
        return decode(text, str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""  # The whole body is decoded at its end, and refused then.
