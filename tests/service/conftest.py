"""Servers for the tests of the API: with a worker behind, without one, as many as a test breaks; and an inbox alone."""

import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from playwright.sync_api import Browser, sync_playwright
from redis import Redis

from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.conftest import unavailable
from tests.processes import new_worker
from tests.service.apis import Api, new_api
from tests.service.dropped import Dropped
from tests.stack import Parts, RedisServer

StartApi = Callable[..., Api]


@pytest.fixture(scope="session")
def start_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartApi]:
    """Start a server: `start_api(settings, API_KEYS="a,b")`; dead when the session is."""
    started: list[Api] = []

    def start(settings: StorageSettings, **more: str) -> Api:
        api = new_api(tmp_path_factory.mktemp("api"), settings, **more)
        api.running.start()
        started.append(api)
        return api

    yield start
    for api in started:
        api.client.close()
        api.running.kill()


@pytest.fixture(scope="session")
def quiet_settings(parts: Parts, store_settings: StorageSettings) -> StorageSettings:
    """A Redis and a bucket that no worker listens to, so jobs stay pending."""
    redis = parts.start_redis()
    settings = msgspec.structs.replace(
        store_settings, s3_bucket=f"quiet-{secrets.token_hex(4)}", redis_url=redis.url, default_model="base"
    )
    ObjectStore(settings).prepare()
    return settings


@pytest.fixture(scope="session")
def quiet_api(start_api: StartApi, quiet_settings: StorageSettings) -> Api:
    return start_api(quiet_settings)


@pytest.fixture(scope="session")
def quiet_store(quiet_settings: StorageSettings) -> ObjectStore:
    return ObjectStore(quiet_settings)


@pytest.fixture(scope="session")
def fresh_bucket(quiet_settings: StorageSettings) -> StorageSettings:
    """A bucket that is not made yet."""
    return msgspec.structs.replace(quiet_settings, s3_bucket=f"fresh-{secrets.token_hex(4)}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed with its module: it keeps an event loop in this thread, in which others could not run theirs."""
    program = shutil.which("chromium")
    if program is None:
        unavailable("chromium is not installed")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def api(
    start_api: StartApi,
    parts: Parts,
    store_settings: StorageSettings,
    weights_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Api]:
    """A server with one worker behind it, both with tiny.en."""
    redis = parts.start_redis()
    settings = msgspec.structs.replace(
        store_settings,
        s3_bucket=f"work-{secrets.token_hex(4)}",
        redis_url=redis.url,
        default_model="tiny.en",
        model_dir=str(weights_dir),
    )
    worker = new_worker(tmp_path_factory.mktemp("worker"), settings, MAX_DURATION="700")
    worker.start()
    yield start_api(settings)
    worker.stop()


@pytest.fixture(scope="module")
def inbox_redis(parts: Parts) -> Iterator[RedisServer]:
    server = parts.start_redis()
    yield server
    server.running.kill()


@pytest.fixture
def own_settings(store_settings: StorageSettings, inbox_redis: RedisServer) -> StorageSettings:
    """A bucket of the test's own, and a Redis that is empty."""
    Redis.from_url(inbox_redis.url).flushall()
    settings = msgspec.structs.replace(
        store_settings, s3_bucket=f"test-{secrets.token_hex(4)}", redis_url=inbox_redis.url
    )
    ObjectStore(settings).prepare()
    return settings


@pytest.fixture
def dropped(own_settings: StorageSettings) -> Dropped:
    return Dropped(own_settings)
