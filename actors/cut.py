"""A stream of samples → chunks cut at silence, while the rest is still being read.

Memory is bounded by one chunk and one block, whatever the length of the recording. Stretches without speech are left
out: a chunk begins shortly before speech and ends shortly after. No sample changes on the way, so that a chunk's times
are exact.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import msgspec
import numpy as np

from actors.audio.decode import SAMPLE_RATE
from actors.levels import Levels
from actors.voice import FRAME

#: Samples → the probability of speech in each whole frame of FRAME samples; carries its state from call to call.
Voice = Callable[[np.ndarray], np.ndarray]

_FRAMES_A_SECOND = SAMPLE_RATE / FRAME

#: A frame at least this likely to be speech is speech; once in speech, a frame is silence only below the lower bound.
_SPEECH, _SILENCE = 0.5, 0.35
#: Silence that is long enough to cut in its middle, in frames: 0.3 s.
_PAUSE = round(0.3 * _FRAMES_A_SECOND)
#: Silence that ends a chunk however short it is, and how much of it stays on either side, in frames: 8 s and 1 s.
_GAP, _MARGIN = round(8 * _FRAMES_A_SECOND), round(1 * _FRAMES_A_SECOND)


class Piece(msgspec.Struct, frozen=True):
    """A stretch of the recording that holds speech."""

    #: Index of its first sample in the recording.
    begin: int
    #: float32, shape (samples,).
    samples: np.ndarray
    #: Seconds of the recording that are done with it: from the end of the piece before, a channel's part of them.
    share: float = 0.0
    #: Counts from 0; None: the channels were mixed.
    channel: int | None = None

    @property
    def end(self) -> int:
        return self.begin + len(self.samples)


def with_short_start(piece: Piece, seconds: float = 15.0) -> list[Piece]:
    """A recording's first piece in two, the first of about `seconds`, cut where it is quietest: text comes early."""
    around = round(seconds / 2 * _FRAMES_A_SECOND)
    if len(piece.samples) < 4 * around * FRAME:
        return [piece]
    energy = np.square(piece.samples[: 3 * around * FRAME]).reshape(-1, FRAME).sum(axis=1)
    quiet = np.convolve(energy, np.ones(_PAUSE), mode="same")[around : 3 * around - _PAUSE // 2]
    cut = (around + int(np.argmin(quiet))) * FRAME
    share = piece.share * cut / len(piece.samples)
    return [
        msgspec.structs.replace(piece, samples=piece.samples[:cut], share=share),
        msgspec.structs.replace(piece, begin=piece.begin + cut, samples=piece.samples[cut:], share=piece.share - share),
    ]


def not_reached(pieces: Iterable[Piece], reached: Mapping[int | None, int]) -> Iterator[Piece]:
    """What of the pieces an earlier cut has not announced, whatever settings or version it cut with.

    `reached`: of each channel, where in the recording the chunks that are known end, in samples.
    """
    for piece in pieces:
        skipped = reached.get(piece.channel, 0) - piece.begin
        if skipped <= 0:
            yield piece
        elif skipped < len(piece.samples):
            share = piece.share * (1 - skipped / len(piece.samples))
            yield msgspec.structs.replace(
                piece, begin=piece.begin + skipped, samples=piece.samples[skipped:], share=share
            )


class Reading:
    """One pass over a recording: first `pieces`, while it is read, then `rest`."""

    def __init__(
        self, blocks: Iterable[np.ndarray], new_voice: Callable[[], Voice], target_seconds: float, max_seconds: float
    ) -> None:
        """`blocks`: float32 of shape (channels, samples)."""
        self._blocks = blocks
        self._new_cutter = partial(_cutter, new_voice, target_seconds, max_seconds)
        self._cutters: list[Cutter] = []
        self._reached: list[float] = []
        #: Seconds read so far.
        self.seconds = 0.0
        #: Of what was read, complete once `rest` is taken.
        self.levels = Levels()

    @property
    def channels(self) -> int:
        """That are cut each on its own; known with the first piece."""
        return len(self._cutters)

    def pieces(self) -> Iterator[Piece]:
        """What is complete before the recording ends; nothing when it is shorter than a chunk."""
        for block in self._blocks:
            if not self._cutters:
                self._cutters = [self._new_cutter() for _ in block]
                self._reached = [0.0] * len(block)
            self.seconds += block.shape[1] / SAMPLE_RATE
            self.levels.add(block)
            for channel, cutter in enumerate(self._cutters):
                for piece in cutter.add(block[channel]):
                    yield self._told(channel, piece)

    def rest(self) -> list[Piece]:
        """What is left at the end, one piece a channel at most."""
        self.levels.finish()
        return [self._told(channel, piece) for channel, cutter in enumerate(self._cutters) for piece in cutter.finish()]

    def _told(self, channel: int, piece: Piece) -> Piece:
        reached, self._reached[channel] = self._reached[channel], piece.end / SAMPLE_RATE
        share = (piece.end / SAMPLE_RATE - reached) / len(self._cutters)
        return msgspec.structs.replace(piece, share=share, channel=channel if len(self._cutters) > 1 else None)


class Cutter:
    def __init__(self, voice: Voice, target_seconds: float, max_seconds: float) -> None:
        """Chunks hold `target_seconds` and a little, up to the next pause, and `max_seconds` at most."""
        self._voice = voice
        self._target = round(target_seconds * _FRAMES_A_SECOND)
        self._max = round(max_seconds * _FRAMES_A_SECOND)
        #: Index in the recording of the first sample that is held.
        self._begin = 0
        self._held = np.zeros(0, np.float32)
        #: How many held frames were judged, whether the last one was speech, and how many of the last were silence.
        self._frames, self._speaking, self._silent = 0, False, 0

    def add(self, block: np.ndarray) -> Iterator[Piece]:
        """Take the next samples, float32 of shape (samples,); yields what is complete."""
        self._held = np.concatenate([self._held, block])
        for probability in self._voice(block).tolist():
            self._frames += 1
            self._speaking = probability >= (_SILENCE if self._speaking else _SPEECH)
            self._silent = 0 if self._speaking else self._silent + 1
            yield from self._cut()

    def finish(self) -> Iterator[Piece]:
        """The recording is over; yields the rest, if there is speech in it."""
        if self._silent < self._frames:
            yield Piece(self._begin, self._held)

    def _cut(self) -> Iterator[Piece]:
        """Look at the newest frame: end the chunk, or forget what is only silence."""
        frames, silent = self._frames, self._silent
        if silent == frames:
            if frames > 2 * _MARGIN:
                self._drop(frames - _MARGIN)
        elif silent >= _GAP:
            yield self._take((frames - silent + _MARGIN) * FRAME)
        elif frames >= self._max:
            yield self._take(self._quietest() * FRAME)
        elif frames - silent // 2 >= self._target and silent >= _PAUSE:
            yield self._take((frames - silent // 2) * FRAME)

    def _quietest(self) -> int:
        """The frame at which 0.3 s of the least energy are in the middle, in the second half of what is held."""
        frames = self._frames
        energy = np.square(self._held[: frames * FRAME]).reshape(frames, FRAME).sum(axis=1)
        around = np.convolve(energy, np.ones(_PAUSE), mode="same")
        half = frames // 2
        return half + int(np.argmin(around[half : frames - _PAUSE // 2]))

    def _take(self, samples: int) -> Piece:
        piece = Piece(self._begin, self._held[:samples])
        self._drop(samples // FRAME)
        return piece

    def _drop(self, frames: int) -> None:
        self._begin += frames * FRAME
        # A copy, so that what was dropped is freed.
        self._held = self._held[frames * FRAME :].copy()
        self._frames -= frames
        self._silent = min(self._silent, self._frames)


def _cutter(new_voice: Callable[[], Voice], target_seconds: float, max_seconds: float) -> Cutter:
    return Cutter(new_voice(), target_seconds, max_seconds)
