"""Subtitles read back: strictly, by their grammar and nothing beside it. What another parser forgives fails here."""

import re

import msgspec

from storage.transcript import Segment, Transcript, Word


class Shown(msgspec.Struct, frozen=True):
    """A cue as a file says it. Times are milliseconds."""

    start: int
    end: int
    lines: list[str]
    voice: str | None = None


_SRT_TIMES = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d),(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d),(\d{3})")
_VTT_TIMES = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})")
_VOICE = re.compile(r"<v ([^<>&\n]+)>")
#: WebVTT's cue text without tags: an ampersand begins one of the names that it knows.
_VTT_TEXT = re.compile(r"(?:[^&<>]|&(?:amp|lt|gt|lrm|rlm|nbsp);)+")
_NAMED = {"&lt;": "<", "&gt;": ">", "&lrm;": "\u200e", "&rlm;": "\u200f", "&nbsp;": "\u00a0", "&amp;": "&"}


def read_srt(text: str) -> list[Shown]:
    cues = []
    for number, block in enumerate(_blocks(text), 1):
        first, times, *lines = block
        assert first == str(number)
        assert not any("-->" in line for line in lines)
        cues.append(_shown(_SRT_TIMES, times, lines))
    return cues


def read_vtt(text: str) -> list[Shown]:
    header, _, body = text.partition("\n")
    assert header == "WEBVTT"
    assert body == "" or body.startswith("\n")
    cues = []
    for times, *lines in _blocks(body[1:]):
        voice = _VOICE.match(lines[0])
        spoken = [lines[0][voice.end() :] if voice else lines[0], *lines[1:]]
        assert all(_VTT_TEXT.fullmatch(line) for line in spoken), spoken
        plain = [re.sub("&[a-z]+;", lambda name: _NAMED[name[0]], line) for line in spoken]
        cues.append(_shown(_VTT_TIMES, times, plain, voice and voice[1]))
    return cues


def _blocks(text: str) -> list[list[str]]:
    if not text:
        return []
    assert text.endswith("\n")
    # By this one character: splitlines() knows more than the formats do.
    blocks = [block.split("\n") for block in text[:-1].split("\n\n")]
    assert all(line.strip() for block in blocks for line in block)
    return blocks


def _shown(pattern: re.Pattern[str], times: str, lines: list[str], voice: str | None = None) -> Shown:
    found = pattern.fullmatch(times)
    assert found, times
    numbers = [int(digits) for digits in found.groups()]
    start, end = (
        hours * 3_600_000 + minutes * 60_000 + seconds * 1000 + rest
        for hours, minutes, seconds, rest in (numbers[:4], numbers[4:])
    )
    assert start < end
    assert lines
    return Shown(start, end, lines, voice)


def transcript(*segments: Segment, language: str = "en") -> Transcript:
    text = "".join(segment.text for segment in segments).strip()
    return Transcript(text, language, 0.98, 7200.0, 1.5, list(segments))


def said(
    text: str, start: float = 1.0, end: float = 3.0, words: list[Word] | None = None, channel: int | None = None
) -> Segment:
    return Segment(0, start, end, text, 0.9, words, channel)


def spoken(text: str, start: float, end: float) -> Segment:
    """With the times of its words: each has its letters' share."""
    words, letters, done = text.split(), len(text.replace(" ", "")), 0
    timed = []
    for word in words:
        begin = start + (end - start) * done / letters
        done += len(word)
        timed.append(Word(f" {word}", begin, start + (end - start) * done / letters, 0.9))
    return said(f" {text}", start, end, timed)
