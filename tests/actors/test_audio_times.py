"""A recording's own clock, and its length: what a player shows is what a transcript says."""

import io
import struct

import numpy as np
import pytest

from actors.audio.decode import SAMPLE_RATE, DecodeOptions, decode, decode_channels
from actors.errors import AudioTooLong
from storage.range_reader import RangeReader
from tests.actors.conftest import PICTURE, Convert
from tests.recordings import tone, wav

#: Seconds in a day.
DAY = 24 * 3600

#: What ffmpeg is told for a container: with a picture, for what comes late is late beside something.
KEPT_TIMES: dict[str, tuple[str, ...]] = {
    "mkv": ("-c:v", "mpeg4", "-c:a", "aac"),
    "webm": ("-c:v", "libvpx", "-c:a", "libopus"),
    "mp4": ("-c:v", "mpeg4", "-c:a", "aac"),
    "flv": ("-c:v", "flv", "-c:a", "aac"),
    "ts": ("-c:v", "mpeg2video", "-r", "25", "-c:a", "mp2"),
}


def heard(recording: bytes, max_seconds: float | None = None) -> tuple[np.ndarray, list[str]]:
    """Samples and warnings."""
    warnings: list[str] = []
    blocks = list(decode_channels(io.BytesIO(recording), DecodeOptions(max_seconds=max_seconds), warnings))
    return np.concatenate(blocks, axis=1)[0], warnings


def sounding(samples: np.ndarray) -> list[tuple[float, float]]:
    """The stretches that are not silent, in seconds, to a hundredth."""
    size = SAMPLE_RATE // 100
    loud = np.abs(samples[: len(samples) // size * size].reshape(-1, size)).max(axis=1) > 0.03
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]])))
    return [(start / 100, end / 100) for start, end in edges.reshape(-1, 2).tolist()]


def shifted(seconds: float, since: float) -> tuple[str, ...]:
    """ffmpeg's options for sound that comes so much later than it should, from a time on."""
    return ("-bsf:a", f"setts=ts=TS+gte(TS*TB\\,{since})*{seconds}/TB")


@pytest.mark.parametrize("ending", KEPT_TIMES)
def test_a_gap_in_the_times_of_a_container_is_silence(ending: str, convert: Convert) -> None:
    recording = convert(wav(tone(5.0)), ending, *PICTURE, *KEPT_TIMES[ending], *shifted(7.3, since=2.0))

    samples, warnings = heard(recording)

    (first, second) = sounding(samples)
    # The packet that is late is the first one after 2 s, and FLV does not say what an encoder adds.
    assert first == pytest.approx((0, 2.0), abs=0.13)
    assert second == pytest.approx((9.3, 12.3), abs=0.13)
    assert warnings == []


@pytest.mark.parametrize("ending", KEPT_TIMES)
def test_sound_that_begins_after_the_picture_keeps_its_time(ending: str, convert: Convert) -> None:
    recording = convert(wav(tone(3.0)), ending, *PICTURE, *KEPT_TIMES[ending], *shifted(2.3, since=-1.0))

    samples, _ = heard(recording)

    (only,) = sounding(samples)
    assert only == pytest.approx((2.3, 5.3), abs=0.1)


def test_packets_that_a_silent_speaker_did_not_send_do_not_add_up(convert: Convert) -> None:
    # Calls send nothing while nobody speaks: here 0.06 s are missing after every 0.5 s.
    steps = "setts=ts=TS+floor(TS*TB/0.5)*0.06/TB"
    recording = convert(wav(tone(20.0)), "webm", "-c:a", "libopus", "-bsf:a", steps)

    samples, _ = heard(recording)

    assert len(samples) / SAMPLE_RATE == pytest.approx(20 + 39 * 0.06, abs=0.11)


def test_a_gap_is_silent_in_every_channel(convert: Convert) -> None:
    stereo = wav(np.stack([tone(3.0), tone(3.0)]))
    recording = convert(stereo, "mkv", "-c:a", "pcm_s16le", *shifted(40.0, since=1.0))

    blocks = np.concatenate(list(decode_channels(io.BytesIO(recording), DecodeOptions(separate=True))), axis=1)

    assert blocks.shape == (2, 43 * SAMPLE_RATE)
    assert [len(sounding(channel)) for channel in blocks] == [2, 2]


def test_a_clock_that_jumps_by_hours_is_not_followed_and_warned_of(convert: Convert) -> None:
    recording = convert(wav(tone(5.0)), "mkv", "-c:a", "pcm_s16le", *shifted(6 * 3600, since=2.0))

    samples, warnings = heard(recording, max_seconds=4 * 3600)

    assert len(samples) / SAMPLE_RATE == pytest.approx(5.0, abs=0.01)
    (warning,) = warnings
    assert "clock jumps 1 times, first after 2.0 s" in warning


