"""A transcript as text: JSON, plain text, SRT, WebVTT and TSV. Pure functions in one table, light enough for the API.

Times are rounded once, to whole milliseconds. Subtitles are laid out by actors/layout.py; their text holds nothing that
a parser could take for a time or an end. An empty transcript gives an empty file of its format.
"""

import re
from collections.abc import Callable

import msgspec

from actors.layout import PLAIN, Cue, Layout, lay_out
from actors.phrases import without_controls
from storage.transcript import Transcript


class Format(msgspec.Struct, frozen=True):
    name: str
    #: Of the result object and the download name, without a dot.
    extension: str
    media_type: str
    render: Callable[[Transcript, Layout], str]
    #: The layout shapes it.
    laid_out: bool = False


def render(transcript: Transcript, format: str, layout: Layout = PLAIN) -> bytes:
    """The transcript in a format of FORMATS, as UTF-8. The layout concerns subtitles only."""
    text = FORMATS[format].render(transcript, layout)
    return text.encode("utf-8", errors="replace")


def _json(transcript: Transcript, layout: Layout) -> str:
    return msgspec.json.encode(transcript).decode()


def _text(transcript: Transcript, layout: Layout) -> str:
    lines = (_one_line(segment.text) for segment in transcript.segments)
    return "".join(f"{line}\n" for line in lines if line)


def _srt(transcript: Transcript, layout: Layout) -> str:
    """SubRip as players read it: numbers from 1, a comma before the milliseconds, a blank line between cues."""
    return "\n".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{_joined(cue.lines, _defuse_arrow)}"
        for number, cue in enumerate(lay_out(transcript, layout), 1)
    )


def _vtt(transcript: Transcript, layout: Layout) -> str:
    """WebVTT, https://www.w3.org/TR/webvtt1/. Where channels were transcribed apart, a cue says whose voice it is."""
    return "WEBVTT\n" + "".join(
        f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_voice(cue)}{_joined(cue.lines, _escape_markup)}"
        for cue in lay_out(transcript, layout)
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
        Format("srt", "srt", "application/x-subrip; charset=utf-8", _srt, laid_out=True),
        Format("vtt", "vtt", "text/vtt; charset=utf-8", _vtt, laid_out=True),
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
    return " ".join(without_controls(text).split())


def _joined(lines: list[str], harmless: Callable[[str], str]) -> str:
    return "".join(f"{harmless(line)}\n" for line in lines)


def _defuse_arrow(line: str) -> str:
    """SubRip has no escapes: a text that says --> would be read as times."""
    return re.sub("--+>", "->", line)


#: All that WebVTT has names for (3.2, cue text).
_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\u200e": "&lrm;", "\u200f": "&rlm;", "\u00a0": "&nbsp;"}
)


def _escape_markup(line: str) -> str:
    return line.translate(_ESCAPES)


def _voice(cue: Cue) -> str:
    """A voice span to the end of the cue: people count channels from 1."""
    return "" if cue.channel is None else f"<v Channel {cue.channel + 1}>"
