"""No door reads what is not its client's: an object named by a client is the one that the store knows by this name."""

import json
import secrets

import pytest
import requests

from storage.keys import source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.storage.test_keys import DOUBTFUL, REACHING

ANNA, BERT = {"Authorization": "Bearer anna-key"}, {"Authorization": "Bearer bert-key"}


@pytest.fixture(scope="module")
def keyed_api(start_api: StartApi, quiet_settings: StorageSettings) -> Api:
    return start_api(quiet_settings, API_KEYS="anna-key,bert-key", INBOX_SECONDS="0")


@pytest.fixture(scope="module")
def annas_job(keyed_api: Api) -> str:
    files = {"file": ("a.mp3", b"what Anna said")}
    answer = requests.post(f"{keyed_api.url}/api/v1/transcribe-async", files=files, headers=ANNA, timeout=30)
    return str(answer.json()["job_id"])


def spelled(pattern: str, job_id: str) -> str:
    return pattern.replace("{}", source_key(job_id)).replace("{id}", job_id)


@pytest.mark.parametrize("pattern", ["{}", *REACHING, *(text for text in DOUBTFUL if text and "\ud800" not in text)])
def test_another_keys_recording_is_refused_however_its_key_is_spelled(
    keyed_api: Api, annas_job: str, pattern: str
) -> None:
    source = {"type": "object", "key": spelled(pattern, annas_job)}

    answer = keyed_api.client.post("/api/v1/jobs", json={"source": source}, headers=BERT)

    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["detail"][:10]) == (422, "invalid_parameter", "source.key")
    assert keyed_api.client.get("/api/v1/jobs", headers=BERT).json()["total"] == 0


def test_a_notification_names_no_object_outside_the_inbox(
    keyed_api: Api, annas_job: str, quiet_settings: StorageSettings, quiet_store: ObjectStore
) -> None:
    ours = f"inbox/{secrets.token_hex(4)}/talk.mp3"
    quiet_store.put(ours, b"sound", "audio/mpeg")
    told = [spelled(pattern, annas_job) for pattern in REACHING]
    told += [f"inbox/{key}" for key in told] + [f"inbox/x\\..\\..\\{source_key(annas_job)}", "inbox%2F..%5Csources"]
    told += [ours.replace("/", "\\"), ours.replace("/", "/\\"), f"/{ours}", ours.replace("/", "//"), "inbox/a\0b"]
    records = [
        {
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": quiet_settings.s3_bucket}, "object": {"key": key}},
        }
        for key in told
    ]

    answer = keyed_api.client.post("/api/v1/events/s3", content=json.dumps({"Records": records}), headers=ANNA)

    assert (answer.status_code, answer.json()) == (200, {"jobs": [], "ignored": len(set(told))})
