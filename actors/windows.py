"""Which stretches of a recording the model hears at once: windows of packed speech, cut where it is quiet.

Whisper pads whatever it gets to 30 s, and half of the time goes into that. Here neighbouring stretches of speech are
packed into windows of a known, shorter length that the model takes as well. A window is contiguous, so that the times
in it need no map. A cut through a word costs two words, the half before it and the half after it; so the cuts are
chosen together, the quietest places against the number of windows.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import msgspec
import numpy as np

from actors.audio.decode import SAMPLE_RATE
from actors.voice import FRAME, Span, find_speech, from_onset, without_doubt

#: Frames of log-mel features a second.
FEATURES_PER_SECOND = 100

#: What a cut in the middle of a loud word costs, in windows.
_LOUD_CUT = 6.0

#: Frames around a cut that should be quiet: 160 ms.
_QUIET_FRAMES = 5

#: Frames of which the quietest is a place to cut: 256 ms.
_CHOICE_FRAMES = 8


class Shape(msgspec.Struct, frozen=True):
    """How long windows are, in seconds. Found by measuring: shorter ones make a model repeat itself."""

    #: Audio in a window, at most.
    speech: float
    #: What the encoder sees: the rest is silence, without which the model does not know that the speech has ended.
    encoder: float
    #: Where all there is to hear is at most so long, this shorter encoder window is enough.
    short_speech: float = 6.0
    short_encoder: float = 8.0
    #: Stretches further apart are not packed together.
    gap: float = 3.0

    def features_of(self, samples: int) -> int:
        """Frames of features for so many samples; one of two lengths, for only windows of one length share a batch."""
        short = samples <= self.short_speech * SAMPLE_RATE
        return round((self.short_encoder if short else self.encoder) * FEATURES_PER_SECOND)


class Window(msgspec.Struct, frozen=True):
    #: Where the samples begin in the recording.
    start: int
    #: float32 in [-1, 1] at 16 kHz, shape (samples,).
    samples: np.ndarray
    #: Where in the samples there is speech, or whatever else is to be written down.
    speech: tuple[Span, ...]
    #: Frames of features that the encoder is given.
    features: int
    #: Where in the samples a voice is heard.
    voice: tuple[Span, ...] = ()
    #: It is hardly speech, if any: what seems to be said in it is believed only if it is probable.
    doubtful: bool = False

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    def after(self, sample: int) -> "Window":
        """The rest of this window, from the first speech after a sample on."""
        rest = [span for span in self.speech if span.end > sample]
        first = max(sample, rest[0].start) if rest else sample
        return msgspec.structs.replace(
            self,
            start=self.start + first,
            samples=self.samples[first:],
            speech=_inside(self.speech, first, len(self.samples)),
            voice=_inside(self.voice, first, len(self.samples)),
        )

    def speech_between(self, start: int, end: int) -> int:
        """Samples of speech within a part of this window."""
        return sum(max(0, min(span.end, end) - max(span.start, start)) for span in self.speech)


def plan(samples: np.ndarray, probabilities: np.ndarray, shape: Shape, *, everything: bool = False) -> Iterator[Window]:
    """The windows of a recording, in order.

    Every stretch of speech is in exactly one window and windows do not overlap. With `everything` set they cover what
    is not speech too.

    Args:
        samples: float32 in [-1, 1] at 16 kHz, shape (samples,).
        probabilities: of speech, one for each frame of the samples, as actors.voice.listen gives them.
    """
    limit, gap = round(shape.speech * SAMPLE_RATE), round(shape.gap * SAMPLE_RATE)
    decibels = _decibels(samples, len(probabilities))
    found = without_doubt(find_speech(probabilities), probabilities, decibels)
    spans = _covering(found, len(probabilities) * FRAME, gap) if everything else found
    voice = [from_onset(span, probabilities, decibels) for span in found if not span.doubtful]
    loudness = _loudness(decibels, probabilities)
    for island in _islands(spans, gap):
        for part in _cut(island, limit, loudness):
            yield _window(samples, part, island, voice, shape)


def _window(samples: np.ndarray, part: Span, island: Sequence[Span], voice: Sequence[Span], shape: Shape) -> Window:
    start, end = part.start, min(part.end, len(samples))
    return Window(
        start,
        samples[start:end],
        _inside(island, start, end),
        shape.features_of(end - start),
        _inside(voice, start, end),
        island[0].doubtful,
    )


def _inside(spans: Iterable[Span], start: int, end: int) -> tuple[Span, ...]:
    """The parts of the stretches between two samples, counted from the first."""
    inside = (Span(max(span.start, start) - start, min(span.end, end) - start) for span in spans)
    return tuple(span for span in inside if span.end > span.start)


def _covering(voice: Sequence[Span], end: int, gap: int) -> list[Span]:
    """All of a recording: stretches of speech that touch, and what is between those further apart, doubtful."""
    covering: list[Span] = []
    for span in voice:
        reached = covering[-1].end if covering else 0
        if span.start - reached > gap:
            covering.append(Span(reached, span.start, doubtful=True))
            reached = span.start
        elif covering:
            reached = (reached + span.start) // 2
            covering[-1] = covering[-1]._replace(end=reached)
        covering.append(span._replace(start=reached))
    if not covering or end - covering[-1].end > gap:
        covering.append(Span(covering[-1].end if covering else 0, end, doubtful=bool(covering)))
    covering[-1] = covering[-1]._replace(end=end)
    return [span for span in covering if span.end > span.start]


def _islands(spans: Sequence[Span], gap: int) -> Iterator[list[Span]]:
    """Neighbouring stretches, in groups that are further apart than the gap or not as clear as each other."""
    group: list[Span] = []
    for span in spans:
        if group and (span.start - group[-1].end > gap or span.doubtful != group[-1].doubtful):
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _decibels(samples: np.ndarray, frames: int) -> np.ndarray:
    """How loud each frame is, shape (frames,)."""
    padded = np.zeros(frames * FRAME, np.float32)
    padded[: min(len(samples), len(padded))] = samples[: len(padded)]
    return np.asarray(10 * np.log10(np.mean(padded.reshape(-1, FRAME) ** 2, axis=1) + 1e-9))


def _loudness(decibels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How much a cut at each frame would hurt, 0 to 1: half its loudness, half its probability of speech."""
    if not len(decibels):
        return np.zeros(0, np.float32)
    quiet, loud = np.percentile(decibels, [10, 90])
    level = np.clip((decibels - quiet) / max(loud - quiet, 1.0), 0, 1)
    return np.convolve((level + probabilities) / 2, np.ones(_QUIET_FRAMES) / _QUIET_FRAMES, "same")


