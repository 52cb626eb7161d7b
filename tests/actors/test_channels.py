"""Several channels become one without losing what is said in any of them, or stay apart, however many they are."""

import io

import numpy as np
import pytest

from actors.audio.decode import SAMPLE_RATE, DecodeOptions, decode_channels
from actors.errors import AudioUnreadable
from tests.actors.conftest import Convert
from tests.recordings import riff, tone

#: Loudspeakers in the header of a WAV: front left, front right, centre, low frequencies, back left, back right.
FIVE_ONE, BACK = 0x3F, 0x30


def heard(recording: bytes) -> tuple[np.ndarray, list[str]]:
    """The mix, and the warnings."""
    warnings: list[str] = []
    blocks = list(decode_channels(io.BytesIO(recording), warnings=warnings))
    return np.concatenate(blocks, axis=1)[0], warnings


def apart(recording: bytes, max_channels: int | None = None) -> np.ndarray:
    options = DecodeOptions(separate=True, max_channels=max_channels)
    return np.concatenate(list(decode_channels(io.BytesIO(recording), options)), axis=1)


def loudness(samples: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(samples))))


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """1.0 for the same sound, whichever way up: nobody hears that."""
    return float(abs(np.corrcoef(one, other)[0, 1]))


def noise(seconds: float, seed: int, level: float = 0.2) -> np.ndarray:
    """As loud in low tones as in high ones together, as music is."""
    samples = round(seconds * SAMPLE_RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(samples))
    sound = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), samples)
    scaled: np.ndarray = level * sound / np.abs(sound).max()
    return scaled.astype(np.float32)


def one_speaking(channels: int, speaking: int, voice: np.ndarray) -> np.ndarray:
    samples = np.zeros((channels, len(voice)), np.float32)
    samples[speaking - 1] = voice
    return samples


# Out of phase


@pytest.mark.parametrize("factor", [-1.0, -0.9, -0.6, -1.5])
def test_channels_out_of_phase_are_heard_and_warned_of(factor: float) -> None:
    voice = noise(4, seed=1)

    mixed, warnings = heard(riff(np.stack([voice, factor * voice])))

    assert loudness(mixed) > 0.7 * loudness(voice)
    assert alike(mixed, voice) > 0.99
    assert warnings == ["channels are out of phase from 0.0 to 4.0 s: their difference was transcribed there"]


@pytest.mark.parametrize("channels", [4, 6, 12])
def test_more_than_two_channels_out_of_phase_are_heard(channels: int) -> None:
    voice = noise(3, seed=1)
    signs = np.resize([1.0, -1.0], channels)[:, None]

    mixed, warnings = heard(riff(signs * voice))

    assert loudness(mixed) > 0.9 * loudness(voice)
    assert len(warnings) == 1


def test_independent_noise_does_not_hide_channels_out_of_phase() -> None:
    voice = noise(4, seed=1)
    stereo = np.stack([voice + noise(4, seed=2, level=0.02), noise(4, seed=3, level=0.02) - voice])

    mixed, warnings = heard(riff(stereo))

    assert alike(mixed, voice) > 0.98
    assert len(warnings) == 1


def test_a_voice_is_kept_where_one_channel_is_noisy_and_out_of_phase() -> None:
    voice = noise(4, seed=1)

    mixed, _ = heard(riff(np.stack([voice, noise(4, seed=2, level=0.08) - voice])))

    assert alike(mixed, voice) > 0.95


def test_only_the_stretch_that_is_out_of_phase_is_turned_over_without_a_click() -> None:
    voice = noise(60, seed=1)
    other = voice.copy()
    other[20 * SAMPLE_RATE : 40 * SAMPLE_RATE] *= -1

    mixed, warnings = heard(riff(np.stack([voice, other])))

    stretches = mixed[: 60 * SAMPLE_RATE].reshape(60, SAMPLE_RATE)
    assert min(map(loudness, stretches)) > 0.8 * loudness(voice)
    # A click would be a step that the voice itself does not make.
    assert np.abs(np.diff(mixed)).max() <= 1.01 * np.abs(np.diff(voice)).max()
    assert warnings == ["channels are out of phase from 20.0 to 40.0 s: their difference was transcribed there"]


def test_what_is_out_of_phase_with_pauses_is_one_stretch() -> None:
    voice = noise(20, seed=1)
    speaks = np.arange(len(voice)) % (4 * SAMPLE_RATE) < 2.5 * SAMPLE_RATE
    hiss = np.stack([noise(20, seed=2, level=0.001), noise(20, seed=3, level=0.001)])

    _, (warning,) = heard(riff(np.stack([voice, -voice]) * speaks + hiss))

    assert warning.startswith("channels are out of phase from 0.0 to ")
    assert "," not in warning


@pytest.mark.parametrize("side", [0.3, 0.7, 1.2])
def test_wide_stereo_is_mixed_as_it_is(side: float) -> None:
    middle, sides = noise(20, seed=1), side * noise(20, seed=2)

    mixed, warnings = heard(riff(np.stack([middle + sides, middle - sides]) / 2))

    assert np.abs(mixed - middle / 2).max() < 0.001
    assert warnings == []


