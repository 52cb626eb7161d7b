"""Finding speech and cutting it into windows, on real speech. No weights but Silero's, which faster-whisper brings."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from faster_whisper.vad import get_vad_model

from actors.audio.decode import SAMPLE_RATE
from actors.voice import FRAME, VoiceActivity, find_speech, listen, noisy
from actors.windows import Shape, Window, plan
from tests.conftest import Sample
from tests.recordings import joined, samples_of

SHAPE = Shape(13.0, 15.0)


@pytest.fixture(scope="module")
def talk(speech: dict[str, list[Sample]]) -> np.ndarray:
    """75 s in three languages with a second between the clips."""
    return joined([*speech["en"], *speech["it"], *speech["es"]], 75)


@pytest.fixture(scope="module")
def breathless(speech: dict[str, list[Sample]]) -> np.ndarray:
    """A minute with hardly a pause: every frame that Silero does not take for speech is taken out."""
    sound = joined([*speech["en"], *speech["fr"]], 75, gap_seconds=0.1)
    frames = sound[: len(sound) // FRAME * FRAME].reshape(-1, FRAME)
    return frames[VoiceActivity().listen(sound) > 0.6].reshape(-1)


def in_blocks(samples: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    edges = np.cumsum([0, *np.resize(sizes, len(samples) // min(sizes) + 1)])
    return [samples[a:b] for a, b in pairwise(edges) if a < len(samples)]


def planned(samples: np.ndarray, *, everything: bool = False) -> list[Window]:
    return list(plan(samples, listen(samples), SHAPE, everything=everything))


def test_blocks_of_any_size_give_the_probabilities_of_the_whole(talk: np.ndarray) -> None:
    padded = np.pad(talk, (0, -len(talk) % FRAME))
    whole = get_vad_model()(padded).reshape(-1)
    voice = VoiceActivity()

    parts = [voice.listen(block) for block in in_blocks(talk, [1, 16000, 511, 513, 480000, 7])]
    probabilities = np.concatenate([*parts, voice.finish()])

    # faster-whisper shows its first frame silence for what came before, as is done here.
    assert probabilities.shape == whole.shape
    np.testing.assert_allclose(probabilities, whole, atol=2e-3)


def test_speech_is_found_where_it_is(speech: dict[str, list[Sample]]) -> None:
    clip = samples_of(speech["en"][-1])
    silence = np.zeros(3 * SAMPLE_RATE, np.float32)

    spans = find_speech(VoiceActivity().listen(np.concatenate([silence, clip, silence])))

    assert spans
    assert 2.5 < spans[0].start / SAMPLE_RATE < 3.5
    assert abs(spans[-1].end - len(silence) - len(clip)) < SAMPLE_RATE


def test_all_speech_is_in_windows_of_at_most_their_length(talk: np.ndarray) -> None:
    expected = find_speech(VoiceActivity().listen(talk))

    windows = planned(talk)

    covered = np.zeros(len(talk), int)
    for window in windows:
        assert window.seconds <= 13.0
        np.testing.assert_array_equal(window.samples, talk[window.start : window.start + len(window.samples)])
        covered[window.start : window.start + len(window.samples)] += 1
    assert covered.max() == 1
    missed = sum(int((covered[span.start : min(span.end, len(talk))] == 0).sum()) for span in expected)
    assert missed < 0.1 * SAMPLE_RATE


def test_speech_without_pauses_is_cut_without_loss_at_quiet_places(breathless: np.ndarray) -> None:
    windows = planned(breathless)

    cuts = [window.start for window in windows[1:]]
    assert len(windows) >= len(breathless) / SAMPLE_RATE / 13
    for before, after in pairwise(windows):
        assert abs(after.start - before.start - len(before.samples)) <= FRAME
    typical = float(np.median(breathless**2))
    around = [float(np.mean(breathless[cut - 800 : cut + 800] ** 2)) for cut in cuts]
    assert np.median(around) < typical


def test_everything_means_everything(talk: np.ndarray) -> None:
    windows = planned(talk, everything=True)

    assert windows[0].start == 0
    assert sum(len(window.samples) for window in windows) == len(talk)


def test_a_long_silence_is_in_no_window(talk: np.ndarray) -> None:
    silence = np.zeros(60 * SAMPLE_RATE, np.float32)
    sound = np.concatenate([talk, silence, talk])

    windows = planned(sound)

    inside = [w for w in windows if len(talk) + SAMPLE_RATE < w.start < len(talk) + len(silence) - SAMPLE_RATE]
    assert not inside
    assert sum(window.seconds for window in windows) < 2 * len(talk) / SAMPLE_RATE


@pytest.mark.parametrize("seconds", [0, 0.001, 0.1])
def test_next_to_nothing_gives_no_windows(seconds: float) -> None:
    assert planned(np.zeros(round(seconds * SAMPLE_RATE), np.float32)) == []


def test_a_short_recording_takes_the_short_window(speech: dict[str, list[Sample]]) -> None:
    clip = min(map(samples_of, speech["en"]), key=len)

    (window,) = planned(clip)

    assert window.features == 800


def test_the_rest_of_a_window_begins_with_speech(talk: np.ndarray) -> None:
    window = max(planned(talk), key=lambda each: len(each.speech))
    first, second = window.speech[:2]

    rest = window.after(first.end)

    assert rest.start == window.start + second.start
    assert rest.speech_between(0, len(rest.samples)) == window.speech_between(second.start, len(window.samples))


@pytest.mark.parametrize("decibels", [26, 32])
def test_speech_with_some_noise_around_it_is_not_noisy(decibels: float, talk: np.ndarray) -> None:
    sound = with_white_noise(talk, decibels)

    assert not noisy(talk, listen(talk))
    assert not noisy(sound, listen(sound))


@pytest.mark.parametrize("decibels", [5, 10])
def test_speech_that_hardly_stands_out_is_noisy_wherever_that_is(decibels: float, talk: np.ndarray) -> None:
    sound = np.concatenate([talk, with_white_noise(talk, decibels)[: 25 * SAMPLE_RATE], talk])

    assert noisy(sound, listen(sound))


def test_noise_without_speech_is_not_noisy_speech(talk: np.ndarray) -> None:
    noise = with_white_noise(np.zeros(40 * SAMPLE_RATE, np.float32) + talk.std(), 0)
    sound = np.concatenate([talk, np.zeros(30 * SAMPLE_RATE, np.float32)])

    assert not noisy(noise, listen(noise))
    assert not noisy(sound, listen(sound))


def with_white_noise(samples: np.ndarray, decibels: float) -> np.ndarray:
    """Noise so many decibels below the speech."""
    spoken = samples[np.abs(samples) > 0.01]
    loudness = float(np.sqrt(np.mean(spoken**2))) / 10 ** (decibels / 20)
    noise = np.random.default_rng(7).standard_normal(len(samples))
    return (samples + loudness * noise).astype(np.float32)
