"""What of a layout's rules its cues break: speech that is too fast to be read cannot be helped, only told."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from actors.layout import Cue, Layout, lay_out
from actors.phrases import LONE_COLUMNS, columns, pieces
from storage.transcript import Transcript

Rule = Literal[
    "max_line_width",
    "max_line_count",
    "max_characters_per_second",
    "min_cue_seconds",
    "max_cue_seconds",
    "min_gap_seconds",
    "lone_word",
]


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    #: As subtitle files number them, from 1.
    cue: int
    #: When it is shown, in seconds.
    start: float
    #: `lone_word`: the last line holds nothing but one short word; `min_gap_seconds`: between this cue and the next.
    rule: Rule
    value: float
    limit: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How subtitles keep the rules that they were laid out by."""

    #: Zero: the rule is off.
    rules: Layout
    #: How many there are.
    cues: int
    #: In the order of the cues.
    breaches: list[Breach]


def report(transcript: Transcript, layout: Layout) -> Report:
    cues = lay_out(transcript, layout)
    return Report(rules=layout, cues=len(cues), breaches=list(breaches(cues, layout)))


def breaches(cues: Sequence[Cue], layout: Layout) -> Iterator[Breach]:
    for number, (cue, following) in enumerate(itertools.zip_longest(cues, cues[1:]), 1):
        for rule, value, limit in _broken(cue, following, layout):
            yield Breach(cue=number, start=cue.start / 1000, rule=rule, value=round(value, 3), limit=limit)


def _broken(cue: Cue, following: Cue | None, layout: Layout) -> Iterator[tuple[Rule, float, float]]:
    widths = [columns(line) for line in cue.lines]
    seconds = (cue.end - cue.start) / 1000
    if layout.max_line_width:
        if (widest := max(widths)) > layout.max_line_width:
            yield "max_line_width", widest, layout.max_line_width
        if 0 < layout.max_line_count < len(widths):
            yield "max_line_count", len(widths), layout.max_line_count
        if len(widths) > 1 and widths[-1] <= LONE_COLUMNS and len(pieces(cue.lines[-1])) == 1:
            yield "lone_word", 1, 2
    # Between two lines a reader sees what is a space in one.
    speed = (sum(widths) + len(widths) - 1) / seconds
    if 0 < layout.max_characters_per_second < round(speed, 3):
        yield "max_characters_per_second", speed, layout.max_characters_per_second
    if seconds < layout.min_cue_seconds:
        yield "min_cue_seconds", seconds, layout.min_cue_seconds
    if 0 < layout.max_cue_seconds < seconds:
        yield "max_cue_seconds", seconds, layout.max_cue_seconds
    if following and (gap := (following.start - cue.end) / 1000) < layout.min_gap_seconds:
        yield "min_gap_seconds", gap, layout.min_gap_seconds
