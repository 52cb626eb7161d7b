"""Recordings as people have them, the workers that transcribe them, and the office that posts their end."""

import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import msgspec
import pytest

from deploy.embedded.running import Running
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.actors.fetching import MIB
from tests.actors.office import Office
from tests.actors.world import APART_SECONDS, World
from tests.conftest import Sample
from tests.origin import Origin
from tests.receiver import Receiver
from tests.recordings import joined, wav
from tests.stack import Parts

#: A recording, a file ending that says which container, and options of ffmpeg → another recording.
Convert = Callable[..., bytes]

#: A picture beside the sound, as long as it.
PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=10", "-shortest")


@pytest.fixture(scope="session")
def spoken(speech: dict[str, list[Sample]]) -> bytes:
    """2.9 s of speech as a WAV of float samples."""
    return next(sample for sample in speech["en"] if sample.name == "quick_brown_fox").path.read_bytes()


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    def run(recording: bytes, ending: str, *options: str, before: tuple[str, ...] = ()) -> bytes:
        source, target = tmp_path / "source", tmp_path / f"target.{ending}"
        source.write_bytes(recording)
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-loglevel", "error", "-y", *before]
        subprocess.run([*command, "-i", str(source), *options, str(target)], check=True)
        return target.read_bytes()

    return run


@pytest.fixture(scope="module")
def large() -> bytes:
    """Two parts and a half of an upload."""
    return random.Random(1).randbytes(20 * MIB)


@pytest.fixture(scope="module")
def world(
    parts: Parts, store_settings: StorageSettings, weights_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    settings = msgspec.structs.replace(store_settings, model_dir=str(weights_dir))
    made = World(parts, settings, tmp_path_factory.mktemp("workers"))
    yield made
    made.close()


@pytest.fixture
def worker(world: World) -> Running:
    return world.shared_worker()


@pytest.fixture(scope="module")
def clip(speech: dict[str, list[Sample]]) -> Sample:
    # Not the one that counts: "1-2-3" or "one, two, three" is Whisper's choice.
    return next(sample for sample in speech["en"] if "fox" in sample.text)


@pytest.fixture(scope="module")
def long_recording(speech: dict[str, list[Sample]]) -> bytes:
    """Long enough to be in the middle of it when something is killed."""
    return wav(joined(speech["en"], seconds=130, gap_seconds=APART_SECONDS))


@pytest.fixture(scope="module")
def shared_office(parts: Parts, store_settings: StorageSettings, object_store: ObjectStore) -> Iterator[Office]:
    redis = parts.start_redis()
    yield Office(msgspec.structs.replace(store_settings, redis_url=redis.url))
    redis.running.kill()


@pytest.fixture
def office(shared_office: Office) -> Office:
    """Its outbox is empty."""
    shared_office.redis.flushdb()
    return shared_office


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.close()


@pytest.fixture
def origin() -> Iterator[Origin]:
    started = Origin()
    yield started
    started.close()
