"""A transcript as text: JSON, plain text, SRT, WebVTT and TSV. Pure functions in one table, light enough for the API.

Times are rounded once, to whole milliseconds. A cue is one segment, unless `max_line_count` cuts it into several; cues
never overlap, each lasts at least a millisecond, and their text holds nothing that a parser could take for a time or an
end. An empty transcript gives an empty file of its format.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator

import msgspec

from actors.layout import PLAIN, Layout
from storage.transcript import Segment, Transcript


class Format(msgspec.Struct, frozen=True):
    name: str
    #: Of the result object and the download name, without a dot.
    extension: str
    media_type: str
    render: Callable[[Transcript, Layout], str]


class Cue(msgspec.Struct, frozen=True):
    """A stretch of a subtitle file. Times are milliseconds from the recording's start."""

    start: int
    end: int
    #: At least one, none of them blank.
    lines: list[str]


def render(transcript: Transcript, format: str, layout: Layout = PLAIN) -> bytes:
    """The transcript in a format of FORMATS, as UTF-8. The layout concerns subtitles only."""
    text = FORMATS[format].render(transcript, layout)
    return text.encode("utf-8", errors="replace")


def cues(transcript: Transcript, layout: Layout) -> Iterator[Cue]:
    """The transcript's segments as cues, in order and without overlaps; segments without text are left out."""
    earliest = 0
    for segment in transcript.segments:
        lines = _wrap(_one_line(segment.text), layout.max_line_width)
        for cue in _cut(segment, lines, layout.max_line_count if layout.max_line_width else None):
            start = max(cue.start, earliest)
            earliest = max(cue.end, start + 1)
            yield Cue(start, earliest, cue.lines)


def _json(transcript: Transcript, layout: Layout) -> str:
    return msgspec.json.encode(transcript).decode()


def _text(transcript: Transcript, layout: Layout) -> str:
    lines = (_one_line(segment.text) for segment in transcript.segments)
    return "".join(f"{line}\n" for line in lines if line)


def _srt(transcript: Transcript, layout: Layout) -> str:
    """SubRip as players read it: numbers from 1, a comma before the milliseconds, a blank line between cues."""
    return "\n".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_joined(cue.lines, _defuse_arrow)}"
        for number, cue in enumerate(cues(transcript, layout), 1)
    )


def _vtt(transcript: Transcript, layout: Layout) -> str:
    """WebVTT, https://www.w3.org/TR/webvtt1/."""
    return "WEBVTT\n" + "".join(
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_joined(cue.lines, _escape_markup)}"
        for cue in cues(transcript, layout)
    )


def _tsv(transcript: Transcript, layout: Layout) -> str:
    """Whisper's own: start and end in milliseconds, then the text, a segment a line."""
    rows = (
        (_milliseconds(segment.start), _milliseconds(segment.end), _one_line(segment.text))
        for segment in transcript.segments
    )
    return "start\tend\ttext\n" + "".join(f"{start}\t{end}\t{text}\n" for start, end, text in rows if text)


FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("json", "json", "application/json; charset=utf-8", _json),
        Format("text", "txt", "text/plain; charset=utf-8", _text),
        Format("srt", "srt", "application/x-subrip; charset=utf-8", _srt),
        Format("vtt", "vtt", "text/vtt; charset=utf-8", _vtt),
        Format("tsv", "tsv", "text/tab-separated-values; charset=utf-8", _tsv),
    )
}


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 0)


def _clock(milliseconds: int, point: str) -> str:
    """3600000 → 01:00:00,000; hours take as many digits as they need, at least two."""
    minutes, left = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{left // 1000:02}{point}{left % 1000:03}"


def _one_line(text: str) -> str:
    """Every run of white space, tabs and line ends among them, becomes a space; control characters go."""
    words = "".join(" " if letter.isspace() else letter for letter in text if _printable(letter)).split()
    return " ".join(words)


def _printable(letter: str) -> bool:
    return letter.isspace() or unicodedata.category(letter) != "Cc"


def _joined(lines: list[str], harmless: Callable[[str], str]) -> str:
    return "".join(f"{harmless(line)}\n" for line in lines)


def _defuse_arrow(line: str) -> str:
    """SubRip has no escapes: a text that says --> would be read as times."""
    return re.sub("--+>", "->", line)


def _escape_markup(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _wrap(text: str, width: int | None) -> list[str]:
    """Fill lines with whole words; only a word that is longer than a line is broken. No text: no lines."""
    if not text or not width:
        return [text] if text else []
    lines = [""]
    for word in text.split(" "):
        first, *others = _pieces(word, width)
        if lines[-1] and len(lines[-1]) + 1 + len(first) <= width:
            lines[-1] += " " + first
        else:
            lines.append(first)
        lines += others
    return lines[1:]


def _pieces(word: str, width: int) -> list[str]:
    """The word in pieces of at most `width` characters, a mark such as an accent kept with its letter where it fits."""
    pieces = []
    while len(word) > width:
        at = width
        while at > 1 and unicodedata.category(word[at]).startswith("M"):
            at -= 1
        pieces.append(word[:at])
        word = word[at:]
    return [*pieces, word]


def _cut(segment: Segment, lines: list[str], max_line_count: int | None) -> Iterator[Cue]:
    """A segment's lines as cues of at most `max_line_count` lines, each with the time of its own letters."""
    count = max_line_count or max(len(lines), 1)
    clock = _letter_clock(segment, sum(map(_letters, lines)))
    done = 0
    for first in range(0, len(lines), count):
        chosen = lines[first : first + count]
        after = done + sum(map(_letters, chosen))
        start = segment.start if first == 0 else clock(done)[0]
        end = segment.end if first + count >= len(lines) else clock(after - 1)[1]
        yield Cue(_milliseconds(start), _milliseconds(end), chosen)
        done = after


def _letter_clock(segment: Segment, letters: int) -> Callable[[int], tuple[float, float]]:
    """Number of a letter → start and end in seconds: of its word where words are known, else its even share."""
    times = [(word.start, word.end) for word in segment.words or () for _ in range(_letters(_one_line(word.word)))]
    if len(times) == letters:
        return lambda letter: times[letter]
    share = (segment.end - segment.start) / max(letters, 1)
    return lambda letter: (segment.start + letter * share, segment.start + (letter + 1) * share)


def _letters(line: str) -> int:
    """Characters that are not spaces; lines and words of one text have the same number, however it is cut."""
    return len(line) - line.count(" ")
