"""What every recording is decoded to."""

import numpy as np

#: Samples a second of everything that leaves actors.audio: what Whisper was trained on.
SAMPLE_RATE = 16000

#: Seconds in a block, and samples.
BLOCK_SECONDS = 30
BLOCK = BLOCK_SECONDS * SAMPLE_RATE

#: Where half of the seconds of a block stay below this (-30 dB), it is quiet: of 16 bits, its speech would have few.
_QUIET = 1 / 32


def rounded(block: np.ndarray) -> np.ndarray:
    """Samples of a block, shape (channels, samples), as 16 bits hold them, of a quiet one as 24 do.

    What fits into 24 bits, as a chunk does that was stored as FLAC, stays as it is: such a chunk gives the same text as
    a recording that was not stored, and is small.
    """
    if np.array_equal(np.rint(block * np.float32(2**23)), block * np.float32(2**23)):
        return block
    steps = np.float32(2**23 if _is_quiet(block) else 2**15)
    return np.clip(np.rint(block * steps), -steps, steps - 1) / steps


def _is_quiet(block: np.ndarray) -> bool:
    peaks = [np.abs(block[:, at : at + SAMPLE_RATE]).max() for at in range(0, block.shape[1], SAMPLE_RATE)]
    return float(np.median(peaks)) < _QUIET
