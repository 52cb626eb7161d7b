"""What a recording says: words in segments in a transcript. Times are float seconds from the recording's start."""

from collections.abc import Iterable, Sequence

import msgspec


class Word(msgspec.Struct, frozen=True):
    #: As Whisper spells it, with the leading space of languages that have one.
    word: str
    start: float
    end: float
    #: Probability, 0.0 to 1.0.
    confidence: float


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    #: Counts from 0 in the order of time.
    id: int
    start: float
    end: float
    text: str
    #: Mean probability of the tokens, 0.0 to 1.0.
    confidence: float
    #: Only when word timestamps were asked for.
    words: list[Word] | None = None
    #: Only with separate channels: counts from 0.
    channel: int | None = None


class Transcript(msgspec.Struct, frozen=True):
    text: str
    #: ISO 639-1 code, or Whisper's own three-letter ones (haw, yue).
    language: str
    language_probability: float
    #: Length of the decoded audio, in seconds.
    duration: float
    #: Seconds from the claim of the job to its last segment.
    processing_time: float
    segments: list[Segment]


def merged(parts: Iterable[Sequence[Segment]]) -> list[Segment]:
    """The segments of several stretches as those of one recording: in the order of time, numbered from 0."""
    ordered = sorted((segment for part in parts for segment in part), key=lambda segment: (segment.start, segment.end))
    return [msgspec.structs.replace(segment, id=number) for number, segment in enumerate(ordered)]
