"""Mends what dying processes leave, one janitor at a time among all workers.

Leases that ran out, messages that are gone, uploads never started, multipart uploads nobody completes, jobs kept long
enough, objects that no record names. Every step may be broken off and done again.
"""

import time
from itertools import groupby

import structlog
from dramatiq.brokers.redis import RedisBroker

from actors import messages
from actors.broker import queued_job_ids
from storage.errors import JobMissing, ObjectMissing, StorageError
from storage.job import JobStatus, created_at
from storage.job_store import JobStore
from storage.object_store import ObjectStore, job_key
from storage.removal import JOB_PREFIXES, remove_job, remove_objects
from storage.settings import StorageSettings

log = structlog.get_logger()

#: Ticks between two looks at what is not urgent, and between two walks over the bucket.
_MINUTE, _HOUR = 12, 720

#: A pending job younger than this may have its message still on the way.
_MESSAGE_GRACE_SECONDS = 30


class Janitor:
    def __init__(self, jobs: JobStore, objects: ObjectStore, broker: RedisBroker, settings: StorageSettings) -> None:
        self._jobs = jobs
        self._objects = objects
        self._broker = broker
        self._settings = settings
        self._ticks = 0

    def tick(self) -> None:
        """One round; what is due by the count of rounds. Storage that is away is tried again at the next."""
        try:
            with self._jobs.lock("janitor", seconds=600) as held:
                if not held:
                    return
                self.hand_on_expired_leases()
                if self._ticks % _MINUTE == 0:
                    self.send_lost_messages()
                    self.remove_expired_jobs()
                    self.sweep_deleted()
                if self._ticks % _HOUR == 0:
                    self.abort_stale_uploads()
                    self.sweep_orphans()
                self._ticks += 1
        except StorageError as error:
            log.warning("janitor interrupted", error=str(error))

    def hand_on_expired_leases(self) -> None:
        """A job whose worker went silent waits again; the next worker counts one attempt more."""
        for job_id in self._jobs.expired_leases():
            if self._jobs.expire_lease(job_id):
                messages.send(self._broker, job_id)
                log.warning("lease expired", job_id=job_id)

    def send_lost_messages(self) -> None:
        """A pending job whose message is gone (Redis lost its last second, say) gets a new one."""
        waiting = self._jobs.pending_longer_than(_MESSAGE_GRACE_SECONDS)
        if not waiting:
            return
        queued = queued_job_ids(self._broker)
        for job_id in waiting:
            if job_id not in queued:
                messages.send(self._broker, job_id)
                log.warning("message sent again", job_id=job_id)

    def remove_expired_jobs(self) -> None:
        """Finished jobs kept long enough, and uploads that were never started."""
        for job_id in self._jobs.expired():
            try:
                job = self._jobs.get(job_id)
            except JobMissing:
                continue  # Its client deleted it just now.
            if job.expires_at is None or job.expires_at > time.time():
                continue  # Its client started it just now.
            remove_job(job, self._jobs, self._objects)
            log.info("job expired", job_id=job_id)

    def sweep_deleted(self) -> None:
        """What a worker wrote that was frozen while its job was deleted."""
        for job_id in self._jobs.deleted():
            remove_objects(job_id, self._objects)

    def abort_stale_uploads(self) -> None:
        """Multipart uploads whose process died, or whose client never came back."""
        oldest = time.time() - self._settings.upload_expires_seconds
        for upload in self._objects.uploads():
            if upload.started < oldest and upload.key.startswith(JOB_PREFIXES):
                self._objects.abort_upload(upload.key, upload.upload_id)
                log.info("stale upload aborted", started=upload.started)

    def sweep_orphans(self) -> None:
        """Objects that no record names.

        Results of a job that is final but not completed go at once. Objects without any record go when their job cannot
        be one that Redis forgot and `scripts/recover` would bring back: no options lie beside the recording, so it was
        never accepted, or it is older than anything is kept.
        """
        for prefix in JOB_PREFIXES:
            for job_id, _ in groupby(self._objects.list(prefix), key=lambda item: item.key.split("/")[1]):
                try:
                    job = self._jobs.get(job_id)
                except JobMissing:
                    if self._is_orphan(job_id):
                        remove_objects(job_id, self._objects)
                        log.info("orphans removed", job_id=job_id)
                    continue
                if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
                    self._objects.delete_prefix(f"transcripts/{job_id}/")
                    self._objects.delete_prefix(f"chunks/{job_id}/")

    def _is_orphan(self, job_id: str) -> bool:
        try:
            age = time.time() - created_at(job_id)
        except ValueError:
            return False  # Not a job's folder: somebody else's objects.
        kept = self._settings.retention_seconds
        if kept and age > kept + self._settings.upload_expires_seconds:
            return True
        if age < self._settings.upload_expires_seconds:
            return False
        try:
            self._objects.head(job_key(job_id))
        except ObjectMissing:
            return True
        return False
