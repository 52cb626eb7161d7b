"""A transcript as subtitles made for viewers: cues of a few balanced lines that can be read in the time they are shown.

Three steps, each in one pass: pieces of text are grouped into cues, a cue's text is broken into lines, and cues get
their times. The first two look for the cheapest of all ways, by dynamic programming; what the costs say is field
practice: Netflix's Timed Text Style Guide (general requirements) and the BBC's Subtitle Guidelines.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import msgspec

from actors.passages import Passage, passages
from actors.phrases import LONE_COLUMNS
from storage.job import Options
from storage.transcript import Transcript


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """The rules. Zero: the rule is off; with all of them off a cue is one segment on one line.

    Widths are columns: a wide character (Chinese, Japanese, Korean) takes two, a mark that stands on a letter none.
    """

    #: Columns in a line. Only a word that is longer is broken.
    max_line_width: int = 0
    #: Lines in a cue, counted only with max_line_width. With both, a cue may hold several segments, or a part of one.
    max_line_count: int = 0
    #: Columns a second; a cue that would be faster stays longer where there is time.
    max_characters_per_second: float = 0.0
    min_cue_seconds: float = 0.0
    #: Gives min_cue_seconds its limit, too.
    max_cue_seconds: float = 0.0
    #: Between the end of a cue and the start of the next.
    min_gap_seconds: float = 0.0


#: A cue a segment, on one line.
PLAIN = Layout()


def layout_of(options: Options) -> Layout:
    """What the job asks for."""
    return Layout(**{rule: getattr(options, rule) or 0 for rule in Layout.__struct_fields__})


class Cue(msgspec.Struct, frozen=True):
    """A stretch of a subtitle file. Times are milliseconds from the recording's start."""

    start: int
    end: int
    #: At least one, none of them blank.
    lines: list[str]
    #: Whose speech it is, where channels were transcribed apart: counts from 0.
    channel: int | None = None


#: What a cue costs by being one, and by being short: so much for each column below so many.
_CUE, _SHORT, _SHORT_COLUMNS = 15.0, 2.5, 15
#: The cost of a cue that is full; that of one half as full is a quarter.
_FULL = 20.0
#: The cost of no time at all to read a cue, of a cue that is too long, and how many milliseconds more cost one more.
_HURRY, _TOO_LONG, _TOO_LONG_STEP = 150.0, 25.0, 50
#: How much of the cost of a break counts where it is between two lines of a cue.
_BETWEEN_LINES = 1 / 3
#: Breaks that cost more end no cue, where there is another way.
_BAD_BREAK = 50
#: The cost of lines whose widths differ by a whole line, and of a line with one short word.
_UNEVEN, _LONE_WORD = 40.0, 30.0
#: The first line had better be the shorter one: less of the picture is covered.
_TOP_HEAVY = 3.0
#: Characters a second: whoever wants it slower gets this, which is slower than any speech.
_SLOWEST = 0.001
#: How long a cue may stay after its speech for the sake of reading speed, in milliseconds (BBC, 5.2).
_LINGER = 1500
#: Nobody reads more columns, or lines, or milliseconds in a cue: they bound the search, whatever the rules are.
_MOST_COLUMNS, _MOST_LINES, _MOST_TIME = 500, 20, 60_000

#: Languages that are written from right to left, and their letters.
_RIGHT_TO_LEFT = frozenset({"ar", "fa", "he", "ps", "sd", "ur", "yi"})
_RIGHT_LETTER = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_LETTER = re.compile(r"[^\W\d_]")
_RIGHT_MARK = "\u200f"


class _Rules(msgspec.Struct, frozen=True):
    """A Layout as whole milliseconds and with what follows from it."""

    width: int
    lines: int
    join: bool
    #: Milliseconds to read a column.
    pace: float
    least: int
    most: int
    gap: int
    #: What a cue costs by its columns, and the milliseconds that it needs to be read.
    prices: list[float]
    needed: list[int]

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, layout: Layout) -> "_Rules":
        speed = layout.max_characters_per_second
        most = max(round(layout.max_cue_seconds * 1000), 1) if layout.max_cue_seconds else 0
        least = round(layout.min_cue_seconds * 1000)
        least, pace = min(least, most) if most else least, 1000 / max(speed, _SLOWEST) if speed else 0.0
        join = layout.max_line_width > 0 and layout.max_line_count > 0
        full = layout.max_line_width * min(layout.max_line_count, _MOST_LINES)
        widths = range(min(full + layout.max_line_count, _MOST_COLUMNS) + 1 if join else _MOST_COLUMNS + 1)
        short = [max(_SHORT_COLUMNS - width, 0) * _SHORT for width in widths]
        return cls(
            width=layout.max_line_width,
            lines=layout.max_line_count if layout.max_line_width else 0,
            join=join,
            pace=pace,
            least=least,
            most=most,
            gap=round(layout.min_gap_seconds * 1000),
            prices=[short[width] + _FULL * (width / full) ** 2 if join else 0.0 for width in widths],
            needed=[max(least, math.ceil(width * pace), 1) for width in widths],
        )


