"""How the work is done, read from the environment of the workers."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from storage.settings import Count, Seconds


class ActorSettings(msgspec.Struct, frozen=True, kw_only=True):
    #: auto: CUDA where it works, else CPU.
    whisper_device: Literal["auto", "cpu", "cuda"] = "auto"
    #: CTranslate2's compute type; auto: int8 on CPU, float16 on CUDA.
    whisper_compute_type: str = "auto"
    #: Cores for one transcription; 0: all of them.
    whisper_threads: Annotated[int, Meta(ge=0, le=10_000)] = 0
    #: windowed: short windows of packed speech, of several jobs in one batch; sequential: faster-whisper as it is.
    engine: Literal["windowed", "sequential"] = "windowed"
    #: Of the sequential engine.
    beam_size: Annotated[int, Meta(ge=1, le=100)] = 5
    #: Models kept in memory at once; the one not used for longest goes first.
    loaded_models: Count = 1
    #: Jobs in hand at once in a worker, and as many chunks of long ones: a short recording waits for no chunk.
    worker_threads: Annotated[int, Meta(ge=1, le=1000)] = 2
    #: Urls that a worker fetches at once, each with 16 MiB of memory, or a 5000th of MAX_FILE_SIZE if that is more.
    fetch_threads: Annotated[int, Meta(ge=1, le=1000)] = 4
    #: How long the server of a url may send nothing, or less than 64 KiB.
    fetch_idle_seconds: Seconds = 30
    #: How long fetching one url may take, with all its tries.
    fetch_seconds: Seconds = 4 * 3600
    #: How often a url is tried while its server fails, with pauses from 1 to 60 s.
    fetch_tries: Count = 8
    #: Webhooks that a worker posts at once.
    errand_threads: Annotated[int, Meta(ge=1, le=1000)] = 4
    #: Bytes that decoding one recording may take, in a process of its own.
    decode_memory_bytes: Annotated[int, Meta(ge=64 * 2**20, le=2**40)] = 512 * 2**20
    #: How much longer decoding a recording may take than what is decoded lasts, in seconds.
    decode_seconds: Seconds = 60
    #: Seconds of audio that a recording may last.
    max_duration: Seconds = 4 * 3600
    #: Channels that a recording may have, together or each on its own (6 MB of memory a channel).
    max_channels: Annotated[int, Meta(ge=1, le=64)] = 32
    #: A recording is cut at the next pause once a chunk holds so many seconds, and anyhow at the second number.
    chunk_target_seconds: Annotated[int, Meta(ge=5, le=600)] = 60
    chunk_max_seconds: Annotated[int, Meta(ge=10, le=900)] = 90
    #: Chunks of one job in work or queued at once; 0: as many as there are worker threads.
    job_parallel_chunks: Annotated[int, Meta(ge=0, le=10_000)] = 0
    #: How often workers may die of a job that is all they have in hand before it fails (storage/risk.py).
    max_job_attempts: Count = 3
    #: How long a worker owns a job without a sign of life.
    lease_seconds: Annotated[int, Meta(ge=3, le=86400)] = 10
    #: How long a stopping worker may take to hand its jobs back.
    shutdown_grace_seconds: Annotated[int, Meta(ge=0, le=86400)] = 25
    #: How often a worker looks for expired leases; what is less urgent is looked for less often, up to once an hour.
    janitor_seconds: Annotated[int, Meta(ge=1, le=86400)] = 2
