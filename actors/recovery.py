"""Makes the records and messages that Redis lost again, from what lies in the bucket.

A record that is there is left alone, and one that is not is made in a single step unless somebody made it meanwhile: so
this may run while the service runs, be broken off, run again, or run twice at once. The record comes first and then its
message, which the janitor sends where this process dies between the two.

A long job begins anew and finds the results of its chunks. What a lost record knew beyond its notes is gone: when work
on a job began, how often it was tried, what the bytes of a presigned upload are known by.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, islice
from typing import Literal, TypeVar

import msgspec
from dramatiq.brokers.redis import RedisBroker

from actors import formats, messages
from actors.beside import put_beside
from actors.layout import layout_of
from actors.reuse import EarlierResults
from storage.errors import JobMissing, ObjectMissing, StoreRefused, StoreUnavailable, UploadMissing
from storage.inbox import known_etag
from storage.job import Job, JobStatus, Source, is_job_id
from storage.job_store import JobStore
from storage.keys import end_key, job_key, result_key, warnings_key
from storage.notes import EndNote, JobNote
from storage.object_store import ObjectInfo, ObjectStore
from storage.settings import StorageSettings
from storage.structs import decode
from storage.transcript import Transcript

T = TypeVar("T")

#: 9999-12-31T23:59:59Z: what comes after cannot be written as a date.
_LAST_SECOND = 253_402_300_799

#: Jobs looked at at once, and how many of them are held in memory.
_THREADS, _BATCH = 8, 256


class Outcome(msgspec.Struct, frozen=True):
    job_id: str
    #: there: the record was not lost.
    what: Literal["recovered", "there", "skipped"]
    #: As which it was recovered.
    status: JobStatus | None = None
    #: Why it was skipped.
    reason: str | None = None


class Unrecoverable(Exception):
    """What is needed for the record is not in the bucket; the message says what."""


class Folder(msgspec.Struct, frozen=True):
    """What lies beside a recording."""

    job_id: str
    objects: dict[str, ObjectInfo]


class Recovery:
    def __init__(
        self,
        jobs: JobStore,
        objects: ObjectStore,
        broker: RedisBroker,
        settings: StorageSettings,
        *,
        dry_run: bool = False,
    ) -> None:
        """`dry_run`: nothing is written and nothing sent."""
        self._jobs = jobs
        self._objects = objects
        self._broker = broker
        self._settings = settings
        self._earlier = EarlierResults(jobs, objects, settings)
        self._dry_run = dry_run

    def run(self) -> Iterator[Outcome]:
        """Every job that was accepted and not deleted, the oldest first. One that cannot be read stops no other.

        Raises:
            StorageError: the store or Redis does not answer; what is recovered so far stays.
        """
        folders = self._folders()
        with ThreadPoolExecutor(_THREADS) as pool:
            while batch := list(islice(folders, _BATCH)):
                yield from pool.map(self._recover, batch)

    def _folders(self) -> Iterator[Folder]:
        found = groupby(self._objects.list("sources/"), key=lambda item: item.key.split("/")[1])
        for job_id, items in found:
            objects = {item.key: item for item in items}
            # Without a note of the job it was never accepted: an upload that broke off.
            if is_job_id(job_id) and job_key(job_id) in objects:
                yield Folder(job_id, objects)

    def _recover(self, folder: Folder) -> Outcome:
        job_id = folder.job_id
        if self._is_there(job_id):
            return Outcome(job_id, "there")
        try:
            job = self._job(folder)
            _check_times(job)
        except (Unrecoverable, StoreRefused) as error:
            # The store refuses what a note names: a key that is none, say.
            return Outcome(job_id, "skipped", reason=str(error))
        except StoreUnavailable as error:
            # The bytes of one object may be lost; where the store itself is away, this raises.
            self._objects.check()
            return Outcome(job_id, "skipped", reason=str(error))
        except ObjectMissing:
            return Outcome(job_id, "skipped", reason="it was deleted in this moment")
        if not self._dry_run:
            if not self._jobs.create(job):
                return Outcome(job_id, "there")
            if job.status is JobStatus.PENDING:
                messages.send_next(self._broker, job)
            elif job.status is JobStatus.COMPLETED:
                self._earlier.remember(job)
        return Outcome(job_id, "recovered", job.status)

    def _is_there(self, job_id: str) -> bool:
        try:
            self._jobs.get(job_id)
        except JobMissing:
            return False
        return True

    def _job(self, folder: Folder) -> Job:
        """The record as the bucket tells it."""
        note = self._read(job_key(folder.job_id), JobNote)
        job = Job(
            job_id=folder.job_id,
            owner=note.owner,
            status=JobStatus.PENDING,
            source=note.source,
            options=note.options,
            created_at=note.created_at,
        )
        if end_key(folder.job_id) in folder.objects:
            return self._ended(job)
        results = {item.key: item for item in self._objects.list(f"transcripts/{folder.job_id}/")}
        if result_key(folder.job_id, "json") in results:
            return self._completed(job, results)
        if self._is_whole(note.source, folder):
            return msgspec.structs.replace(job, source=_pinned(note.source, folder))
        if note.source.type == "upload":
            return self._awaiting(job, note)
        if note.source.type == "url":
            # Not fetched, or not noted: who fetches finds what there is of it.
            return msgspec.structs.replace(job, source=msgspec.structs.replace(note.source, size=0))
        raise Unrecoverable("its recording is not in the bucket")

    def _ended(self, job: Job) -> Job:
        end = self._read(end_key(job.job_id), EndNote)
        return msgspec.structs.replace(
            job,
            status=JobStatus(end.status),
            completed_at=end.completed_at,
            expires_at=self._expires_at(end.completed_at or job.created_at),
            error=end.error,
            error_code=end.error_code,
        )

    def _completed(self, job: Job, results: dict[str, ObjectInfo]) -> Job:
        """The JSON is stored first: the other formats are made of it where a worker did not come to it."""
        transcript = self._read(result_key(job.job_id, "json"), Transcript)
        files = {}
        for name, kind in formats.FORMATS.items():
            key = result_key(job.job_id, name)
            if key in results:
                files[name] = results[key].size
                continue
            body = formats.render(transcript, name, layout_of(job.options))
            if not self._dry_run:
                self._objects.put(key, body, kind.media_type)
            files[name] = len(body)
        if not self._dry_run and any(result_key(job.job_id, name) not in results for name in files):
            # Its worker died before it came to what lies beside the source.
            put_beside(job, transcript.language, self._objects)
        completed_at = max(item.modified for item in results.values())
        warnings = warnings_key(job.job_id)
        return msgspec.structs.replace(
            job,
            status=JobStatus.COMPLETED,
            progress=100.0,
            started_at=completed_at - transcript.processing_time,
            completed_at=completed_at,
            expires_at=self._expires_at(completed_at),
            duration=transcript.duration,
            files=files,
            warnings=self._read(warnings, list[str]) if warnings in results else [],
            language=transcript.language,
            language_probability=transcript.language_probability,
        )

    def _awaiting(self, job: Job, note: JobNote) -> Job:
        if note.upload is not None:
            try:
                self._objects.list_parts(note.source.key, note.upload.upload_id)
            except UploadMissing as error:
                raise Unrecoverable("its upload was dropped before it was whole") from error
        return msgspec.structs.replace(
            job,
            status=JobStatus.AWAITING_UPLOAD,
            expires_at=note.expires_at or note.created_at + self._settings.upload_expires_seconds,
            upload=note.upload,
        )

    def _is_whole(self, source: Source, folder: Folder) -> bool:
        if source.key in folder.objects:
            return folder.objects[source.key].size == source.size
        if source.type not in ("object", "inbox"):
            return False
        try:
            there = self._objects.head(source.key)
        except ObjectMissing:
            return False
        return known_etag(source) in (None, there.etag)

    def _expires_at(self, completed_at: float) -> float | None:
        kept = self._settings.retention_seconds
        return completed_at + kept if kept else None

    def _read(self, key: str, kind: type[T]) -> T:
        try:
            return decode(self._objects.get(key), kind)
        except msgspec.DecodeError as error:
            raise Unrecoverable(f"{key} cannot be read: {error}") from error


def _pinned(source: Source, folder: Folder) -> Source:
    """An upload as it lies there now: its links may work on, and the note was written before it came."""
    if source.type != "upload" or source.digest is not None:
        return source
    return msgspec.structs.replace(source, digest=f"etag:{folder.objects[source.key].etag}")


def _check_times(job: Job) -> None:
    """Raises Unrecoverable: a note has a number for a time that is none, which no list of jobs could show."""
    for name in ("created_at", "started_at", "completed_at", "expires_at"):
        seconds = getattr(job, name)
        if seconds is not None and not 0 <= seconds <= _LAST_SECOND:
            raise Unrecoverable(f"its {name} would be {seconds:g}, which is no time")
