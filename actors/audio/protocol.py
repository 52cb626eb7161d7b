"""What the worker and a decoding process say to each other over a socket: fixed headers, raw samples, a little JSON.

Nothing is pickled: a decoder that a recording has taken over can send wrong samples, and no more.
"""

import struct
from typing import Literal

import msgspec

from actors.audio.decode import DecodeOptions

#: From the decoder: the kind of message and three numbers.
#:     FETCH  begin, end, 0                 answered with these bytes of the recording, nothing else
#:     BLOCK  channels, samples, position   float32 samples follow; the decoder has read up to this byte
#:     DONE   length, 0, 0                  warnings follow as JSON
#:     FAILED length, 0, 0                  a Failure follows as JSON
MESSAGE = struct.Struct("!cQQQ")
FETCH, BLOCK, DONE, FAILED = b"f", b"b", b"d", b"x"

#: To the decoder, first of all: the length of a DecodeRequest as JSON, which follows.
LENGTH = struct.Struct("!Q")

#: To the process that forks decoders, and its answer: START with a socket → the decoder's process id, or a negative
#: errno; END and a process id → its wait status, after it was killed.
COMMAND = struct.Struct("!cq")
READY, START, END = b"r", b"s", b"e"


class DecodeRequest(msgspec.Struct, frozen=True):
    """A recording to decode."""

    #: Bytes.
    size: int
    options: DecodeOptions


class Failure(msgspec.Struct, frozen=True):
    """Why a recording was not decoded to its end."""

    #: unreadable, too_long: as the errors; memory: more than the limit; broken: the decoder raised something else.
    kind: Literal["unreadable", "too_long", "memory", "broken"]
    message: str
