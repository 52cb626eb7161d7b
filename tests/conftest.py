"""Real parts for every test: SeaweedFS, Valkey, weights and speech. What is missing skips at home and fails in CI."""

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest
import pytest_audioeval
import structlog
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from actors.settings import ActorSettings
from deploy.embedded.parts import PortsTaken, ProgramMissing
from deploy.embedded.running import PartFailed
from deploy.settings import StackSettings
from service.settings import ServiceSettings
from storage import hub
from storage.errors import ModelUnavailable
from storage.job_store import JobStore
from storage.model_store import ModelStore
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.stack import Parts

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Take away what the person's own shell says of settings and of Ctrl-C."""
    for kind in (StorageSettings, ActorSettings, ServiceSettings, StackSettings):
        for field in msgspec.structs.fields(kind):
            os.environ.pop(field.name.upper(), None)
    # A shell lets what it starts in the background ignore Ctrl-C, and so would the programs that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """Each process of a run takes whole files, whose fixtures are dear, in the order of the collection."""
    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`scripts/test unit|integration|e2e`: by folder, else by whether the test uses the real parts.

    Files that start whole stacks go first and those that need no parts last, so that no process is left with a long
    one when the others have ended.
    """
    for item in items:
        if {"e2e", "deploy"} & set(item.path.parts):
            item.add_marker(pytest.mark.e2e)
        elif {"parts", "weights_dir"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)
        else:
            item.add_marker(pytest.mark.unit)
    ranks: dict[Path, int] = {}
    for item in items:
        ranks[item.path] = min(_rank(item), ranks.get(item.path, 3))
    items.sort(key=lambda item: ranks[item.path])


def _rank(item: pytest.Item) -> int:
    """By what a test starts: 0 a whole stack, 1 what needs weights, 2 a store or a Redis, 3 nothing."""
    if item.get_closest_marker("e2e"):
        return 0
    fixtures = set(getattr(item, "fixturenames", ()))
    return 1 if "weights_dir" in fixtures else 2 if "parts" in fixtures else 3


@pytest.fixture(autouse=True)
def default_logging() -> Iterator[None]:
    """What a test configures of the log, as an app that is made in its process does, is not the next one's."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()


class Sample(msgspec.Struct, frozen=True):
    """A few seconds of synthetic speech with what is said in it. The file is a WAV of 16 kHz mono float samples."""

    language: str
    name: str
    path: Path
    text: str


def unavailable(reason: str) -> NoReturn:
    """A part of the world is missing: skip at home, fail in CI, where a skipped test would look like a passed one."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """The session's store and Redis; `parts.store.running.kill()` and so on. Whoever breaks a shared one mends it."""
    try:
        started = Parts(tmp_path_factory.mktemp("parts"))
    except (PartFailed, PortsTaken, ProgramMissing) as error:
        unavailable(str(error))
    yield started
    started.close()


@pytest.fixture(scope="session")
def store_settings(parts: Parts) -> StorageSettings:
    """The session's store and Redis. Weights come from the checkout's data/models, once `weights_dir` has filled it."""
    return StorageSettings(
        s3_endpoint_url=parts.store.url,
        s3_access_key=parts.store.access_key,
        s3_secret_key=parts.store.secret_key,
        s3_bucket=f"test-{secrets.token_hex(4)}",
        redis_url=parts.redis.url,
        model_dir=str(ROOT / "data" / "models"),
    )


@pytest.fixture
def fresh_settings(parts: Parts, store_settings: StorageSettings) -> Iterator[StorageSettings]:
    """A bucket name nobody uses and a Redis of the test's own, so that nothing of other tests is in sight."""
    redis = parts.start_redis()
    yield msgspec.structs.replace(store_settings, s3_bucket=f"test-{secrets.token_hex(4)}", redis_url=redis.url)
    redis.running.kill()


@pytest.fixture(scope="session")
def object_store(store_settings: StorageSettings) -> ObjectStore:
    """The session's bucket, ready."""
    store = ObjectStore(store_settings)
    store.prepare()
    return store


@pytest.fixture(scope="session")
def job_store(store_settings: StorageSettings) -> JobStore:
    return JobStore.connect(store_settings)


@pytest.fixture(scope="session")
def weights_dir(store_settings: StorageSettings, object_store: ObjectStore) -> Path:
    """A folder with the weights of tiny.en and base, fetched once and kept in the checkout between runs."""
    models = ModelStore(store_settings, object_store, hub.fetch)
    try:
        for name in ("tiny.en", "base"):
            folder = models.path(name)
    except ModelUnavailable as error:
        unavailable(str(error))
    return folder.parent


@pytest.fixture(scope="session")
def speech() -> dict[str, list[Sample]]:
    """Language code → samples, the longest text last: en, es, fr, hi, it, ja, pl, pt, zh, three each."""
    samples: dict[str, list[Sample]] = {}
    folder = Path(next(iter(pytest_audioeval.__path__))) / "samples" / "audio"
    for path in sorted(folder.glob("*/*.wav")):
        text = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        samples.setdefault(path.parent.name, []).append(Sample(path.parent.name, path.stem, path, text))
    for spoken in samples.values():
        spoken.sort(key=lambda sample: len(sample.text))
    return samples
