"""A request that is sent again with its Idempotency-Key, through every door that makes jobs."""

import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest
import requests

from storage.job import new_job_id
from storage.job_store import JobStore
from storage.keys import job_key, source_key
from storage.object_store import ObjectStore
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.forms import END, connection, head, part

MIB = 2**20
FORM = "/api/v1/transcribe-async"


@pytest.fixture
def key() -> str:
    return secrets.token_hex(16)


@pytest.fixture
def recording() -> bytes:
    return os.urandom(3000)


def send(
    api: Api, key: str, recording: bytes, name: str = "talk.mp3", api_key: str = "", **fields: str
) -> requests.Response:
    headers = {"Idempotency-Key": key, **({"X-API-Key": api_key} if api_key else {})}
    return requests.post(api.url + FORM, files={"file": (name, recording)}, data=fields, headers=headers, timeout=120)


def total(api: Api) -> int:
    return int(api.client.get("/api/v1/jobs?limit=1").json()["total"])


def kept(store: ObjectStore) -> set[str]:
    return {info.key for info in store.list("")} | {upload.key for upload in store.uploads()}


def test_a_form_sent_again_is_the_same_job_and_leaves_nothing(
    quiet_api: Api, quiet_store: ObjectStore, key: str, recording: bytes
) -> None:
    first = send(quiet_api, key, recording, language="de")
    jobs, objects = total(quiet_api), kept(quiet_store)

    # Boundaries differ each time, and defaults may be said or not.
    again = send(quiet_api, key, recording, language="de", task="transcribe")

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["job_id"] == first.json()["job_id"]
    assert again.headers["Location"] == first.headers["Location"]
    assert (total(quiet_api), kept(quiet_store)) == (jobs, objects)
    assert quiet_store.get(source_key(first.json()["job_id"])) == recording


def test_large_recordings_are_compared_by_their_bytes(quiet_api: Api, quiet_store: ObjectStore, key: str) -> None:
    recording = os.urandom(18 * MIB)
    first = send(quiet_api, key, recording)
    objects = kept(quiet_store)

    again = send(quiet_api, key, recording)
    other = send(quiet_api, key, recording[:-1] + bytes([recording[-1] ^ 1]))

    assert again.json()["job_id"] == first.json()["job_id"]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    assert kept(quiet_store) == objects


@pytest.mark.parametrize(
    "other",
    [{"recording": b"other sound"}, {"language": "fr"}, {"name": "another.mp3"}],
    ids=["bytes", "options", "name"],
)
def test_another_request_with_the_key_is_refused_and_leaves_nothing(
    quiet_api: Api, quiet_store: ObjectStore, key: str, recording: bytes, other: dict[str, Any]
) -> None:
    send(quiet_api, key, recording)
    jobs, objects = total(quiet_api), kept(quiet_store)

    refused = send(quiet_api, key, **{"recording": recording, **other})

    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_conflict")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert (total(quiet_api), kept(quiet_store)) == (jobs, objects)


def test_of_requests_at_the_same_time_one_makes_the_job(
    quiet_api: Api, quiet_store: ObjectStore, key: str, recording: bytes
) -> None:
    jobs = total(quiet_api)

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: send(quiet_api, key, recording), range(6)))

    assert {answer.status_code for answer in answers} == {202}
    (job_id,) = {answer.json()["job_id"] for answer in answers}
    assert total(quiet_api) == jobs + 1
    same = [info.key for info in quiet_store.list("sources/") if info.size == len(recording)]
    assert [found for found in same if quiet_store.get(found) == recording] == [source_key(job_id)]


def test_the_key_works_in_every_process(quiet_api: Api, start_api: StartApi, key: str, recording: bytes) -> None:
    other = start_api(quiet_api.settings)

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda api: send(api, key, recording), [quiet_api, other] * 2))

    assert len({answer.json()["job_id"] for answer in answers}) == 1


def test_the_answer_of_a_request_that_broke_off_is_asked_for_again(quiet_api: Api, key: str, recording: bytes) -> None:
    """The synchronous call is not cancelled: its client said that it will come back."""
    body = part("file", recording, "talk.mp3") + END
    jobs = total(quiet_api)
    with connection(quiet_api.url) as opened:
        opened.sendall(head("/api/v1/transcribe", Content_Length=str(len(body)), Idempotency_Key=key) + body)
        wait_until(lambda: total(quiet_api) == jobs + 1)

    again = send(quiet_api, key, recording)

    job = quiet_api.client.get(f"/api/v1/status/{again.json()['job_id']}").json()
    assert job["status"] == "pending"
    assert total(quiet_api) == jobs + 1


def test_a_form_that_broke_off_half_way_has_not_used_the_key(quiet_api: Api, key: str, recording: bytes) -> None:
    body = part("file", recording, "talk.mp3")
    with connection(quiet_api.url) as opened:
        opened.sendall(head(FORM, Content_Length=str(len(body) + 1000), Idempotency_Key=key) + body)

    answer = send(quiet_api, key, recording)

    assert answer.status_code == 202


def test_a_refused_request_has_not_used_the_key(quiet_api: Api, key: str, recording: bytes) -> None:
    refused = send(quiet_api, key, recording, language="klingon")

    answer = send(quiet_api, key, recording)

    assert (refused.status_code, answer.status_code) == (422, 202)


