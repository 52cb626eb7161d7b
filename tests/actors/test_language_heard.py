"""The language of short clips, beside faster-whisper's own detection in the same run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.engine import Engine
from actors.settings import ActorSettings
from storage.job import Options
from tests.conftest import Sample
from tests.recordings import samples_of


@pytest.fixture(scope="module")
def engine(weights_dir: Path) -> Iterator[Engine]:
    engine = Engine(ActorSettings(whisper_device="cpu"), lambda name: weights_dir / name)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def clips(speech: dict[str, list[Sample]]) -> list[Sample]:
    return [clip for spoken in speech.values() for clip in spoken]


@pytest.fixture(scope="module")
def right_for_faster_whisper(engine: Engine, clips: list[Sample]) -> int:
    whisper = engine._loaded("base").whisper
    return sum(whisper.detect_language(samples_of(clip))[0] == clip.language for clip in clips)


def test_languages_are_detected_as_well_as_faster_whisper_detects_them(
    engine: Engine, clips: list[Sample], right_for_faster_whisper: int
) -> None:
    options = Options(model="base")

    right = [engine.detect_language(samples_of(clip), options)[0] == clip.language for clip in clips]

    assert sum(right) >= right_for_faster_whisper


def test_a_transcript_is_in_the_right_language_as_often(
    engine: Engine, clips: list[Sample], right_for_faster_whisper: int
) -> None:
    options = Options(model="base")

    results = [engine.transcribe(samples_of(clip), options) for clip in clips]
    for result in results:
        list(result.segments)
    right = [result.language == clip.language for result, clip in zip(results, clips, strict=True)]

    assert sum(right) >= right_for_faster_whisper
