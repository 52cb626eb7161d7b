"""WAV files as recorders leave them: big-endian, behind tags, cut off, or with a length in the header that is wrong."""

import io

import numpy as np
import pytest

from actors.audio.decode import SAMPLE_RATE, DecodeOptions, decode_channels
from actors.errors import AudioUnreadable
from storage.range_reader import RangeReader
from tests.actors.conftest import Convert
from tests.recordings import riff, tone, wav

TAG = b"ID3\3\0\0\0\0\0\x0aTIT2abcdef"
#: Of version 2.4: its footer repeats the header.
TAG_WITH_FOOTER = b"ID3\4\0\x10\0\0\0\4abcd3DI\4\0\x10\0\0\0\4"
APE_TAG = b"APETAGEX" + bytes([0xD0, 7, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xA0]) + bytes(8)
APE_TAG += b"APETAGEX" + bytes([0xD0, 7, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]) + bytes(8)


def heard(recording: bytes, *, separate: bool = False) -> tuple[np.ndarray, list[str]]:
    """Samples and warnings."""
    warnings: list[str] = []
    blocks = list(decode_channels(io.BytesIO(recording), DecodeOptions(separate=separate), warnings))
    return np.concatenate(blocks, axis=1), warnings


def with_length(recording: bytes, length: int) -> bytes:
    """The same WAV, whose header claims so many bytes of sound."""
    place = recording.index(b"data") + 4
    return recording[:place] + length.to_bytes(4, "little") + recording[place + 4 :]


# Big-endian


@pytest.mark.parametrize("kind", [">i2", ">i3", ">i4", ">f4", ">f8"])
@pytest.mark.parametrize("mask", [None, 3])
def test_a_big_endian_wav_is_heard(kind: str, mask: int | None) -> None:
    stereo = np.stack([tone(2.0), 0.5 * tone(2.0)])

    samples, warnings = heard(riff(stereo, kind, mask=mask), separate=True)

    assert samples == pytest.approx(stereo, abs=1e-4)
    assert warnings == []


def test_a_big_endian_wav_of_a_kind_that_is_not_known_is_refused_with_it() -> None:
    recording = bytearray(riff(tone(1.0), ">i2"))
    recording[20:22] = (0x11).to_bytes(2, "big")

    with pytest.raises(AudioUnreadable, match=r"big-endian WAV .* format 0x0011"):
        heard(bytes(recording))


def test_a_big_endian_wav_that_breaks_off_says_so() -> None:
    samples, warnings = heard(riff(tone(4.0), ">i2")[: 44 + 2 * SAMPLE_RATE])

    assert samples.shape[1] == SAMPLE_RATE
    assert warnings == ["the recording breaks off after 1.0 s, its header says 4.0 s"]


def test_a_codec_that_is_not_known_is_named_as_the_reason() -> None:
    recording = bytearray(riff(tone(1.0)))
    recording[20:22] = b"\x99\x99"

    with pytest.raises(AudioUnreadable, match="the audio stream has a codec that is not known"):
        heard(bytes(recording))


# Behind tags


@pytest.mark.parametrize(
    "tags",
    [TAG, TAG_WITH_FOOTER, TAG + TAG_WITH_FOOTER, APE_TAG, TAG + bytes(2000)],
    ids=["ID3", "ID3 with a footer", "two", "APE", "padding"],
)
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "aiff", "m4a", "caf", "wv", "mp3", "aac"])
def test_a_recording_behind_a_tag_is_heard(tags: bytes, ending: str, convert: Convert) -> None:
    recording = convert(wav(tone(2.0)), ending)

    samples, warnings = heard(tags + recording)

    assert samples.shape[1] / SAMPLE_RATE == pytest.approx(2.0, abs=0.15)
    assert warnings == []


@pytest.mark.parametrize("kind", ["<i2", ">i2"])
def test_a_wav_behind_a_tag_is_read_as_if_there_were_none(kind: str) -> None:
    samples, warnings = heard(TAG + riff(tone(2.0), kind))

    assert samples[0] == pytest.approx(tone(2.0), abs=1e-4)
    assert warnings == []


def test_a_picture_in_a_tag_is_not_fetched(convert: Convert) -> None:
    size = 20 * 2**20
    tag = b"ID3\3\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + bytes(size)
    recording = tag + convert(wav(tone(2.0)), "mp3", "-id3v2_version", "0")
    reader = RangeReader(lambda begin, end: recording[begin:end], len(recording))

    seconds = sum(block.shape[1] for block in decode_channels(reader)) / SAMPLE_RATE

    assert seconds == pytest.approx(2.0, abs=0.15)
    assert reader.fetched_bytes < 2**20


# Lengths


@pytest.mark.parametrize("kind", ["<i2", "<i3", "<f4"])
def test_a_wav_that_is_cut_off_says_where(kind: str) -> None:
    recording = riff(tone(4.0), kind)

    samples, warnings = heard(recording[: len(recording) * 5 // 8])

    assert samples.shape[1] / SAMPLE_RATE == pytest.approx(2.5, abs=0.01)
    assert warnings == ["the recording breaks off after 2.5 s, its header says 4.0 s"]


@pytest.mark.parametrize("ending", ["caf", "w64", "aiff", "au"])
def test_what_is_like_a_wav_and_cut_off_says_where(ending: str, convert: Convert) -> None:
    recording = convert(wav(tone(8.0)), ending)

    samples, (warning,) = heard(recording[: len(recording) * 5 // 8])

    assert samples.shape[1] / SAMPLE_RATE == pytest.approx(5, abs=0.05)
    assert warning.startswith("the recording breaks off after 5.0 s")


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_a_wav_that_goes_on_behind_the_end_in_its_header_is_read_to_its_own(seconds: float) -> None:
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, 4 * SAMPLE_RATE)

    samples, warnings = heard(with_length(riff(noise), round(2 * seconds * SAMPLE_RATE)))

    assert samples.shape[1] == 4 * SAMPLE_RATE
    assert warnings == [f"the recording's header says {seconds:.1f} s, but it goes on to 4.0 s: all of it was read"]


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x80000000, 0x7FFFF000])
def test_a_wav_that_was_written_to_a_pipe_is_no_reason_to_warn(length: int) -> None:
    samples, warnings = heard(with_length(riff(tone(2.0)), length))

    assert samples.shape[1] == 2 * SAMPLE_RATE
    assert warnings == []


@pytest.mark.parametrize("behind", [b"LIST\4\0\0\0INFO", b"TAG" + bytes(125), bytes(64_000), TAG + b"...."])
def test_what_stands_behind_the_sound_of_a_wav_is_not_heard(behind: bytes) -> None:
    samples, warnings = heard(riff(tone(2.0)) + behind + bytes(40_000))

    assert samples.shape[1] == 2 * SAMPLE_RATE
    assert warnings == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_numbers_do_not_spoil_the_others(value: float) -> None:
    sound = tone(2.0)
    sound[SAMPLE_RATE] = value

    samples, _ = heard(riff(np.stack([sound, sound]), "<f4"))

    assert np.isfinite(samples).all()
    assert np.abs(samples).max() <= 1
    assert samples[0, :8000] == pytest.approx(sound[:8000], abs=1e-4)