def test_when_the_job_is_deleted_its_key_is_free(quiet_api: Api, key: str, recording: bytes) -> None:
    first = send(quiet_api, key, recording).json()["job_id"]
    quiet_api.client.delete(f"/api/v1/jobs/{first}")

    second = send(quiet_api, key, b"another recording")

    assert second.status_code == 202
    assert second.json()["job_id"] != first


def test_the_key_is_its_owners_alone(quiet_api: Api, start_api: StartApi, key: str, recording: bytes) -> None:
    api = start_api(quiet_api.settings, API_KEYS="alice,bob")

    answers = [send(api, key, recording, api_key=name) for name in ("alice", "bob", "alice")]

    alice, bob, again = (answer.json()["job_id"] for answer in answers)
    assert alice == again != bob


@pytest.mark.parametrize("bad", ["", "x" * 256])
def test_a_key_that_is_none_is_refused_before_the_recording_is_read(quiet_api: Api, bad: str) -> None:
    answer = send(quiet_api, bad, b"sound")

    assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")


def test_the_key_is_nowhere_in_clear_text(quiet_api: Api, key: str, recording: bytes) -> None:
    send(quiet_api, key, recording)

    names = JobStore.connect(quiet_api.settings)._redis.keys("*")

    assert not any(key in name for name in names)
    assert key not in quiet_api.log()


# JSON bodies


def make(api: Api, key: str, **body: Any) -> httpx.Response:
    return api.client.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": key})


def test_an_upload_asked_for_again_goes_on_with_its_links(quiet_api: Api, quiet_store: ObjectStore, key: str) -> None:
    source = {"type": "upload", "filename": "talk.mp4", "size": 70 * MIB}
    first = make(quiet_api, key, source=source)
    objects = kept(quiet_store)

    again = make(quiet_api, key, source=source)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["job_id"] == first.json()["job_id"]
    assert len(again.json()["upload"]["parts"]) == len(first.json()["upload"]["parts"])
    # No second upload was begun in the store.
    assert kept(quiet_store) == objects
    assert len([upload for upload in quiet_store.uploads() if upload.key == source_key(first.json()["job_id"])]) == 1


def test_a_form_sent_again_is_its_job_though_its_webhook_may_not_be_gone_to_any_more(
    quiet_api: Api, start_api: StartApi, quiet_store: ObjectStore, key: str, recording: bytes
) -> None:
    open_api = start_api(msgspec.structs.replace(quiet_api.settings, allowed_networks="127.0.0.0/8"))
    first = send(open_api, key, recording, webhook_url="http://127.0.0.1:9/")
    objects = kept(quiet_store)

    again = send(quiet_api, key, recording, webhook_url="http://127.0.0.1:9/")

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["job_id"] == first.json()["job_id"]
    assert kept(quiet_store) == objects


def test_another_body_is_refused(quiet_api: Api, key: str) -> None:
    source = {"type": "upload", "filename": "talk.mp4", "size": 1000}
    make(quiet_api, key, source=source)

    refused = make(quiet_api, key, source={**source, "size": 1001})

    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_conflict")


def test_jobs_asked_for_at_the_same_time_are_one(quiet_api: Api, quiet_store: ObjectStore, key: str) -> None:
    source = {"type": "upload", "filename": "talk.mp4", "size": 70 * MIB}

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: make(quiet_api, key, source=source), range(6)))

    (job_id,) = {answer.json()["job_id"] for answer in answers}
    begun = {upload.key for upload in quiet_store.uploads()} | {info.key for info in quiet_store.list("sources/")}
    since = [name for name in begun if name.split("/")[1] >= job_id]
    assert sorted(since) == [job_key(job_id), source_key(job_id)]


def test_a_job_is_the_same_when_what_it_named_is_gone(quiet_api: Api, quiet_store: ObjectStore, key: str) -> None:
    name = f"talks/{new_job_id()}.mp3"
    quiet_store.put(name, b"sound", "audio/mpeg")
    first = make(quiet_api, key, source={"type": "object", "key": name}).json()
    quiet_store.delete(name)

    again = make(quiet_api, key, source={"type": "object", "key": name})

    assert (again.status_code, again.json()["job_id"]) == (201, first["job_id"])


def test_media_servers_may_send_a_key_too(quiet_api: Api, key: str, recording: bytes) -> None:
    jobs = total(quiet_api)

    def ask(content: bytes) -> requests.Response:
        return requests.post(
            f"{quiet_api.url}/asr?output=srt",
            files={"audio_file": ("talk.mp3", content)},
            headers={"Idempotency-Key": key},
            timeout=120,
        )

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, recording)
        wait_until(lambda: total(quiet_api) == jobs + 1)
        job_id = quiet_api.client.get("/api/v1/jobs?limit=1").json()["jobs"][0]["job_id"]
        again = threads.submit(ask, recording)
        other = ask(b"other sound")
        # No worker is there: they would wait for ever.
        quiet_api.client.post(f"/api/v1/jobs/{job_id}/cancel")

    assert other.json()["code"] == "idempotency_conflict"
    assert [one.result().json()["job_id"] for one in (first, again)] == [job_id, job_id]
    assert total(quiet_api) == jobs + 1


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.05)
