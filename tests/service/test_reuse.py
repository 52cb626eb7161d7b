"""The same audio, no second run: through every door, with a worker that may transcribe it once."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import requests

from storage.job_store import JobStore
from storage.keys import source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.conftest import Sample
from tests.origin import Origin, Served
from tests.processes import new_worker
from tests.recordings import samples_of, wav
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.stack import Parts


@pytest.fixture(scope="module")
def reusing(
    start_api: StartApi,
    parts: Parts,
    store_settings: StorageSettings,
    weights_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Api]:
    """A server with one worker behind it, both told to reuse results."""
    settings = msgspec.structs.replace(
        store_settings,
        s3_bucket=f"reuse-{secrets.token_hex(4)}",
        redis_url=parts.start_redis().url,
        default_model="tiny.en",
        model_dir=str(weights_dir),
        allowed_networks="127.0.0.0/8",
        reuse_results=True,
    )
    worker = new_worker(tmp_path_factory.mktemp("worker"), settings)
    worker.start()
    yield start_api(settings, INBOX_SECONDS="1")
    worker.stop()


@pytest.fixture
def content(speech: dict[str, list[Sample]]) -> bytes:
    """A recording with bytes that no other test has."""
    samples = samples_of(next(sample for sample in speech["en"] if "fox" in sample.text))
    return wav(samples + np.random.default_rng().normal(0, 1e-3, len(samples)).astype(np.float32))


def post(api: Api, path: str, content: bytes, **fields: str) -> requests.Response:
    return requests.post(api.url + path, files={"file": ("talk.wav", content)}, data=fields, timeout=120)


def final(api: Api, job_id: str) -> dict[str, Any]:
    ends = time.monotonic() + 120
    while True:
        job: dict[str, Any] = api.client.get(f"/api/v1/status/{job_id}").json()
        if job["status"] in ("completed", "failed", "cancelled"):
            return job
        assert time.monotonic() < ends, job
        time.sleep(0.05)


def is_reused(api: Api, job_id: str) -> bool:
    """Whether no worker touched the job: the one who claims it last is noted in its record."""
    return bool(JobStore.connect(api.settings)._redis.hget(f"bs:job:{job_id}", "worker") == "reuse")


def test_a_form_with_the_same_recording_is_answered_at_once(reusing: Api, content: bytes) -> None:
    first = post(reusing, "/api/v1/transcribe", content, response_format="srt")

    second = post(reusing, "/api/v1/transcribe", content, response_format="srt")
    accepted = post(reusing, "/api/v1/transcribe-async", content).json()
    other = post(reusing, "/api/v1/transcribe", content, response_format="srt", temperature="0.2")

    assert (second.status_code, second.text) == (200, first.text)
    ids = [answer.headers["X-Job-Id"] for answer in (first, second, other)]
    assert [is_reused(reusing, job_id) for job_id in ids] == [False, True, False]
    assert (accepted["status"], accepted["message"]) == ("completed", "the job is completed")
    assert is_reused(reusing, accepted["job_id"])


def test_the_results_are_the_second_jobs_own(reusing: Api, content: bytes) -> None:
    first = post(reusing, "/api/v1/transcribe", content).headers["X-Job-Id"]
    second = post(reusing, "/api/v1/transcribe-async", content).json()["job_id"]

    reusing.client.delete(f"/api/v1/jobs/{first}")

    job = final(reusing, second)
    assert job["result"]["text"]
    assert job["progress"] == 100
    assert job["files"].keys() == {"json", "srt", "vtt", "txt", "tsv"}
    for link in job["files"].values():
        assert len(httpx.get(link["url"]).content) == link["size"]


def test_an_upload_with_a_link_is_completed_when_it_is_started(reusing: Api, content: bytes) -> None:
    jobs = []
    for _ in range(2):
        source = {"type": "upload", "filename": "talk.wav", "size": len(content)}
        job = reusing.client.post("/api/v1/jobs", json={"source": source}).json()
        httpx.put(job["upload"]["url"], content=content).raise_for_status()
        jobs.append(reusing.client.post(f"/api/v1/jobs/{job['job_id']}/start").json())
        final(reusing, job["job_id"])

    first, second = jobs
    assert (first["status"], second["status"]) == ("pending", "completed")
    assert second["result"]["text"]


def test_an_object_of_the_bucket_is_completed_when_its_job_is_made(reusing: Api, content: bytes) -> None:
    store = ObjectStore(reusing.settings)
    jobs = []
    for name in ("talks/one.wav", "talks/two.wav"):
        store.put(name, content, "audio/wav")
        job = reusing.client.post("/api/v1/jobs", json={"source": {"type": "object", "key": name}}).json()
        jobs.append(job)
        final(reusing, job["job_id"])

    assert [job["status"] for job in jobs] == ["pending", "completed"]


def test_what_a_form_brought_is_not_transcribed_again_from_a_url(reusing: Api, content: bytes) -> None:
    post(reusing, "/api/v1/transcribe", content)
    origin = Origin()
    origin.served["/talk.wav"] = Served(body=content)
    source = {"type": "url", "url": f"{origin.url}/talk.wav"}

    job_id = reusing.client.post("/api/v1/jobs", json={"source": source}).json()["job_id"]

    assert final(reusing, job_id)["status"] == "completed"
    assert is_reused(reusing, job_id)
    origin.close()


def test_a_recording_in_the_inbox_gets_earlier_results_beside_it(reusing: Api, content: bytes) -> None:
    store = ObjectStore(reusing.settings)
    folder = f"inbox/{secrets.token_hex(4)}"
    store.put(f"{folder}/one.wav", content, "audio/wav")
    wait_for_object(store, f"{folder}/one.en.srt")

    store.put(f"{folder}/two.wav", content, "audio/wav")
    wait_for_object(store, f"{folder}/two.en.srt")

    assert store.get(f"{folder}/two.en.srt") == store.get(f"{folder}/one.en.srt")
    jobs = reusing.client.get("/api/v1/jobs?limit=2").json()["jobs"]
    (second,) = [job["job_id"] for job in jobs if job["source"]["filename"] == "two.wav"]
    assert final(reusing, second)["status"] == "completed"
    assert is_reused(reusing, second)


def test_a_media_server_that_asks_again_is_answered_at_once(reusing: Api, content: bytes) -> None:
    def ask(path: str) -> requests.Response:
        return requests.post(reusing.url + path, files={"audio_file": content}, timeout=120)

    first, second = ask("/asr?output=json"), ask("/asr?output=json")
    languages = [ask("/detect-language") for _ in range(2)]

    assert second.text == first.text
    assert is_reused(reusing, second.headers["X-Job-Id"])
    assert languages[0].json() == languages[1].json()
    assert [is_reused(reusing, answer.headers["X-Job-Id"]) for answer in languages] == [False, True]


def test_where_it_is_off_nothing_is_hashed(quiet_api: Api) -> None:
    job_id = post(quiet_api, "/api/v1/transcribe-async", secrets.token_bytes(1000)).json()["job_id"]

    job = JobStore.connect(quiet_api.settings).get(job_id)

    assert job.source.digest is None
    assert job.source.key == source_key(job_id)


def wait_for_object(store: ObjectStore, key: str) -> None:
    ends = time.monotonic() + 120
    while not any(info.key == key for info in store.list(key)):
        assert time.monotonic() < ends, f"{key} did not come"
        time.sleep(0.1)
