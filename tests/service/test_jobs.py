"""Jobs and presigned uploads, on an API without a worker: what was accepted stays pending."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest

from actors.broker import make_broker, queue_depths
from service.options import OptionFields
from storage.job import Options
from storage.keys import source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.stack import Parts

MIB = 2**20


def new_upload(api: Api, size: int, **more: Any) -> dict[str, Any]:
    answer = api.client.post(
        "/api/v1/jobs", json={"source": {"type": "upload", "filename": "talk.mp3", "size": size}, **more}
    )
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


def put(link: dict[str, Any], content: bytes) -> httpx.Response:
    return httpx.put(link["url"], content=content, headers=link.get("headers", {}), timeout=120)


def pending_messages(settings: StorageSettings) -> int:
    return sum(queue_depths(make_broker(settings)).values())


@pytest.fixture(scope="module")
def parted_api(start_api: StartApi, quiet_settings: StorageSettings) -> Api:
    """Cuts uploads above 5 MiB into parts."""
    return start_api(quiet_settings, SINGLE_UPLOAD_MAX_BYTES=str(5 * MIB))


def test_a_job_awaits_its_upload_with_every_field_of_the_contract(quiet_api: Api) -> None:
    job = new_upload(quiet_api, 5, language="de", priority="high")

    assert job.keys() == {
        "job_id", "status", "progress", "created_at", "started_at", "completed_at", "expires_at", "source", "options",
        "warnings", "result", "files", "error", "error_code", "upload",
    }  # fmt: skip
    assert job["status"] == "awaiting_upload"
    assert job["created_at"].endswith("Z")
    assert job["source"] == {
        "type": "upload",
        "filename": "talk.mp3",
        "size": 5,
        "content_type": None,
        "duration": None,
    }
    assert (job["options"]["model"], job["options"]["language"], job["options"]["priority"]) == ("base", "de", "high")
    assert (job["result"], job["files"], job["error"], job["progress"]) == (None, {}, None, 0)
    assert job["upload"].keys() == {"method", "url", "headers", "expires_at"}


def test_whatever_option_a_job_has_can_be_asked_for(quiet_api: Api) -> None:
    source = {"type": "upload", "filename": "call.wav", "size": 10}

    made = quiet_api.client.post("/api/v1/jobs", json={"source": source, "channels": "separate"})

    assert (made.status_code, made.json()["options"]["channels"]) == (201, "separate")
    assert set(OptionFields.__struct_fields__) == set(Options.__struct_fields__)


def test_an_uploaded_recording_is_started(quiet_api: Api, quiet_settings: StorageSettings) -> None:
    job = new_upload(quiet_api, 5)
    assert put(job["upload"], b"sound").status_code == 200
    waiting = pending_messages(quiet_settings)

    answer = quiet_api.client.post(f"/api/v1/jobs/{job['job_id']}/start")

    assert answer.status_code == 202
    assert answer.json()["status"] == "pending"
    assert "upload" not in answer.json()
    assert pending_messages(quiet_settings) == waiting + 1


def test_the_store_refuses_another_size_or_type(quiet_api: Api, quiet_store: ObjectStore) -> None:
    source = {"type": "upload", "filename": "x.webm", "size": 5, "content_type": "audio/webm;codecs=opus"}
    job = quiet_api.client.post("/api/v1/jobs", json={"source": source}).json()
    link = job["upload"]

    refused = [put(link, b"longer than said"), put({**link, "headers": {"Content-Type": "text/html"}}, b"sound")]

    assert [answer.status_code for answer in refused] == [403, 403]
    assert link["headers"] == {"Content-Type": "audio/webm;codecs=opus"}
    assert put(link, b"sound").status_code == 200
    assert quiet_store.head(source_key(job["job_id"])).size == 5


def test_starting_twice_at_once_makes_one_message(quiet_api: Api, quiet_settings: StorageSettings) -> None:
    job = new_upload(quiet_api, 5)
    put(job["upload"], b"sound")
    waiting = pending_messages(quiet_settings)

    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda _: httpx.post(f"{quiet_api.url}/api/v1/jobs/{job['job_id']}/start"), range(8))
        )

    assert {answer.status_code for answer in answers} == {202}
    assert {answer.json()["status"] for answer in answers} == {"pending"}
    assert pending_messages(quiet_settings) == waiting + 1


def test_a_start_before_the_upload_says_what_is_missing(quiet_api: Api, parted_api: Api) -> None:
    single, parted = new_upload(quiet_api, 5), new_upload(parted_api, 40 * MIB)
    put(parted["upload"]["parts"][1], os.urandom(16 * MIB))

    answers = [quiet_api.client.post(f"/api/v1/jobs/{job['job_id']}/start") for job in (single, parted)]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "upload_incomplete")] * 2
    assert [answer.json()["missing"] for answer in answers] == [[1], [1, 3]]
    assert [answer.json()["detail"] for answer in answers] == [
        "nothing has been uploaded yet, or its size is not the one announced",
        "2 of 3 parts are missing or of another size",
    ]


def test_an_upload_in_parts_breaks_off_and_is_resumed(parted_api: Api, quiet_store: ObjectStore) -> None:
    recording = os.urandom(40 * MIB)
    job = new_upload(parted_api, len(recording))
    upload = job["upload"]
    assert upload.keys() == {"method", "part_size", "parts", "expires_at"}
    assert [part["size"] for part in upload["parts"]] == [16 * MIB, 16 * MIB, 8 * MIB]
    assert put(upload["parts"][2], recording[32 * MIB :]).status_code == 200
    # The size of each part is signed.
    assert put(upload["parts"][0], recording[:MIB]).status_code == 403

    resumed = parted_api.client.get(f"/api/v1/jobs/{job['job_id']}/upload").json()
    assert [part["uploaded"] for part in resumed["parts"]] == [False, False, True]
    for part in resumed["parts"][:2]:
        begin = (part["number"] - 1) * resumed["part_size"]
        assert put(part, recording[begin : begin + part["size"]]).status_code == 200
    with ThreadPoolExecutor(4) as threads:
        url = f"{parted_api.url}/api/v1/jobs/{job['job_id']}/start"
        answers = list(threads.map(lambda _: httpx.post(url, timeout=120), range(4)))

    assert {answer.status_code for answer in answers} == {202}
    assert quiet_store.get(source_key(job["job_id"])) == recording
    assert list(quiet_store.uploads(source_key(job["job_id"]))) == []


def test_links_of_a_started_job_are_not_given_again(quiet_api: Api) -> None:
    job = new_upload(quiet_api, 5)
    put(job["upload"], b"sound")
    url = f"/api/v1/jobs/{job['job_id']}"
    assert quiet_api.client.get(f"{url}/upload").json()["uploaded"] is True
    quiet_api.client.post(f"{url}/start")

    answer = quiet_api.client.get(f"{url}/upload")

    assert (answer.status_code, answer.json()["code"]) == (409, "job_conflict")


def test_parts_are_few_enough_for_the_largest_recording(start_api: StartApi, quiet_settings: StorageSettings) -> None:
    api = start_api(quiet_settings, MAX_FILE_SIZE=str(400 * 2**30))

    upload = new_upload(api, 300 * 2**30)["upload"]

    assert len(upload["parts"]) <= 1000
    assert sum(part["size"] for part in upload["parts"]) == 300 * 2**30


@pytest.mark.parametrize(
    ("body", "status", "code", "fact"),
    [
        ("", 400, "invalid_body", "the body is empty; JSON is expected"),
        ("[1]", 400, "invalid_body", "object"),
        ("{", 400, "invalid_body", "truncated"),
        ('{"source": {"a": ' + "[" * 100_000, 400, "invalid_body", "nested too deeply"),
        ("{}", 422, "invalid_parameter", "source is missing"),
        ('{"source": {"filename": "x", "size": 1}}', 422, "invalid_parameter", "source.type is missing"),
        ('{"source": {"type": "ftp", "url": "ftp://a"}}', 422, "invalid_parameter", "upload, object, url"),
        ('{"source": {"type": "upload", "filename": "x", "size": 0}}', 422, "invalid_parameter", "source.size"),
        ('{"source": {"type": "upload", "filename": "x"}}', 422, "invalid_parameter", "source.size is missing"),
        ('{"source": {"type": "upload", "filename": "x", "size": 9999999999}}', 413, "file_too_large", "4294967296"),
        ('{"source": {"type": "upload", "filename": "x", "size": 1}, "langage": "de"}', 422,
         "invalid_parameter", "langage"),
        ('{"source": {"type": "upload", "filename": "x", "size": 1}, "model": "gpt"}', 422,
         "invalid_parameter", "large-v3"),
        ('{"source": {"type": "upload", "filename": "x", "size": 1, "content_type": "a/b\\nX: y"}}', 422,
         "invalid_parameter", "content_type"),
        ('{"source": {"type": "object", "key": "archive/none.mp3"}}', 422, "object_not_found", "archive/none.mp3"),
        ('{"source": {"type": "object", "key": "sources/x/media"}}', 422, "invalid_parameter", "own"),
        ('{"source": {"type": "object", "key": "transcripts/x"}}', 422, "invalid_parameter", "own"),
        ('{"source": {"type": "object", "key": "archive/../sources/x/media"}}', 422, "invalid_parameter", ".."),
        ('{"source": {"type": "object", "key": "/sources/x/media"}}', 422, "invalid_parameter", "empty"),
        ('{"source": {"type": "object", "key": "models/base/model.bin"}}', 422, "invalid_parameter", "own"),
        ('{"source": {"type": "object", "key": "' + "é" * 600 + '"}}', 422, "invalid_parameter", "1024 bytes"),
        ('{"prompt": "' + "x" * 2**20 + '"}', 413, "body_too_large", ""),
    ],
)  # fmt: skip
def test_a_refused_job_says_why_and_leaves_nothing(
    quiet_api: Api, quiet_store: ObjectStore, body: str, status: int, code: str, fact: str
) -> None:
    before = {info.key for info in quiet_store.list("")}
    jobs = quiet_api.client.get("/api/v1/jobs").json()["total"]

    answer = quiet_api.client.post("/api/v1/jobs", content=body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert fact in answer.json()["detail"]
    assert {info.key for info in quiet_store.list("")} == before
    assert quiet_api.client.get("/api/v1/jobs").json()["total"] == jobs


def test_an_object_without_a_byte_is_no_recording(quiet_api: Api, quiet_store: ObjectStore) -> None:
    quiet_store.put("archive/empty.mp3", b"", "audio/mpeg")

    answer = quiet_api.client.post("/api/v1/jobs", json={"source": {"type": "object", "key": "archive/empty.mp3"}})

    assert (answer.status_code, answer.json()["code"]) == (422, "audio_unreadable")
    assert answer.json()["detail"] == "the recording is empty (0 bytes)"


def test_a_language_may_be_in_capitals(quiet_api: Api) -> None:
    in_json = new_upload(quiet_api, 5, language="EN")
    form = quiet_api.client.post("/api/v1/transcribe-async", data={"language": "De"}, files={"file": b"sound"}).json()
    in_form = quiet_api.client.get(form["status_url"]).json()

    assert [job["options"]["language"] for job in (in_json, in_form)] == ["en", "de"]


def test_an_object_of_the_bucket_becomes_a_job_and_outlives_it(quiet_api: Api, quiet_store: ObjectStore) -> None:
    quiet_store.put("archive/Vortrag über Käse.mp3", b"sound", "audio/mpeg")

    job = quiet_api.client.post(
        "/api/v1/jobs", json={"source": {"type": "object", "key": "archive/Vortrag über Käse.mp3"}}
    ).json()
    deleted = quiet_api.client.delete(f"/api/v1/jobs/{job['job_id']}")

    assert job["status"] == "pending"
    assert (job["source"]["type"], job["source"]["key"]) == ("object", "archive/Vortrag über Käse.mp3")
    assert job["source"]["filename"] == "Vortrag über Käse.mp3"
    assert (job["source"]["size"], job["source"]["content_type"]) == (5, "audio/mpeg")
    assert deleted.status_code == 200
    assert quiet_store.get("archive/Vortrag über Käse.mp3") == b"sound"
    assert list(quiet_store.list(f"sources/{job['job_id']}/")) == []


def test_a_deleted_job_is_gone_with_all_its_objects(parted_api: Api, quiet_store: ObjectStore) -> None:
    job = new_upload(parted_api, 40 * MIB)
    put(job["upload"]["parts"][0], os.urandom(16 * MIB))
    url = f"/api/v1/jobs/{job['job_id']}"

    answer = parted_api.client.delete(url)

    assert (answer.status_code, answer.json().keys()) == (200, {"message", "job_id"})
    assert list(quiet_store.list(f"sources/{job['job_id']}/")) == []
    assert list(quiet_store.uploads(f"sources/{job['job_id']}/")) == []
    assert parted_api.client.get(f"/api/v1/status/{job['job_id']}").json()["code"] == "job_not_found"
    assert parted_api.client.delete(url).status_code == 404


def test_cancelling_is_possible_once(quiet_api: Api) -> None:
    job = new_upload(quiet_api, 5)
    url = f"/api/v1/jobs/{job['job_id']}/cancel"

    answers = [quiet_api.client.post(url), quiet_api.client.post(url)]

    assert [answer.status_code for answer in answers] == [200, 409]
    assert answers[0].json()["status"] == "cancelled"
    assert (answers[1].json()["code"], answers[1].json()["detail"]) == ("job_conflict", "the job is cancelled already")
    # A start of a final job answers it as it is.
    started = quiet_api.client.post(f"/api/v1/jobs/{job['job_id']}/start")
    assert (started.status_code, started.json()["status"]) == (202, "cancelled")


@pytest.fixture(scope="module")
def listed(start_api: StartApi, parts: Parts, quiet_settings: StorageSettings) -> tuple[Api, list[str]]:
    """An API whose only jobs are seven, oldest first."""
    api = start_api(msgspec.structs.replace(quiet_settings, redis_url=parts.start_redis().url))
    return api, [new_upload(api, 5)["job_id"] for _ in range(7)]


def test_jobs_are_listed_newest_first_page_by_page(listed: tuple[Api, list[str]]) -> None:
    api, ids = listed

    pages: list[dict[str, Any]] = []
    cursor = None
    while cursor or not pages:
        query: dict[str, str | int] = {"limit": 3, **({"cursor": cursor} if cursor else {})}
        pages.append(api.client.get("/api/v1/jobs", params=query).json())
        cursor = pages[-1]["next_cursor"]

    assert [len(page["jobs"]) for page in pages] == [3, 3, 1]
    assert {page["total"] for page in pages} == {7}
    assert sorted(job["job_id"] for page in pages for job in page["jobs"]) == sorted(ids)
    shown = [job["created_at"] for page in pages for job in page["jobs"]]
    assert shown == sorted(shown, reverse=True)


def test_an_empty_cursor_is_the_first_page(listed: tuple[Api, list[str]]) -> None:
    api, _ = listed

    pages = [api.client.get("/api/v1/jobs", params=query).json()["jobs"] for query in ({}, {"cursor": ""})]

    assert len(pages[0]) == 7
    assert pages[0] == pages[1]


def test_jobs_are_listed_by_status(listed: tuple[Api, list[str]]) -> None:
    api, ids = listed
    api.client.post(f"/api/v1/jobs/{ids[3]}/cancel")

    cancelled = api.client.get("/api/v1/jobs", params={"status": "cancelled"}).json()
    awaiting = api.client.get("/api/v1/jobs", params={"status": "awaiting_upload"}).json()

    assert [job["job_id"] for job in cancelled["jobs"]] == [ids[3]]
    assert awaiting["total"] == 6


@pytest.mark.parametrize(
    ("query", "fact"),
    [
        ("limit=0", "limit"), ("limit=201", "limit"), ("limit=ten", "limit"),
        ("cursor=abc", "cursor: take next_cursor from the page before"),
        ("status=done", "awaiting_upload, pending, processing, completed, failed, cancelled"),
    ],
)  # fmt: skip
def test_a_wrong_query_is_named(quiet_api: Api, query: str, fact: str) -> None:
    answer = quiet_api.client.get(f"/api/v1/jobs?{query}")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert fact in answer.json()["detail"]


@pytest.mark.parametrize("job_id", ["0" * 22, "x", "..%2f..", "a" * 5000, "%00", "*"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/status/{}"), ("POST", "/api/v1/jobs/{}/cancel"), ("DELETE", "/api/v1/jobs/{}"),
        ("POST", "/api/v1/jobs/{}/start"), ("GET", "/api/v1/jobs/{}/upload"),
    ],
)  # fmt: skip
def test_an_unknown_job_is_not_found(quiet_api: Api, method: str, path: str, job_id: str) -> None:
    answer = quiet_api.client.request(method, path.format(job_id))

    assert answer.status_code == 404
    assert answer.json()["code"] in ("job_not_found", "not_found")
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_include_trims_what_a_job_carries(quiet_api: Api) -> None:
    url = f"/api/v1/status/{new_upload(quiet_api, 5)['job_id']}"

    carried = {
        include: {"result", "files"} & quiet_api.client.get(url, params={"include": include}).json().keys()
        for include in ("files", "result", "files,result", "")
    }
    wrong = quiet_api.client.get(url, params={"include": "everything"})

    assert carried == {"files": {"files"}, "result": {"result"}, "files,result": {"files", "result"}, "": set()}
    assert wrong.json()["allowed"] == ["files", "partial", "result"]


def test_addresses_and_methods_that_are_not_there_are_problems_too(quiet_api: Api) -> None:
    nowhere, wrong_method = quiet_api.client.get("/api/v2/jobs"), quiet_api.client.put("/api/v1/jobs")

    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not_found")
    assert (wrong_method.status_code, wrong_method.json()["code"]) == (405, "method_not_allowed")
    assert {"GET", "POST"} <= set(wrong_method.headers["Allow"].replace(" ", "").split(","))


def test_the_catalogue_names_models_and_languages(quiet_api: Api) -> None:
    models = quiet_api.client.get("/api/v1/models").json()
    languages = quiet_api.client.get("/api/v1/languages").json()["languages"]

    by_name = {model["name"]: model for model in models["models"]}
    assert {"tiny", "base", "small", "medium", "large", "large-v3", "turbo"} <= by_name.keys()
    assert models["current_model"] == "base"
    assert by_name["base"]["size"] == 145_217_532
    assert (by_name["tiny.en"]["multilingual"], by_name["tiny"]["multilingual"]) == (False, True)
    assert not by_name["base"]["loaded"]
    assert not by_name["large-v3"]["available"]
    assert len(languages) == 100
    assert {"code": "yue", "name": "Cantonese"} in languages
