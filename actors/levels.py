"""Whether the loudest parts of a recording gave text: a job that understood nothing of them should say so."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec
import numpy as np

from actors.audio.decode import SAMPLE_RATE
from storage.errors import ObjectMissing
from storage.keys import levels_key
from storage.object_store import ObjectStore
from storage.structs import decode
from storage.transcript import Segment

#: Below this a second holds no sound, in decibels of full scale (RMS).
_SOUND = -50.0

#: Seconds that are at most this much quieter than the loudest one are the recording's loudest part, in decibels.
_RANGE = 8.0

#: Of the loudest part so many seconds, and this share, must be without text before that is worth a warning.
_SECONDS, _SHARE = 5, 0.5

#: Stretches of it that are at most so far apart are reported as one, in seconds.
_APART = 3


class Levels:
    """The level of each second of a recording, measured while it is read: 14 400 numbers for four hours."""

    def __init__(self, decibels: Sequence[float] = ()) -> None:
        #: RMS of full scale, a second each; the last one may be shorter.
        self.decibels = list(decibels)
        self._rest = np.zeros(0, np.float32)

    def add(self, block: np.ndarray) -> None:
        """Measure the next samples, float32 in [-1, 1] at 16 kHz, shape (channels, samples). The loudest one counts."""
        energy = np.concatenate([self._rest, np.square(block).max(axis=0)])
        whole = len(energy) // SAMPLE_RATE * SAMPLE_RATE
        self._rest = energy[whole:]
        self._measure(energy[:whole].reshape(-1, SAMPLE_RATE))

    def finish(self) -> None:
        """The recording is over. A last half second counts as one."""
        if len(self._rest) >= SAMPLE_RATE / 2:
            self._measure(self._rest[None])
        self._rest = self._rest[:0]

    def _measure(self, seconds: np.ndarray) -> None:
        self.decibels += (10 * np.log10(seconds.mean(axis=1) + 1e-10)).round(1).tolist()

    def warnings(self, segments: Iterable[Segment]) -> list[str]:
        """A sentence if most of the loudest part gave no text, or if nothing did although there is sound."""
        silent = _without_text(len(self.decibels), segments)
        levels = np.array(self.decibels)
        loud = np.flatnonzero(levels >= max(_SOUND, levels.max(initial=_SOUND) - _RANGE))
        unwritten = loud[silent[loud]]
        enough = 1 if silent.all() else _SECONDS
        if len(unwritten) < enough or len(unwritten) < _SHARE * len(loud):
            return []
        start, end = max(_stretches(unwritten), key=lambda stretch: stretch[1] - stretch[0])
        stretch = f"from {_clock(start)} to {_clock(end)}"
        return [f"the loudest part of the recording, {stretch}, gave no text: it is music or noise, or not understood"]


def store_levels(job_id: str, levels: Levels, objects: ObjectStore) -> None:
    """Keep it with the chunks until they are assembled."""
    objects.put(levels_key(job_id), msgspec.json.encode(levels.decibels), "application/json")


def stored_levels(job_id: str, objects: ObjectStore) -> Levels:
    """What was kept; of nothing, if nothing was, as by an earlier version."""
    try:
        return Levels(decode(objects.get(levels_key(job_id)), list[float]))
    except ObjectMissing:
        return Levels()


def _without_text(seconds: int, segments: Iterable[Segment]) -> np.ndarray:
    silent = np.ones(seconds, bool)
    for segment in segments:
        silent[int(segment.start) : int(np.ceil(segment.end))] = False
    return silent


def _stretches(seconds: np.ndarray) -> list[tuple[int, int]]:
    """Neighbouring seconds as (first, last + 1)."""
    breaks = [0, *(at + 1 for at, (a, b) in enumerate(pairwise(seconds)) if b - a > _APART), len(seconds)]
    return [(int(seconds[a]), int(seconds[b - 1]) + 1) for a, b in pairwise(breaks)]


def _clock(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
