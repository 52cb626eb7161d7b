"""The form upload: from the socket to the store in bounded memory, and nothing left behind when it fails."""

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil
import pytest
import requests

from storage.job_store import JobStore
from storage.keys import source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.forms import END, FORM_TYPE, connection, first_line, head, part
from tests.stack import Parts

PATH = "/api/v1/transcribe-async"
MIB = 2**20


def post(api: Api, *parts: bytes, path: str = PATH, content_type: str = FORM_TYPE) -> requests.Response:
    return requests.post(api.url + path, data=b"".join(parts), headers={"Content-Type": content_type}, timeout=120)


def kept(store: ObjectStore) -> tuple[set[str], set[str]]:
    """Keys of the objects and of the uploads under way."""
    return {info.key for info in store.list("")}, {upload.key for upload in store.uploads()}


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.05)


def test_curl_uploads_as_the_readme_says(quiet_api: Api, quiet_store: ObjectStore, tmp_path: Path) -> None:
    recording = tmp_path / "a talk.mp3"
    recording.write_bytes(os.urandom(3000))

    answer = subprocess.run(
        ["curl", "-sS", "-F", f"file=@{recording}", "-F", "language=en", quiet_api.url + PATH],
        capture_output=True, check=True,
    )  # fmt: skip

    accepted = msgspec.json.decode(answer.stdout)
    assert accepted.keys() == {"job_id", "status", "message", "status_url", "estimated_time"}
    assert accepted["status"] == "pending"
    assert accepted["estimated_time"] >= 1
    assert quiet_store.get(source_key(accepted["job_id"])) == recording.read_bytes()
    job = quiet_api.client.get(accepted["status_url"]).json()
    assert job["source"] == {
        "type": "form",
        "filename": "a talk.mp3",
        "size": 3000,
        "content_type": "application/octet-stream",
        "duration": None,
    }
    assert job["options"]["language"] == "en"


def test_requests_uploads_without_a_part_type(quiet_api: Api, quiet_store: ObjectStore, tmp_path: Path) -> None:
    recording = tmp_path / "talk.wav"
    recording.write_bytes(os.urandom(3000))

    with recording.open("rb") as file:
        answer = requests.post(quiet_api.url + PATH, files={"file": file}, data={"model": "tiny"}, timeout=120)

    accepted = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == accepted["status_url"] == f"/api/v1/status/{accepted['job_id']}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert quiet_store.get(source_key(accepted["job_id"])) == recording.read_bytes()


@pytest.mark.parametrize("size", [1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 27 * MIB + 123])
def test_every_byte_arrives_whatever_the_size(quiet_api: Api, quiet_store: ObjectStore, size: int) -> None:
    recording = os.urandom(size)
    _, uploads = kept(quiet_store)

    job_id = post(quiet_api, part("file", recording, "x.bin"), END).json()["job_id"]

    assert quiet_store.head(source_key(job_id)).size == size
    assert hashlib.sha256(quiet_store.get(source_key(job_id))).digest() == hashlib.sha256(recording).digest()
    assert kept(quiet_store)[1] == uploads


def test_fields_may_come_after_the_file(quiet_api: Api) -> None:
    parts = [
        part("language", b"de"),
        part("file", b"sound", "x.mp3"),
        part("task", b"translate"),
        part("unknown", b"1"),
    ]

    job_id = post(quiet_api, *parts, END).json()["job_id"]

    options = quiet_api.client.get(f"/api/v1/status/{job_id}").json()["options"]
    assert (options["language"], options["task"]) == ("de", "translate")


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\\\Users\\\\me\\\\talk.mp3", "talk.mp3"),
        ("Grüße, 会議 🎙.ogg", "Grüße, 会議 🎙.ogg"),
        ("a\u202egpj.mp3", "agpj.mp3"),
        ("a\x01b.mp3", "ab.mp3"),
        ("x" * 3000 + ".mp3", "x" * 255),
        ("..", ".."),
        ("/", "recording"),
    ],
)
def test_a_file_name_is_text_for_people_only(quiet_api: Api, quiet_store: ObjectStore, sent: str, shown: str) -> None:
    job_id = post(quiet_api, part("file", b"sound", sent), END).json()["job_id"]

    assert quiet_api.client.get(f"/api/v1/status/{job_id}").json()["source"]["filename"] == shown
    assert {info.key for info in quiet_store.list(f"sources/{job_id}/")} == {
        f"sources/{job_id}/media", f"sources/{job_id}/job.json"
    }  # fmt: skip


