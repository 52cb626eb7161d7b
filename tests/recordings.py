"""Recordings made for tests: real speech joined with gaps, as WAV bytes of 16 kHz mono."""

import io
import struct
import wave
from collections.abc import Iterable, Sequence

import numpy as np

from actors.audio.decode import SAMPLE_RATE, decode
from tests.conftest import Sample


def samples_of(sample: Sample) -> np.ndarray:
    """float32 samples in [-1, 1], shape (samples,)."""
    with sample.path.open("rb") as file:
        return np.concatenate(list(decode(file, None)))


def joined(spoken: Sequence[Sample], seconds: float, gap_seconds: float = 1.0) -> np.ndarray:
    """The samples again and again, with gaps of silence, until `seconds` are full."""
    gap = np.zeros(round(gap_seconds * SAMPLE_RATE), np.float32)
    pieces: list[np.ndarray] = []
    clips = [samples_of(sample) for sample in spoken]
    while sum(map(len, pieces)) < seconds * SAMPLE_RATE:
        pieces += [clips[(len(pieces) // 2) % len(clips)], gap]
    return np.concatenate(pieces)


def tone(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def wav(samples: np.ndarray) -> bytes:
    """Of shape (samples,), or (channels, samples)."""
    return wav_of_blocks([samples.T.ravel()], channels=len(np.atleast_2d(samples)))


def wav_of_blocks(blocks: Iterable[np.ndarray], channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setnchannels(channels)
        target.setsampwidth(2)
        target.setframerate(SAMPLE_RATE)
        for block in blocks:
            target.writeframes((np.clip(block, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def riff(samples: np.ndarray, kind: str = "<i2", *, mask: int | None = None, length: int | None = None) -> bytes:
    """A WAV file with a header of our own.

    Args:
        samples: in [-1, 1], shape (channels, samples).
        kind: numpy's name of the samples; with ">" it is a big-endian RIFX. Of three bytes: "<i3".
        mask: loudspeakers that the header states; None: a header without them.
        length: bytes of sound that the header claims, if not those that there are.
    """
    sound: bytes
    order, number, size = kind[0], kind[1], int(kind[2:])
    frames = np.atleast_2d(samples).T.ravel()
    if number == "i":
        scaled = np.rint(np.clip(frames, -1, 1) * (2 ** (8 * size - 1) - 1)).astype(f"{order}i4")
        octets = scaled.view(np.uint8).reshape(-1, 4)
        sound = (octets[:, :size] if order == "<" else octets[:, 4 - size :]).tobytes()
    else:
        sound = frames.astype(kind).tobytes()
    channels, tag = len(np.atleast_2d(samples)), 1 if number == "i" else 3
    facts = (channels, SAMPLE_RATE, SAMPLE_RATE * size * channels, size * channels, 8 * size)
    if mask is None:
        header = struct.pack(f"{order}HHIIHH", tag, *facts)
    else:
        header = struct.pack(f"{order}HHIIHHHHI", 0xFFFE, *facts, 22, 8 * size, mask)
        header += struct.pack(f"{order}IHH", tag, 0, 16) + bytes.fromhex("800000aa00389b71")
    body = b"WAVE" + b"fmt " + struct.pack(f"{order}I", len(header)) + header
    body += b"data" + struct.pack(f"{order}I", len(sound) if length is None else length) + sound
    magic = b"RIFF" if order == "<" else b"RIFX"
    return magic + struct.pack(f"{order}I", len(body)) + body
