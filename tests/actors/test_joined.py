"""Files that were joined to one: all of them are heard, one after the other, whatever their kinds."""

import io

import numpy as np
import pytest

from actors.audio.decode import SAMPLE_RATE, DecodeOptions, decode_channels
from storage.range_reader import RangeReader
from tests.actors.conftest import Convert
from tests.recordings import riff, tone, wav

FRAGMENTS = ("-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "500000")

#: Name → file ending and ffmpeg's options.
KINDS: dict[str, tuple[str, ...]] = {
    "vorbis": ("ogg", "-c:a", "libvorbis"),
    "opus": ("opus", "-c:a", "libopus"),
    "flac in ogg": ("ogg", "-c:a", "flac"),
    "m4a": ("m4a", "-c:a", "aac"),
    "m4a with its index first": ("m4a", "-c:a", "aac", "-movflags", "+faststart"),
    "m4a in fragments": ("m4a", "-c:a", "aac", *FRAGMENTS),
    "flv": ("flv", "-c:a", "aac"),
    "webm": ("webm", "-c:a", "libopus"),
    "live webm": ("webm", "-c:a", "libopus", "-live", "1"),
    "mka": ("mka", "-c:a", "libvorbis"),
    "flac": ("flac",),
    "wav": ("wav",),
    "aiff": ("aiff",),
    "caf": ("caf",),
    "w64": ("w64",),
    "au": ("au",),
    "avi": ("avi", "-c:a", "mp3"),
    "wma": ("wma",),
    "tta": ("tta",),
    "mov": ("mov", "-c:a", "pcm_s16le"),
}

#: Tones of parts, in hertz: what is heard says which part it is.
LOW, MIDDLE, HIGH = 300, 700, 1500


def sine(hertz: float, seconds: float = 2.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def heard(recording: bytes, options: DecodeOptions | None = None) -> tuple[np.ndarray, list[str]]:
    """Samples and warnings."""
    warnings: list[str] = []
    blocks = list(decode_channels(io.BytesIO(recording), options or DecodeOptions(), warnings))
    return np.concatenate(blocks, axis=1)[0], warnings


def pitch(samples: np.ndarray, begin: float, end: float) -> float:
    """The loudest tone of a stretch of seconds, in hertz."""
    part = samples[round(begin * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    return float(np.argmax(np.abs(np.fft.rfft(part))) / (end - begin))


@pytest.mark.parametrize("rate", ["16000", "48000"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_of_two_joined_files_are_heard(kind: str, rate: str, convert: Convert) -> None:
    ending, *options = KINDS[kind]
    rate = "44100" if ending in ("flv", "wma") and rate == "48000" else rate
    first, second = (
        convert(wav(sine(hertz)), ending, *options, *more)
        for hertz, more in ((LOW, ()), (HIGH, ("-ar", rate, "-ac", "2" if rate != "16000" else "1")))
    )

    samples, warnings = heard(first + second)

    assert len(samples) / SAMPLE_RATE == pytest.approx(4, abs=0.3)
    assert pitch(samples, 0.2, 1.8) == pytest.approx(LOW, abs=5)
    assert pitch(samples, 2.3, 3.8) == pytest.approx(HIGH, abs=5)
    assert warnings == []


@pytest.mark.parametrize(
    "kinds", [("vorbis", "opus", "flac in ogg"), ("opus", "vorbis", "opus"), ("wav", "m4a", "flv")]
)
def test_three_files_of_different_kinds_are_heard(kinds: tuple[str, ...], convert: Convert) -> None:
    parts = [
        convert(wav(sine(hertz)), KINDS[kind][0], *KINDS[kind][1:])
        for kind, hertz in zip(kinds, (LOW, MIDDLE, HIGH), strict=True)
    ]

    samples, warnings = heard(b"".join(parts))

    assert len(samples) / SAMPLE_RATE == pytest.approx(6, abs=0.3)
    assert [round(pitch(samples, at + 0.4, at + 1.6), -2) for at in (0, 2, 4)] == [LOW, MIDDLE, HIGH]
    assert warnings == []


def test_many_short_files_are_heard_in_order(convert: Convert) -> None:
    parts = [convert(wav(sine(hertz, 0.5)), "ogg", "-c:a", "libvorbis") for hertz in (LOW, MIDDLE, HIGH)]

    samples, warnings = heard(b"".join(parts * 10))

    assert len(samples) / SAMPLE_RATE == pytest.approx(15, abs=0.3)
    assert round(pitch(samples, 14.3, 14.6), -2) == MIDDLE
    assert warnings == []


def test_joined_files_are_read_from_a_store_once(convert: Convert) -> None:
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, 20 * SAMPLE_RATE)
    part = convert(wav(noise), "ogg", "-c:a", "flac")
    recording = part * 8
    reader = RangeReader(lambda begin, end: recording[begin:end], len(recording))

    seconds = sum(block.shape[1] for block in decode_channels(reader)) / SAMPLE_RATE

    assert seconds == pytest.approx(160, abs=0.1)
    assert reader.fetched_bytes < 1.5 * len(recording)


def test_a_tag_between_joined_files_is_stepped_over() -> None:
    tag = b"ID3\3\0\0\0\0\0\x0aTIT2abcdef"

    samples, warnings = heard(riff(sine(LOW)) + tag + riff(sine(HIGH)))

    assert pitch(samples, 2.2, 3.8) == pytest.approx(HIGH, abs=5)
    assert warnings == []


def test_a_joined_file_that_cannot_be_decoded_is_warned_of_with_its_time(convert: Convert) -> None:
    damaged = convert(wav(sine(HIGH)), "m4a")[:400]

    samples, (warning,) = heard(convert(wav(sine(LOW)), "m4a") + damaged)

    assert len(samples) / SAMPLE_RATE == pytest.approx(2, abs=0.1)
    assert warning.startswith("after 2.0 s another file follows in the recording, which was left out: ")


def test_behind_a_joined_file_without_sound_the_next_one_is_heard() -> None:
    empty = riff(np.zeros(0))

    samples, warnings = heard(riff(sine(LOW)) + empty + riff(sine(HIGH)))

    assert pitch(samples, 2.2, 3.8) == pytest.approx(HIGH, abs=5)
    assert warnings == [
        "after 2.0 s another file follows in the recording, which was left out: nothing of it can be decoded"
    ]


def test_a_second_file_that_breaks_off_says_so_with_the_time_of_the_whole() -> None:
    _, (warning,) = heard(riff(sine(LOW)) + riff(sine(HIGH))[: -2 * SAMPLE_RATE])

    assert warning == "the recording breaks off after 3.0 s, its header says 4.0 s"


def test_the_limit_counts_all_of_the_files() -> None:
    with pytest.raises(Exception, match=r"the recording lasts at least 3\.\d s, the limit is 3 s"):
        heard(riff(sine(LOW)) * 3, DecodeOptions(max_seconds=3))


def test_what_follows_a_recording_and_is_no_file_is_no_part_of_it(convert: Convert) -> None:
    tagged = riff(tone(2.0)) + b"TAG" + bytes(125)

    samples, warnings = heard(tagged)

    assert len(samples) == 2 * SAMPLE_RATE
    assert warnings == []