BIG = os.urandom(20 * MIB)
FILE = part("file", b"sound", "x.mp3")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code", "fact"),
    [
        ([part("language", b"en"), END], FORM_TYPE, 422, "file_missing",
         "the recording belongs in the part named 'file'"),
        ([part("file", b"", ""), END], FORM_TYPE, 422, "file_missing", "file"),
        ([part("audio", b"sound", "x.mp3"), END], FORM_TYPE, 422, "file_missing",
         "the part 'audio' is a file; the recording belongs in the part named 'file'"),
        ([part("file", b"", "x.mp3"), END], FORM_TYPE, 422, "audio_unreadable", "the recording is empty (0 bytes)"),
        ([FILE, FILE, END], FORM_TYPE, 422, "invalid_parameter", "second"),
        ([part("model", b"../../etc"), FILE, END], FORM_TYPE, 422, "invalid_parameter", "large-v3"),
        ([part("file", BIG, "x"), part("model", b"huge"), END], FORM_TYPE, 422, "invalid_parameter", "large-v3"),
        ([FILE, part("language", b"xx"), END], FORM_TYPE, 422, "invalid_parameter", "haw"),
        ([FILE, part("response_format", b"docx"), END], FORM_TYPE, 422, "invalid_parameter", "vtt"),
        ([FILE, part("timestamp_granularity", b"s"), END], FORM_TYPE, 422, "invalid_parameter", "segment, word"),
        ([FILE, part("temperature", b"1.2"), END], FORM_TYPE, 422, "invalid_parameter", "0 to 1"),
        ([FILE, part("temperature", b"nan"), END], FORM_TYPE, 422, "invalid_parameter", "temperature"),
        ([FILE, part("vad_filter", b"maybe"), END], FORM_TYPE, 422, "invalid_parameter", "true, false"),
        ([FILE, part("max_line_width", b"-1"), END], FORM_TYPE, 422, "invalid_parameter", "0 to 1000"),
        ([FILE, part("priority", b"urgent"), END], FORM_TYPE, 422, "invalid_parameter", "high, low, normal"),
        ([FILE, part("model", b"base.en"), part("language", b"de"), END], FORM_TYPE,
         422, "invalid_parameter", "English"),
        ([FILE, part("model", b"tiny.en"), part("task", b"translate"), END], FORM_TYPE,
         422, "invalid_parameter", "English"),
        ([FILE, part("model", b"small"), part("language", b"yue"), END], FORM_TYPE,
         422, "invalid_parameter", "Cantonese"),
        ([FILE, part("hotwords", b"x" * 70_000), END], FORM_TYPE, 400, "invalid_body", "65536"),
        ([FILE, part("hotwords", b"x" * 4001), END], FORM_TYPE, 422, "invalid_parameter", "4000"),
        ([FILE, part("prompt", b"\xff"), END], FORM_TYPE, 400, "invalid_body", "UTF-8"),
        ([FILE, *[part("x", b"")] * 100, END], FORM_TYPE, 400, "invalid_body", "segment"),
        ([part("file", BIG, "x")], FORM_TYPE, 400, "invalid_body", "end of multipart"),
        ([b"not a form"], FORM_TYPE, 400, "invalid_body", ""),
        ([FILE, END], "multipart/form-data", 400, "invalid_body", "boundary"),
        ([b"{}"], "application/json", 415, "unsupported_media_type", "application/json"),
    ],
)  # fmt: skip
def test_a_refused_form_says_why_and_leaves_nothing(
    quiet_api: Api, quiet_store: ObjectStore, body: list[bytes], content_type: str, status: int, code: str, fact: str
) -> None:
    before = kept(quiet_store)
    jobs = quiet_api.client.get("/api/v1/jobs").json()["total"]

    answer = post(quiet_api, *body, content_type=content_type)

    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert fact in problem["detail"]
    assert kept(quiet_store) == before
    assert quiet_api.client.get("/api/v1/jobs").json()["total"] == jobs


