"""A job is one recording to be transcribed: status, what is asked for, which changes of status are legal. No I/O."""

import enum
import re
import secrets
import time
from typing import Literal

import msgspec


class JobStatus(enum.StrEnum):
    AWAITING_UPLOAD = "awaiting_upload"
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})

#: The legal changes: new status -> the statuses it may follow. Whatever is not here is refused by JobStore.
FOLLOWS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.AWAITING_UPLOAD, JobStatus.PROCESSING}),
    JobStatus.PROCESSING: frozenset({JobStatus.PENDING, JobStatus.PROCESSING}),
    JobStatus.COMPLETED: frozenset({JobStatus.PROCESSING}),
    JobStatus.FAILED: frozenset({JobStatus.AWAITING_UPLOAD, JobStatus.PENDING, JobStatus.PROCESSING}),
    JobStatus.CANCELLED: frozenset({JobStatus.AWAITING_UPLOAD, JobStatus.PENDING, JobStatus.PROCESSING}),
}

Priority = Literal["low", "normal", "high"]
SourceType = Literal["form", "upload", "object", "url", "inbox"]

_JOB_ID = re.compile("[0-9a-f]{22}")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the client asks for, with the defaults filled in."""

    model: str
    #: Whisper's language code; None: detect.
    language: str | None = None
    #: detect_language: the transcript has the language of the first minute, and no text.
    task: Literal["transcribe", "translate", "detect_language"] = "transcribe"
    response_format: Literal["json", "text", "srt", "vtt", "tsv"] = "json"
    timestamp_granularity: Literal["segment", "word"] = "segment"
    #: windowed: short windows of packed speech; sequential: faster-whisper as it is; None: as the worker is set.
    engine: Literal["windowed", "sequential"] | None = None
    #: Where decoding starts, 0.0 to 1.0; a window that fails its checks is tried again at higher ones.
    temperature: float = 0.0
    #: Text that precedes the recording, to set style and spelling.
    prompt: str | None = None
    #: Words to listen for.
    hotwords: str | None = None
    #: Leave stretches without speech out; off, Whisper invents text on them.
    vad_filter: bool = True
    #: How subtitles are laid out, actors.layout.Layout; 0 or None: the rule is off.
    max_line_width: int | None = None
    max_line_count: int | None = None
    max_characters_per_second: float | None = None
    min_cue_seconds: float | None = None
    max_cue_seconds: float | None = None
    min_gap_seconds: float | None = None
    priority: Priority = "normal"
    #: separate: each channel is transcribed on its own and its segments carry its number (a stereo call).
    channels: Literal["mixed", "separate"] = "mixed"
    #: Of a file with several: a number, counted from 1, or a language; None: the main one.
    audio_track: str | None = None
    #: Keep with each segment what the decoder knew of it: tokens, probabilities, temperature (OpenAI's verbose_json).
    segment_details: bool = False
    #: Where the job is posted to when it has ended; None: where its key's jobs are posted to, if anywhere.
    webhook_url: str | None = None


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the recording is."""

    #: form: streamed through the API; upload: put by the client with presigned links; object: was in the bucket;
    #: url: fetched by a worker; inbox: put under the inbox's prefix, where its results go too.
    type: SourceType
    #: Key in the bucket.
    key: str
    #: As the client named it: text for people, never a part of a key, a path or a header.
    filename: str
    #: Bytes; 0: not fetched yet.
    size: int
    #: As the client said; what the bytes are is found by decoding them.
    content_type: str | None = None
    #: Only of a url: where it is fetched from.
    url: str | None = None
    #: What the bytes are known by, as `sha256:…` or the store's own `etag:…`; None: nobody asked.
    digest: str | None = None


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """A presigned multipart upload under way."""

    upload_id: str
    #: Bytes of every part but the last.
    part_size: int


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job's record. Times are seconds since the epoch."""

    job_id: str
    #: Whose API key made it; "" where no keys are set.
    owner: str
    status: JobStatus
    source: Source
    options: Options
    created_at: float
    #: Share of the audio that is done, 0 to 100; 100 only when the results are stored.
    progress: float = 0.0
    started_at: float | None = None
    completed_at: float | None = None
    #: When the record and its objects are removed; for an upload that was not started, when its links end.
    expires_at: float | None = None
    #: Length of the decoded audio in seconds, once known.
    duration: float | None = None
    #: How often a worker has begun and not handed it back. Which of them count is in storage/risk.py.
    attempts: int = 0
    #: Format -> bytes of the result object, once completed. The keys are storage.object_store.result_key.
    files: dict[str, int] = {}
    #: What was not as it should be and did not keep the job from completing, as sentences.
    warnings: list[str] = []
    #: Whisper's code and its probability, known once the first speech was heard.
    language: str | None = None
    language_probability: float | None = None
    #: How many channels of a long recording are transcribed each on its own; mixed ones are one.
    channels: int | None = None
    #: Once every chunk of a long recording is announced. A short one has no chunks.
    phase: Literal["cut"] | None = None
    error: str | None = None
    error_code: str | None = None
    #: Only of a presigned multipart upload.
    upload: Upload | None = None


def new_job_id(now: float | None = None) -> str:
    """22 hex characters, the first 12 of them milliseconds: ids sort by time and cannot be guessed (40 random bits)."""
    milliseconds = round((time.time() if now is None else now) * 1000)
    return f"{milliseconds:012x}{secrets.token_hex(5)}"


def is_job_id(text: str) -> bool:
    """True when it looks like one of new_job_id's; whether there is such a job is another question."""
    return _JOB_ID.fullmatch(text) is not None


def created_at(job_id: str) -> float:
    """Seconds since the epoch at which an id was made.

    Raises:
        ValueError: it is not one of new_job_id's.
    """
    if not is_job_id(job_id):
        raise ValueError(f"{job_id[:64]!r} is not a job's id")
    return int(job_id[:12], 16) / 1000
