"""Samples → a FLAC file."""

import io

import av
import numpy as np
from av.audio.frame import AudioFrame

from actors.audio.decode import SAMPLE_RATE


def encode_flac(samples: np.ndarray) -> bytes:
    """A FLAC file of 16 kHz mono. Samples that `decode` gave come back from it as they are, bit for bit."""
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        whole = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
        for at in range(0, len(whole), SAMPLE_RATE):
            frame = AudioFrame.from_ndarray(whole[None, at : at + SAMPLE_RATE], format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            frame.pts = at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
