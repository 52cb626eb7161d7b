"""Health: what is told while parts die and come back."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec

from storage.job_store import JobStore, WorkerState
from storage.keys import CANARY_KEY
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.service.conftest import StartApi
from tests.stack import Parts, lose_content, new_store


def wait_for(ask: Callable[[], httpx.Response], wanted: Callable[[dict[str, Any]], bool], seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not wanted((answer := ask()).json()):
        assert time.monotonic() < ends, answer.text
        time.sleep(0.1)


def test_health_tells_of_redis_and_workers_as_they_come_and_go(
    start_api: StartApi, parts: Parts, quiet_settings: StorageSettings
) -> None:
    redis = parts.start_redis()
    settings = msgspec.structs.replace(quiet_settings, redis_url=redis.url)
    client = start_api(settings).client

    alone = client.get("/health")
    assert (alone.status_code, alone.json()["status"]) == (200, "degraded")
    assert alone.json().keys() == {"status", "version", "uptime_seconds", "checks"}
    nobody = client.get("/health/async")
    assert nobody.status_code == 503
    assert nobody.json()["checks"] == {"redis_connected": True, "workers": 0, "queue_depth": 0}
    assert client.get("/health/ready").json()["status"] == "ready"

    JobStore.connect(settings).announce_worker(WorkerState("w1", "cpu", "int8", ["base"], 2))
    assert client.get("/health").json()["status"] == "healthy"
    working = client.get("/health/async")
    assert (working.status_code, working.json()["checks"]["workers"]) == (200, 1)
    loaded = {model["name"] for model in client.get("/api/v1/models").json()["models"] if model["loaded"]}
    assert loaded == {"base"}

    redis.running.kill()
    dead = [client.get(path) for path in ("/health", "/health/ready", "/health/async")]
    assert [answer.status_code for answer in dead] == [503, 503, 503]
    assert [answer.json()["status"] for answer in dead] == ["unhealthy", "not_ready", "unhealthy"]
    assert dead[2].json()["checks"] == {"redis_connected": False, "workers": 0, "queue_depth": None}
    assert client.get("/health/live").json() == {"status": "alive"}
    listed = client.get("/api/v1/jobs")
    assert (listed.status_code, listed.json()["code"]) == (503, "queue_unavailable")

    redis.running.start()
    wait_for(lambda: client.get("/health"), lambda told: told["checks"]["redis"]["status"] == "ok")


def test_the_api_starts_before_its_store_and_makes_the_bucket_when_it_comes(
    start_api: StartApi, parts: Parts, fresh_settings: StorageSettings, tmp_path: Any
) -> None:
    store = new_store(tmp_path)
    settings = msgspec.structs.replace(
        fresh_settings, s3_endpoint_url=store.url, s3_access_key=store.access_key, s3_secret_key=store.secret_key
    )
    client = start_api(settings).client
    before = client.get("/health/ready")
    assert (before.status_code, before.json()["checks"]["storage"]["status"]) == (503, "error")
    assert "127.0.0.1" not in before.text

    store.running.start()
    try:
        wait_for(lambda: client.get("/health/ready"), lambda told: told["status"] == "ready")
        files = {"file": ("a.mp3", b"sound")}
        assert client.post("/api/v1/transcribe-async", files=files).status_code == 202
    finally:
        store.running.kill()


def test_a_store_that_hangs_does_not_hang_the_rest(
    start_api: StartApi, parts: Parts, fresh_settings: StorageSettings
) -> None:
    store = parts.start_store()
    settings = msgspec.structs.replace(
        fresh_settings, s3_endpoint_url=store.url, s3_access_key=store.access_key, s3_secret_key=store.secret_key
    )
    client = start_api(settings).client
    wait_for(lambda: client.get("/health/ready"), lambda told: told["status"] == "ready")
    store.running.pause()

    told = client.get("/health", timeout=20)
    alive = [client.get(path, timeout=20).status_code for path in ("/health/live", "/api/v1/jobs", "/api/v1/languages")]

    store.running.resume()
    assert (told.status_code, told.json()["checks"]["storage"]["status"]) == (503, "error")
    assert told.json()["checks"]["redis"]["status"] == "ok"
    assert alive == [200, 200, 200]


def test_a_store_that_lost_its_bucket_or_what_is_in_it_is_unhealthy(
    start_api: StartApi, fresh_settings: StorageSettings, tmp_path: Path
) -> None:
    store = new_store(tmp_path / "store")
    settings = msgspec.structs.replace(
        fresh_settings, s3_endpoint_url=store.url, s3_access_key=store.access_key, s3_secret_key=store.secret_key
    )
    store.running.start()
    try:
        client = start_api(settings).client
        wait_for(lambda: client.get("/health/ready"), lambda told: told["status"] == "ready")
        lose_content(store, settings.s3_bucket)

        wait_for(lambda: client.get("/health"), lambda told: told["status"] == "unhealthy")
        emptied = client.get("/health/ready")
        objects = ObjectStore(settings)
        objects.delete(CANARY_KEY)
        again = client.get("/health/ready")
        objects.delete_prefix("bucketscribe-")
        objects._s3.delete_bucket(Bucket=settings.s3_bucket)
        gone = client.get("/health/ready")
    finally:
        store.running.kill()

    assert (emptied.status_code, emptied.json()["checks"]["storage"]["detail"]) == (503, "storage_unavailable")
    assert again.status_code == 200
    assert (gone.status_code, gone.json()["checks"]["storage"]["detail"]) == (503, "bucket_missing")
