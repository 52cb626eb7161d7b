"""What a client is told: sentences, without Python's spelling and without patterns; and compressed bodies."""

import gzip
import re
from typing import Any

import httpx
import pytest

from tests.service.apis import Api
from tests.service.forms import END, FORM_TYPE, part

#: Python's escapes and names, msgspec's patterns, regular expressions.
_FOREIGN = re.compile(
    r"\\[xunrtdw]|matching regex|Meta\(|\(\?|<class|object at 0x|Traceback|codec can't"
    r"|\b(None|str|int|bool|float)\b"
)
_ODD = ["\x00", "\x1b[31m", "a\nb", "\u202e", "\ufeff", "'", '"', "\\", "x" * 5000]
UPLOAD = {"type": "upload", "filename": "a.mp3", "size": 5}

_ODD_KINDS: list[Any] = [*_ODD, "", "audio", "audio/mpeg\n", 1, None, [], {}]

JSON_BODIES: list[Any] = [
    *({"source": {**UPLOAD, "content_type": odd}} for odd in _ODD_KINDS),
    *({"source": UPLOAD, name: odd} for name in ("model", "language", "task", "priority", "engine") for odd in _ODD),
    *({"source": UPLOAD, name: odd} for name in ("temperature", "prompt", "webhook_url", "vad_filter") for odd in _ODD),
    *({"source": {"type": odd}} for odd in _ODD),
    *({"source": {"type": "object", "key": odd}} for odd in [*_ODD, ""]),
    *({"source": {"type": "url", "url": f"http://{odd}/a"}} for odd in _ODD),
    *({"source": UPLOAD, odd: 1} for odd in _ODD),
    *({"source": odd} for odd in _ODD_KINDS),
    *([], "x", 1, None, {}),
]
RAW_BODIES = [b"", b"\xff", b"{", b'{"source": "\xff"}', b"[" * 100_000, b'{"a": 1e999}', b'"\\ud800"', b"nul"]


def assert_readable(answer: httpx.Response) -> None:
    body = answer.json()
    said = body["error"]["message"] if "error" in body else body["detail"]
    assert 400 <= answer.status_code < 500, said
    assert not _FOREIGN.search(said), said
    assert len(said) < 2500


def test_a_job_that_cannot_be_made_is_refused_in_plain_words(quiet_api: Api) -> None:
    answers = [quiet_api.client.post("/api/v1/jobs", json=body) for body in JSON_BODIES]
    answers += [quiet_api.client.post("/api/v1/jobs", content=body) for body in RAW_BODIES]

    for answer in answers:
        if answer.status_code != 201:  # Some odd texts are fine as a prompt.
            assert_readable(answer)


@pytest.mark.parametrize("path", ["/api/v1/transcribe", "/v1/audio/transcriptions", "/asr", "/detect-language"])
def test_a_form_that_cannot_be_read_is_refused_in_plain_words(quiet_api: Api, path: str) -> None:
    name = "audio_file" if path in ("/asr", "/detect-language") else "file"
    bad = [b"not a form", part(name, b"sound", "a.mp3")[:40], part(name, b"", "a.mp3") + END, part("x", b"", "a") + END]
    bad += [part(odd.replace("\n", ""), b"x" * 70_000) + END for odd in ("\x1b", "'", "é", "y")]
    if name == "file":
        sound = part("file", b"sound", "a.mp3")
        bad += [part("language", odd.encode()) + sound + END for odd in _ODD]
        bad += [part("response_format", odd.encode()) + sound + END for odd in _ODD]
        bad += [part("timestamp_granularities[]", b"letter\x1b") + part("temperature", b"hot") + sound + END]

    for body in bad:
        assert_readable(quiet_api.client.post(path, content=body, headers={"Content-Type": FORM_TYPE}))


@pytest.mark.parametrize("odd", _ODD)
def test_an_address_that_cannot_be_read_is_refused_in_plain_words(quiet_api: Api, odd: str) -> None:
    client = quiet_api.client
    answers = [
        client.get("/api/v1/jobs", params={"cursor": odd}), client.get("/api/v1/jobs", params={"limit": odd}),
        client.get("/api/v1/jobs", params={"status": odd}), client.get("/api/v1/jobs", params={"include": odd}),
        client.post("/asr", params={"output": odd}), client.post("/asr", params={"encode": odd}),
        client.get("/api/v1/status/x", params={"include": odd}),
    ]  # fmt: skip

    for answer in answers:
        assert_readable(answer)


BODIED = [
    ("POST", "/api/v1/transcribe"), ("POST", "/api/v1/transcribe-async"), ("POST", "/api/v1/jobs"),
    ("PUT", "/api/v1/webhook"), ("POST", "/api/v1/events/s3"), ("POST", "/asr"), ("POST", "/detect-language"),
    ("POST", "/v1/audio/transcriptions"), ("POST", "/v1/audio/translations"),
]  # fmt: skip


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "deflate", "zstd", "identity, gzip", "x\t1"])
@pytest.mark.parametrize(("method", "path"), BODIED)
def test_a_compressed_body_is_refused_with_its_codings_name(
    quiet_api: Api, method: str, path: str, coding: str
) -> None:
    answer = quiet_api.client.request(
        method, path, content=gzip.compress(b"{}"), headers={"Content-Encoding": coding, "Content-Type": FORM_TYPE}
    )

    assert answer.status_code == 415
    assert answer.headers["Accept-Encoding"] == "identity"
    assert_readable(answer)
    assert coding.replace("\t", "\ufffd") in answer.text


def test_a_body_that_says_it_is_not_compressed_is_taken(quiet_api: Api) -> None:
    answer = quiet_api.client.post("/api/v1/jobs", json={"source": UPLOAD}, headers={"Content-Encoding": "identity"})

    assert answer.status_code == 201


def test_a_long_prompt_keeps_its_end(quiet_api: Api) -> None:
    prompt = "é".join(str(number) for number in range(30_000))
    files, data = {"file": ("a.mp3", b"sound")}, {"prompt": prompt}

    form = quiet_api.client.post("/api/v1/transcribe-async", files=files, data=data).json()
    job = quiet_api.client.post("/api/v1/jobs", json={"source": UPLOAD, **data}).json()

    classic = quiet_api.client.get(f"/api/v1/status/{form['job_id']}").json()
    assert classic["options"]["prompt"] == job["options"]["prompt"] == prompt[-4000:]
