"""Webhooks from outside: a key's own, a job's own, the log of deliveries, and a real worker that posts."""

import os
import re
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from storage.outbox import Attempt, Outbox
from storage.redis_client import JOBS_DATABASE, connect
from storage.settings import StorageSettings
from tests.conftest import Sample
from tests.processes import new_worker
from tests.receiver import Receiver, status
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.stack import Parts
from tests.storage.test_job_store import wait_until

ANNA, BERT = {"X-API-Key": "anna-key"}, {"X-API-Key": "bert-key"}


@pytest.fixture(scope="module")
def keyed_api(start_api: StartApi, quiet_settings: StorageSettings) -> Api:
    """Two keys, no worker; loopback may be posted to."""
    settings = msgspec.structs.replace(quiet_settings, allowed_networks="127.0.0.0/8")
    return start_api(settings, API_KEYS="anna-key,bert-key")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.close()


def put(api: Api, body: dict[str, Any], key: dict[str, str] = ANNA) -> dict[str, Any]:
    answer = api.client.put("/api/v1/webhook", json=body, headers=key)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def make(api: Api, **options: object) -> Any:
    """The answer to Anna's request for a job."""
    body = {"source": {"type": "upload", "filename": "talk.mp3", "size": 9}, **options}
    return api.client.post("/api/v1/jobs", json=body, headers=ANNA)


def cancelled(api: Api, **options: object) -> str:
    job_id = str(make(api, **options).json()["job_id"])
    assert api.client.post(f"/api/v1/jobs/{job_id}/cancel", headers=ANNA).status_code == 200
    return job_id


def deliveries(api: Api, job_id: str, key: dict[str, str] = ANNA) -> dict[str, Any]:
    return dict(api.client.get(f"/api/v1/jobs/{job_id}/deliveries", headers=key).json())


def test_a_key_has_a_secret_of_its_own_that_stays(keyed_api: Api) -> None:
    first, again = (keyed_api.client.get("/api/v1/webhook", headers=ANNA) for _ in range(2))
    other = keyed_api.client.get("/api/v1/webhook", headers=BERT).json()

    assert first.json() == again.json()
    assert first.json()["url"] is None
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", first.json()["secret"])
    assert other["secret"] != first.json()["secret"]
    assert first.headers["cache-control"] == "no-store"


def test_an_address_is_set_and_the_secret_stays_unless_another_is_given(keyed_api: Api) -> None:
    before = put(keyed_api, {"url": "http://127.0.0.1:9/a"})
    moved = put(keyed_api, {"url": "http://127.0.0.1:9/b"})
    given = put(keyed_api, {"url": "http://127.0.0.1:9/b", "secret": "whsec_" + "YW5u" * 8})
    nowhere = put(keyed_api, {"url": None})

    assert moved == {"url": "http://127.0.0.1:9/b", "secret": before["secret"]}
    assert given["secret"] == "whsec_" + "YW5u" * 8
    assert nowhere == {"url": None, "secret": given["secret"]}
    assert keyed_api.client.get("/api/v1/webhook", headers=ANNA).json() == nowhere


def test_a_removed_webhook_takes_its_secret_with_it(keyed_api: Api) -> None:
    before = put(keyed_api, {"url": "http://127.0.0.1:9/"})

    removed = [keyed_api.client.delete("/api/v1/webhook", headers=ANNA).status_code for _ in range(2)]

    after = keyed_api.client.get("/api/v1/webhook", headers=ANNA).json()
    assert removed == [204] * 2
    assert after["url"] is None
    assert after["secret"] != before["secret"]


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"url": "http://10.0.0.1/"}, "url_not_allowed", "url"),
        ({"url": "http://169.254.169.254/latest"}, "url_not_allowed", "url"),
        ({"url": "ftp://127.0.0.1/"}, "url_not_allowed", "url"),
        ({"url": "http://user:pass@127.0.0.1/"}, "url_not_allowed", "url"),
        ({"url": "http://no-such-host.invalid/"}, "url_unreachable", "url"),
        ({"url": 5}, "invalid_parameter", "url"),
        ({}, "invalid_parameter", "url"),
        ({"url": None, "secret": "whsec_c2hvcnQ="}, "invalid_parameter", "secret"),
        ({"url": None, "secret": "YW5u" * 8}, "invalid_parameter", "secret"),
        ({"url": None, "secret": "whsec_" + "é" * 32}, "invalid_parameter", "secret"),
        ({"adress": "http://127.0.0.1/"}, "invalid_parameter", "adress"),
    ],
)  # fmt: skip
def test_a_webhook_that_cannot_be_is_refused_and_the_old_one_stays(
    keyed_api: Api, body: dict[str, object], code: str, field: str
) -> None:
    before = put(keyed_api, {"url": "http://127.0.0.1:9/"})

    answer = keyed_api.client.put("/api/v1/webhook", json=body, headers=ANNA)

    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field)
    assert keyed_api.client.get("/api/v1/webhook", headers=ANNA).json() == before


