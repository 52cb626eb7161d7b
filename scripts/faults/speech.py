"""Known recordings: the tests' English speech in several lengths; nothing is said twice within a chunk."""

import random
from pathlib import Path

import msgspec
import numpy as np

from actors.audio.decode import SAMPLE_RATE, decode
from deploy.environment import ROOT
from scripts.benchmarks.recordings import wheel_clips
from tests.recordings import wav

_SAMPLE = ROOT / "deploy/sample/sample.mp3"
_GAP_SECONDS = 1.0


class Known(msgspec.Struct, frozen=True):
    """A recording and what is asked of it. The same name: the same transcript."""

    name: str
    #: How often it is drawn, beside the others.
    weight: int
    content: bytes
    filename: str
    seconds: float
    #: Fields of the form, members of the JSON.
    options: dict[str, str]


def known_recordings(long_seconds: float) -> list[Known]:
    """`long_seconds`: of the longest; the others have fixed lengths, 3 s to a minute."""
    sample = _SAMPLE.read_bytes()
    return [
        _known("greeting", 5, _speech(3, 1)),
        Known("sample", 5, sample, _SAMPLE.name, len(_decoded(_SAMPLE)) / SAMPLE_RATE, {}),
        _known("short", 5, _speech(15, 2)),
        _known("words", 2, _speech(40, 3), timestamp_granularity="word"),
        _known("talk", 3, _speech(60, 4)),
        _known("call", 2, _two_channels(_speech(30, 5), _speech(30, 6)), channels="separate"),
        _known("lecture", 2, _speech(long_seconds * 0.7, 7)),
        _known("meeting", 1, _speech(long_seconds, 8)),
    ]


def _known(name: str, weight: int, samples: np.ndarray, **options: str) -> Known:
    return Known(name, weight, wav(samples), f"{name}.wav", samples.shape[-1] / SAMPLE_RATE, options)


def _speech(seconds: float, seed: int) -> np.ndarray:
    """Every clip in turn with gaps, in an order of its own.

    Repeated sooner, Whisper would take the speech for a loop of its own making and decode it again by chance; so its
    text would be another in every run.
    """
    clips = [_decoded(_SAMPLE), *(clip.samples for clip in wheel_clips("en"))]
    order = random.Random(seed).sample(clips, len(clips))
    gap = np.zeros(round(_GAP_SECONDS * SAMPLE_RATE), np.float32)
    pieces = [gap]
    while sum(map(len, pieces)) < seconds * SAMPLE_RATE:
        pieces += [order[(len(pieces) // 2) % len(order)], gap]
    return np.concatenate(pieces)


def _two_channels(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    length = min(len(left), len(right))
    return np.stack([left[:length], right[:length]])


def _decoded(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return np.concatenate(list(decode(file, None)))