def test_two_sides_of_a_call_are_mixed_as_they_are() -> None:
    left, right = noise(20, seed=1), noise(20, seed=2)

    mixed, warnings = heard(riff(np.stack([left, right])))

    assert np.abs(mixed - (left + right) / 2).max() < 0.001
    assert warnings == []


def test_hum_in_phase_does_not_hide_a_voice_out_of_phase() -> None:
    voice, hum = noise(4, seed=1), 0.1 * np.sin(2 * np.pi * 50 * np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE)

    mixed, _ = heard(riff(np.stack([voice + hum, hum - voice])))

    assert alike(mixed, voice) > 0.95


# Layouts


@pytest.mark.parametrize(("channels", "speaking"), [(2, 2), (3, 3), (6, 4), (8, 1), (9, 9), (12, 12), (16, 4), (32, 1)])
@pytest.mark.parametrize("mask", [None, 0, 3], ids=["no mask", "mask 0", "mask of two"])
def test_each_microphone_of_a_file_that_states_no_layout_is_heard(
    channels: int, speaking: int, mask: int | None
) -> None:
    voice = noise(2, seed=1)

    mixed, warnings = heard(riff(one_speaking(channels, speaking, voice), mask=None if channels == 2 else mask))

    assert mixed == pytest.approx(voice / channels, abs=2e-4)
    assert warnings == []


@pytest.mark.parametrize("channels", [6, 16])
def test_all_microphones_together_are_not_too_loud(channels: int) -> None:
    voice = noise(2, seed=1, level=0.99)

    mixed, _ = heard(riff(np.repeat(voice[None], channels, axis=0)))

    assert mixed == pytest.approx(voice, abs=1e-3)


def test_a_layout_without_a_centre_or_a_front_is_mixed() -> None:
    voice = noise(2, seed=1)

    mixed, _ = heard(riff(np.stack([voice, voice]), mask=BACK))

    assert mixed == pytest.approx(voice, abs=1e-3)


def test_a_film_keeps_its_centre_above_the_others_and_leaves_the_low_tones_out() -> None:
    names = ("left", "right", "centre", "low", "back", "behind")
    speaks_in_turn = np.kron(np.eye(6), noise(1, seed=1))

    mixed, _ = heard(riff(speaks_in_turn, mask=FIVE_ONE))

    voice = loudness(noise(1, seed=1))
    shares = {name: loudness(part) / voice for name, part in zip(names, mixed.reshape(6, -1), strict=True)}
    # As FFmpeg weighs them, for a sum that cannot be too loud.
    weights = {"left": 0.7071, "right": 0.7071, "centre": 1.0, "low": 0.0, "back": 0.5, "behind": 0.5}
    assert shares == pytest.approx({name: weight / 3.4142 for name, weight in weights.items()}, abs=0.002)


@pytest.mark.parametrize("ending", ["aiff", "caf", "mov", "w64", "mkv", "au"])
@pytest.mark.parametrize("channels", [3, 8])
def test_containers_that_list_their_channels_are_mixed(ending: str, channels: int, convert: Convert) -> None:
    # MOV, CAF and AIFF list eight channels in an order of their own, which PyAV frees twice: it ended the process.
    voice = noise(2, seed=1)
    codec = "pcm_s16be" if ending in ("aiff", "au") else "pcm_s16le"
    source = riff(np.repeat(voice[None], channels, axis=0), mask=(1 << channels) - 1)
    recording = convert(source, ending, "-c:a", codec)

    mixed, warnings = heard(recording)

    assert alike(mixed, voice) > 0.99
    assert apart(recording).shape == (channels, len(voice))
    assert warnings == []


# Apart


@pytest.mark.parametrize("channels", [2, 7, 8, 9, 16, 32])
def test_any_number_of_channels_comes_apart(channels: int) -> None:
    levels = np.linspace(0.05, 0.9, channels, dtype=np.float32)

    separate = apart(riff(levels[:, None] * np.ones((1, 31 * SAMPLE_RATE), np.float32)))

    assert separate.shape == (channels, 31 * SAMPLE_RATE)
    assert separate[:, 8000] == pytest.approx(levels, abs=1e-3)


@pytest.mark.parametrize("separate", [True, False])
def test_more_channels_than_the_limit_are_refused_with_both_numbers(separate: bool) -> None:
    options = DecodeOptions(separate=separate, max_channels=16)

    with pytest.raises(AudioUnreadable) as caught:
        list(decode_channels(io.BytesIO(riff(np.zeros((17, 1600), np.float32))), options))

    assert str(caught.value) == "the recording has 17 channels, the limit is 16"
    assert apart(riff(np.zeros((16, 1600), np.float32)), max_channels=16).shape == (16, 1600)


def test_parts_with_other_numbers_of_channels_come_out_in_those_of_the_first() -> None:
    one, two = tone(1.0), np.stack([tone(2.0), 0.5 * tone(2.0)])

    from_two = apart(riff(two) + riff(one))
    from_one = apart(riff(one) + riff(two))

    assert from_two.shape == (2, 3 * SAMPLE_RATE)
    assert loudness(from_two[1, 2 * SAMPLE_RATE :]) == pytest.approx(loudness(one), abs=0.001)
    assert from_one.shape == (1, 3 * SAMPLE_RATE)
    assert loudness(from_one[0, SAMPLE_RATE:]) == pytest.approx(0.75 * loudness(one), abs=0.001)
