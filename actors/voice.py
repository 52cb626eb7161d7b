"""Where speech is: Silero's voice activity model, the one inside faster-whisper, fed block by block."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from faster_whisper.vad import get_vad_model

from actors.audio.decode import SAMPLE_RATE
from actors.audio.loudness import Loudness

#: Samples in a frame of the model: 32 ms.
FRAME = 512

#: Samples before a frame that the model sees with it.
_CONTEXT = 64

#: Frames a call: larger blocks fall out of the processor's cache and take a sixth longer.
_CALL = 128


#: A frame at least this likely to be speech is speech.
_SPEECH = 0.5

#: Speech that stands out by less is in noise; seconds in which that is measured, and of speech that they must hold.
_NOISE_DECIBELS, _NOISE_SECONDS, _NOISE_SPEECH_SECONDS = 18.0, 20.0, 2.0

#: A frame that is surely speech, and the share of such frames in half a second of clear speech.
_SURE, _SURE_SHARE, _SURE_FRAMES = 0.9, 0.4, 16

#: What is doubtful has no such half second, a mean probability below this, and is so long, in frames: 2 s inside a
#: stretch, 0.5 s as a whole one. Music reaches 0.3 to 0.7; speech that is no clearer has nothing clear beside it, or
#: lasts less: 1 s inside a stretch took words from 28 of 450 clean telephone prompts, most of them the first ones.
_DOUBTFUL, _DOUBTFUL_FRAMES, _DOUBTFUL_STRETCH = 0.72, 62, 16

#: Clear speech that stands out from its own pauses by less is in noise, in which Silero is less sure: nothing beside
#: it is doubtful then. Babble 5 and 10 dB below it leaves 8 and 12, sentences after music have 13.5 to 20.
_CLEAR_DECIBELS = 12.5

#: Frames from the onset of a voice to the first that is surely speech, at most, with a margin: 0.25 s.
_ONSET_FRAMES = 8

#: Frames before a stretch in which sounds are that go on in it, if they are not that much quieter than the voice.
_BEFORE_FRAMES, _BEFORE_DECIBELS = 16, 18.0

#: Frames around the edge of clear speech among which the least probable one is the place to cut.
_EDGE_FRAMES = 12


class Span(NamedTuple):
    """A stretch of speech, in samples; the end is exclusive."""

    start: int
    end: int
    #: Hardly taken for speech, beside speech that surely is: music, mostly.
    doubtful: bool = False


class VoiceActivity:
    """The probability of speech in each frame of a recording, whatever the size of the blocks it comes in.

    The model's memory and the samples of an unfinished frame are carried from block to block, so that a recording gives
    the same probabilities in one block as in many. A quiet one is raised first, by its level so far. One
    object listens to one recording.
    """

    def __init__(self) -> None:
        self._session = get_vad_model().session
        self._h = np.zeros((1, 1, 128), np.float32)
        self._c = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(_CONTEXT, np.float32)
        self._rest = np.zeros(0, np.float32)
        self._loudness = Loudness()

    def listen(self, samples: np.ndarray) -> np.ndarray:
        """Probabilities, shape (frames,), of the frames that these samples complete.

        Args:
            samples: float32 in [-1, 1] at 16 kHz, shape (samples,), any number of them.
        """
        joined = np.concatenate([self._rest, self._loudness.raise_quiet(samples)])
        whole = len(joined) // FRAME * FRAME
        self._rest = joined[whole:]
        frames = joined[:whole].reshape(-1, FRAME)
        calls = [self._run(frames[at : at + _CALL]) for at in range(0, len(frames), _CALL)]
        return np.concatenate(calls) if calls else np.zeros(0, np.float32)

    def finish(self) -> np.ndarray:
        """The probability of the last, unfinished frame, filled up with silence; shape (1,), (0,) if there is none."""
        if not len(self._rest):
            return np.zeros(0, np.float32)
        return self.listen(np.zeros(FRAME - len(self._rest), np.float32))

    def _run(self, frames: np.ndarray) -> np.ndarray:
        contexts = np.concatenate([self._context[None], frames[:-1, -_CONTEXT:]])
        self._context = frames[-1, -_CONTEXT:]
        heard = {"input": np.concatenate([contexts, frames], axis=1), "h": self._h, "c": self._c}
        probabilities, self._h, self._c = self._session.run(None, heard)
        return np.asarray(probabilities, np.float32).reshape(-1)


def listen(samples: np.ndarray) -> np.ndarray:
    """The probability of speech in each frame of a recording that is in memory, shape (frames,)."""
    voice = VoiceActivity()
    return np.concatenate([voice.listen(samples), voice.finish()])


def noisy(samples: np.ndarray, probabilities: np.ndarray) -> bool:
    """Whether somewhere in a recording speech stands out from the sounds around it by less than 18 dB.

    Measured where there is speech, in stretches of 20 s: how much louder frames of speech are than the quietest tenth
    of all frames. Clean recordings have 25 to 50 dB, speech beside babble or white noise as loud as 20, 10 and 5 dB
    below it has 21, 12 and 8.

    Args:
        samples: float32 in [-1, 1] at 16 kHz, shape (samples,).
        probabilities: of speech, as `listen` gives them.
    """
    frames = np.zeros(len(probabilities) * FRAME, np.float32)
    frames[: len(samples)] = samples
    decibels = 10 * np.log10(np.mean(frames.reshape(-1, FRAME) ** 2, axis=1) + 1e-9)
    size = round(_NOISE_SECONDS * SAMPLE_RATE / FRAME)
    for at in range(0, len(decibels), size):
        heard, speech = decibels[at : at + size], probabilities[at : at + size] >= _SPEECH
        if np.count_nonzero(speech) < _NOISE_SPEECH_SECONDS * SAMPLE_RATE / FRAME:
            continue
        if np.percentile(heard[speech], 75) - np.percentile(heard, 10) < _NOISE_DECIBELS:
            return True
    return False


def find_speech(
    probabilities: np.ndarray,
    *,
    threshold: float = _SPEECH,
    silence_threshold: float = 0.35,
    silence_seconds: float = 0.16,
    speech_seconds: float = 0.09,
    padding_seconds: float = 0.2,
) -> list[Span]:
    """Stretches of speech in the frames of a VoiceActivity.

    Speech begins at a frame above the threshold and ends where frames stay below the silence threshold for a while.
    What is shorter than `speech_seconds` is a click or a note. Each stretch is widened by the padding, but not beyond
    the middle of the silence between two.
    """
    spoken: list[list[int]] = []
    inside = False
    quiet_since: int | None = None
    patience = round(silence_seconds * SAMPLE_RATE / FRAME)
    for frame, probability in enumerate(probabilities.tolist()):
        if probability >= threshold:
            if not inside:
                spoken.append([frame, frame + 1])
                inside = True
            quiet_since = None
        elif inside and probability < silence_threshold:
            quiet_since = frame if quiet_since is None else quiet_since
            if frame - quiet_since >= patience:
                spoken[-1][1] = quiet_since
                inside = False
                quiet_since = None
    if inside:
        spoken[-1][1] = len(probabilities) if quiet_since is None else quiet_since
    spoken = [span for span in spoken if (span[1] - span[0]) * FRAME >= speech_seconds * SAMPLE_RATE]
    padding = round(padding_seconds * SAMPLE_RATE)
    end = len(probabilities) * FRAME
    edges = [0, *((a[1] + b[0]) * FRAME // 2 for a, b in pairwise(spoken)), end]
    return [
        Span(max(start * FRAME - padding, before), min(stop * FRAME + padding, after))
        for (start, stop), before, after in zip(spoken, edges, edges[1:], strict=False)
    ]


def without_doubt(spans: Sequence[Span], probabilities: np.ndarray, decibels: np.ndarray) -> list[Span]:
    """The same stretches, with those marked and cut off that are doubtful.

    Where nothing is clear, as on some telephones, or what is clear is in noise itself, nothing is doubtful.

    Args:
        decibels: of each frame, as the probabilities.
    """
    sure = probabilities >= _SURE
    if len(sure) < _SURE_FRAMES:
        return list(spans)
    clear = np.convolve(sure, np.ones(_SURE_FRAMES) / _SURE_FRAMES, "same") >= _SURE_SHARE
    if not clear.any():
        return list(spans)
    if np.percentile(decibels[sure], 75) - np.percentile(decibels[clear], 10) < _CLEAR_DECIBELS:
        return list(spans)
    return [part for span in spans for part in _parts(span, probabilities, sure, clear)]


def from_onset(span: Span, probabilities: np.ndarray, decibels: np.ndarray) -> Span:
    """The stretch from the voice on, where it begins in the middle of a sound that is hardly speech.

    Args:
        decibels: of each frame, as the probabilities.
    """
    first, last = span.start // FRAME, min(-(-span.end // FRAME), len(probabilities))
    sure = first + np.flatnonzero(probabilities[first:last] >= _SURE)
    before = decibels[max(first - _BEFORE_FRAMES, 0) : first]
    if not len(sure) or not len(before):
        return span
    onset = int(sure[0]) - _ONSET_FRAMES
    quiet = before.mean() < decibels[sure[:_BEFORE_FRAMES]].mean() - _BEFORE_DECIBELS
    if quiet or onset <= first or probabilities[first:onset].mean() >= _DOUBTFUL:
        return span
    return span._replace(start=onset * FRAME)


def _parts(span: Span, probabilities: np.ndarray, sure: np.ndarray, clear: np.ndarray) -> Iterator[Span]:
    """A stretch of speech as clear and doubtful ones, in order, without gaps."""
    first, last = span.start // FRAME, min(-(-span.end // FRAME), len(probabilities))
    frames = first + np.flatnonzero(clear[first:last])
    if not len(frames):
        hardly = last - first >= _DOUBTFUL_STRETCH and probabilities[first:last].mean() < _DOUBTFUL
        yield span._replace(doubtful=bool(hardly))
        return
    # Around each run of clear half seconds, up to the frames that are hardly speech.
    runs = np.split(frames, np.flatnonzero(np.diff(frames) > _DOUBTFUL_FRAMES) + 1)
    edges = [_edges(run, probabilities, sure) for run in runs]
    bounds = [first, *(min(max(edge, first), last) for pair in edges for edge in pair), last]
    at = span.start
    for number, (begin, end) in enumerate(pairwise(bounds)):
        between = number % 2 == 0
        if between and end - begin >= _DOUBTFUL_FRAMES and probabilities[begin:end].mean() < _DOUBTFUL:
            if begin * FRAME > at:
                yield Span(at, begin * FRAME)
            yield Span(max(begin * FRAME, at), min(end * FRAME, span.end), doubtful=True)
            at = end * FRAME
    if at < span.end:
        yield Span(at, span.end)


def _edges(run: np.ndarray, probabilities: np.ndarray, sure: np.ndarray) -> tuple[int, int]:
    """First and last frame, exclusive, of the clear speech that a run of clear half seconds belongs to."""
    half = _SURE_FRAMES // 2
    low, high = max(run[0] - half, 0), run[-1] + half
    frames = low + np.flatnonzero(sure[low:high])
    begin, end = int(frames[0]), int(frames[-1]) + 1
    before = max(begin - _EDGE_FRAMES, 0)
    return before + int(np.argmin(probabilities[before : begin + 1])), end + int(
        np.argmin(probabilities[end - 1 : end + _EDGE_FRAMES])
    )
