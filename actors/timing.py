"""When a text is said: Whisper's times, without the sound around the voice that they often take in."""

from collections.abc import Sequence

import msgspec

from actors.audio.decode import SAMPLE_RATE
from actors.windows import Window
from storage.transcript import Word

#: No speech is faster.
_LETTERS_PER_SECOND = 30


class Timing(msgspec.Struct, frozen=True):
    """Seconds from the beginning of a window."""

    start: float
    end: float
    words: list[Word] | None = None


def at_the_voice(timing: Timing, text: str, window: Window) -> Timing:
    """Begin a text where the voice does and end it there; the first and the last word, too.

    Where the voice leaves no time for the text, or the words are elsewhere, more speaks than is taken for a voice.
    """
    start, end = _voice_within(timing.start, timing.end, window)
    words = timing.words
    if words:
        start, end = min(start, words[0].end), max(end, words[-1].start)
    if len(text) > _LETTERS_PER_SECOND * (end - start):
        return timing
    if words:
        words = _from(start, _until(end, words))
    return Timing(start, end, words)


def _voice_within(start: float, end: float, window: Window) -> tuple[float, float]:
    voice = [span for span in window.voice if span.end > start * SAMPLE_RATE and span.start < end * SAMPLE_RATE]
    if not voice:
        return start, end
    return max(start, voice[0].start / SAMPLE_RATE), min(end, voice[-1].end / SAMPLE_RATE)


def _from(start: float, words: Sequence[Word]) -> list[Word]:
    first = msgspec.structs.replace(words[0], start=max(words[0].start, start))
    return [first, *words[1:]]


def _until(end: float, words: Sequence[Word]) -> list[Word]:
    last = msgspec.structs.replace(words[-1], end=min(words[-1].end, end))
    return [*words[:-1], last]
