"""Recordings as people have them, and what is wrong with those that cannot be read."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from actors.audio.decode import BLOCK_SECONDS, SAMPLE_RATE, DecodeOptions, decode, decode_channels
from actors.audio.flac import encode_flac
from actors.errors import AudioTooLong, AudioUnreadable
from storage.errors import StoreUnavailable
from tests.actors.conftest import PICTURE, Convert
from tests.recordings import riff, tone, wav, wav_of_blocks

#: File ending → ffmpeg's options.
CONTAINERS: dict[str, tuple[str, ...]] = {
    "mp3": (),
    "wav": ("-c:a", "pcm_s16le"),
    "ogg": ("-c:a", "libvorbis"),
    "flac": (),
    "m4a": ("-c:a", "aac"),
    "aac": ("-c:a", "aac"),
    "wma": (),
    "mp4": (*PICTURE, "-c:v", "mpeg4", "-c:a", "aac"),
    "webm": (*PICTURE, "-c:v", "libvpx", "-c:a", "libopus"),
    "avi": (*PICTURE, "-c:v", "mpeg4"),
    "mov": (*PICTURE, "-c:v", "mpeg4", "-c:a", "aac"),
    "mkv": (*PICTURE, "-c:v", "mpeg4", "-c:a", "libvorbis"),
    "flv": (*PICTURE, "-c:v", "flv", "-c:a", "aac"),
    "amr": ("-ar", "8000", "-ac", "1", "-c:a", "libopencore_amrnb"),
    "opus": ("-c:a", "libopus"),
    "aiff": (),
    "ts": ("-c:a", "mp2"),
}


def samples_of(recording: bytes, max_seconds: float | None = None) -> np.ndarray:
    return np.concatenate(list(decode(io.BytesIO(recording), max_seconds)))


def reason(recording: bytes) -> str:
    with pytest.raises(AudioUnreadable) as caught:
        samples_of(recording)
    return str(caught.value)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The greatest correlation of two sounds over all shifts, 1.0 for the same sound."""
    size = 2 * max(len(one), len(other))
    products = np.fft.irfft(np.fft.rfft(one, size) * np.fft.rfft(other, size).conj())
    return float(products.max() / np.sqrt((one**2).sum() * (other**2).sum()))


@pytest.mark.parametrize("ending", CONTAINERS)
def test_every_container_gives_the_sound_that_went_in(ending: str, spoken: bytes, convert: Convert) -> None:
    recording = convert(spoken, ending, *CONTAINERS[ending])

    heard = samples_of(recording)

    original = samples_of(spoken)
    assert heard.dtype == np.float32
    assert abs(len(heard) - len(original)) < 0.2 * SAMPLE_RATE
    # AMR is telephone sound: half of the band is gone.
    assert likeness(heard, original) > (0.7 if ending == "amr" else 0.95)


@pytest.mark.parametrize("where", ["end", "start"])
def test_an_mp4_is_read_wherever_its_index_is(where: str, spoken: bytes, convert: Convert) -> None:
    faststart = ("-movflags", "+faststart") if where == "start" else ()
    recording = convert(spoken, "mp4", *CONTAINERS["mp4"], *faststart)

    heard = samples_of(recording)

    assert (recording.index(b"moov") < recording.index(b"mdat")) == (where == "start")
    assert likeness(heard, samples_of(spoken)) > 0.95


@pytest.mark.parametrize(
    ("rate", "channels"), [(8000, 1), (11025, 2), (22050, 1), (44100, 2), (48000, 6), (96000, 8), (48000, 3)]
)
def test_every_rate_and_number_of_channels_is_mixed_to_16_khz_mono(
    rate: int, channels: int, spoken: bytes, convert: Convert
) -> None:
    recording = convert(spoken, "wav", "-ar", str(rate), "-ac", str(channels))

    heard = samples_of(recording)

    assert abs(len(heard) - 2.889 * SAMPLE_RATE) < 0.02 * SAMPLE_RATE
    assert likeness(heard, samples_of(spoken)) > 0.8
    assert np.abs(heard).max() <= 1