class _Span(msgspec.Struct):
    """A cue before it has its times: those of its speech."""

    start: int
    end: int
    #: Columns.
    width: int
    lines: list[str]
    channel: int | None


def lay_out(transcript: Transcript, layout: Layout) -> list[Cue]:
    """The transcript as cues: in order, without overlaps, none shorter than a millisecond."""
    rules = _Rules.of(layout)
    spans: list[_Span] = []
    for passage in passages(transcript, join=rules.join, width=rules.width):
        spans += _spans(passage, rules)
    if transcript.language in _RIGHT_TO_LEFT:
        for span in spans:
            span.lines = [_kept_right(line) for line in span.lines]
    return list(_timed(spans, rules))


def _spans(passage: Passage, rules: _Rules) -> Iterator[_Span]:
    texts, total = passage.texts, len(passage.texts)
    upto = [0]
    for width in passage.widths:
        upto.append(upto[-1] + width)
    spaced = [text[0] == " " for text in texts]
    reach = _reach(upto, spaced, rules.width or upto[-1])
    begin = 0
    for end in _cue_ends(passage, rules, upto, reach) if total > 1 else [1]:
        width = upto[end] - upto[begin] - spaced[begin]
        bounds = _line_bounds(passage, rules, upto, spaced, reach, begin, end)
        lines = ["".join(texts[first:last]).lstrip(" ") for first, last in itertools.pairwise(bounds)]
        yield _Span(passage.starts[begin], passage.ends[end - 1], width, lines, passage.channel)
        begin = end


def _reach(upto: list[int], spaced: list[bool], width: int) -> list[int]:
    """For each piece, the end of the longest line that begins with it: at least one piece."""
    reach, end, total = [], 0, len(spaced)
    for begin in range(total):
        limit = upto[begin] + spaced[begin] + width
        end = max(end, begin + 1)
        while end < total and upto[end + 1] <= limit:
            end += 1
        reach.append(end)
    return reach


def _back(reach: list[int]) -> list[int]:
    """For each piece, and for the end, where the longest line begins that ends before it."""
    back, begin = [0], 0
    for end in range(1, len(reach) + 1):
        while reach[begin] < end:
            begin += 1
        back.append(begin)
    return back


# Cues


def _cue_ends(passage: Passage, rules: _Rules, upto: list[int], reach: list[int]) -> list[int]:
    """Where the cues of a passage end, as numbers of the pieces that follow them."""
    total = len(reach)
    if not rules.join and not rules.most:
        return [total]
    furthest = _furthest(reach, rules)
    points = _points(passage.costs, furthest)
    price, needed, widest = rules.prices, rules.needed, len(rules.prices) - 1
    starts, ends, costs = passage.starts, passage.ends, passage.costs
    held = [0]
    for more in passage.inside:
        held.append(held[-1] + more if rules.join else 0)
    # Until when a cue that ends before a piece can be shown.
    until = [ends[0], *[min(starts[end] - rules.gap, ends[end - 1] + _LINGER) for end in range(1, total)]]
    until.append(ends[-1] + _LINGER)
    most = rules.most or _MOST_TIME
    back = _back(reach)
    best = [math.inf] * (total + 1)
    came = [0] * (total + 1)
    best[0] = 0.0
    for number, begin in enumerate(points[:-1]):
        so_far, start, before, limit = best[begin] + _CUE, starts[begin], upto[begin], furthest[begin]
        so_far -= held[begin]
        for next_point in range(number + 1, len(points)):
            end = points[next_point]
            if end > limit:
                break
            cost = so_far + costs[end - 1] + held[end - 1]
            if cost >= best[end]:
                continue
            width = upto[end] - before
            if width > widest:
                width = widest
            cost += price[width]
            if back[end] <= reach[begin] < end:
                cost += _BETWEEN_LINES * min(costs[back[end] - 1 : reach[begin]])
            need, time = needed[width], until[end] - start
            if time < need:
                cost += _HURRY * (need - time) / need
            spoken = ends[end - 1] - start
            if spoken > most:
                cost += _TOO_LONG + (spoken - most) / _TOO_LONG_STEP
                if spoken > _MOST_TIME:
                    limit = end
            if cost < best[end]:
                best[end], came[end] = cost, begin
    found = [total]
    while came[found[-1]]:
        found.append(came[found[-1]])
    return found[::-1]


