"""Speech among music, noise and tones: every sentence is written, and at the time of the voice."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import jiwer
import msgspec
import numpy as np
import pytest
from whisper_normalizer.basic import BasicTextNormalizer

from actors.audio.decode import SAMPLE_RATE
from actors.engine import Engine
from actors.settings import ActorSettings
from storage.job import Options
from storage.transcript import Segment
from tests.conftest import Sample
from tests.recordings import samples_of
from tests.sounds import keys, noise, plucked, silence

normalize = BasicTextNormalizer(remove_diacritics=True)


class Mix(msgspec.Struct):
    """A recording and where in it somebody speaks."""

    samples: np.ndarray
    language: str
    #: Of each sentence, in seconds.
    spoken: list[tuple[float, float]]
    text: str


def mixed(*parts: np.ndarray | Sample) -> Mix:
    """Sounds and sentences one after the other, the sentences as loud as a voice on the telephone."""
    mix = Mix(np.zeros(0, np.float32), "en", [], "")
    for part in parts:
        samples = part if isinstance(part, np.ndarray) else _loud(samples_of(part))
        if isinstance(part, Sample):
            begin = len(mix.samples) / SAMPLE_RATE
            first, last = _voice(samples)
            mix.spoken.append((begin + first, begin + last))
            mix.language, mix.text = part.language, f"{mix.text} {part.text}"
        mix.samples = np.concatenate([mix.samples, samples])
    return mix


def _loud(samples: np.ndarray) -> np.ndarray:
    loudest: float = np.abs(samples).max()
    return samples * np.float32(0.5 / loudest)


def _voice(samples: np.ndarray) -> tuple[float, float]:
    """Where a clip's voice begins and ends, by its loudness."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    loud = np.flatnonzero((frames**2).mean(axis=1) > 1e-3 * (frames**2).mean(axis=1).max())
    return loud[0] / 100, (loud[-1] + 1) / 100


@pytest.fixture(scope="module")
def clips(speech: dict[str, list[Sample]]) -> dict[str, Sample]:
    return {f"{clip.language}/{clip.name}": clip for spoken in speech.values() for clip in spoken}


@pytest.fixture(scope="module")
def mixes(clips: dict[str, Sample]) -> dict[str, Mix]:
    fox, hello = clips["en/quick_brown_fox"], clips["en/hello_world"]
    return {
        "after music": mixed(plucked(30), fox, silence(3)),
        "after music in Spanish": mixed(plucked(15), silence(0.2), clips["es/pangrama"], silence(1)),
        "after quicker music": mixed(plucked(20, 0.35, (300, 450, 600, 900)), clips["it/pangrama"]),
        "music between": mixed(fox, silence(0.5), plucked(14), silence(0.5), hello),
        "music on both sides": mixed(plucked(8), fox, plucked(12)),
        "after noise": mixed(noise(15), fox, silence(1)),
        "after a telephone": mixed(keys(6), silence(0.5), fox),
        "far apart": mixed(fox, silence(8), hello, silence(20), fox),
    }


@pytest.fixture(scope="module")
def engine(weights_dir: Path) -> Iterator[Engine]:
    engine = Engine(ActorSettings(whisper_device="cpu"), lambda name: weights_dir / name)
    yield engine
    engine.close()


def heard(engine: Engine, mix: Mix, more: dict[str, object]) -> list[Segment]:
    options = msgspec.convert({"model": "base", "language": mix.language, **more}, Options)
    return list(engine.transcribe(mix.samples, options).segments)


def assert_at_the_voice(segments: list[Segment], mix: Mix) -> None:
    """Every segment begins with a voice and ends with it, and every sentence has its segments."""
    for segment in segments:
        spoken = [(start, end) for start, end in mix.spoken if segment.start < end and segment.end > start]
        assert len(spoken) == 1, segment
        assert segment.start > spoken[0][0] - 0.3, segment
        assert segment.end < spoken[0][1] + 0.6, segment
    for start, end in mix.spoken:
        assert min(segment.start for segment in segments if start < segment.end and segment.start < end) < start + 0.3


def errors(mix: Mix, text: str) -> float:
    said, written = (normalize(each).replace(" ", "") for each in (mix.text, text))
    return float(jiwer.cer(said, written))


@pytest.fixture(scope="module")
def reference(engine: Engine, mixes: dict[str, Mix]) -> Callable[[str], float]:
    """A mix → the errors of faster-whisper as it is, which hears all of it."""

    @cache
    def measured(name: str) -> float:
        mix = mixes[name]
        found, _ = engine._loaded("base").whisper.transcribe(mix.samples, language=mix.language, temperature=0.0)
        return errors(mix, "".join(segment.text for segment in found))

    return measured


NAMES = [
    "after music",
    "after music in Spanish",
    "after quicker music",
    "music between",
    "music on both sides",
    "after noise",
    "after a telephone",
    "far apart",
]


@pytest.mark.parametrize("asked", ["windowed", "sequential"])
@pytest.mark.parametrize("name", NAMES)
def test_text_is_where_the_voice_is_and_none_is_lost(
    name: str, asked: str, engine: Engine, mixes: dict[str, Mix], reference: Callable[[str], float]
) -> None:
    mix = mixes[name]

    segments = heard(engine, mix, {"engine": asked})

    assert_at_the_voice(segments, mix)
    assert errors(mix, "".join(segment.text for segment in segments)) <= reference(name) + 0.1


@pytest.mark.parametrize("more", [{"timestamp_granularity": "word"}, {"vad_filter": False}])
@pytest.mark.parametrize("name", ["after music", "music between"])
def test_it_is_there_with_word_times_and_without_the_filter_too(
    name: str, more: dict[str, object], engine: Engine, mixes: dict[str, Mix]
) -> None:
    segments = heard(engine, mixes[name], more)

    assert_at_the_voice(segments, mixes[name])
    assert errors(mixes[name], "".join(segment.text for segment in segments)) < 0.2
    for segment in segments:
        times = [time for word in segment.words or [] for time in (word.start, word.end)]
        assert times == sorted(times)
        assert all(segment.start <= time <= segment.end for time in times)
