"""The same audio, no second run: a job about bytes that were transcribed before, as is asked for now, is completed at
once with copies of the results.

What the bytes are known by is their SHA-256 where they went through the service, else the store's ETag. Copies are the
job's own: the earlier one may be deleted. Light enough for the API to import.
"""

import msgspec
import structlog

from actors.beside import put_beside
from storage.errors import JobConflict, JobFenced, JobMissing, ObjectMissing, StorageError
from storage.job import Job, JobStatus
from storage.job_store import Claim, JobStore
from storage.keys import result_key
from storage.notes import note_warnings
from storage.object_store import ObjectStore
from storage.removal import sweep_if_unwanted
from storage.reuse import FinishedJobs
from storage.settings import StorageSettings
from storage.structs import decode

log = structlog.get_logger()

#: Whoever copies holds the job for so long, in seconds; a dead one's job is done by a worker.
_LEASE_SECONDS = 60
#: Copying comes before the first attempt of a worker and is none: no recording can make it fail.
_ANY_ATTEMPTS = 1000


class _Language(msgspec.Struct, frozen=True):
    """What is asked of a transcript; the rest of it is left unread."""

    language: str


class EarlierResults:
    """Where REUSE_RESULTS is off, it knows of none and asks for nothing."""

    def __init__(self, jobs: JobStore, objects: ObjectStore, settings: StorageSettings) -> None:
        """No I/O."""
        self._jobs = jobs
        self._objects = objects
        self._finished = FinishedJobs.connect(settings)
        self._enabled = settings.reuse_results

    def identified(self, job: Job) -> Job:
        """With what the bytes of its recording are known by, where that is of use and the recording is there.

        Raises:
            ObjectMissing: it is not.
        """
        if not self._enabled or job.source.digest is not None or job.source.size == 0:
            return job
        digest = f"etag:{self._objects.head(job.source.key).etag}"
        return msgspec.structs.replace(job, source=msgspec.structs.replace(job.source, digest=digest))

    def complete(self, job: Job) -> bool:
        """Complete a job that waits with copies of what an earlier one has.

        True: it needs no worker any more. False: there are no such results, or the store failed: it is to be done.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        if not self._known(job):
            return False
        earlier = self._earlier(job)
        if earlier is None:
            return False
        try:
            claim = self._jobs.claim(job.job_id, "reuse", _LEASE_SECONDS, _ANY_ATTEMPTS)
        except (JobConflict, JobMissing):
            return True  # A worker has it, or it was cancelled or deleted just now.
        try:
            self._copy(earlier, claim)
        except JobFenced:
            self._sweep(job.job_id)
        except (StorageError, msgspec.DecodeError) as error:
            # The earlier job was deleted in this moment, say. What was copied is as good as a worker's own.
            log.warning("results not reused", job_id=job.job_id, reason=str(error))
            return self._is_lost(claim)
        else:
            log.info("results reused", job_id=job.job_id, earlier=earlier.job_id)
            self._finished.add(job)
        return True

    def _is_lost(self, claim: Claim) -> bool:
        """Hand the job back; True: it is in other hands by now, or it was cancelled or deleted."""
        try:
            self._jobs.release(claim.job.job_id, claim.token)
        except JobFenced:
            self._sweep(claim.job.job_id)
            return True
        return False

    def _sweep(self, job_id: str) -> None:
        """The job is lost: what was copied goes if nobody wants it any more."""
        try:
            sweep_if_unwanted(job_id, self._jobs, self._objects)
        except StorageError as error:
            # The janitor makes up for it.
            log.warning("copies not removed", job_id=job_id, reason=str(error))

    def remember(self, job: Job) -> None:
        """The job is completed: what it says is at hand for the next with the same bytes."""
        if not self._known(job):
            return
        try:
            if self._is_unchanged(job):
                self._finished.add(job)
        except StorageError as error:
            # It only means that the next one is transcribed.
            log.warning("results not remembered", job_id=job.job_id, reason=str(error))

    def _known(self, job: Job) -> bool:
        return self._enabled and job.source.digest is not None

    def _earlier(self, job: Job) -> Job | None:
        for job_id in self._finished.like(job):
            try:
                earlier = self._jobs.get(job_id, job.owner)
            except JobMissing:
                continue  # Deleted.
            if earlier.status is JobStatus.COMPLETED and job_id != job.job_id:
                return earlier
        return None

    def _copy(self, earlier: Job, claim: Claim) -> None:
        job, warnings = claim.job, list(earlier.warnings)
        for name in earlier.files:
            self._objects.copy(result_key(earlier.job_id, name), result_key(job.job_id, name))
        if job.source.type == "inbox":
            stored = self._objects.get(result_key(job.job_id, "json"))
            language = decode(stored, _Language).language
            warnings += put_beside(job, language, self._objects)
        if warnings:
            note_warnings(job.job_id, warnings, self._objects)
        self._jobs.complete(job.job_id, claim.token, earlier.files, earlier.duration or 0.0, warnings)

    def _is_unchanged(self, job: Job) -> bool:
        """Whether the digest is of what was transcribed: clients can replace an object that they put themselves."""
        digest = job.source.digest or ""
        if not digest.startswith("etag:"):
            return True
        try:
            return digest == f"etag:{self._objects.head(job.source.key).etag}"
        except ObjectMissing:
            return False
