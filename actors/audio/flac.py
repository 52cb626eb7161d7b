"""Samples → a FLAC file."""

import io

import av
import numpy as np
from av.audio.frame import AudioFrame

from actors.audio.samples import SAMPLE_RATE


def encode_flac(samples: np.ndarray) -> bytes:
    """A FLAC file of 16 kHz mono. Samples that `decode` gave come back from it as they are, bit for bit.

    It has 16 bits, or 24 where they need them.
    """
    file = io.BytesIO()
    deep = not np.array_equal(np.rint(samples * 2**15), samples * 2**15)
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
