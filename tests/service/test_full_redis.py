"""A Redis whose memory is full: what is there can be read and deleted, what is new is refused with the reason."""

from collections.abc import Iterator

import msgspec
import pytest
import redis

from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.forms import END, FORM_TYPE, part
from tests.stack import Parts

NEW = {"source": {"type": "upload", "filename": "a.mp3", "size": 5}}


@pytest.fixture(scope="module")
def server(parts: Parts) -> Iterator[redis.Redis]:
    started = parts.start_redis()
    yield redis.Redis.from_url(started.url)
    started.running.kill()


@pytest.fixture(scope="module")
def full_api(start_api: StartApi, quiet_settings: StorageSettings, server: redis.Redis) -> Api:
    password, port = (server.connection_pool.connection_kwargs[name] for name in ("password", "port"))
    url = f"redis://:{password}@127.0.0.1:{port}"
    return start_api(
        msgspec.structs.replace(quiet_settings, redis_url=url), RATE_LIMIT="1000/minute", INBOX_SECONDS="0"
    )


@pytest.fixture(params=["full", "without replicas"])
def job_id(request: pytest.FixtureRequest, full_api: Api, server: redis.Redis) -> Iterator[str]:
    """Of a job that was made before Redis stopped taking writes."""
    made: str = full_api.client.post("/api/v1/jobs", json=NEW).json()["job_id"]
    full_api.client.post(f"/api/v1/jobs/{made}/cancel")
    if request.param == "full":
        server.config_set("maxmemory", 1)
    else:
        server.config_set("min-replicas-to-write", 1)
    yield made
    server.config_set("maxmemory", 0)
    server.config_set("min-replicas-to-write", 0)


def test_reading_goes_on(full_api: Api, job_id: str) -> None:
    paths = ["jobs", f"status/{job_id}", "models", "languages", f"jobs/{job_id}/deliveries", "webhook"]
    answers = [full_api.client.get(f"/api/v1/{path}") for path in paths]
    with full_api.client.stream("GET", f"/api/v1/jobs/{job_id}/events") as stream:
        told = stream.read().decode()

    assert [answer.status_code for answer in answers] == [200] * len(paths)
    assert "event: cancelled" in told
    assert full_api.client.get("/v1/models").status_code == 200


def test_what_is_new_is_refused_with_the_reason(
    full_api: Api, job_id: str, quiet_settings: StorageSettings, quiet_store: ObjectStore
) -> None:
    before = {info.key for info in quiet_store.list("sources/")}
    form = part("file", b"sound", "a.mp3") + END

    made = full_api.client.post("/api/v1/jobs", json=NEW)
    sent = full_api.client.post("/api/v1/transcribe-async", content=form, headers={"Content-Type": FORM_TYPE})

    for answer in (made, sent):
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_read_only")
        assert int(answer.headers["Retry-After"]) >= 1
    assert {info.key for info in quiet_store.list("sources/")} == before


def test_health_says_why(full_api: Api, job_id: str) -> None:
    health, ready, queue = (full_api.client.get(path) for path in ("/health", "/health/ready", "/health/async"))

    assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
    assert health.json()["checks"]["redis"]["detail"].startswith("Redis takes no writes: ")
    # It can still be read from: it is not to be taken out of service.
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert (queue.status_code, queue.json()["status"]) == (503, "unhealthy")
    assert queue.json()["checks"]["redis_connected"] is True
    assert queue.json()["checks"]["detail"].startswith("Redis takes no writes: ")


def test_deleting_makes_room_and_all_is_well_afterwards(full_api: Api, server: redis.Redis) -> None:
    job_id = full_api.client.post("/api/v1/jobs", json=NEW).json()["job_id"]
    full_api.client.post(f"/api/v1/jobs/{job_id}/cancel")
    server.config_set("maxmemory", 1)

    deleted = full_api.client.delete(f"/api/v1/jobs/{job_id}")
    server.config_set("maxmemory", 0)

    assert deleted.status_code == 200
    assert full_api.client.get("/health").status_code == 200
    assert full_api.client.post("/api/v1/jobs", json=NEW).status_code == 201
