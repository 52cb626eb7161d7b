"""A recording that comes in a JSON body, as Open WebUI and OpenRouter's clients send it."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from storage.keys import source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.conftest import Sample
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.forms import connection, head
from tests.storage.test_job_store import wait_until

PATH = "/v1/audio/transcriptions"
MIB = 2**20


@pytest.fixture(scope="module")
def talk(speech: dict[str, list[Sample]]) -> bytes:
    return next(sample for sample in speech["en"] if "fox" in sample.text).path.read_bytes()


def body_of(sound: bytes, **more: Any) -> dict[str, Any]:
    return {"model": "base", "input_audio": {"data": base64.b64encode(sound).decode(), "format": "wav"}, **more}


def kept(store: ObjectStore) -> tuple[set[str], set[str]]:
    return {item.key for item in store.list("sources/")}, {item.key for item in store.uploads("sources/")}


@pytest.mark.parametrize("response_format", ["json", "verbose_json", "srt", "text"])
def test_it_is_answered_as_a_form_is(api: Api, talk: bytes, response_format: str) -> None:
    more = {"model": "tiny.en", "language": "en", "response_format": response_format, "temperature": 0}
    form = api.client.post(PATH, files={"file": ("audio.wav", talk)}, data=more)

    answer = api.client.post(PATH, json=body_of(talk, **more))

    assert answer.status_code == 200
    assert answer.text == form.text
    job = api.client.get(f"/api/v1/status/{answer.headers['X-Job-Id']}").json()
    assert (job["source"]["filename"], job["source"]["size"]) == ("audio.wav", len(talk))


def test_lists_and_flags_are_options_too(api: Api, talk: bytes) -> None:
    more = {"model": "tiny.en", "response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}

    answer = api.client.post(PATH, json=body_of(talk, **more, vad_filter=False, prompt=None, chunking_strategy={}))

    assert answer.status_code == 200
    assert answer.json()["words"]
    assert answer.json()["segments"]
    job = api.client.get(f"/api/v1/status/{answer.headers['X-Job-Id']}").json()
    assert job["options"]["vad_filter"] is False


def test_its_text_is_streamed_as_it_is_found(api: Api, talk: bytes) -> None:
    answer = api.client.post(PATH, json=body_of(talk, model="tiny.en", stream=True))

    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert events[-1]["type"] == "transcript.text.done"
    assert events[-1]["text"]


@pytest.mark.parametrize(
    ("body", "status", "code", "fact"),
    [
        ({"model": "base"}, 400, "file_missing", "input_audio.data"),
        ({"model": "base", "input_audio": {}}, 400, "file_missing", "input_audio.data"),
        ({"model": "base", "input_audio": {"data": None}}, 400, "file_missing", "input_audio.data"),
        ({"model": "base", "input_audio": {"data": ""}}, 400, "audio_unreadable", "0 bytes"),
        ({"model": "base", "input_audio": {"data": "!not base64!"}}, 400, "invalid_body", "not base64"),
        ({"model": "base", "input_audio": {"data": "QUJD" * 3_000_000 + "*"}}, 400, "invalid_body", "not base64"),
        ({"model": "base", "input_audio": {"data": "https://a.example/x.mp3"}}, 400, "invalid_body", "not base64"),
        ({"model": "huge", "input_audio": {"data": "QUJD"}}, 404, "model_not_found", "huge"),
        ({"input_audio": {"data": "QUJD" * 3_000_000}, "model": "huge"}, 404, "model_not_found", "huge"),
        ({"input_audio": {"data": "QUJD"}, "language": "klingon"}, 400, "invalid_parameter", "klingon"),
        ({"input_audio": {"data": "QUJD" * 5_000_000}}, 413, "file_too_large", "12582912"),
        ([], 400, "invalid_body", "JSON"),
    ],
)
def test_what_cannot_be_taken_is_told_and_leaves_nothing(
    start_api: StartApi, quiet_settings: StorageSettings, quiet_store: ObjectStore,
    body: Any, status: int, code: str, fact: str,
) -> None:  # fmt: skip
    api = start_api(quiet_settings, MAX_FILE_SIZE=str(12 * MIB), INBOX_SECONDS="0")
    before = kept(quiet_store)

    # In chunks, so that nothing is known of it beforehand.
    text = json.dumps(body).encode()
    pieces = (text[begin : begin + 65_536] for begin in range(0, len(text), 65_536))
    answer = api.client.post(PATH, content=pieces, headers={"Content-Type": "application/json"})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert fact in error["message"]
    assert kept(quiet_store) == before


@pytest.mark.parametrize(
    "text", [b"{", b"", b'{"input_audio": {"data": "QUJD', b'{"input_audio": {"data": "QUJD"}', b"\xff"]
)
def test_a_body_that_is_no_json_is_told_and_leaves_nothing(
    quiet_api: Api, quiet_store: ObjectStore, text: bytes
) -> None:
    before = kept(quiet_store)

    answer = quiet_api.client.post(PATH, content=text, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_body")
    assert kept(quiet_store) == before


def test_other_doors_take_no_json(quiet_api: Api) -> None:
    answer = quiet_api.client.post("/api/v1/transcribe", json=body_of(b"sound"))

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def newest(api: Api) -> dict[str, Any]:
    return next(iter(api.client.get("/api/v1/jobs?limit=1").json()["jobs"]), {"source": {"size": 0}})


def test_a_large_recording_is_stored_in_parts_as_it_comes(
    start_api: StartApi, quiet_settings: StorageSettings, quiet_store: ObjectStore
) -> None:
    api = start_api(quiet_settings, INBOX_SECONDS="0")
    sound = os.urandom(40 * MIB)
    text = json.dumps(body_of(sound)).encode()
    peak = peak_bytes(api)

    # Its job waits for a worker that never comes; the connection is closed once it is there.
    with connection(api.url) as opened:
        opened.sendall(head(PATH, Content_Type="application/json", Content_Length=str(len(text))) + text)
        wait_until(lambda: newest(api)["source"]["size"] == len(sound), 60)
        job_id = newest(api)["job_id"]
        with quiet_store.open(source_key(job_id)) as stored:
            assert stored.read() == sound

    # Three parts of 8 MiB, and what a server needs besides; not the recording or its text.
    assert peak_bytes(api) - peak < 60 * MIB


def peak_bytes(api: Api) -> int:
    status = Path(f"/proc/{api.running.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
