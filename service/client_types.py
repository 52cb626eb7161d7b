"""What a client gets: the same shapes as the API's answers. Members that it does not know are ignored."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from storage.job import FINAL, JobStatus
from storage.transcript import Segment, Transcript

Format = Literal["json", "text", "srt", "vtt", "tsv"]

#: Format → how its files end.
EXTENSIONS: dict[Format, str] = {"json": "json", "text": "txt", "srt": "srt", "vtt": "vtt", "tsv": "tsv"}

#: A job's option as a client gives it; the server says which there are and what they may be.
Option = str | int | float | bool


class JobSource(msgspec.Struct, frozen=True, kw_only=True):
    filename: str
    #: Bytes.
    size: int
    content_type: str | None = None
    #: Seconds of audio, once known.
    duration: float | None = None


class JobFile(msgspec.Struct, frozen=True, kw_only=True):
    """A link that needs no key: the bytes come from the object store."""

    url: str
    #: Bytes.
    size: int
    expires_at: datetime


class UploadPart(msgspec.Struct, frozen=True, kw_only=True):
    #: Counts from 1.
    number: int
    url: str
    #: Bytes.
    size: int
    #: The store has it.
    uploaded: bool = False
    headers: dict[str, str] = {}


class UploadLinks(msgspec.Struct, frozen=True, kw_only=True):
    """Either one link with its headers, or the links of all parts."""

    url: str | None = None
    headers: dict[str, str] = {}
    uploaded: bool = False
    parts: list[UploadPart] | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    status: JobStatus
    #: Share of the audio that is done, 0 to 100.
    progress: float
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    source: JobSource
    #: As given, with the defaults filled in.
    options: dict[str, Any]
    warnings: list[str] = []
    #: What there is of a job in work, where that was asked for.
    partial: Transcript | None = None
    #: Once completed, where it was asked for.
    result: Transcript | None = None
    #: Extension → link, once completed, where they were asked for.
    files: dict[str, JobFile] = {}
    error: str | None = None
    error_code: str | None = None
    #: Only where an upload is to be done.
    upload: UploadLinks | None = None

    @property
    def final(self) -> bool:
        return self.status in FINAL


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    jobs: list[Job]
    #: Jobs on all pages.
    total: int
    next_cursor: str | None


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to a job; the last one is `completed`, `failed` or `cancelled`."""

    type: Literal["status", "progress", "segment", "completed", "failed", "cancelled"]
    #: 0 to 100; only of `progress`.
    progress: float | None = None
    #: Only of `segment`.
    segment: Segment | None = None
    #: Only of `status`, and of the last one.
    status: JobStatus | None = None
    #: Where the story goes on after this; empty where the server has no live events.
    id: str = ""

    @property
    def final(self) -> bool:
        return self.type in FINAL
