"""Sounds that are not speech, as float32 samples at 16 kHz."""

import numpy as np

from actors.audio.decode import SAMPLE_RATE


def seconds_of(seconds: float) -> np.ndarray:
    """The time of each sample."""
    return np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def plucked(seconds: float, beat: float = 0.5, pitches: tuple[float, ...] = (220, 277.2, 329.6, 440)) -> np.ndarray:
    """A chord with vibrato, plucked again at each beat: Silero takes it for speech, though never surely."""
    time = seconds_of(seconds)
    since = time % beat
    strings = sum(
        np.sin(2 * np.pi * pitch * time * (1 + 0.002 * np.sin(10 * np.pi * time)))
        * (0.6 + 0.4 * np.sin(np.pi * time + number))
        for number, pitch in enumerate(pitches)
    )
    attack = np.minimum(1, 20 * since) * np.exp(-2 * since)
    return np.asarray(0.25 / len(pitches) * strings * attack, np.float32)


def noise(seconds: float, level: float = 0.05) -> np.ndarray:
    return (level * np.random.default_rng(5).standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)


def keys(seconds: float) -> np.ndarray:
    """A telephone that is dialled, three keys a second."""
    time = seconds_of(seconds)
    number = (time * 10 / 3).astype(int)
    low, high = np.array([697, 770, 852, 941])[number * 7 % 4], np.array([1209, 1336, 1477])[number * 5 % 3]
    pressed = time % 0.3 < 0.15
    return np.asarray(0.2 * pressed * (np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time)), np.float32)
