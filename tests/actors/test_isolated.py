"""Recordings decoded in processes of their own: what comes out, what is refused, and what is left when one dies."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import psutil
import pytest

from actors.audio.decode import SAMPLE_RATE, DecodeOptions, decode_channels
from actors.audio.isolated import IsolatedDecoder
from actors.errors import AudioTooLong, AudioUnreadable, DecoderUnavailable
from storage.errors import JobFenced, StoreUnavailable
from tests.actors.conftest import Convert
from tests.hostile import flac_of_long_frames, mp4_of_many_tracks, wav_header, with_cover
from tests.processes import ROOT
from tests.recordings import tone, wav
from tests.storage.test_job_store import wait_until

MIB = 2**20


@pytest.fixture(scope="module")
def decoder() -> Iterator[IsolatedDecoder]:
    decoder = IsolatedDecoder(memory_bytes=256 * MIB, seconds=60)
    decoder.start()
    yield decoder
    decoder.close()


@pytest.fixture
def minutes() -> bytes:
    """Longer than what a socket holds."""
    return wav(tone(240))


def decoded(decoder: IsolatedDecoder, recording: bytes, **options: Any) -> np.ndarray:
    wanted = DecodeOptions(max_seconds=14_400, max_channels=32, **options)
    return np.concatenate(list(decoder.decode_channels(io.BytesIO(recording), wanted)), axis=1)


def reason(decoder: IsolatedDecoder, recording: bytes) -> str:
    with pytest.raises(AudioUnreadable) as caught:
        decoded(decoder, recording)
    return str(caught.value)


def _is_decoding_process(child: psutil.Process) -> bool:
    # Other tests of this run may have left a child that nobody has waited for.
    return child.status() != psutil.STATUS_ZOMBIE and "actors.audio.decoding_process" in child.cmdline()


def decoding() -> list[psutil.Process]:
    """The processes that decode a recording, of all decoders of this process."""
    forking = [child for child in psutil.Process().children() if _is_decoding_process(child)]
    return [child for process in forking for child in process.children()]


@pytest.mark.parametrize(("ending", "separate"), [("wav", True), ("mp3", False), ("m4a", True), ("ogg", False)])
def test_the_samples_and_warnings_are_those_of_the_same_process(
    decoder: IsolatedDecoder, spoken: bytes, convert: Convert, ending: str, separate: bool
) -> None:
    whole = convert(spoken, ending, *(("-c:a", "aac") if ending == "m4a" else ()), "-ac", "2")
    recording = whole[: len(whole) * 2 // 3] if ending == "wav" else whole
    options = DecodeOptions(separate=separate)
    here: list[str] = []
    there: list[str] = []

    expected = np.concatenate(list(decode_channels(io.BytesIO(recording), options, here)), axis=1)
    found = np.concatenate(list(decoder.decode_channels(io.BytesIO(recording), options, there)), axis=1)

    assert np.array_equal(found, expected)
    assert there == here


@pytest.mark.parametrize(
    ("ending", "subtitles", "more"),
    [
        ("mkv", "srt", ["-metadata:s:2", "language=eng", "-attach", "{folder}/s.srt", "-metadata:s:3", "mimetype=a/b"]),
        ("mkv", "ass", []),
        ("webm", "webvtt", ["-c:a", "libopus", "-c:v", "libvpx"]),
        ("mp4", "mov_text", ["-c:a", "aac"]),
        ("mov", "mov_text", ["-timecode", "00:00:00:00"]),
    ],
)
def test_a_films_pictures_subtitles_and_attachments_disturb_nothing(
    decoder: IsolatedDecoder, spoken: bytes, tmp_path: Path, ending: str, subtitles: str, more: list[str]
) -> None:
    (tmp_path / "sound.wav").write_bytes(spoken)
    (tmp_path / "s.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n\n")
    film = tmp_path / f"film.{ending}"
    inputs = ["-i", f"{tmp_path}/sound.wav", "-f", "lavfi", "-i", "color=red:s=64x64:d=1", "-i", f"{tmp_path}/s.srt"]
    maps = [part for number in range(3) for part in ("-map", str(number))]
    told = [part.format(folder=tmp_path) for part in more]
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *inputs, *maps, "-c:s", subtitles, *told, str(film)]
    subprocess.run(ffmpeg, check=True)

    found = decoded(decoder, film.read_bytes())

    assert np.array_equal(found, np.concatenate(list(decode_channels(io.BytesIO(film.read_bytes()))), axis=1))


@pytest.mark.parametrize("text", ["1\n00:00:00,000 --> 00:00:01,000\nhello\n\n" * 9, "[Script Info]\n\n"])
def test_subtitles_alone_are_no_recording(decoder: IsolatedDecoder, text: str) -> None:
    assert reason(decoder, text.encode()) == "the file has no audio stream: it holds subtitle"


def test_blocks_come_while_the_recording_is_read(decoder: IsolatedDecoder, minutes: bytes) -> None:
    source = io.BytesIO(minutes)

    with closing(decoder.decode_channels(source)) as blocks:
        first = next(blocks)
        read = source.tell()

    assert first.shape == (1, 30 * SAMPLE_RATE)
    assert read < len(minutes) / 2


@pytest.mark.parametrize(
    ("recording", "sentence"),
    [
        (flac_of_long_frames(4), "the recording has 4 samples a second, the limits are 1000 and 768000"),
        (flac_of_long_frames(1000), "one frame of the recording lasts 65.5 s, the limit is 60 s"),
        (wav_header(250_000_000), "the recording has 250000000 samples a second, the limits are 1000 and 768000"),
        (wav_header(999), "the recording has 999 samples a second, the limits are 1000 and 768000"),
        (wav_header(16_000, channels=65_535), "the recording has 65535 channels, the limit is 32"),
        (wav_header(16_000, channels=33), "the recording has 33 channels, the limit is 32"),
        (mp4_of_many_tracks(300, samples=1), "the file has 300 streams, the limit is 256"),
        (mp4_of_many_tracks(), "decoding the recording takes more memory than the limit of 256 MiB"),
    ],
    ids=[
        "frames of hours",
        "frames of a minute",
        "250 MHz",
        "999 Hz",
        "all channels",
        "33 channels",
        "300 tracks",
        "900 long tracks",
    ],
)
def test_a_few_bytes_that_claim_too_much_are_refused_with_the_limit(
    decoder: IsolatedDecoder, recording: bytes, sentence: str
) -> None:
    assert reason(decoder, recording) == sentence
    assert decoding() == []


@pytest.mark.parametrize("sample_rate", [1000, 768_000])
def test_the_rates_at_the_limits_are_decoded(decoder: IsolatedDecoder, sample_rate: int) -> None:
    found = decoded(decoder, wav_header(sample_rate, samples=sample_rate))

    assert found.shape[1] == pytest.approx(SAMPLE_RATE, abs=50)


def test_a_cover_larger_than_the_memory_is_skipped(decoder: IsolatedDecoder, spoken: bytes, convert: Convert) -> None:
    mp3 = convert(spoken, "mp3", "-id3v2_version", "0")

    found = decoded(decoder, with_cover(mp3, 200 * MIB))

    assert np.array_equal(found, decoded(decoder, mp3))


def test_a_recording_that_takes_too_long_is_given_up() -> None:
    with closing(IsolatedDecoder(memory_bytes=4096 * MIB, seconds=0.2)) as impatient:
        assert "s of sound, the limit is 0.2 s more than it lasts" in reason(impatient, mp4_of_many_tracks(40))
        assert decoding() == []


def test_a_recording_that_crashes_its_decoder_is_unreadable_and_no_other(
    decoder: IsolatedDecoder, minutes: bytes
) -> None:
    bystander = decoder.decode_channels(io.BytesIO(minutes))
    heard = [next(bystander)]
    (beside,) = decoding()
    crashing = decoder.decode_channels(io.BytesIO(minutes))
    next(crashing)
    (crashed,) = set(decoding()) - {beside}

    crashed.send_signal(signal.SIGSEGV)
    with pytest.raises(AudioUnreadable, match="it ends the decoder with SIGSEGV"):
        list(crashing)
    heard += bystander

    assert np.array_equal(np.concatenate(heard, axis=1), decoded(decoder, minutes))


@pytest.mark.parametrize("whole_family", [False, True], ids=["the decoder", "the process that forks them too"])
def test_a_decoder_that_somebody_kills_begins_again_where_it_was(
    decoder: IsolatedDecoder, minutes: bytes, whole_family: bool
) -> None:
    blocks = decoder.decode_channels(io.BytesIO(minutes))
    heard = [next(blocks), next(blocks)]
    (killed,) = decoding()

    (killed.parent() if whole_family else killed).kill()  # type: ignore[union-attr]
    heard += blocks

    assert np.array_equal(np.concatenate(heard, axis=1), decoded(decoder, minutes))


def test_every_recording_outlives_the_process_that_forks(decoder: IsolatedDecoder, minutes: bytes) -> None:
    several = [decoder.decode_channels(io.BytesIO(minutes)) for _ in range(3)]
    heard = [[next(blocks)] for blocks in several]

    decoding()[0].parent().kill()  # type: ignore[union-attr]
    for blocks, so_far in zip(several, heard, strict=True):
        so_far.append(next(blocks))
    for blocks, so_far in zip(several, heard, strict=True):
        so_far += blocks

    expected = decoded(decoder, minutes)
    assert all(np.array_equal(np.concatenate(so_far, axis=1), expected) for so_far in heard)


def test_kills_between_which_it_goes_forward_are_no_fault_of_the_recording(
    decoder: IsolatedDecoder, minutes: bytes
) -> None:
    blocks = decoder.decode_channels(io.BytesIO(minutes))
    heard = []
    for _ in range(4):
        heard.append(next(blocks))
        decoding()[0].kill()
    heard += blocks

    assert np.array_equal(np.concatenate(heard, axis=1), decoded(decoder, minutes))


def test_a_recording_whose_decoder_is_killed_again_at_the_same_place_is_unreadable(
    decoder: IsolatedDecoder, minutes: bytes
) -> None:
    def kill() -> None:
        for process in decoding():
            process.kill()

    with pytest.raises(AudioUnreadable, match="its decoder was killed 2 times"):
        list(decoder.decode_channels(io.BytesIO(minutes), check=kill))
    assert decoding() == []


def test_what_the_source_raises_is_raised(decoder: IsolatedDecoder, minutes: bytes) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > len(minutes) // 2:
                raise StoreUnavailable("the store is away")
            return super().read(size)

    with pytest.raises(StoreUnavailable, match="the store is away"):
        list(decoder.decode_channels(Failing(minutes)))
    assert decoding() == []


def test_the_limit_of_the_length_is_the_same(decoder: IsolatedDecoder, minutes: bytes) -> None:
    with pytest.raises(AudioTooLong, match="the limit is 60 s"):
        list(decoder.decode_channels(io.BytesIO(minutes), DecodeOptions(max_seconds=60)))


def test_a_job_that_is_lost_ends_its_decoder_while_it_works() -> None:
    def lost() -> None:
        if decoding():
            raise JobFenced("cancelled")

    with closing(IsolatedDecoder(memory_bytes=4096 * MIB, seconds=600)) as patient:
        with pytest.raises(JobFenced):
            list(patient.decode_channels(io.BytesIO(mp4_of_many_tracks(40)), check=lost))
        assert decoding() == []


def test_a_decoder_has_no_rights_but_to_decode(
    decoder: IsolatedDecoder, minutes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_SECRET_KEY", "secret")

    with closing(IsolatedDecoder(memory_bytes=256 * MIB, seconds=60)) as fresh:
        blocks = fresh.decode_channels(io.BytesIO(minutes))
        next(blocks)
        (process,) = decoding()
        environment, files, connections = process.environ(), process.num_fds(), process.net_connections()
        limits = {name: process.rlimit(getattr(psutil, name))[1] for name in ("RLIMIT_FSIZE", "RLIMIT_NOFILE")}
        blocks.close()

    assert "S3_SECRET_KEY" not in environment
    # Its socket and the standard streams; nothing more can be opened.
    assert (files, connections) == (4, [])
    assert limits == {"RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 4}


def test_no_decoder_outlives_its_worker() -> None:
    program = """
import io, sys
from actors.audio.isolated import IsolatedDecoder
from tests.recordings import tone, wav
blocks = IsolatedDecoder(2**28, 60).decode_channels(io.BytesIO(wav(tone(240))))
next(blocks)
print("decoding", flush=True)
sys.stdin.read()
"""
    worker = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "decoding\n"
    family = psutil.Process(worker.pid).children(recursive=True)

    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()

    assert len(family) == 2
    wait_until(lambda: not any(process.is_running() and process.status() != "zombie" for process in family))


def test_a_decoder_that_cannot_decode_says_so_at_the_start() -> None:
    # Less than the second of silence that it decodes takes as samples.
    with (
        closing(IsolatedDecoder(memory_bytes=16 * 1024, seconds=60)) as starved,
        pytest.raises(DecoderUnavailable, match="recordings cannot be decoded"),
    ):
        starved.start()
