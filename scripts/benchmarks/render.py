"""Subtitles of three hours with the times of words, laid out for viewers, beside lines filled by textwrap."""

import random
import textwrap
import time
from collections.abc import Callable

from actors.formats import render
from actors.layout import Cue, lay_out
from actors.rules import breaches
from scripts.benchmarks.benchmark import Bench, in_turns, listed, median_of, ratio_of
from service.settings import ServiceSettings
from service.subtitles import subtitle_rules
from storage.transcript import Segment, Transcript, Word

_HOURS = 3.0
#: Clauses of any talk: what counts is how many words, segments and marks there are.
_CLAUSES = (
    "and Mr. John Dashwood had then leisure to consider", "how much there might be prudently in his power",
    "he was not an ill-disposed young man", "unless to be rather cold hearted", "yes", "I don't think so",
    "for he conducted himself with propriety", "in the discharge of his ordinary duties", "that is all I know of it",
    "but he was in general well respected", "which nobody had expected of them", "go on", "at the end of the long road",
)  # fmt: skip


def run(bench: Bench) -> dict[str, float]:
    talk = _talk(0.1 if bench.quick else _HOURS)
    layout = subtitle_rules(ServiceSettings())
    ours, theirs = in_turns(
        bench.rounds, lambda: _timed(lambda: render(talk, "srt", layout)), lambda: _timed(lambda: _filled(talk))
    )
    cues = lay_out(talk, layout)
    words = sum(len(segment.words or ()) for segment in talk.segments)
    bench.say(
        f"{len(talk.segments)} segments, {words} words; laid out {listed(ours, 's')}, filled {listed(theirs, 's')}"
    )
    filled = sum(1 for _ in breaches(_filled_cues(talk), layout))
    bench.say(f"filled lines break the rules {100 * filled / len(talk.segments):.1f} times in a hundred cues")
    return {
        "cues_per_second": len(cues) / median_of(ours),
        "seconds": median_of(ours),
        "over_textwrap": ratio_of(ours, theirs),
        "breaches_per_hundred_cues": 100 * sum(1 for _ in breaches(cues, layout)) / len(cues),
    }


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _talk(hours: float) -> Transcript:
    """The same at each call: segments of one to three clauses, 11 to 19 letters a second, with pauses between them."""
    choose = random.Random(3)
    clock = 0.0
    segments: list[Segment] = []
    while clock < hours * 3600:
        text = ", ".join(choose.choices(_CLAUSES, k=choose.randint(1, 3))) + choose.choice(".....?!")
        speed = choose.uniform(11, 19)
        words = []
        start = clock
        for word in (text[0].upper() + text[1:]).split():
            words.append(Word(f" {word}", round(clock, 3), round(clock + len(word) / speed, 3), 0.9))
            clock += (len(word) + 1) / speed
        segments.append(Segment(len(segments), start, words[-1].end, "".join(word.word for word in words), 0.9, words))
        clock += choose.choice([0.0, 0.0, 0.1, 0.4, 1.2, 3.0])
    text = "".join(segment.text for segment in segments).strip()
    return Transcript(text, "en", 0.99, clock, 1.0, segments)


def _filled(talk: Transcript) -> bytes:
    """What a few lines of code do: a cue a segment, its lines filled."""
    return "\n".join(
        f"{number}\n{_clock(cue.start)} --> {_clock(cue.end)}\n" + "".join(f"{line}\n" for line in cue.lines)
        for number, cue in enumerate(_filled_cues(talk), 1)
    ).encode()


def _filled_cues(talk: Transcript) -> list[Cue]:
    return [
        Cue(round(segment.start * 1000), round(segment.end * 1000), textwrap.wrap(segment.text, 42))
        for segment in talk.segments
    ]


def _clock(milliseconds: int) -> str:
    minutes, left = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{left // 1000:02},{left % 1000:03}"
