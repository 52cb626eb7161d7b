"""A transcript as OpenAI's API tells it: https://platform.openai.com/docs/api-reference/audio."""

import math
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from actors.languages import LANGUAGES
from service.openai_form import Task, Wanted
from storage.transcript import NO_DETAILS, Segment, Transcript


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["duration"] = "duration"
    #: Of audio, rounded up.
    seconds: int


class Transcription(msgspec.Struct, frozen=True, kw_only=True):
    """`json`."""

    text: str
    #: Not of a translation.
    usage: Usage | UnsetType = UNSET


class VerboseSegment(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    #: Where the window in which it was heard begins, in hundredths of a second.
    seek: int
    start: float
    end: float
    text: str
    #: Whisper's, time stamps included.
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    #: Ours; only with separate channels.
    channel: int | UnsetType = UNSET


class VerboseWord(msgspec.Struct, frozen=True, kw_only=True):
    word: str
    start: float
    end: float


class VerboseTranscription(msgspec.Struct, frozen=True, kw_only=True):
    """`verbose_json`."""

    task: Task
    #: Its name in English, in small letters.
    language: str
    #: Seconds.
    duration: float
    text: str
    #: Unless words alone were asked for.
    segments: list[VerboseSegment] | UnsetType = UNSET
    #: Only when they were asked for.
    words: list[VerboseWord] | UnsetType = UNSET
    #: Not of a translation.
    usage: Usage | UnsetType = UNSET


class TextDelta(msgspec.Struct, frozen=True, kw_only=True):
    """A segment's text. All of them, one after the other, are the whole text."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str


class TextDone(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["transcript.text.done"] = "transcript.text.done"
    #: All of it.
    text: str


class Said(msgspec.Struct, frozen=True):
    """What short answers need of a stored transcript: its segments are not read."""

    text: str
    #: Seconds.
    duration: float


def plain(said: Said, task: Task) -> Transcription:
    return Transcription(text=said.text, usage=_usage(said.duration, task))


def verbose(transcript: Transcript, task: Task, wanted: Wanted) -> VerboseTranscription:
    return VerboseTranscription(
        task=task,
        language="english" if task == "translate" else LANGUAGES.get(transcript.language, transcript.language).lower(),
        duration=transcript.duration,
        text=transcript.text,
        segments=[_segment(segment) for segment in transcript.segments] if wanted.segments else UNSET,
        words=_words(transcript.segments) if wanted.words else UNSET,
        usage=_usage(transcript.duration, task),
    )


def _segment(segment: Segment) -> VerboseSegment:
    details = segment.details or NO_DETAILS
    return VerboseSegment(
        id=segment.id,
        seek=details.seek,
        start=segment.start,
        end=segment.end,
        text=segment.text,
        tokens=details.tokens,
        temperature=details.temperature,
        avg_logprob=details.avg_logprob,
        compression_ratio=details.compression_ratio,
        no_speech_prob=details.no_speech_prob,
        channel=UNSET if segment.channel is None else segment.channel,
    )


def _words(segments: Sequence[Segment]) -> list[VerboseWord]:
    """Without the spaces that Whisper spells before them."""
    return [
        VerboseWord(word=word.word.strip(), start=word.start, end=word.end)
        for segment in segments
        for word in segment.words or ()
    ]


def _usage(seconds: float, task: Task) -> Usage | UnsetType:
    return Usage(seconds=math.ceil(seconds)) if task == "transcribe" else UNSET
