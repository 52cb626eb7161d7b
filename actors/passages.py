"""Speech without a long pause as pieces of text with their times: what is cut into cues."""

import itertools
from collections.abc import Iterator

import msgspec

from actors.phrases import (
    INSIDE_PHRASE,
    INSIDE_WORD,
    LEANING,
    SENTENCE,
    WORD,
    break_cost,
    chopped,
    columns,
    needs_space,
    pieces,
    traits,
)
from storage.transcript import Segment, Transcript

#: A pause that no cue spans: the text after it would be read long before it is said.
_WALL = 2000
#: Pauses beyond this, in milliseconds, are heard: a cue had better end there.
_HEARD_PAUSE, _LONG_PAUSE = 100, 300
#: What it costs a cue to hold the end of a sentence inside.
_SENTENCE_INSIDE = 25


class Passage(msgspec.Struct):
    """Lists of one length: an entry a piece. Times are whole milliseconds; none goes back."""

    channel: int | None
    texts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    #: Columns, the space before a piece included.
    widths: list[int] = []
    #: Cost of a line, or a cue, that ends after a piece.
    costs: list[int] = []
    #: Cost of a cue that goes on after a piece.
    inside: list[int] = []
    #: Pieces that are a word's parts and go on in the next.
    parts: set[int] = set()


def passages(transcript: Transcript, *, join: bool, width: int) -> Iterator[Passage]:
    """In the order of the segments, of which those without text are left out.

    `join`: segments that follow each other closely are one passage; else each is its own.
    `width`: columns that a piece may have; 0: any.
    """
    passage: Passage | None = None
    seams: list[int] = []
    for segment in transcript.segments:
        texts = pieces(segment.text)
        if not texts:
            continue
        times = _times(segment, texts)
        if passage and (not join or passage.channel != segment.channel or times[0][0] - passage.ends[-1] >= _WALL):
            yield _weighed(passage, seams, transcript.language)
            passage = None
        if passage is None:
            passage, seams = Passage(segment.channel), []
        else:
            seams.append(len(passage.texts) - 1)
            if needs_space(passage.texts[-1], texts[0]):
                texts[0] = " " + texts[0]
        _extend(passage, texts, times, width)
    if passage:
        yield _weighed(passage, seams, transcript.language)


def _extend(passage: Passage, texts: list[str], times: list[tuple[int, int]], width: int) -> None:
    if width and max(map(len, texts)) * 2 > width and any(columns(text.lstrip(" ")) > width for text in texts):
        texts, times, parts = _with_parts(texts, times, width)
        offset = len(passage.texts)
        passage.parts.update(offset + part for part in parts)
    starts, ends = passage.starts, passage.ends
    last = ends[-1] if ends else 0
    for start, end in times:
        if start > last:
            last = start
        starts.append(last)
        if end > last:
            last = end
        ends.append(last)
    passage.texts += texts


def _with_parts(
    texts: list[str], times: list[tuple[int, int]], width: int
) -> tuple[list[str], list[tuple[int, int]], set[int]]:
    """Pieces that are wider than a line in parts; and which of them go on in the next."""
    cut: list[str] = []
    shares: list[tuple[int, int]] = []
    parted: set[int] = set()
    for text, (start, end) in zip(texts, times, strict=True):
        parts = chopped(text, width)
        parted.update(range(len(cut), len(cut) + len(parts) - 1))
        cut += parts
        shares += _shared([(start / 1000, end / 1000, len(parts))], [1] * len(parts))
    return cut, shares, parted


def _weighed(passage: Passage, seams: list[int], language: str) -> Passage:
    """Fill in what breaks cost."""
    known = [traits(text, language) for text in passage.texts]
    passage.widths = [one.width for one in known]
    costs, inside = passage.costs, passage.inside
    led = False
    for (before, after), end, start in zip(itertools.pairwise(known), passage.ends, passage.starts[1:], strict=False):
        cost = break_cost(before, after)
        if led and cost >= WORD and before.after != LEANING != after.after:
            cost += INSIDE_PHRASE
        led = before.after == LEANING
        held = _SENTENCE_INSIDE if before.after == SENTENCE else 0
        pause = start - end
        if pause > _HEARD_PAUSE:
            cost = max(cost - pause // 10, 0)
            if pause > _LONG_PAUSE:
                held += (pause - _LONG_PAUSE) // 15
        costs.append(cost)
        inside.append(held)
    for index in seams:
        # Whisper ends a segment where a phrase ends, mostly: not after `is`.
        costs[index] -= min(costs[index], WORD) // 2
    for index in passage.parts:
        costs[index], inside[index] = INSIDE_WORD, 0
    costs.append(SENTENCE)
    inside.append(0)
    return passage


def _times(segment: Segment, texts: list[str]) -> list[tuple[int, int]]:
    """Start and end of each piece: of its words where they are known, else its share of the segment's letters."""
    words = segment.words
    if words and [word.word.strip() for word in words] == [text.lstrip(" ") for text in texts]:
        return [(_milliseconds(word.start), _milliseconds(word.end)) for word in words]
    letters = [len(text) - text.startswith(" ") for text in texts]
    spans = [(segment.start, segment.end, sum(letters))]
    if words:
        heard = [(word.start, word.end, sum(len(part.lstrip(" ")) for part in pieces(word.word))) for word in words]
        if sum(count for _, _, count in heard) == sum(letters):
            spans = [span for span in heard if span[2]]
    return _shared(spans, letters)


def _shared(spans: list[tuple[float, float, int]], letters: list[int]) -> list[tuple[int, int]]:
    """Times of pieces with so many letters each, from stretches (start, end, letters) that have as many in all."""
    times = []
    at, done = 0, 0
    for count in letters:
        while done >= spans[at][2]:
            done -= spans[at][2]
            at += 1
        start = _within(spans[at], done)
        done += count
        while done > spans[at][2]:
            done -= spans[at][2]
            at += 1
        times.append((start, _within(spans[at], done)))
    return times


def _within(span: tuple[float, float, int], letters: int) -> int:
    start, end = _milliseconds(span[0]), _milliseconds(span[1])
    return start + (end - start) * letters // span[2]


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 0)
