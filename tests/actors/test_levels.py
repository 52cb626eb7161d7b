"""The warning about loud parts without text: what it says, when it is given, and that it is not given for speech."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.audio.decode import SAMPLE_RATE
from actors.levels import Levels
from deploy.embedded.running import Running
from storage.transcript import Segment
from tests.actors.world import APART_SECONDS, World
from tests.conftest import Sample
from tests.recordings import joined, wav

NOTHING_SAID = "the loudest part of the recording, from {} to {}, gave no text: it is music or noise, or not understood"


def sound(*levels: tuple[float, float]) -> np.ndarray:
    """Noise, so many seconds at such an amplitude each; shape (1, samples)."""
    random = np.random.default_rng(3)
    parts = [level * random.standard_normal(round(seconds * SAMPLE_RATE)) for seconds, level in levels]
    return np.concatenate(parts).astype(np.float32)[None]


def measured(samples: np.ndarray, block: int = 30 * SAMPLE_RATE) -> Levels:
    levels = Levels()
    for at in range(0, samples.shape[1], block):
        levels.add(samples[:, at : at + block])
    levels.finish()
    return levels


def said(*times: tuple[float, float]) -> list[Segment]:
    return [Segment(number, start, end, "words", 0.9) for number, (start, end) in enumerate(times)]


@pytest.mark.parametrize(
    ("samples", "segments", "stretch"),
    [
        (sound((12.4, 0.1)), [], ("0:00", "0:12")),
        (sound((2, 0.0001), (3, 0.02)), [], ("0:02", "0:05")),
        (sound((30, 0.3), (10, 0.05)), said((30, 40)), ("0:00", "0:30")),
        (sound((20, 0.05), (3700, 0.1), (20, 0.05)), said((0, 20), (3720, 3740)), ("0:20", "1:02:00")),
    ],
)
def test_the_loudest_part_is_named_where_it_gave_no_text(
    samples: np.ndarray, segments: list[Segment], stretch: tuple[str, str]
) -> None:
    assert measured(samples).warnings(segments) == [NOTHING_SAID.format(*stretch)]


@pytest.mark.parametrize(
    ("samples", "segments"),
    [
        (np.zeros((1, 0), np.float32), []),
        (np.zeros((1, 60 * SAMPLE_RATE), np.float32), []),
        # What a microphone hears in a quiet room.
        (sound((60, 0.001)), []),
        (sound((10, 0.1), (5, 0.001), (20, 0.1)), said((0.3, 9.8), (15.2, 34.7))),
        # A door, a laugh, and music that is quieter than the voice.
        (sound((10, 0.1), (2, 0.8), (20, 0.1)), said((0.3, 9.8), (12.2, 31.7))),
        (sound((40, 0.1), (15, 0.12), (40, 0.1)), said((0.3, 39.8), (55.2, 94.7))),
        (sound((30, 0.03), (10, 0.1)), said((30, 40))),
    ],
)
def test_speech_and_silence_are_nothing_to_warn_of(samples: np.ndarray, segments: list[Segment]) -> None:
    assert measured(samples).warnings(segments) == []


def test_the_loudest_channel_counts() -> None:
    quiet, loud = sound((10, 0.0001)), sound((10, 0.1))

    assert measured(np.concatenate([quiet, loud])).warnings([]) == measured(loud).warnings([]) != []


@settings(max_examples=20, deadline=None)
@given(block=st.integers(100, 40 * SAMPLE_RATE))
def test_the_size_of_the_blocks_makes_no_difference(block: int) -> None:
    samples = sound((3.3, 0.1), (2.2, 0.001), (4.1, 0.3))

    assert measured(samples, block).decibels == pytest.approx(measured(samples).decibels, abs=0.1)


def test_a_job_says_that_noise_gave_no_text(world: World, worker: Running) -> None:
    job = world.finished(world.submit(wav(sound((8, 0.2))[0])))

    assert (job.status, job.warnings) == ("completed", [NOTHING_SAID.format("0:00", "0:08")])


def test_a_job_in_chunks_says_which_part_gave_no_text_though_no_chunk_holds_it(
    world: World, worker: Running, speech: dict[str, list[Sample]]
) -> None:
    spoken = 0.2 * joined(speech["en"], seconds=50, gap_seconds=APART_SECONDS)
    job_id = world.submit(wav(np.concatenate([spoken, sound((60, 0.4))[0], spoken])))

    job = world.finished(job_id)

    assert job.status == "completed", job.error
    start = len(spoken) // SAMPLE_RATE
    minutes, seconds = divmod(start, 60)
    assert len(job.warnings) == 1
    assert f"from {minutes}:{seconds:02}" in job.warnings[0] or f"from {minutes}:{seconds + 1:02}" in job.warnings[0]
    assert world.chunk_objects(job_id) == []


def test_a_job_of_speech_warns_of_nothing(world: World, worker: Running, clip: Sample, long_recording: bytes) -> None:
    jobs = [world.finished(world.submit(recording)) for recording in (clip.path.read_bytes(), long_recording)]

    assert [(job.status, job.warnings) for job in jobs] == [("completed", [])] * 2