@pytest.fixture(scope="module")
def small_api(start_api: StartApi, quiet_settings: StorageSettings) -> Api:
    """Takes 12 MiB, one upload at a time."""
    return start_api(quiet_settings, MAX_FILE_SIZE=str(12 * MIB), MAX_CONCURRENT_UPLOADS="1")


def test_a_body_announced_too_large_is_refused_before_it_is_sent(small_api: Api) -> None:
    with connection(small_api.url) as opened:
        opened.sendall(head(PATH, Content_Length=str(20 * MIB), Expect="100-continue"))

        # "100 Continue" here would have asked for the body.
        assert first_line(opened) == "HTTP/1.1 413 Request Entity Too Large"


def test_a_body_that_turns_out_too_large_is_aborted(small_api: Api, quiet_store: ObjectStore) -> None:
    before = kept(quiet_store)
    body = [part("file", os.urandom(12 * MIB + 1), "x"), END]

    answer = requests.post(small_api.url + PATH, data=iter(body), headers={"Content-Type": FORM_TYPE}, timeout=120)

    assert (answer.status_code, answer.json()["code"]) == (413, "file_too_large")
    assert str(12 * MIB) in answer.json()["detail"]
    assert kept(quiet_store) == before


def test_parts_that_are_dropped_count_too(small_api: Api, quiet_store: ObjectStore) -> None:
    before = kept(quiet_store)
    body = [part("known_speaker_references", bytes(13 * MIB)), FILE, END]
    path = "/v1/audio/transcriptions"

    # In chunks, so that no length is announced.
    answer = requests.post(small_api.url + path, data=iter(body), headers={"Content-Type": FORM_TYPE}, timeout=120)

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "file_too_large")
    assert kept(quiet_store) == before


def test_a_body_of_exactly_the_limit_is_taken(small_api: Api) -> None:
    answer = post(small_api, part("file", os.urandom(12 * MIB), "x"), END)

    assert answer.status_code == 202


def test_one_upload_too_many_is_refused_unread_and_welcome_later(small_api: Api) -> None:
    with connection(small_api.url) as first, connection(small_api.url) as second:
        first.sendall(head(PATH, Transfer_Encoding="chunked"))
        first.sendall(b"%x\r\n%s\r\n" % (len(FILE), FILE))
        wait_until(lambda: _in_use(small_api))

        second.sendall(head(PATH, Content_Length="1000", Expect="100-continue"))

        assert first_line(second) == "HTTP/1.1 503 Service Unavailable"
    refused_while_busy = post(small_api, FILE, END)
    wait_until(lambda: post(small_api, FILE, END).status_code == 202)
    assert refused_while_busy.status_code in (202, 503)


def _in_use(api: Api) -> bool:
    answer = post(api, FILE, END)
    if answer.status_code != 503:
        return False
    assert answer.json()["code"] == "too_many_uploads"
    assert int(answer.headers["Retry-After"]) >= 1
    return True


@pytest.mark.parametrize("path", [PATH, "/api/v1/transcribe"])
def test_a_client_that_goes_away_leaves_nothing(
    start_api: StartApi, quiet_settings: StorageSettings, quiet_store: ObjectStore, path: str
) -> None:
    api = start_api(quiet_settings)
    before = kept(quiet_store)
    with connection(api.url) as opened:
        opened.sendall(head(path, Content_Length=str(90 * MIB)) + part("file", BIG, "x")[:-2])
        wait_until(lambda: kept(quiet_store)[1] != before[1])

    wait_until(lambda: "upload aborted" in api.log())
    assert kept(quiet_store) == before
    assert "level=error" not in api.log()
    assert "Traceback" not in api.log()


