"""Quiet recordings are heard from their first word, and neither silence nor noise becomes speech on the way."""

import numpy as np
import pytest

from actors.audio.decode import SAMPLE_RATE
from actors.audio.loudness import Loudness, raise_quiet
from actors.voice import VoiceActivity, find_speech, listen
from tests.conftest import Sample
from tests.recordings import joined, samples_of

SECONDS = 20


def amplified(samples: np.ndarray, decibels: float, bits: int = 24) -> np.ndarray:
    """At another level, as a recording of so many bits holds it."""
    steps = 2 ** (bits - 1)
    raised: np.ndarray = np.rint(samples * 10 ** (decibels / 20) * steps) / steps
    return raised.astype(np.float32)


def colored_noise(slope: float) -> np.ndarray:
    """0: white, 1: pink, 2: brown. As loud as a voice."""
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(SECONDS * SAMPLE_RATE))
    sound = np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** (slope / 2), SECONDS * SAMPLE_RATE)
    level: np.ndarray = 0.05 * sound / np.sqrt(np.mean(sound**2))
    return level.astype(np.float32)


def hum() -> np.ndarray:
    times = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    return (0.05 * np.sin(2 * np.pi * 50 * times) + 0.02 * np.sin(2 * np.pi * 150 * times)).astype(np.float32)


def knocks() -> np.ndarray:
    random = np.random.default_rng(1)
    sound = np.zeros(SECONDS * SAMPLE_RATE)
    for at in random.integers(0, len(sound) - SAMPLE_RATE, 40):
        sound[at : at + 1600] += random.standard_normal(1600) * np.exp(-np.arange(1600) / 200)
    return (0.3 * sound).astype(np.float32)


@pytest.fixture(scope="module")
def talk(speech: dict[str, list[Sample]]) -> np.ndarray:
    """With pauses; from its first sample somebody speaks."""
    return joined(speech["en"], seconds=40)


@pytest.mark.parametrize(("decibels", "bits"), [(-30, 16), (-43, 16), (-50, 16), (-60, 24), (-70, 24)])
@pytest.mark.parametrize("blocks", [1, 4])
def test_speech_is_found_however_quiet_it_is(decibels: float, bits: int, blocks: int, talk: np.ndarray) -> None:
    quiet = amplified(talk, decibels, bits)
    voice = VoiceActivity()

    probabilities = np.concatenate([voice.listen(block) for block in np.array_split(quiet, blocks)])

    expected = VoiceActivity().listen(talk)
    speaks, heard = expected > 0.6, probabilities > 0.4
    assert np.mean(heard[speaks]) > 0.97
    assert np.mean(heard[expected < 0.2]) < 0.05
    (first, *_), (first_expected, *_) = find_speech(probabilities), find_speech(expected)
    assert abs(first.start - first_expected.start) < 0.1 * SAMPLE_RATE


@pytest.mark.parametrize("decibels", [0, -6, -12])
def test_a_recording_that_is_loud_enough_is_heard_as_it_is(decibels: float, talk: np.ndarray) -> None:
    samples = amplified(talk, decibels)

    assert raise_quiet(samples) is samples


@pytest.mark.parametrize("decibels", [-20, -40, -60, -70])
@pytest.mark.parametrize(
    "sound",
    [colored_noise(0), colored_noise(1), colored_noise(2), hum(), knocks()],
    ids=["white", "pink", "brown", "hum", "knocks"],
)
def test_quiet_noise_is_no_speech(sound: np.ndarray, decibels: float) -> None:
    assert find_speech(listen(raise_quiet(amplified(sound, decibels)))) == []


@pytest.mark.parametrize("level", [0, 2**-23, 2**-15])
def test_silence_is_no_speech(level: float) -> None:
    # The last bit of a converter is never quite still.
    steps = np.random.default_rng(1).integers(-1, 2, SECONDS * SAMPLE_RATE)

    assert find_speech(listen(raise_quiet((level * steps).astype(np.float32)))) == []


def test_pauses_of_a_loud_recording_are_not_raised(talk: np.ndarray) -> None:
    loudness, pause = Loudness(), amplified(colored_noise(1), -40)

    loudness.raise_quiet(talk)

    assert loudness.raise_quiet(pause) is pause


def test_a_bang_does_not_hide_that_a_recording_is_quiet(talk: np.ndarray) -> None:
    quiet = amplified(talk, -50)
    quiet[SAMPLE_RATE : SAMPLE_RATE + 3200] = np.random.default_rng(1).uniform(-0.9, 0.9, 3200)

    raised = raise_quiet(quiet)

    assert np.abs(raised).max() <= 1
    assert np.sqrt(np.mean(raised[4 * SAMPLE_RATE :] ** 2)) > 0.01


def test_the_first_words_of_a_quiet_sample_are_found(speech: dict[str, list[Sample]]) -> None:
    for language in ("es", "fr", "it", "zh"):
        samples = samples_of(speech[language][0])

        (first, *_), (quiet, *_) = (
            find_speech(listen(raise_quiet(each))) for each in (samples, amplified(samples, -45))
        )

        assert abs(first.start - quiet.start) < 0.15 * SAMPLE_RATE
