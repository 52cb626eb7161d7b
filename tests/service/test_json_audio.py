"""A recording in a JSON body is decoded as it comes, wherever it stands and however the network cuts it."""

import base64
import json
from typing import Any

import msgspec
import pytest

from service.json_audio import JsonAudio, JsonAudioInvalid

SOUND = bytes(range(256)) * 3 + b"\xff\xfb\xfe"
TEXT = base64.b64encode(SOUND).decode()
IN_LINES = base64.encodebytes(SOUND).decode()
AUDIO = {"data": TEXT, "format": "wav"}


def read(body: bytes, size: int | None = None) -> tuple[bytes, dict[str, Any]]:
    reader = JsonAudio()
    pieces = [body[begin : begin + size] for begin in range(0, len(body), size)] if size else [body]
    audio = b"".join(part for piece in pieces for part in reader.feed(piece))
    assert reader.has_audio
    return audio, reader.rest


BODIES = {
    "as Open WebUI sends it": json.dumps({"model": "base", "input_audio": AUDIO, "language": "en"}),
    "first": json.dumps({"input_audio": AUDIO, "model": "base", "language": "en"}, indent=2),
    "last": json.dumps({"model": "base", "language": "en", "input_audio": {"format": "wav", "data": TEXT}}),
    "with escaped slashes": json.dumps({"model": "base", "input_audio": AUDIO, "language": "en"}).replace("/", "\\/"),
    "with every sign escaped": json.dumps(
        {"model": "base", "language": "en", "input_audio": {"format": "wav", "data": "TEXT"}}
    ).replace("TEXT", "".join(f"\\u{ord(sign):04x}" for sign in TEXT)),
    "with names escaped": json.dumps({"model": "base", "input_audio": AUDIO, "language": "en"})
    .replace("input_audio", "input\\u005faudio")
    .replace('"data"', '"d\\u0061ta"'),
    "in lines": json.dumps(
        {
            "model": "base",
            "language": "en",
            "input_audio": {"data": base64.encodebytes(SOUND).decode(), "format": "wav"},
        }
    ),
    "as a data URL": json.dumps(
        {"model": "base", "language": "en", "input_audio": {"data": f"data:audio/wav;base64,{TEXT}", "format": "wav"}}
    ),
    "without padding": json.dumps(
        {"model": "base", "language": "en", "input_audio": {"data": TEXT.rstrip("="), "format": "wav"}}
    ),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("size", [None, 1, 2, 3, 5, 7, 64])
def test_a_recording_is_decoded_however_it_is_cut_and_spelled(body: str, size: int | None) -> None:
    audio, rest = read(body.encode(), size)

    assert audio == SOUND
    assert rest == {"model": "base", "language": "en", "input_audio": {"data": "", "format": "wav"}}


@pytest.mark.parametrize("length", range(12))
def test_a_recording_of_any_length_is_whole(length: int) -> None:
    for text in {base64.b64encode(SOUND[:length]).decode(), base64.b64encode(SOUND[:length]).decode().rstrip("=")}:
        assert read(json.dumps({"input_audio": {"data": text}}).encode(), 1)[0] == SOUND[:length]


def test_only_the_recordings_own_place_is_one() -> None:
    body = {
        "data": TEXT, "note": 'a "quoted\\" input_audio', "other": {"data": "x"},
        "list": [{"input_audio": {"data": "y"}}],
        "input_audio": {"more": {"data": "z"}, "list": ["data", "w"], "data": TEXT},
    }  # fmt: skip

    audio, rest = read(json.dumps(body).encode(), 3)

    assert audio == SOUND
    assert rest == {**body, "input_audio": {**body["input_audio"], "data": ""}}  # type: ignore[dict-item]


def test_what_came_before_the_recording_is_known_when_it_begins() -> None:
    reader = JsonAudio()
    body = json.dumps({"model": "huge", "input_audio": {"format": "mp3", "data": TEXT}}).encode()

    assert next(reader.feed(body)) == b""

    assert reader.before == {"model": "huge", "input_audio": {"format": "mp3", "data": ""}}


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        ("!!!!", "not base64"), ("QUJD=QUJD", "not base64"), ("QQ==QQ==", "not base64"), ("A", "not base64"),
        ("QUJDR", "not base64"), ("QUJD\u00e9", "not base64"), ("====", "not base64"), ("Q===", "not base64"),
        ("data:audio/wav,abc", "data URL"), ("https://a.example/x.mp3", "not base64"),
        ("QUJD" * 1000 + "*" + "QUJD" * 1000, "not base64"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [None, 1, 7])
def test_what_is_no_base64_is_refused(data: str, fact: str, size: int | None) -> None:
    for ascii_only in (True, False):
        with pytest.raises(JsonAudioInvalid, match=fact):
            read(json.dumps({"input_audio": {"data": data}}, ensure_ascii=ascii_only).encode(), size)


def test_a_second_recording_is_refused() -> None:
    with pytest.raises(JsonAudioInvalid, match="a second"):
        read(b'{"input_audio": {"data": "QUJD"}, "input_audio": {"data": "QUJD"}}')


@pytest.mark.parametrize("body", [b'{"prompt": "' + b"x" * 300_000, b" " * 300_000, b"[" * 300_000])
def test_what_is_beside_the_recording_is_bounded(body: bytes) -> None:
    with pytest.raises(JsonAudioInvalid, match="262144 bytes beside"):
        read(body, 10_000)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b'{"a": }', b"}}]]", b'{"input_audio": {"data": "QUJD"', b"\xff"]
)
def test_what_is_no_json_object_is_refused_at_its_end(body: bytes) -> None:
    reader = JsonAudio()
    list(reader.feed(body))

    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        _ = reader.rest


def test_memory_does_not_grow_with_the_recording() -> None:
    reader, total = JsonAudio(), 0
    list(reader.feed(b'{"input_audio": {"data": "'))
    for _ in range(64):
        for part in reader.feed(b"QUJD" * 16_384):
            total += len(part)
            assert len(part) <= 49_152 + 256

    total += sum(map(len, reader.feed(b'"}}')))

    assert total == 64 * 49_152
    assert len(json.dumps(reader.rest)) < 100
