"""The language of a recording's first minute, with real weights on real speech."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from actors.detect import detect_language
from actors.engine import Engine
from actors.settings import ActorSettings
from storage.errors import JobFenced
from storage.job import Job, Options
from storage.object_store import ObjectStore
from tests.conftest import Sample
from tests.recordings import joined, wav
from tests.storage.test_job_store import a_job


@pytest.fixture(scope="module")
def engine(weights_dir: Path) -> Iterator[Engine]:
    engine = Engine(ActorSettings(whisper_device="cpu"), lambda name: weights_dir / name)
    yield engine
    engine.close()


def a_recording(store: ObjectStore, content: bytes) -> Job:
    job = a_job(options=Options(model="base", task="detect_language"))
    store.put(job.source.key, content, "audio/wav")
    return job


def go_on() -> None:
    return


@pytest.mark.parametrize("language", ["fr", "ja", "es"])
def test_a_language_is_found_without_a_transcript(
    object_store: ObjectStore, engine: Engine, speech: dict[str, list[Sample]], language: str
) -> None:
    job = a_recording(object_store, wav(joined(speech[language], 15)))

    found, probability, seconds = detect_language(job, object_store, engine, go_on)

    assert found == language
    assert 0.5 < probability <= 1
    assert 15 <= seconds < 30


def test_what_comes_after_the_first_minute_is_not_heard(
    object_store: ObjectStore, engine: Engine, speech: dict[str, list[Sample]]
) -> None:
    samples = np.concatenate([joined(speech["fr"], 60), joined(speech["en"], 240)])
    job = a_recording(object_store, wav(samples))

    found, _, seconds = detect_language(job, object_store, engine, go_on)

    assert (found, seconds) == ("fr", 60)


def test_silence_is_english_with_no_confidence(object_store: ObjectStore, engine: Engine) -> None:
    job = a_recording(object_store, wav(np.zeros(16000 * 3, np.float32)))

    assert detect_language(job, object_store, engine, go_on) == ("en", 0.0, 3.0)


def test_a_cancelled_job_is_not_listened_to(object_store: ObjectStore, engine: Engine) -> None:
    job = a_recording(object_store, wav(np.zeros(16000 * 3, np.float32)))

    def cancelled() -> None:
        raise JobFenced("the job is cancelled")

    with pytest.raises(JobFenced):
        detect_language(job, object_store, engine, cancelled)