def test_a_stream_that_changes_its_rate_on_the_way_is_decoded_to_its_end(spoken: bytes, convert: Convert) -> None:
    slow, fast = (convert(spoken, "mp3", "-ar", rate, "-ac", "1") for rate in ("22050", "44100"))

    heard = samples_of(slow + fast)

    assert abs(len(heard) - 2 * 2.889 * SAMPLE_RATE) < 0.2 * SAMPLE_RATE


def test_blocks_are_thirty_seconds_and_the_last_is_what_is_left() -> None:
    lengths = [len(block) / SAMPLE_RATE for block in decode(io.BytesIO(wav(tone(61.5))))]

    assert lengths == [BLOCK_SECONDS, BLOCK_SECONDS, 1.5]


def test_the_memory_for_decoding_does_not_grow_with_the_length() -> None:
    minute = tone(60)
    recording = io.BytesIO(wav_of_blocks(minute for _ in range(20)))
    tracemalloc.start()

    seconds = sum(len(block) / SAMPLE_RATE for block in decode(recording))

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds == 1200
    assert peak < 8 * 2**20


def test_one_second_of_sound_is_enough() -> None:
    assert len(samples_of(wav(tone(1.0)))) == SAMPLE_RATE


def test_the_samples_are_those_that_were_recorded() -> None:
    recorded = np.array([0.0, 0.5, -0.5, 0.25, -1.0], np.float32)

    assert np.allclose(samples_of(wav(recorded)), recorded, atol=1e-4)


def test_an_empty_file_is_named_as_such() -> None:
    assert reason(b"") == "the file is empty (0 bytes)"


@pytest.mark.parametrize(
    "recording",
    [b"Dear Sir or Madam,\n" * 200, b"\x00" * 50_000, b"{}", b"%PDF-1.7\n" + b"1 0 obj\n" * 500],
    ids=["text", "zeros", "json", "pdf"],
)
def test_what_is_not_audio_or_video_is_named_as_such(recording: bytes) -> None:
    assert reason(recording) == "the file is not audio or video"


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_unreadable(seed: int) -> None:
    assert reason(np.random.default_rng(seed).bytes(300_000))


def test_a_video_without_sound_says_that_the_audio_is_missing(spoken: bytes, convert: Convert) -> None:
    silent = convert(spoken, "mp4", *PICTURE, "-t", "1", "-c:v", "mpeg4", "-an")

    assert reason(silent) == "the file has no audio stream: it holds video"


