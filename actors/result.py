"""What an engine gives back."""

from collections.abc import Iterator

import msgspec

from storage.transcript import Segment


class Result(msgspec.Struct, frozen=True):
    #: Whisper's code: as asked for, else as detected. English where there is no speech to detect it from.
    language: str
    #: 1.0 for a language that was asked for, 0.0 where there is no speech.
    language_probability: float
    #: Seconds of audio.
    duration: float
    #: In the order of time, without overlaps, computed as they are taken. An audio without speech has none.
    segments: Iterator[Segment]
