"""What a recording is called, whoever gave the name: text for people and nothing else."""

import pytest

from actors.names import display_name, disposition_name, media_type, url_name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://talks.example/a/talk.mp3?token=secret#t=3", "talk.mp3"),
        ("https://talks.example/a/", "a"),
        ("https://talks.example", "talks.example"),
        ("https://talks.example/?talk.mp3", "talks.example"),
        ("https://talks.example/ein%20Gespr%C3%A4ch.ogg", "ein Gespräch.ogg"),
        ("https://talks.example/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("https://talks.example/%00%1b%5B31m.mp3", "[31m.mp3"),
        (f"https://talks.example/{'a' * 300}", "a" * 255),
    ],
)
def test_a_url_is_named_by_its_last_part_and_never_by_its_query(url: str, name: str) -> None:
    assert url_name(url) == name


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("", ""),
        ("inline", ""),
        ("attachment; filename=talk.mp3", "talk.mp3"),
        ('attachment; filename="a \\"talk\\".mp3"', 'a "talk".mp3'),
        ("attachment; filename=\"talk.mp3\"; filename*=UTF-8''Gespr%C3%A4ch.mp3", "Gespräch.mp3"),
        ("attachment; FILENAME*=utf-8'de'Gespr%C3%A4ch.mp3; filename=talk.mp3", "Gespräch.mp3"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\talks\\\\talk.mp3"', "talk.mp3"),
        ('attachment; filename="Gespräch.mp3"', "Gespräch.mp3"),
        ('attachment; filename="  "', ""),
        ("attachment; filename*=UTF-8''%FF%FE.mp3", "\ufffd\ufffd.mp3"),
        ("attachment; filename*=no-such-charset''a.mp3", "a.mp3"),
        ("attachment; filename*=''", ""),
        ("; ;=;filename", ""),
    ],
)
def test_a_server_names_its_recording(header: str, name: str) -> None:
    assert disposition_name(header) == name


def test_characters_that_hide_or_turn_text_are_taken_out() -> None:
    assert display_name("a\u202egpm.3pm\x00\x1b\n") == "agpm.3pm"


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        ("audio/mpeg", "audio/mpeg"),
        (" audio/ogg; codecs=opus ", "audio/ogg; codecs=opus"),
        ("", None),
        ("audio", None),
        ("audio/mpeg\r\nX: y", None),
        ("audio/ä", None),
        (f"audio/{'a' * 200}", None),
    ],
)
def test_only_a_media_type_is_kept_as_one(header: str, kept: str | None) -> None:
    assert media_type(header) == kept
