"""How loud a recording is, and how much a quiet one is raised before speech is looked for in it.

Whisper does not mind the level, but voice activity does, and so do the measures of loudness between the two.
"""

import numpy as np

from actors.audio.samples import SAMPLE_RATE

#: Samples of a frame, and how many frames in a stretch may be louder than what counts as its level: a bang is no voice.
_FRAME, _LOUDER = 512, 15

#: Levels (RMS of a frame) in decibels: below the first a recording is quiet, the second is an ordinary voice, and what
#: lies below the third is no recording any more. Silero hears less and less from -45 dB on, and nothing at -80 dB.
_QUIET, _ORDINARY, _SILENT = -40.0, -25.0, -110.0

#: What was loud is forgotten by so many decibels a second: someone else may speak further away.
_FORGET = 0.1


class Loudness:
    """The level of a recording so far, block by block."""

    def __init__(self) -> None:
        self._level = -np.inf

    def raise_quiet(self, samples: np.ndarray) -> np.ndarray:
        """The next samples, at the level of an ordinary voice if the recording is quiet, else as they are.

        Args:
            samples: float32 in [-1, 1] at 16 kHz, shape (samples,).
        """
        earlier = self._level - _FORGET * len(samples) / SAMPLE_RATE
        self._level = max(earlier, _level(samples))
        if not _SILENT < self._level < _QUIET:
            return samples
        return np.clip(samples * np.float32(10 ** ((_ORDINARY - self._level) / 20)), -1, 1)


def raise_quiet(samples: np.ndarray) -> np.ndarray:
    """A recording, or a chunk of one, that is in memory."""
    return Loudness().raise_quiet(samples)


def _level(samples: np.ndarray) -> float:
    """Decibels that half a second of these samples have, or more."""
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    if not len(frames):
        return -np.inf
    power = np.square(frames).mean(axis=1)
    place = max(len(power) - 1 - _LOUDER, 0)
    return float(10 * np.log10(np.partition(power, place)[place] + 1e-20))
