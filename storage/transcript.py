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


class Details(msgspec.Struct, frozen=True):
    """What the decoder knew of a segment, by Whisper's own names; all but the tokens is of its window."""

    #: Whisper's tokens of the text, its time stamps included.
    tokens: list[int]
    #: Mean log probability of the window's tokens.
    avg_logprob: float
    #: How much smaller the window's text gets by zlib; text that repeats itself gets much smaller.
    compression_ratio: float
    #: Probability that nobody speaks in the window, 0.0 to 1.0.
    no_speech_prob: float
    #: At which the text was found.
    temperature: float
    #: Where the window begins in the recording, in hundredths of a second.
    seek: int


#: Of a segment that an earlier version has left, where something has to be told.
NO_DETAILS = Details(tokens=[], avg_logprob=0.0, compression_ratio=1.0, no_speech_prob=0.0, temperature=0.0, seek=0)


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
    #: Only when they were asked for.
    details: Details | None = None


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


def shifted(segment: Segment, seconds: float, channel: int | None) -> Segment:
    """A stretch's segment in the times of the recording in which the stretch begins at `seconds`."""
    words = segment.words and [
        msgspec.structs.replace(word, start=round(seconds + word.start, 3), end=round(seconds + word.end, 3))
        for word in segment.words
    ]
    details = segment.details and msgspec.structs.replace(
        segment.details, seek=segment.details.seek + round(seconds * 100)
    )
    return msgspec.structs.replace(
        segment,
        start=round(seconds + segment.start, 3),
        end=round(seconds + segment.end, 3),
        words=words,
        channel=channel,
        details=details,
    )
