"""The links of an upload work on after its start: what is put with them then is neither transcribed nor kept."""

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from actors.broker import make_broker
from actors.janitor import Janitor
from storage.chunk_store import ChunkStore
from storage.job_store import JobStore
from storage.keys import source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.conftest import Sample
from tests.processes import new_worker
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.stack import Parts
from tests.storage.test_job_store import wait_until


@pytest.fixture
def settings(quiet_settings: StorageSettings, parts: Parts) -> StorageSettings:
    return msgspec.structs.replace(quiet_settings, redis_url=parts.start_redis().url, default_model="tiny.en")


def uploaded(api: Api, content: bytes) -> dict[str, Any]:
    source = {"type": "upload", "filename": "a.wav", "size": len(content)}
    job: dict[str, Any] = api.client.post("/api/v1/jobs", json={"source": source}).json()
    httpx.put(job["upload"]["url"], content=content, headers=job["upload"]["headers"]).raise_for_status()
    return job


def test_a_recording_that_is_replaced_after_the_start_is_not_transcribed(
    start_api: StartApi,
    settings: StorageSettings,
    speech: dict[str, list[Sample]],
    weights_dir: Path,
    tmp_path: Path,
) -> None:
    api = start_api(settings)
    sound = speech["en"][0].path.read_bytes()
    untouched, replaced = uploaded(api, sound), uploaded(api, sound)
    for job in (untouched, replaced):
        assert api.client.post(f"/api/v1/jobs/{job['job_id']}/start").status_code == 202
    httpx.put(replaced["upload"]["url"], content=sound[:-2] + b"\1\2", headers=replaced["upload"]["headers"])
    worker = new_worker(tmp_path, settings, MODEL_DIR=str(weights_dir))
    worker.start()

    def ended(job: dict[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = api.client.get(f"/api/v1/status/{job['job_id']}").json()
        return told if told["status"] in ("completed", "failed") else {}

    try:
        wait_until(lambda: bool(ended(untouched) and ended(replaced)), 60)
    finally:
        worker.stop()

    assert ended(untouched)["status"] == "completed"
    assert (ended(replaced)["status"], ended(replaced)["error_code"]) == ("failed", "object_not_found")
    assert "replaced" in ended(replaced)["error"]


def test_what_is_put_after_the_deletion_is_swept(start_api: StartApi, settings: StorageSettings) -> None:
    api, objects, jobs = start_api(settings), ObjectStore(settings), JobStore.connect(settings)
    job = uploaded(api, b"sound")
    api.client.post(f"/api/v1/jobs/{job['job_id']}/start")
    api.client.delete(f"/api/v1/jobs/{job['job_id']}")
    httpx.put(job["upload"]["url"], content=b"other", headers=job["upload"]["headers"])
    before = {info.key for info in objects.list(f"sources/{job['job_id']}/")}

    # As it is when the links have ended.
    later = msgspec.structs.replace(settings, upload_expires_seconds=-5)
    Janitor(jobs, ChunkStore.connect(settings, jobs), objects, make_broker(settings), later, 2).sweep_orphans()

    assert before <= {source_key(job["job_id"])}
    assert list(objects.list(f"sources/{job['job_id']}/")) == []