@pytest.mark.parametrize("second_begins", [0.0, 5000.0])
def test_a_broadcast_whose_clock_begins_anew_goes_on_without_a_gap(second_begins: float, convert: Convert) -> None:
    first, second = (
        convert(wav(tone(seconds)), "ts", "-c:a", "mp2", "-output_ts_offset", str(begins))
        for seconds, begins in ((4.0, 900.0), (2.0, second_begins))
    )

    samples, warnings = heard(first + second)

    assert len(samples) / SAMPLE_RATE == pytest.approx(6.0, abs=0.2)
    assert "clock jumps 1 times" in warnings[0]


@pytest.mark.parametrize(("ending", "options"), [("aac", ()), ("mp3", ()), ("ts", ("-c:a", "mp2"))])
def test_joined_files_of_different_rates_are_heard_to_the_end(
    ending: str, options: tuple[str, ...], convert: Convert
) -> None:
    slow, fast = (convert(wav(tone(3.0)), ending, *options, "-ar", rate) for rate in ("22050", "48000"))

    samples, _ = heard(slow + fast)

    assert len(samples) / SAMPLE_RATE == pytest.approx(6.0, abs=0.2)
    pitch = np.argmax(np.abs(np.fft.rfft(samples[-2 * SAMPLE_RATE : -SAMPLE_RATE // 2]))) / 1.5
    assert pitch == pytest.approx(440, abs=2)


@pytest.mark.parametrize("ending", ["wav", "mp3", "m4a", "webm", "flac"])
def test_a_tenth_of_a_second_is_a_recording(ending: str, convert: Convert) -> None:
    samples, warnings = heard(convert(wav(tone(0.1)), ending))

    assert 0.09 < len(samples) / SAMPLE_RATE < 0.2
    assert warnings == []


def test_a_length_that_is_only_guessed_is_not_believed(convert: Convert) -> None:
    # FFmpeg takes the rate of the silence for that of the whole: it says that this lasts half an hour.
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, 30 * SAMPLE_RATE)
    recording = convert(wav(np.concatenate([np.zeros(30 * SAMPLE_RATE), noise])), "aac", "-b:a", "128k")

    samples, warnings = heard(recording, max_seconds=120)

    assert len(samples) / SAMPLE_RATE == pytest.approx(60, abs=0.2)
    assert warnings == []


@pytest.mark.parametrize("ending", ["webm", "mka", "mp3", "flac"])
def test_a_recording_that_breaks_off_says_where(ending: str, convert: Convert) -> None:
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, 20 * SAMPLE_RATE)
    recording = convert(wav(noise), ending)

    samples, (*_, warning) = heard(recording[: len(recording) // 2])

    assert len(samples) / SAMPLE_RATE == pytest.approx(10, abs=1.5)
    assert "the recording breaks off after" in warning
    assert "its header says 20.0 s" in warning


def test_a_film_that_breaks_off_says_where(convert: Convert) -> None:
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, 20 * SAMPLE_RATE)
    picture = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=20", "-map", "1:v", "-map", "0:a")
    film = convert(wav(noise), "mkv", *picture)

    assert heard(film)[1] == []
    samples, (*_, warning) = heard(film[: len(film) // 2])

    assert len(samples) / SAMPLE_RATE == pytest.approx(10, abs=2)
    assert "the recording breaks off after" in warning
    assert "its header says 20.0 s" in warning


def refused(recording: RangeReader) -> str:
    with pytest.raises(AudioTooLong) as caught:
        list(decode(recording, 4 * 3600))
    return str(caught.value)


def test_a_day_of_wav_is_refused_before_it_is_read() -> None:
    size = DAY * 8000
    kind = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    header = struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + kind + struct.pack("<4sI", b"data", size)
    reader = RangeReader(lambda begin, end: header[begin:end] + b"\x80" * (end - max(begin, 44)), 44 + size)

    assert refused(reader) == "the recording lasts 86400 s, the limit is 14400 s"
    assert reader.fetched_bytes < 2**20


def test_a_day_of_mp3_without_a_header_is_refused_before_it_is_decoded(convert: Convert) -> None:
    minute = convert(wav(tone(60)), "mp3", "-ar", "8000", "-b:a", "8k", "-write_xing", "0", "-id3v2_version", "0")
    day = minute * (24 * 60)
    reader = RangeReader(lambda begin, end: day[begin:end], len(day))

    assert refused(reader).endswith("s, the limit is 14400 s")
    assert reader.fetched_bytes < 0.2 * len(day)


@pytest.mark.parametrize("ending", ["flac", "mkv", "mp4", "ogg"])
def test_a_day_that_takes_few_bytes_is_refused_before_it_is_decoded(ending: str, convert: Convert) -> None:
    silence = ("-f", "lavfi", "-i", "anullsrc=r=1000:cl=mono:nb_samples=4096", "-map", "1", "-t", str(DAY))
    day = convert(wav(tone(0.1)), ending, *silence, "-c:a", "flac", "-strict", "-2")

    # Where a recording is decoded first, it lasts "at least" so long.
    assert refused(RangeReader(lambda begin, end: day[begin:end], len(day))).startswith("the recording lasts 86400 s")