def test_a_job_with_a_webhook_url_at_a_private_address_is_not_made(keyed_api: Api) -> None:
    before = keyed_api.client.get("/api/v1/jobs", headers=ANNA).json()["total"]

    in_json = make(keyed_api, webhook_url="http://[fd00::1]/")
    in_a_form = keyed_api.client.post(
        "/api/v1/transcribe-async", files={"file": b"sound"}, data={"webhook_url": "http://10.1.2.3/"}, headers=ANNA
    )

    for answer in (in_json, in_a_form):
        assert (answer.status_code, answer.json()["code"]) == (422, "url_not_allowed")
        assert answer.json()["field"] == "webhook_url"
    assert keyed_api.client.get("/api/v1/jobs", headers=ANNA).json()["total"] == before


def test_no_secret_is_in_a_job_or_in_the_log(keyed_api: Api) -> None:
    secret = put(keyed_api, {"url": "http://127.0.0.1:9/?token=hush"})["secret"]

    job_id = cancelled(keyed_api)

    job = keyed_api.client.get(f"/api/v1/status/{job_id}", headers=ANNA)
    assert "whsec_" not in job.text
    assert "hush" not in job.text
    assert secret not in keyed_api.log()
    assert "hush" not in keyed_api.log()


def test_what_signs_cannot_be_named_as_a_recording(keyed_api: Api) -> None:
    keyed_api.client.get("/api/v1/webhook", headers=ANNA)

    answer = keyed_api.client.post(
        "/api/v1/jobs", json={"source": {"type": "object", "key": "webhooks/everyone.json"}}, headers=BERT
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


def test_the_log_tells_each_attempt_and_the_next_one(keyed_api: Api) -> None:
    put(keyed_api, {"url": "http://127.0.0.1:9/"})
    job_id = cancelled(keyed_api)
    outbox = Outbox.connect(keyed_api.settings)
    ended = deliveries(keyed_api, job_id)
    outbox.due("t")
    taken = outbox.take(job_id)
    assert taken is not None
    outbox.settle(job_id, taken, Attempt(at=1.5, seconds=0.25, error="no connection", next_at=1_900_000_000.0))

    failed = deliveries(keyed_api, job_id)

    assert (ended["state"], ended["attempts"], ended["webhook_id"]) == ("pending", [], f"msg_{job_id}")
    assert failed == {
        "job_id": job_id,
        "webhook_id": f"msg_{job_id}",
        "state": "pending",
        "attempts": [
            {
                "at": "1970-01-01T00:00:01.500000Z",
                "duration": 0.25,
                "status": None,
                "error": "no connection",
                "next_attempt_at": "2030-03-17T17:46:40Z",
            }
        ],
        "next_attempt_at": "2030-03-17T17:46:40Z",
    }


def test_an_end_that_nobody_waits_for_is_not_said_to_be_posted(keyed_api: Api) -> None:
    keyed_api.client.delete("/api/v1/webhook", headers=ANNA)
    job_id = cancelled(keyed_api)

    told = deliveries(keyed_api, job_id)

    assert Outbox.connect(keyed_api.settings).deliveries(job_id).next_at is not None
    assert (told["state"], told["attempts"], told["next_attempt_at"]) == ("none", [], None)


def test_what_is_delivered_or_given_up_can_be_posted_again(keyed_api: Api) -> None:
    job_id = cancelled(keyed_api, webhook_url="http://127.0.0.1:9/")
    outbox = Outbox.connect(keyed_api.settings)
    states = []
    for code in (410, 200):
        outbox.ask(job_id)
        outbox.due("t")
        taken = outbox.take(job_id)
        assert taken is not None
        outbox.settle(job_id, taken, Attempt(at=taken.at, seconds=0.1, status=code))
        states.append(deliveries(keyed_api, job_id)["state"])

    answer = keyed_api.client.post(f"/api/v1/jobs/{job_id}/redeliver", headers=ANNA)

    assert states == ["given_up", "delivered"]
    assert (answer.status_code, answer.json()["state"]) == (202, "pending")
    assert answer.headers["location"] == f"/api/v1/jobs/{job_id}/deliveries"
    assert job_id in outbox.due("t")


def test_a_job_that_has_not_ended_or_has_nobody_to_go_to_is_not_posted_again(keyed_api: Api) -> None:
    keyed_api.client.delete("/api/v1/webhook", headers=ANNA)
    running = make(keyed_api, webhook_url="http://127.0.0.1:9/").json()["job_id"]
    ended = cancelled(keyed_api)

    answers = [keyed_api.client.post(f"/api/v1/jobs/{job_id}/redeliver", headers=ANNA) for job_id in (running, ended)]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (409, "job_conflict"),
        (409, "webhook_missing"),
    ]
    assert deliveries(keyed_api, running)["state"] == "none"


