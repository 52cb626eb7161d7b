"""Recordings made for tests: real speech joined with gaps, as WAV bytes of 16 kHz mono."""

import io
import wave
from collections.abc import Iterable, Sequence

import numpy as np

from actors.audio.decode import SAMPLE_RATE, decode
from tests.conftest import Sample


def samples_of(sample: Sample) -> np.ndarray:
    """float32 samples in [-1, 1], shape (samples,)."""
    with sample.path.open("rb") as file:
        return np.concatenate(list(decode(file, None)))


def joined(spoken: Sequence[Sample], seconds: float, gap_seconds: float = 1.0) -> np.ndarray:
    """The samples again and again, with gaps of silence, until `seconds` are full."""
    gap = np.zeros(round(gap_seconds * SAMPLE_RATE), np.float32)
    pieces: list[np.ndarray] = []
    clips = [samples_of(sample) for sample in spoken]
    while sum(map(len, pieces)) < seconds * SAMPLE_RATE:
        pieces += [clips[(len(pieces) // 2) % len(clips)], gap]
    return np.concatenate(pieces)


def tone(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def wav(samples: np.ndarray) -> bytes:
    """Of shape (samples,), or (channels, samples)."""
    return wav_of_blocks([samples.T.ravel()], channels=len(np.atleast_2d(samples)))


def wav_of_blocks(blocks: Iterable[np.ndarray], channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(channels)
        target.setsampwidth(2)
        target.setframerate(SAMPLE_RATE)
        for block in blocks:
            target.writeframes((np.clip(block, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