def test_an_mp4_that_is_cut_off_before_its_index_says_so(spoken: bytes, convert: Convert) -> None:
    recording = convert(spoken, "mp4", *CONTAINERS["mp4"])

    cut = recording[: len(recording) // 2]

    assert reason(cut) == "the file begins as MP4 or MOV but cannot be read: it is damaged or cut off"


def test_a_header_without_sound_says_that_nothing_can_be_decoded() -> None:
    assert reason(wav(tone(1.0))[:44]) == "nothing of the audio stream can be decoded: the file is damaged or cut off"


@pytest.mark.parametrize("ending", ["mp3", "ogg", "flac", "wav", "webm"])
def test_what_is_left_of_a_file_that_is_cut_off_is_decoded(ending: str, spoken: bytes, convert: Convert) -> None:
    # Sound alone: a busy ffmpeg may write all of it before the pictures.
    recording = convert(spoken, ending)

    heard = samples_of(recording[: len(recording) * 6 // 10])

    assert 0.3 * 2.889 < len(heard) / SAMPLE_RATE < 0.9 * 2.889


@pytest.mark.parametrize("ending", ["mp3", "aac", "ogg", "mkv"])
def test_a_damaged_stretch_in_the_middle_does_not_end_the_recording(ending: str, convert: Convert) -> None:
    recording = bytearray(convert(wav(tone(20)), ending, *(o for o in CONTAINERS[ending] if ending != "mkv")))
    middle = len(recording) // 2
    recording[middle : middle + 1500] = np.random.default_rng(1).bytes(1500)

    heard = samples_of(bytes(recording))

    assert len(heard) / SAMPLE_RATE > 15


def test_a_recording_longer_than_the_limit_is_refused_with_both_numbers() -> None:
    with pytest.raises(AudioTooLong) as caught:
        samples_of(wav(tone(61)), max_seconds=60)

    assert str(caught.value) == "the recording lasts 61 s, the limit is 60 s"


def test_a_recording_as_long_as_the_limit_is_decoded() -> None:
    assert len(samples_of(wav(tone(60)), max_seconds=60)) == 60 * SAMPLE_RATE


def test_a_recording_whose_header_says_nothing_is_refused_once_the_limit_is_decoded(convert: Convert) -> None:
    streamed = convert(wav(tone(61)), "webm", "-c:a", "libopus", "-live", "1")

    with pytest.raises(AudioTooLong, match=r"at least 60\.\d s, the limit is 60 s"):
        samples_of(streamed, max_seconds=60)


@pytest.mark.parametrize("limit", [4 * 3600, 3600, None])
def test_a_header_that_claims_three_hours_is_not_believed_over_five_seconds_of_sound(limit: float | None) -> None:
    recording = bytearray(wav(tone(5.0)))
    recording[40:44] = (3 * 3600 * SAMPLE_RATE * 2).to_bytes(4, "little")

    assert len(samples_of(bytes(recording), limit)) == 5 * SAMPLE_RATE


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile secret.wav\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.wav\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    ],
    ids=["concat", "hls", "sdp"],
)
def test_a_file_that_names_another_file_does_not_get_it_opened(
    playlist: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.wav").write_bytes(wav(tone(2.0)))
    monkeypatch.chdir(tmp_path)

    assert reason(playlist.encode()) == "the file is not audio or video"


class Failing(io.BytesIO):
    """A source that raises once it has been read up to a place."""

    def __init__(self, recording: bytes, place: int, error: BaseException) -> None:
        super().__init__(recording)
        self._place = place
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= self._place:
            raise self._error
        return super().read(size)


class TimeLimit(BaseException):
    """As Dramatiq's: not an Exception, so that nobody catches it by accident."""


@pytest.mark.parametrize("place", [0, 4096, 200_000])
@pytest.mark.parametrize(
    "error", [StoreUnavailable("the store does not answer"), OSError("reset"), TimeLimit()], ids=repr
)
def test_an_error_of_the_source_comes_out_as_itself(place: int, error: BaseException) -> None:
    source = Failing(wav(tone(30)), place, error)

    with pytest.raises(type(error)) as caught:
        list(decode(source))

    assert caught.value is error


def test_an_error_of_the_source_comes_out_while_an_mp4_is_opened(spoken: bytes, convert: Convert) -> None:
    recording = convert(spoken, "mp4", *CONTAINERS["mp4"])
    lost = StoreUnavailable("the store does not answer")

    with pytest.raises(StoreUnavailable):
        list(decode(Failing(recording, recording.index(b"moov") - 64, lost)))


def test_a_flac_chunk_comes_back_bit_for_bit(spoken: bytes) -> None:
    samples = samples_of(spoken)

    flac = encode_flac(samples)

    assert np.array_equal(samples_of(flac), samples)
    assert len(flac) < 2 * len(samples)


def test_a_flac_chunk_of_a_quiet_recording_comes_back_bit_for_bit(spoken: bytes) -> None:
    loud = samples_of(spoken)
    samples = samples_of(riff(loud * 0.001, "<i3"))

    flac = encode_flac(np.concatenate([loud, samples]))

    assert np.array_equal(samples_of(flac), np.concatenate([loud, samples]))
    assert np.abs(samples * 1000 - loud).max() < 2e-4


def test_a_quiet_recording_of_24_bits_keeps_what_they_hold() -> None:
    voice = tone(2.0)

    heard = samples_of(riff(voice * 0.001, "<i3"))

    assert np.abs(heard * 1000 - voice).max() < 2e-4


def test_separate_channels_come_apart_and_mixed_ones_together() -> None:
    left, right = np.full(16000, 0.25, np.float32), np.full(16000, -0.125, np.float32)
    recording = wav(np.stack([left, right]))

    apart = np.concatenate(list(decode_channels(io.BytesIO(recording), DecodeOptions(separate=True))), axis=1)
    mixed = np.concatenate(list(decode_channels(io.BytesIO(recording))), axis=1)

    assert apart.shape == (2, 16000)
    assert apart[:, 8000] == pytest.approx([0.25, -0.125], abs=1e-3)
    assert mixed.shape == (1, 16000)
