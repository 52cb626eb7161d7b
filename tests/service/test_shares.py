"""No client takes all places: of uploads, of event streams, of waiting jobs."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import msgspec
import pytest

from service.clients import share_of
from storage.job_store import JobStore
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.forms import END, FORM_TYPE, connection, first_line, head, part
from tests.stack import Parts

FORM = part("file", b"sound", "a.mp3") + END
NEW = {"source": {"type": "upload", "filename": "a.mp3", "size": 5}}
ANNA, BERT = {"X-API-Key": "anna"}, {"X-API-Key": "bert"}


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("most", "wanted", "share"), [(8, 0, 4), (8, 3, 3), (8, 8, 7), (8, 100, 7), (2, 0, 1), (2, 2, 1), (1, 0, 1)]
)
def test_a_share_leaves_a_place_for_others(most: int, wanted: int, share: int) -> None:
    assert share_of(most, wanted) == share


@pytest.fixture
def settings(quiet_settings: StorageSettings, parts: Parts) -> Iterator[StorageSettings]:
    redis = parts.start_redis()
    yield msgspec.structs.replace(quiet_settings, redis_url=redis.url)
    redis.running.kill()


def upload(api: Api, key: dict[str, str]) -> httpx.Response:
    return httpx.post(
        f"{api.url}/api/v1/transcribe-async", content=FORM, headers={"Content-Type": FORM_TYPE, **key}, timeout=30
    )


def stalled(api: Api, opened: socket.socket, **key: str) -> None:
    opened.sendall(head("/api/v1/transcribe-async", Content_Length="100000", **key) + FORM[:-20])


def test_uploads_that_stall_take_one_clients_share_only(start_api: StartApi, settings: StorageSettings) -> None:
    api = start_api(settings, API_KEYS="anna,bert", MAX_CONCURRENT_UPLOADS="4")
    with ExitStack() as stack:
        for _ in range(4):
            stalled(api, stack.enter_context(connection(api.url)), X_API_Key="anna")
        wait_until(lambda: upload(api, ANNA).status_code == 503)

        refused, taken = upload(api, ANNA), upload(api, BERT)

    assert refused.json()["code"] == "client_uploads_exceeded"
    assert "2 uploads" in refused.json()["detail"]
    assert int(refused.headers["Retry-After"]) >= 1
    assert taken.status_code == 202
    wait_until(lambda: upload(api, ANNA).status_code == 202)


def test_a_client_with_its_share_waits_for_its_own_uploads_to_end(
    start_api: StartApi, settings: StorageSettings
) -> None:
    api = start_api(settings, MAX_CONCURRENT_UPLOADS="2")
    with connection(api.url) as first, connection(api.url) as second:
        first.sendall(head("/api/v1/transcribe-async", Content_Length=str(len(FORM))) + FORM[:-20])
        second.sendall(head("/api/v1/transcribe-async", Content_Length=str(len(FORM))) + FORM)
        first.sendall(FORM[-20:])

        told = first_line(first), first_line(second)

    assert told == ("HTTP/1.1 202 Accepted", "HTTP/1.1 202 Accepted")


def test_event_streams_of_one_key_leave_places_for_others(start_api: StartApi, settings: StorageSettings) -> None:
    api = start_api(settings, API_KEYS="anna,bert", MAX_LISTENERS="6", MAX_LISTENERS_PER_CLIENT="2")

    def events(key: dict[str, str]) -> str:
        job_id = api.client.post("/api/v1/jobs", json=NEW, headers=key).json()["job_id"]
        return f"/api/v1/jobs/{job_id}/events"

    with ExitStack() as stack:
        annas = [stack.enter_context(api.client.stream("GET", events(ANNA), headers=ANNA)) for _ in range(2)]
        refused = api.client.get(events(ANNA), headers=ANNA)
        bert = stack.enter_context(api.client.stream("GET", events(BERT), headers=BERT))

    assert [answer.status_code for answer in (*annas, bert)] == [200] * 3
    assert (refused.status_code, refused.json()["code"]) == (503, "client_listeners_exceeded")
    assert "2 event streams" in refused.json()["detail"]
    assert int(refused.headers["Retry-After"]) >= 1


def test_jobs_that_wait_are_limited_for_each_key_and_in_all(start_api: StartApi, settings: StorageSettings) -> None:
    api = start_api(settings, API_KEYS="anna,bert", MAX_WAITING_JOBS="5", MAX_WAITING_JOBS_PER_CLIENT="3")
    objects = ObjectStore(settings)

    def new(key: dict[str, str], **more: object) -> httpx.Response:
        return api.client.post("/api/v1/jobs", json={**NEW, **more}, headers=key)

    annas = [new(ANNA).json()["job_id"] for _ in range(3)]
    refused, berts = new(ANNA), [new(BERT) for _ in range(3)]
    before = {info.key for info in objects.list("sources/")}
    uploaded = upload(api, BERT)

    assert (refused.status_code, refused.json()["code"]) == (429, "client_jobs_exceeded")
    assert refused.json()["detail"] == "3 jobs of this client wait, which is its limit"
    assert int(refused.headers["Retry-After"]) >= 1
    assert [answer.status_code for answer in berts] == [201, 201, 503]
    assert (berts[2].json()["code"], berts[2].json()["detail"]) == ("too_many_jobs", "5 jobs wait, which is the limit")
    assert uploaded.status_code == 503
    assert {info.key for info in objects.list("sources/")} == before
    # Room again: what is cancelled or deleted waits no more.
    api.client.post(f"/api/v1/jobs/{annas[0]}/cancel", headers=ANNA)
    api.client.delete(f"/api/v1/jobs/{annas[1]}", headers=ANNA)
    assert [new(ANNA).status_code for _ in range(2)] == [201, 201]


def test_a_repeated_request_gets_its_job_at_the_limit_of_waiting_jobs(
    start_api: StartApi, settings: StorageSettings
) -> None:
    api = start_api(settings, MAX_WAITING_JOBS_PER_CLIENT="1")
    key = {"Idempotency-Key": "one"}

    first, again = (api.client.post("/api/v1/jobs", json=NEW, headers=key) for _ in range(2))

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["job_id"] == again.json()["job_id"]


def test_without_keys_each_address_has_its_share(start_api: StartApi, settings: StorageSettings) -> None:
    api = start_api(settings, MAX_WAITING_JOBS_PER_CLIENT="1", TRUSTED_PROXIES="127.0.0.1")

    def new(address: str) -> int:
        return api.client.post("/api/v1/jobs", json=NEW, headers={"X-Forwarded-For": address}).status_code

    assert [new(address) for address in ("203.0.113.1", "203.0.113.1", "203.0.113.2")] == [201, 429, 201]


def test_a_job_waits_again_when_its_worker_gives_it_back(start_api: StartApi, settings: StorageSettings) -> None:
    api = start_api(settings, MAX_WAITING_JOBS_PER_CLIENT="1")
    jobs = JobStore.connect(settings)
    job_id = upload(api, {}).json()["job_id"]
    refused = upload(api, {}).status_code

    claim = jobs.claim(job_id, "w", 60, 3)
    while_worked_on = api.client.post("/api/v1/jobs", json=NEW)
    api.client.delete(f"/api/v1/jobs/{while_worked_on.json()['job_id']}")
    jobs.release(job_id, claim.token)

    assert (refused, while_worked_on.status_code, upload(api, {}).status_code) == (429, 201, 429)


def test_the_inbox_waits_for_room_and_loses_nothing(start_api: StartApi, own_settings: StorageSettings) -> None:
    api = start_api(own_settings, INBOX_SECONDS="1", MAX_WAITING_JOBS="6", MAX_WAITING_JOBS_PER_CLIENT="2")
    objects, jobs = ObjectStore(own_settings), JobStore.connect(own_settings)
    for number in range(5):
        objects.put(f"inbox/{number}.mp3", b"sound", "audio/mpeg")

    def made() -> int:
        return int(api.client.get("/api/v1/jobs").json()["total"])

    wait_until(lambda: made() == 2 and "inbox waits" in api.log())
    notes = [info.key for info in objects.list("sources/")]
    direct = api.client.post("/api/v1/jobs", json=NEW)

    def all_made() -> bool:
        for job in jobs.list_jobs("").jobs:
            if job.source.type == "inbox" and job.status == "pending":
                jobs.cancel(job.job_id)
        return made() == 6

    wait_until(all_made)

    assert len(notes) == 2
    assert direct.status_code == 201
    sources = {job.source.key for job in jobs.list_jobs("").jobs if job.source.type == "inbox"}
    assert sources == {f"inbox/{number}.mp3" for number in range(5)}
    assert "inbox not looked through" not in api.log()