def test_a_client_that_stops_sending_loses_its_place(
    start_api: StartApi, quiet_settings: StorageSettings, quiet_store: ObjectStore
) -> None:
    api = start_api(quiet_settings, UPLOAD_IDLE_SECONDS="1")
    before = kept(quiet_store)
    with connection(api.url) as opened:
        opened.sendall(head(PATH, Content_Length=str(90 * MIB)) + part("file", BIG, "x")[:-2])

        assert first_line(opened) == "HTTP/1.1 408 Request Timeout"

    assert kept(quiet_store) == before


def test_an_upload_under_way_ends_well_when_the_server_is_stopped(
    start_api: StartApi, quiet_settings: StorageSettings, quiet_store: ObjectStore
) -> None:
    api = start_api(quiet_settings)
    body = part("file", BIG, "x") + END
    _, uploads = kept(quiet_store)
    with connection(api.url) as opened:
        opened.sendall(head(PATH, Content_Length=str(len(body)), Connection="close") + body[: 9 * MIB])
        wait_until(lambda: kept(quiet_store)[1] != uploads)
        with ThreadPoolExecutor(1) as thread:
            stopped = thread.submit(api.running.stop)
            wait_until(lambda: not _listens(api))
            opened.sendall(body[9 * MIB :])
            answered = first_line(opened)
            stopped.result()

    assert answered == "HTTP/1.1 202 Accepted"
    assert kept(quiet_store)[1] == uploads


def _listens(api: Api) -> bool:
    try:
        with connection(api.url):
            return True
    except OSError:
        return False


def test_memory_does_not_grow_with_the_recording_and_no_file_is_written(
    start_api: StartApi, quiet_settings: StorageSettings, tmp_path: Path
) -> None:
    api = start_api(quiet_settings, TMPDIR=str(tmp_path))
    process = psutil.Process(api.running.pid)
    post(api, part("file", BIG, "x"), END)
    before, peak = process.memory_info().rss, 0
    files: set[str] = set()

    def body() -> Iterator[bytes]:
        nonlocal peak
        yield part("file", b"", "x")[:-2]
        for _ in range(200):
            yield BIG[:MIB]
            peak = max(peak, process.memory_info().rss)
            files.update(file.path for file in process.open_files())
        yield b"\r\n" + END

    answer = requests.post(api.url + PATH, data=body(), headers={"Content-Type": FORM_TYPE}, timeout=120)

    assert answer.status_code == 202
    assert peak - before < 64 * MIB
    assert list(tmp_path.iterdir()) == []
    assert not {path for path in files if not path.startswith("/proc") and not path.endswith(".log")}


def test_uploads_at_once_are_all_whole(quiet_api: Api, quiet_store: ObjectStore) -> None:
    recordings = [os.urandom(9 * MIB) for _ in range(6)]

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda content: post(quiet_api, part("file", content, "x"), END), recordings))

    stored = [quiet_store.get(source_key(answer.json()["job_id"])) for answer in answers]
    assert stored == recordings


def test_with_redis_away_an_upload_is_refused_and_undone(
    start_api: StartApi, parts: Parts, fresh_settings: StorageSettings
) -> None:
    store = ObjectStore(fresh_settings)
    store.prepare()
    redis = parts.start_redis()
    api = start_api(msgspec.structs.replace(fresh_settings, redis_url=redis.url))
    redis.running.kill()

    answer = post(api, part("file", BIG, "x"), END)

    assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert "127.0.0.1" not in answer.text
    assert kept(store) == (set(), set())

    redis.running.start()
    assert post(api, FILE, END).status_code == 202


def test_with_the_store_away_an_upload_is_refused_and_no_job_is_made(
    start_api: StartApi, parts: Parts, fresh_settings: StorageSettings
) -> None:
    store = parts.start_store()
    settings = msgspec.structs.replace(
        fresh_settings, s3_endpoint_url=store.url, s3_access_key=store.access_key, s3_secret_key=store.secret_key
    )
    api = start_api(settings)
    assert post(api, FILE, END).status_code == 202
    store.running.kill()

    answer = post(api, part("file", BIG, "x"), END)

    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert JobStore.connect(settings).list_jobs("").total == 1
