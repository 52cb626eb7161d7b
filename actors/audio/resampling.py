"""Frames of one kind → float samples at 16 kHz, in one channel or in all of them."""

from collections.abc import Iterator

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler

from actors.audio.channels import Mixer
from actors.audio.clock import Findings
from actors.audio.samples import SAMPLE_RATE


class Resampling:
    """Float, so that a quiet recording keeps what its bits hold; channels apart, so that they can be compared."""

    def __init__(self, first: AudioFrame, layout: AudioLayout, findings: Findings, *, separate: bool) -> None:
        self._kind = _kind(first)
        self.channels = layout.nb_channels
        #: Of the samples that come out.
        self.channels_out = self.channels if separate else 1
        # Interleaved: PyAV finds the planes of more than seven others by a pointer behind the last one.
        self._resampler = AudioResampler(format="flt", rate=SAMPLE_RATE)
        self._mixer = None if separate else Mixer(layout)
        self._findings = findings

    def fits(self, frame: AudioFrame) -> bool:
        return _kind(frame) == self._kind

    def add(self, frame: AudioFrame) -> Iterator[np.ndarray]:
        """Shape (channels_out, samples); what is ready so far."""
        # The container's clock knows the time: the resampler takes samples as they come.
        frame.pts = None
        yield from self._out(frame)

    def finish(self) -> Iterator[np.ndarray]:
        """What is left."""
        yield from self._out(None)
        if self._mixer is not None:
            yield from self._noted(self._mixer, self._mixer.finish())

    def _out(self, frame: AudioFrame | None) -> Iterator[np.ndarray]:
        for ready in self._resampler.resample(frame):
            samples = ready.to_ndarray().reshape(-1, self.channels).T
            if self._mixer is None:
                yield samples
            else:
                yield from self._noted(self._mixer, self._mixer.add(samples))

    def _noted(self, mixer: Mixer, mixed: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for samples in mixed:
            if mixer.is_turned:
                self._findings.note_turned(samples.shape[1])
            yield samples


def _kind(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate
