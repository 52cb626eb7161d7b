"""A form is read the same however the network cuts it, and with whatever stands around it."""

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from multipart import MultipartError, MultipartSegment

from service.form_parser import FormParser
from storage.keys import source_key
from storage.object_store import ObjectStore
from tests.service.apis import Api
from tests.service.forms import BOUNDARY, END, FORM_TYPE, connection, first_line, head, part

CLOSING = END[:-2]
LINE = f"--{BOUNDARY}".encode()
FORM = part("language", b"en") + part("file", b"\r\n--b7c1e\r\n-sound\r", "a.wav") + part("task", b"")
READ = [("language", None, b"en"), ("file", "a.wav", b"\r\n--b7c1e\r\n-sound\r"), ("task", None, b"")]
BODIES = {
    "whole": FORM + END,
    "without a last line end": FORM + CLOSING,
    "with an epilogue": FORM + END + b"This is the epilogue.\r\n--b7c1e0\r\nnot a part",
    "with an epilogue of dashes": FORM + CLOSING + b"----",
    "with a preamble": b"This is a multi-part message.\r\n" + FORM + END,
    "with a line before it": b"\r\n" + FORM + END,
    "with blanks after its boundaries": FORM.replace(LINE + b"\r\n", LINE + b" \t \r\n") + CLOSING + b" \t\r\n",
    "with its boundary in the preamble": b"This is x" + LINE + b"\r\nor " + LINE + b"--\r\n" + FORM + END,
}


def read(pieces: Iterable[bytes]) -> list[tuple[str | None, str | None, bytes]]:
    parts: list[tuple[str | None, str | None, bytes]] = []
    with FormParser(BOUNDARY) as parser:
        for piece in pieces:
            for event in parser.parse(piece) if piece else ():
                if isinstance(event, MultipartSegment):
                    parts.append((event.name, event.filename, b""))
                elif event is not None:
                    name, filename, content = parts.pop()
                    parts.append((name, filename, content + event))
    return parts


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_form_may_be_cut_anywhere(body: bytes) -> None:
    for cut in range(len(body) + 1):
        assert read([body[:cut], body[cut:]]) == READ, cut


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_form_may_come_in_small_pieces(body: bytes, size: int) -> None:
    assert read(body[begin : begin + size] for begin in range(0, len(body), size)) == READ


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_a_form_that_is_cut_off_is_refused(size: int) -> None:
    whole = FORM + CLOSING
    for end in range(len(whole)):
        with pytest.raises(MultipartError, match="end of multipart"):
            read(whole[begin : min(begin + size, end)] for begin in range(0, end, size))


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        ('filename="Gr\u00fc\u00dfe.mp3"'.encode("latin-1"), "Grüße.mp3"),
        ('filename="Gr\u00fc\u00dfe.mp3"'.encode(), "Grüße.mp3"),
        ("filename=Gr\u00fc\u00dfe.mp3".encode("latin-1"), "Grüße.mp3"),
        (b"filename*=UTF-8''Gr%C3%BC%C3%9Fe.mp3", "Grüße.mp3"),
        (b"filename*=iso-8859-1'de'Gr%FC%DFe.mp3", "Grüße.mp3"),
        (b"filename=\"Gruesse.mp3\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.mp3", "Grüße.mp3"),
        (b"filename*=utf-8''%C3%83%C2%A9.mp3", "Ã©.mp3"),
        (b'filename="a%22b.mp3"', 'a"b.mp3'),
    ],
)  # fmt: skip
def test_a_file_name_is_read_in_every_spelling(disposition: bytes, filename: str) -> None:
    header = b'Content-Disposition: form-data; name="file"; ' + disposition
    form = f"--{BOUNDARY}\r\n".encode() + header + b"\r\n\r\nsound\r\n" + END

    assert read([form]) == [("file", filename, b"sound")]


@pytest.mark.parametrize("pause_before", [b"\r\n", b"\n", b"--\r\n", b"the epilogue"])
def test_the_server_takes_a_form_whose_end_comes_in_a_read_of_its_own(
    quiet_api: Api, quiet_store: ObjectStore, pause_before: bytes
) -> None:
    sound = bytes(range(256)) * 256
    body = part("file", sound, "a.wav") + END + (pause_before if pause_before[:1] == b"t" else b"")
    cut = len(body) - len(pause_before)

    with connection(quiet_api.url) as opened:
        opened.sendall(head("/api/v1/transcribe-async", Transfer_Encoding="chunked"))
        for piece in (body[:cut], body[cut:]):
            # In chunks, each of which the server hands on by itself.
            opened.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        opened.sendall(b"0\r\n\r\n")

        assert first_line(opened) == "HTTP/1.1 202 Accepted"

    newest = quiet_api.client.get("/api/v1/jobs?limit=1").json()["jobs"][0]["job_id"]
    assert quiet_store.get(source_key(newest)) == sound


def test_curl_uploads_whatever_the_size(quiet_api: Api, quiet_store: ObjectStore, tmp_path: Path) -> None:
    """With 65 536 bytes and a little more, the end of its form often comes in a read of its own."""
    recording = tmp_path / "a.wav"
    url = f"{quiet_api.url}/api/v1/transcribe-async"
    for size in range(65_530, 65_550):
        recording.write_bytes(bytes(size))

        answer = subprocess.run(
            ["curl", "-sS", "--fail-with-body", "-F", f"file=@{recording}", url], capture_output=True, check=False
        )

        assert answer.returncode == 0, answer.stdout
        assert quiet_store.head(source_key(json.loads(answer.stdout)["job_id"])).size == size


def test_a_preamble_without_an_end_is_refused(quiet_api: Api) -> None:
    answer = quiet_api.client.post(
        "/api/v1/transcribe-async", content=b"x" * 200_000 + END, headers={"Content-Type": FORM_TYPE}
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_body")
    assert "no part of the form begins" in answer.json()["detail"]
