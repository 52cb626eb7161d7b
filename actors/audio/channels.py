"""From several channels to one, so that nothing that is spoken in one of them is lost."""

from collections.abc import Iterator

import numpy as np
from av.audio.layout import AudioLayout
from av.audio.stream import AudioStream

from actors.audio.samples import SAMPLE_RATE

#: What each loudspeaker of a stated layout counts in the mix, as in ITU-R BS.775 and FFmpeg; others: as those behind.
_FRONT, _CENTRE, _AROUND = 0.7071, 1.0, 0.5
_WEIGHTS = dict.fromkeys(("FL", "FR", "FLC", "FRC", "DL", "DR"), _FRONT) | {"FC": _CENTRE, "LFE": 0.0, "LFE2": 0.0}

#: FFmpeg's name of a channel of which the file does not say where it belongs.
_UNSTATED = "NONE"

#: Codecs whose layout is the container's; the decoders of others have their own.
_PLAIN_CODECS = ("pcm_", "adpcm_", "dsd_")

#: Samples over which channels are compared: 0.25 s. A change of the mix takes 20 ms, so that it is not heard.
_WINDOW, _RAMP = SAMPLE_RATE // 4, SAMPLE_RATE // 50

#: Power of a mix over that of unrelated channels. In phase, two equal ones have 2, out of phase 0. Below the first the
#: channels cancel each other out; above the second they do not, and are mixed as they are.
_CANCELLED, _IN_PHASE = 0.35, 1.3

#: Power (mean square) below which there is nothing to compare: -110 dB.
_SILENCE = 1e-11

#: Speech lies above hum and below hiss: this filter (1 - 0.9 z^-1) keeps the first from deciding.
_EMPHASIS = 0.9


def take_layout(stream: AudioStream) -> AudioLayout | None:
    """The layout that a container states for samples that are not compressed; None: the decoder knows.

    The decoder then gives frames without one. PyAV frees a layout that lists channels in an order of its own (`chan`
    of MOV, CAF and AIFF) twice, with each frame, which ends the process.
    """
    context = stream.codec_context
    if not context.name.startswith(_PLAIN_CODECS):
        return None
    # This object takes the list of channels from the context, which must not keep it.
    layout = context.layout
    if not layout.nb_channels:
        return None
    context.layout = AudioLayout(f"{layout.nb_channels} channels")
    return layout


def weights(layout: AudioLayout) -> np.ndarray:
    """What each channel counts in the mix; they add up to 1. Equal where the file states no layout."""
    names = [channel.name for channel in layout.channels]
    if _UNSTATED in names or not (total := sum(_WEIGHTS.get(name, _AROUND) for name in names)):
        return np.full(len(names), 1 / len(names))
    return np.array([_WEIGHTS.get(name, _AROUND) / total for name in names])


def in_range(samples: np.ndarray) -> np.ndarray:
    """The same array, its values from -1 to 1: what was recorded as float may be louder than loud, or no number."""
    np.clip(samples, -1, 1, out=samples)
    np.nan_to_num(samples, copy=False)
    return samples


def fit(samples: np.ndarray, channels: int) -> np.ndarray:
    """Samples of shape (any, samples) in so many channels: a file may change their number on the way."""
    if len(samples) == channels:
        return samples
    if len(samples) == 1:
        return np.repeat(samples, channels, axis=0)
    fitted = np.zeros((channels, samples.shape[1]), samples.dtype)
    for channel, heard in enumerate(samples):
        fitted[channel % channels] += heard / -(-len(samples) // channels)
    return fitted


class Mixer:
    """Mixes channels to one. Where they are out of phase and cancel each other out, some are turned over.

    That is decided for each quarter of a second from these samples themselves: only a stretch of a recording may be
    so. Between the two there is a wide margin, so that wide stereo is left alone.
    """

    def __init__(self, layout: AudioLayout) -> None:
        self._weights = weights(layout)
        self._signs = np.ones(len(self._weights))
        self._held: list[np.ndarray] = []
        self._length = 0

    @property
    def is_turned(self) -> bool:
        """Whether channels were turned over in what was given last."""
        return bool(np.any(self._signs < 0))

    def add(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """float32 of shape (channels, samples) → (1, samples), up to a window later."""
        if len(samples) == 1:
            yield samples
            return
        self._held.append(samples)
        self._length += samples.shape[1]
        if self._length >= 4 * _WINDOW:
            yield from self.finish(keep=self._length % _WINDOW)

    def finish(self, keep: int = 0) -> Iterator[np.ndarray]:
        """What is held, but for so many samples."""
        if not self._held:
            return
        held = in_range(np.concatenate(self._held, axis=1))
        ready = self._length - keep
        self._held, self._length = ([held[:, ready:]] if keep else []), keep
        for at in range(0, ready, _WINDOW):
            yield self._mix(held[:, at : min(at + _WINDOW, ready)])

    def _mix(self, window: np.ndarray) -> np.ndarray:
        before, self._signs = self._signs, self._turn(window)
        now = (self._weights * self._signs).astype(np.float32)
        mixed: np.ndarray = now @ window
        if np.any(before != self._signs):
            ramp = min(_RAMP, window.shape[1])
            share = np.linspace(0, 1, ramp, dtype=np.float32)
            earlier = (self._weights * before).astype(np.float32) @ window[:, :ramp]
            mixed[:ramp] = share * mixed[:ramp] + (1 - share) * earlier
        return mixed[None]

    def _turn(self, window: np.ndarray) -> np.ndarray:
        """1 or -1 for each channel."""
        heard = window[:, 1:] - np.float32(_EMPHASIS) * window[:, :-1]
        if not heard.size:
            return self._signs
        products = (heard @ heard.T).astype(np.float64) / heard.shape[1] * np.outer(self._weights, self._weights)
        unrelated = np.trace(products)
        if unrelated < _SILENCE:
            return self._signs
        if products.sum() > _IN_PHASE * unrelated:
            return np.ones(len(products))
        if self._signs @ products @ self._signs > _CANCELLED * unrelated:
            return self._signs
        # The greatest eigenvector has most of the power: its signs say who is in phase with whom.
        greatest = np.linalg.eigh(products)[1][:, -1]
        leading = greatest[np.argmax(np.abs(greatest))]
        return np.where(greatest * leading < 0, -1.0, 1.0)
