"""Which language is spoken: found in a recording's first minute, without transcribing it."""

from collections.abc import Callable, Iterator

import numpy as np

from actors.audio.decode import SAMPLE_RATE, Source, decode_channels
from actors.engine import Engine
from storage.inbox import known_etag
from storage.job import Job
from storage.object_store import ObjectStore

#: Whisper hears 30 s at once: what is said in a minute is asked in several places.
HEARD_SECONDS = 60


def detect_language(
    job: Job,
    objects: ObjectStore,
    engine: Engine,
    check: Callable[[], None],
    decoded: Callable[[Source], Iterator[np.ndarray]] = decode_channels,
) -> tuple[str, float, float]:
    """Whisper's code, how probable it is, and how many seconds were listened to.

    English with 0.0 where nobody speaks. `check` raises when the job is not to go on. `decoded`:
    a recording → its samples, in blocks as decode_channels gives them.

    Raises:
        AudioUnreadable: the recording cannot be decoded.
    """
    heard: list[np.ndarray] = []
    with objects.open(job.source.key, known_etag(job.source)) as recording:
        for block in decoded(recording):
            check()
            heard.append(block[0])
            if sum(map(len, heard)) >= HEARD_SECONDS * SAMPLE_RATE:
                break
    samples = np.concatenate(heard)[: HEARD_SECONDS * SAMPLE_RATE]
    language, probability = engine.detect_language(samples, job.options)
    return language, probability, len(samples) / SAMPLE_RATE
