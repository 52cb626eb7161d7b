"""The times of a recording's frames, and what was not as it should be."""

import av
from av.audio.frame import AudioFrame
from av.container import InputContainer

from actors.audio.samples import SAMPLE_RATE

#: Containers that tell a time with every packet, and seconds that a gap may have. In others (WAV, MP3, FLAC) samples
#: follow one another. A broadcast may restart its clock on the way: ffmpeg, too, believes it no more than 10 s.
_LONGEST_GAPS = {
    "matroska,webm": 3600.0,
    "mov,mp4,m4a,3gp,3g2,mj2": 3600.0,
    "flv": 3600.0,
    "asf": 3600.0,
    "mpegts": 10.0,
    "mpeg": 10.0,
}

#: Seconds that a frame may come early, and late, by its container's time. FFmpeg's own bound is as low for the first.
_EARLY, _LATE = 0.1, 1.0

#: Seconds of channels out of phase that are worth a word; pauses that do not end such a stretch; how many are listed.
_LEAST_TURNED, _PAUSE, _MOST_LISTED = 0.5, 3.0, 5


class Findings:
    """What was stepped over, and how far the recording went."""

    def __init__(self) -> None:
        self.packets = 0
        self.breaks = 0
        #: Of the samples that were given, and how many of them there were, in each.
        self.channels, self.samples = 0, 0
        #: How often the container's times jumped further than can be believed, or back; seconds before the first time.
        self.jumps, self.first_jump = 0, 0.0
        #: Stretches in which channels were out of phase, in seconds, with the pauses between them.
        self.turned: list[tuple[float, float]] = []
        #: Whole sentences, in the order in which their reasons were found.
        self.told: list[str] = []

    @property
    def seconds(self) -> float:
        return self.samples / SAMPLE_RATE

    def note_turned(self, samples: int) -> None:
        """Channels are out of phase in the samples that come next."""
        start, end = self.seconds, self.seconds + samples / SAMPLE_RATE
        if self.turned and start - self.turned[-1][1] <= _PAUSE:
            start, _ = self.turned.pop()
        self.turned.append((start, end))

    def sentences(self) -> list[str]:
        found = []
        if self.packets or self.breaks:
            found.append(f"{self.packets + self.breaks} damaged places of the recording were skipped")
        if self.jumps:
            found.append(
                f"the recording's clock jumps {self.jumps} times, first after {self.first_jump:.1f} s; ignored"
            )
        if sum(end - start for start, end in self.turned) >= _LEAST_TURNED:
            found.append(f"channels are out of phase {self._when_turned()}: their difference was transcribed there")
        return found + self.told

    def _when_turned(self) -> str:
        listed = ", ".join(f"from {start:.1f} to {end:.1f} s" for start, end in self.turned[:_MOST_LISTED])
        more = len(self.turned) - _MOST_LISTED
        return f"{listed} and {more} times more" if more > 0 else listed


class Clock:
    """The time of each frame in a container, and what is missing before it."""

    def __init__(self, container: InputContainer, findings: Findings) -> None:
        self._longest_gap = _LONGEST_GAPS.get(container.format.name)
        #: The container's time at which this clock began, and how far it has gone; both in seconds.
        self._begin = (container.start_time or 0) / av.time_base
        self._now = 0.0
        #: Of the recording, before this container.
        self._before = findings.seconds
        self._findings = findings

    def missing_before(self, frame: AudioFrame) -> int:
        """Samples at 16 kHz without sound that the container has before this frame, which comes next."""
        missing = 0.0
        if self._longest_gap is not None and frame.time is not None:
            early = frame.time - self._begin - self._now
            if not -_LATE <= early <= self._longest_gap:
                self._begin += early
                self._findings.first_jump = self._findings.first_jump or self._before + self._now
                self._findings.jumps += 1
            elif early > _EARLY:
                missing = early
        self._now += missing + frame.samples / frame.sample_rate
        return round(missing * SAMPLE_RATE)