def _cut(spans: Sequence[Span], limit: int, loudness: np.ndarray) -> list[Span]:
    """Stretches of at most `limit` samples that hold all of the spans, at the least cost of windows and loud cuts.

    A cut between two spans leaves the silence there out. The shortest path over the places to cut, from first to last.
    """
    first, last = spans[0].start, spans[-1].end
    if last - first <= limit:
        return [Span(first, last)]
    frames = range(first // FRAME + 1, last // FRAME, _CHOICE_FRAMES)
    places = [at + int(np.argmin(loudness[at : at + _CHOICE_FRAMES])) for at in frames]
    places = [place for place in places if first < place * FRAME < last]
    ends = [first, *(_end_before(place * FRAME, spans) for place in places), last]
    starts = [first, *(_start_after(place * FRAME, spans) for place in places), last]
    hurt = [0.0, *(float(loudness[place]) * _LOUD_CUT for place in places), 0.0]

    cost = np.full(len(ends), np.inf)
    cost[0] = 0.0
    came_from = [0] * len(ends)
    reach = 0
    for here in range(1, len(ends)):
        while ends[here] - starts[reach] > limit:
            reach += 1
        best = min(reach, here - 1) + int(np.argmin(cost[min(reach, here - 1) : here]))
        cost[here] = cost[best] + 1.0 + hurt[here]
        came_from[here] = best
    path = [len(ends) - 1]
    while path[-1]:
        path.append(came_from[path[-1]])
    return [Span(starts[a], ends[b]) for a, b in pairwise(reversed(path)) if ends[b] > starts[a]]


def _end_before(sample: int, spans: Sequence[Span]) -> int:
    """Where a window ends that is cut here: here, or where the speech before it ended."""
    return min(sample, max(span.end for span in spans if span.start < sample))


def _start_after(sample: int, spans: Sequence[Span]) -> int:
    """Where a window begins that is cut here: here, or where the speech after it begins."""
    return max(sample, min(span.start for span in spans if span.end > sample))