def _furthest(reach: list[int], rules: _Rules) -> list[int]:
    """For each piece, the end of the longest cue that begins with it."""
    total = len(reach)
    if not rules.lines:
        return [total] * total
    furthest = reach
    for _ in range(min(rules.lines, _MOST_LINES) - 1):
        furthest = [reach[end] if end < total else total for end in furthest]
    return furthest


def _points(costs: list[int], furthest: list[int]) -> list[int]:
    """Where a cue may begin or end: after bad breaks only where there is nothing else within reach."""
    points = [0]
    for end, cost in enumerate(costs, 1):
        if cost <= _BAD_BREAK or end == len(costs):
            if end > furthest[points[-1]]:
                points += range(points[-1] + 1, end)
            points.append(end)
    return points


# Lines


def _line_bounds(
    passage: Passage,
    rules: _Rules,
    upto: list[int],
    spaced: list[bool],
    reach: list[int],
    begin: int,
    end: int,
) -> list[int]:
    """Where the lines of a cue begin, and the last one's end: as few lines as it takes, broken where it is best."""
    count, at = 1, reach[begin]
    while at < end:
        at = reach[at]
        count += 1
    if count == 1:
        return [begin, end]
    costs, width = passage.costs, rules.width
    even = (upto[end] - upto[begin]) / count
    # Piece that begins the next line → cost of the lines before it, and where they begin.
    layer: dict[int, tuple[float, list[int]]] = {begin: (0.0, [begin])}
    for left in range(count - 1, -1, -1):
        following: dict[int, tuple[float, list[int]]] = {}
        for first, (so_far, bounds) in layer.items():
            for last in range(first + 1, min(reach[first], end - 1) + 1) if left else [end]:
                if last > reach[first] or (left == 1 and reach[last] < end):
                    continue
                taken = upto[last] - upto[first] - spaced[first]
                cost = so_far + _UNEVEN * ((taken - even) * 2 / width) ** 2 / count
                if last < end:
                    cost += costs[last - 1] + (_TOP_HEAVY if taken > even else 0.0)
                if last == first + 1 and taken <= LONE_COLUMNS:
                    cost += _LONE_WORD
                if last not in following or cost < following[last][0]:
                    following[last] = (cost, [*bounds, last])
        layer = following
    return layer[end][1]


def _kept_right(line: str) -> str:
    """A player takes a line's direction from its first letter: one that begins with a foreign word says it."""
    if not _RIGHT_LETTER.search(line):
        return line
    first = _LETTER.search(line)
    return line if first is None or _RIGHT_LETTER.match(first[0]) else _RIGHT_MARK + line


# Times


def _timed(spans: Sequence[_Span], rules: _Rules) -> Iterator[Cue]:
    """A cue is shown while its words are said: longer where they could not be read, shorter where another comes."""
    before = -rules.gap
    for index, span in enumerate(spans):
        # The gap gives way where it would take all of a cue's own time.
        start = max(span.start, before, min(before + rules.gap, span.end - 1))
        need = max(rules.least, math.ceil(span.width * rules.pace))
        end = max(span.end, start + 1)
        if end - start < need:
            end = max(end, min(start + need, max(span.end + _LINGER, start + rules.least)))
        if rules.most and end - start > rules.most:
            end = start + rules.most
        if index + 1 < len(spans):
            end = _made_way(span, spans[index + 1], start, end, need, rules)
        before = end
        yield Cue(start, end, span.lines, span.channel)


def _made_way(span: _Span, following: _Span, start: int, end: int, need: int, rules: _Rules) -> int:
    """When a cue ends that is followed by another: before it begins. A cue that would be too short, or whose speech
    goes on into the next one's, takes some of that one's time: at most by its share of their text."""
    limit = following.start - rules.gap
    if end <= limit:
        return end
    wanted = rules.least
    if following.start < span.end:
        wanted = min(span.end - start, need) if need else span.end - start
    both = max(span.end, following.end) - start
    share = both * span.width // max(span.width + following.width, 1)
    return min(end, max(limit, start + min(wanted, share), start + 1))
