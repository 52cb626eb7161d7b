"""Samples → a FLAC file."""

import io

import av
import numpy as np
from av.audio.frame import AudioFrame

from actors.audio.samples import SAMPLE_RATE

#: Where half of the seconds stay below this (-30 dB), 24 bits a sample are kept: of 16, speech would have few.
_QUIET = 1 / 32


def encode_flac(samples: np.ndarray) -> bytes:
    """A FLAC file of 16 kHz mono, of 16 bits, of a quiet recording of 24.

    Samples of a 16-bit recording at this rate come back from it as they are, bit for bit; others are rounded to these
    bits, by less than a 30 000th of what is loudest.
    """
    file = io.BytesIO()
    deep = _is_quiet(samples)
    # FFmpeg's 24 bits are the upper ones of 32.
    bits, kind, dtype = (24, "s32", np.int32) if deep else (16, "s16", np.int16)
    scale = 1 << (bits - 1)
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format=kind)
        whole = np.clip(np.rint(samples * scale), -scale, scale - 1).astype(dtype) << (8 if deep else 0)
        for at in range(0, len(whole), SAMPLE_RATE):
            frame = AudioFrame.from_ndarray(whole[None, at : at + SAMPLE_RATE], format=kind, layout="mono")
            frame.sample_rate = SAMPLE_RATE
            frame.pts = at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _is_quiet(samples: np.ndarray) -> bool:
    peaks = [np.abs(samples[at : at + SAMPLE_RATE]).max() for at in range(0, len(samples), SAMPLE_RATE)]
    return bool(peaks) and float(np.median(peaks)) < _QUIET
