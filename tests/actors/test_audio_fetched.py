"""How much of an object is fetched to read its sound, and in how many requests, from a real store."""

import secrets

import numpy as np
import pytest

from actors.audio.decode import SAMPLE_RATE, decode
from storage.object_store import ObjectStore
from storage.range_reader import LAST_WINDOW, NEAR
from tests.actors.conftest import Convert
from tests.recordings import wav

#: An MP4 is written with its index at the end, unless it is made of fragments that have one each.
FRAGMENTS = ("-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "1000000")

#: Name → file ending and ffmpeg's options. What is in a container makes no difference; these are quick to decode.
SOUNDS: dict[str, tuple[str, ...]] = {
    "wav": ("wav",),
    "flac": ("flac",),
    "mp3": ("mp3", "-b:a", "320k"),
    "aac": ("aac", "-b:a", "320k"),
    "ogg": ("ogg", "-c:a", "flac"),
    "webm": ("webm", "-b:a", "450k"),
    "mkv": ("mkv", "-c:a", "pcm_s16le"),
    "m4a with its index at the end": ("m4a", "-c:a", "alac"),
    "m4a in fragments": ("m4a", "-c:a", "alac", *FRAGMENTS),
}


def video(width: int) -> tuple[str, ...]:
    """Pictures that are not compressed, in chunks of a second, as cameras write them."""
    source = f"testsrc2=size={width}x{width}:rate=10"
    return ("-f", "lavfi", "-i", source, "-shortest", "-c:v", "rawvideo", "-c:a", "aac", "-chunk_duration", "1000000")


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """10 s of what no codec makes small."""
    return np.random.default_rng(5).uniform(-0.3, 0.3, 10 * SAMPLE_RATE).astype(np.float32)


def fetched(object_store: ObjectStore, recording: bytes) -> tuple[float, int, float]:
    """Bytes fetched over the recording's size, the number of requests, and seconds of sound."""
    key = f"fetched/{secrets.token_hex(4)}"
    object_store.put(key, recording, "application/octet-stream")
    with object_store.open(key) as reader:
        seconds = sum(len(block) for block in decode(reader)) / SAMPLE_RATE
        return reader.fetched_bytes / len(recording), reader.requests, seconds


@pytest.mark.parametrize("name", SOUNDS)
def test_a_recording_is_fetched_once_in_few_requests(
    name: str, noise: np.ndarray, convert: Convert, object_store: ObjectStore
) -> None:
    ending, *options = SOUNDS[name]
    channels = ("-ar", "48000", "-ac", "2")
    minute = convert(wav(noise), ending, *channels, *options)
    again = round(12e6 / len(minute))
    recording = convert(minute, ending, "-c", "copy", *options[2:], before=("-stream_loop", str(again)))

    share, requests, seconds = fetched(object_store, recording)

    assert 10e6 < len(recording) < 20e6
    assert seconds == pytest.approx(10 * (again + 1), rel=0.02)
    assert share <= 1.02
    assert requests <= len(recording) / LAST_WINDOW + 10


@pytest.mark.parametrize(
    ("ending", "width", "most"),
    [
        # 1.5 MB of pictures between two chunks of sound: they are stepped over.
        ("mov", 320, 0.2),
        # 0.2 MB of pictures: stepping over them would take more requests than it saves bytes.
        ("mov", 120, 1.02),
        ("mkv", 320, 1.02),
    ],
)
def test_pictures_are_stepped_over_where_that_saves_requests(
    ending: str, width: int, most: float, noise: np.ndarray, convert: Convert, object_store: ObjectStore
) -> None:
    recording = convert(wav(noise), ending, *video(width))

    share, requests, seconds = fetched(object_store, recording)

    assert seconds == pytest.approx(10, abs=0.1)
    assert share <= most
    assert requests <= len(recording) / NEAR + 10