def test_another_keys_deliveries_do_not_exist(keyed_api: Api) -> None:
    job_id = cancelled(keyed_api, webhook_url="http://127.0.0.1:9/")

    answers = [
        keyed_api.client.get(f"/api/v1/jobs/{job_id}/deliveries", headers=BERT),
        keyed_api.client.post(f"/api/v1/jobs/{job_id}/redeliver", headers=BERT),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "job_not_found")] * 2


def test_a_real_worker_posts_again_after_it_was_killed_in_the_middle_of_a_post(
    parts: Parts,
    store_settings: StorageSettings,
    weights_dir: Path,
    start_api: StartApi,
    tmp_path: Path,
    speech: dict[str, list[Sample]],
    receiver: Receiver,
) -> None:
    redis = parts.start_redis()
    settings = msgspec.structs.replace(
        store_settings,
        s3_bucket=f"hooks-{secrets.token_hex(4)}",
        redis_url=redis.url,
        default_model="tiny.en",
        model_dir=str(weights_dir),
        allowed_networks="127.0.0.0/8",
    )
    worker = new_worker(tmp_path, settings)
    worker.start()
    api = start_api(settings)
    receiver.answers.extend([lambda _: os.kill(worker.pid, signal.SIGKILL), status(503)])
    secret = put(api, {"url": f"{receiver.url}/ended"})["secret"]

    accepted = api.client.post("/api/v1/transcribe-async", files={"file": speech["en"][0].path.read_bytes()}).json()
    job_id = accepted["job_id"]
    receiver.wait_for(1)
    worker.start()
    # Nobody waits in a test for a lease to run out, nor for the pause after the 503.
    connect(settings, JOBS_DATABASE).zadd("bs:outbox", {job_id: 0})
    receiver.wait_for(2)
    wait_until(lambda: len(deliveries(api, job_id)["attempts"]) == 1)
    assert api.client.post(f"/api/v1/jobs/{job_id}/redeliver").status_code == 202
    posted = receiver.wait_for(3)
    wait_until(lambda: deliveries(api, job_id)["state"] == "delivered")

    assert {one.headers["webhook-id"] for one in posted} == {f"msg_{job_id}"}
    assert [one.verified(secret)["status"] for one in posted] == ["completed"] * 3
    assert "result" not in posted[2].verified(secret)
    assert [attempt["status"] for attempt in deliveries(api, job_id)["attempts"]] == [503, 204]
    assert secret not in worker.log_path.read_text()
    worker.stop()
    redis.running.kill()
