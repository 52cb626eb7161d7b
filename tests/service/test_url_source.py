"""A job from a url: what is refused at once, and what a worker brings, through kill -9 and SIGTERM, to a transcript."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from actors.audio.decode import SAMPLE_RATE
from deploy.embedded.running import Running
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
from tests.storage.test_job_store import wait_until

MIB = 2**20


@pytest.fixture
def origin() -> Iterator[Origin]:
    started = Origin()
    yield started
    started.close()


def post(api: Api, url: object, **options: object) -> tuple[int, dict[str, object]]:
    answer = api.client.post("/api/v1/jobs", json={"source": {"type": "url", "url": url}, **options})
    return answer.status_code, answer.json()


def test_a_job_from_a_url_waits_for_its_recording_and_shows_no_more_of_the_url_than_a_name(
    start_api: StartApi, quiet_settings: StorageSettings
) -> None:
    api = start_api(quiet_settings, ALLOWED_NETWORKS="127.0.0.0/8")

    status, job = post(api, "http://127.0.0.1:9/talks/ein%20Gespr%C3%A4ch.mp3?token=hush", language="de")
    shown = api.client.get(f"/api/v1/status/{job['job_id']}")

    assert (status, job["status"]) == (201, "pending")
    assert job["source"] == {
        "type": "url",
        "filename": "ein Gespräch.mp3",
        "size": 0,
        "content_type": None,
        "duration": None,
    }
    assert "hush" not in shown.text + api.log()


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://127.0.0.1/talk.mp3", "url_not_allowed"),
        ("http://[::ffff:10.0.0.1]/talk.mp3", "url_not_allowed"),
        ("http://169.254.169.254/latest/meta-data/", "url_not_allowed"),
        ("http://user:hush@example.org/talk.mp3", "url_not_allowed"),
        ("ftp://example.org/talk.mp3", "url_not_allowed"),
        ("talk.mp3", "url_not_allowed"),
        ("", "invalid_parameter"),
        ("http://example.org/" + "a" * 4096, "invalid_parameter"),
        (7, "invalid_parameter"),
    ],
)
def test_where_the_service_may_not_go_is_told_at_once_and_makes_no_job(quiet_api: Api, url: object, code: str) -> None:
    before = quiet_api.client.get("/api/v1/jobs?limit=1").json()["total"]

    status, problem = post(quiet_api, url)

    assert (status, problem["code"], problem["field"]) == (422, code, "source.url")
    assert "hush" not in str(problem)
    assert quiet_api.client.get("/api/v1/jobs?limit=1").json()["total"] == before


class Stack:
    """An API, and workers that come and go."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.api = api
        self.jobs = JobStore.connect(api.settings)
        self.objects = ObjectStore(api.settings)
        self._folder = folder
        self._workers: list[Running] = []

    def worker(self) -> Running:
        folder = self._folder / f"worker-{len(self._workers)}"
        worker = new_worker(folder, self.api.settings, LEASE_SECONDS="3", HEARTBEAT_SECONDS="3", JANITOR_SECONDS="1")
        self._workers.append(worker)
        worker.start()
        return worker

    def parts(self, job_id: str) -> int:
        key = source_key(job_id)
        return sum(len(self.objects.list_parts(key, upload.upload_id)) for upload in self.objects.uploads(key))

    def finished(self, job_id: str) -> dict[str, object]:
        wait_until(lambda: self.status(job_id)["status"] in ("completed", "failed", "cancelled"))
        return self.status(job_id)

    def status(self, job_id: str) -> dict[str, object]:
        job: dict[str, object] = self.api.client.get(f"/api/v1/status/{job_id}").json()
        return job

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()


@pytest.fixture
def stack(
    start_api: StartApi, parts: Parts, store_settings: StorageSettings, weights_dir: Path, tmp_path: Path
) -> Iterator[Stack]:
    settings = msgspec.structs.replace(
        store_settings,
        s3_bucket=f"url-{secrets.token_hex(4)}",
        redis_url=parts.start_redis().url,
        default_model="tiny.en",
        model_dir=str(weights_dir),
        allowed_networks="127.0.0.0/8",
    )
    ObjectStore(settings).prepare()
    started = Stack(start_api(settings), tmp_path)
    yield started
    started.close()


def test_workers_that_are_killed_or_frozen_in_the_middle_are_followed_by_one_that_goes_on(
    stack: Stack, origin: Origin, speech: dict[str, list[Sample]]
) -> None:
    """A recording of three parts and a bit: the first worker is killed after one, the second frozen after two."""
    spoken = samples_of(speech["en"][0])
    silence = np.zeros(9 * 60 * SAMPLE_RATE // 2, np.float32)
    recording = wav(np.stack([np.concatenate([spoken, silence])] * 3))
    assert 24 * MIB < len(recording) < 27 * MIB
    origin.served["/talk.wav"] = Served(body=recording, pause_at=9 * MIB)
    first = stack.worker()
    _, job = post(stack.api, f"{origin.url}/talk.wav")
    job_id = str(job["job_id"])
    wait_until(lambda: stack.parts(job_id) == 1)

    first.kill()
    frozen_at = origin.served["/talk.wav"] = Served(body=recording, pause_at=17 * MIB)
    second = stack.worker()
    wait_until(lambda: stack.parts(job_id) == 2)
    second.pause()
    origin.served["/talk.wav"] = Served(body=recording)
    stack.worker()
    finished = stack.finished(job_id)
    second.resume()
    frozen_at.go.set()
    wait_until(lambda: "job lost" in second.log_path.read_text())

    assert finished["status"] == "completed"
    assert origin.ranges() == [None, f"bytes={8 * MIB}-", f"bytes={16 * MIB}-"]
    assert stack.objects.get(source_key(job_id)) == recording
    assert {item.key.rpartition("/")[2] for item in stack.objects.list(f"sources/{job_id}/")} == {"media", "job.json"}
    assert list(stack.objects.uploads()) == []
    assert stack.status(job_id)["status"] == "completed"
    source = finished["source"]
    assert isinstance(source, dict)
    assert (source["size"], source["content_type"]) == (len(recording), "audio/wav")


def test_a_refusal_is_a_failed_job_that_says_so_and_a_silent_server_does_not_keep_a_worker_from_stopping(
    stack: Stack, origin: Origin
) -> None:
    silent = origin.served["/silent.wav"] = Served(body=b"R", pause_at=0)
    worker = stack.worker()
    _, refused = post(stack.api, f"{origin.url}/nothing.wav?token=hush")
    _, waiting = post(stack.api, f"{origin.url}/silent.wav")
    failed = stack.finished(str(refused["job_id"]))
    assert silent.paused.wait(120)

    began = time.monotonic()
    worker.stop()
    stopped_in = time.monotonic() - began

    assert (failed["status"], failed["error_code"]) == ("failed", "url_not_found")
    assert failed["error"] == "127.0.0.1 answered 404 Not Found"
    assert "hush" not in worker.log_path.read_text()
    assert stopped_in < 25, "it would be killed then"
    assert stack.status(str(waiting["job_id"]))["status"] == "pending"
