"""Limits on what a file claims about itself, checked before memory or time is spent on the claim.

A header of 94 bytes can ask a resampler for gigabytes. What no limit here catches, the limits of the decoding process
do (isolated.py).
"""

from av.audio.frame import AudioFrame
from av.container import InputContainer

from actors.errors import AudioUnreadable

#: Samples a second that a recording may have. Resampling 4 Hz makes 4000 samples of one, and 250 MHz needs a filter of
#: 2 GB; the fastest converters that are sold run at 768 kHz.
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 768_000

#: Seconds that one frame may last. Codecs have frames of milliseconds; only made-up headers say more.
MAX_FRAME_SECONDS = 60

#: Streams of a container. Films with fonts and broadcasts with many programmes have several dozen.
MAX_STREAMS = 256


def check_streams(container: InputContainer) -> None:
    """
    Raises:
        AudioUnreadable: the container has too many streams.
    """
    streams = len(container.streams)
    if streams > MAX_STREAMS:
        raise AudioUnreadable(f"the file has {streams} streams, the limit is {MAX_STREAMS}")


def check_channels(channels: int, most: int | None) -> None:
    """
    Raises:
        AudioUnreadable: the recording has too many channels; None allows any number.
    """
    if most is not None and channels > most:
        raise AudioUnreadable(f"the recording has {channels} channels, the limit is {most}")


def check_frame(frame: AudioFrame) -> None:
    """Check a decoded frame before it is resampled.

    Raises:
        AudioUnreadable: its sample rate or its length is beyond what recordings have.
    """
    rate = frame.sample_rate
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        raise AudioUnreadable(
            f"the recording has {rate} samples a second, the limits are {MIN_SAMPLE_RATE} and {MAX_SAMPLE_RATE}"
        )
    if frame.samples > MAX_FRAME_SECONDS * rate:
        seconds = frame.samples / rate
        raise AudioUnreadable(f"one frame of the recording lasts {seconds:.1f} s, the limit is {MAX_FRAME_SECONDS} s")
