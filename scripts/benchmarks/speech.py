"""Recordings to measure with: the human and synthetic speech that the tests use, as files."""

from pathlib import Path

import pytest_audioeval

from actors.audio import SAMPLE_RATE
from tests.conftest import Sample
from tests.recordings import joined, samples_of, wav


def clip(folder: Path, seconds: float) -> Path:
    """The English sample whose length is nearest, as WAV."""
    spoken = min(map(samples_of, _samples("en")), key=lambda samples: abs(len(samples) / SAMPLE_RATE - seconds))
    path = folder / "clip.wav"
    path.write_bytes(wav(spoken))
    return path


def recordings(folder: Path, lengths: list[float]) -> list[Path]:
    """Speech joined with gaps, one recording for each length in seconds, in turns of several languages."""
    languages = ("en", "es", "fr", "it")
    paths = []
    for number, seconds in enumerate(lengths):
        path = folder / f"recording-{number}.wav"
        path.write_bytes(wav(joined(_samples(languages[number % len(languages)]), seconds)))
        paths.append(path)
    return paths


def _samples(language: str) -> list[Sample]:
    folder = Path(next(iter(pytest_audioeval.__path__))) / "samples" / "audio" / language
    return [Sample(language, path.stem, path, "") for path in sorted(folder.glob("*.wav"))]
