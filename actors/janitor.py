"""Mends what dying processes leave. Every worker has a janitor; each step is done by one of them when it is due.

Leases that ran out, messages that are gone, uploads never started, multipart uploads nobody completes, jobs kept long
enough, objects that no record names. Every step may be broken off and done again.
"""

import math
import time
from itertools import groupby

import msgspec
import structlog
from dramatiq.brokers.redis import RedisBroker

from actors import messages
from actors.broker import queued
from storage.chunk_store import ChunkStore
from storage.errors import JobConflict, JobMissing, ObjectMissing, QueueUnavailable, StorageError, StoreRefused
from storage.job import Job, JobStatus, Priority, created_at
from storage.job_store import JobStore
from storage.keys import end_key, job_key, source_key
from storage.notes import JobNote, note_end
from storage.object_store import ObjectStore
from storage.removal import JOB_PREFIXES, remove_job, remove_objects, sweep_ended
from storage.settings import StorageSettings
from storage.structs import decode
from storage.webhooks import recipient

log = structlog.get_logger()

#: How long after its deletion a job's folder is looked at once more.
_DELETED_SECONDS = 600

#: How often messages are looked for that are gone. A job whose status is younger may have its message on the way.
_MESSAGES_SECONDS, _MESSAGE_GRACE_SECONDS = 15, 15


class Janitor:
    def __init__(
        self,
        jobs: JobStore,
        chunks: ChunkStore,
        objects: ObjectStore,
        broker: RedisBroker,
        settings: StorageSettings,
        lease_seconds: float,
    ) -> None:
        self._jobs = jobs
        self._chunks = chunks
        self._objects = objects
        self._broker = broker
        self._settings = settings
        self._lease_seconds = lease_seconds
        self._blind_until = 0.0

    def mend(self) -> None:
        """What cannot wait, every few seconds: leases that ran out, and a few times a minute messages that are gone."""
        if time.monotonic() < self._blind_until:
            return
        try:
            began = time.monotonic()
            due = self._jobs.due("leases", self._lease_seconds / 8)
            # Leases are renewed four times as often as they must: a shorter wait lets none of them run out.
            if time.monotonic() - began > self._lease_seconds / 2:
                raise QueueUnavailable("it hung")
            if due and self._jobs.redis_up_seconds() > self._lease_seconds:
                self.hand_on_expired_leases()
            if self._jobs.due("messages", _MESSAGES_SECONDS):
                self.send_lost_messages()
        except QueueUnavailable as error:
            # Nobody could renew a lease meanwhile: that is no sign of a dead worker.
            self._blind_until = time.monotonic() + self._lease_seconds
            log.warning("janitor waits for Redis", reason=str(error))

    def sweep(self) -> None:
        """What can wait and may take long. One failing does not keep the others from their turn."""
        for name, seconds, step in (
            ("expired jobs", 60, self.remove_expired_jobs),
            ("deleted jobs", 600, self.sweep_deleted),
            ("stale uploads", 3600, self.abort_stale_uploads),
            ("orphans", 3600, self.sweep_orphans),
        ):
            try:
                if self._jobs.due(name, seconds):
                    step()
            except StorageError as error:
                log.warning("sweep interrupted", what=name, reason=str(error))

    def hand_on_expired_leases(self) -> None:
        """What a worker had that went silent is the next to be done; whoever takes it counts one attempt more."""
        for name in self._jobs.expired_leases():
            job_id, _, number = name.partition("/")
            # It had waited for its turn once: behind all that came since it would wait twice.
            if number and self._chunks.expire_lease(job_id, int(number)):
                self._send(job_id, int(number), priority="high")
            elif not number and self._jobs.expire_lease(job_id):
                self._send(job_id, priority="high")

    def send_lost_messages(self) -> None:
        """What nobody holds and whose message is gone (Redis lost its last second, say) gets a new one."""
        pending = self._jobs.pending_longer_than(_MESSAGE_GRACE_SECONDS)
        processing = self._jobs.processing_longer_than(_MESSAGE_GRACE_SECONDS)
        if not pending and not processing:
            return
        waiting = queued(self._broker)
        for job_id in pending:
            if (job_id,) not in waiting:
                self._send(job_id)
        for job_id in processing:
            held, stranded = self._chunks.stranded(job_id)
            for number in stranded:
                if (job_id, number) not in waiting:
                    self._send(job_id, number)
            if not held and not stranded and (job_id,) not in waiting:
                self._send(job_id)

    def _send(self, job_id: str, number: int | None = None, priority: Priority | None = None) -> None:
        """`priority`: other than the job's own."""
        try:
            job = self._jobs.get(job_id)
        except JobMissing:
            return  # Deleted just now.
        if number is None:
            messages.send_next(self._broker, job, priority)
        else:
            messages.send_chunk(self._broker, job_id, number, priority or job.options.priority)
        log.warning("message sent again", job_id=job_id, chunk=number)

    def remove_expired_jobs(self) -> None:
        """Finished jobs kept long enough, and uploads that were never started."""
        for job_id in self._jobs.expired():
            try:
                job = self._jobs.get(job_id)
            except JobMissing:
                continue  # Its client deleted it just now.
            if job.expires_at is None or job.expires_at > time.time():
                continue  # Its client started it just now.
            try:
                if job.status is JobStatus.AWAITING_UPLOAD and recipient(job, self._objects) is not None:
                    self._fail_upload(job)
                else:
                    remove_job(job, self._jobs, self._objects)
            except StoreRefused as error:
                log.warning("job stays", job_id=job_id, reason=str(error))
            else:
                log.info("job expired", job_id=job_id)

    def _fail_upload(self, job: Job) -> None:
        """Somebody waits for the job's end, so it has one: it stays until finished jobs go."""
        limit = self._settings.upload_expires_seconds
        try:
            failed = self._jobs.fail(job.job_id, "upload_expired", f"the upload was not started within {limit} s")
        except JobConflict:
            return  # Its client started it just now.
        if job.upload is not None:
            self._objects.abort_upload(job.source.key, job.upload.upload_id)
        # Not whatever the job's source is: a recording in the inbox is its owner's.
        self._objects.delete(source_key(job.job_id))
        note_end(failed, self._objects)

    def sweep_deleted(self) -> None:
        """What a worker wrote that was frozen while its job was deleted: by now it has noticed."""
        for job_id in self._jobs.deleted(_DELETED_SECONDS):
            remove_objects(job_id, self._objects)
            self._jobs.forget_deleted(job_id)

    def abort_stale_uploads(self) -> None:
        """Multipart uploads whose process died, or whose client never came back."""
        oldest = time.time() - self._settings.upload_expires_seconds
        for upload in self._objects.uploads():
            if upload.started < oldest and upload.key.startswith(JOB_PREFIXES):
                self._objects.abort_upload(upload.key, upload.upload_id)
                log.info("stale upload aborted", started=upload.started)

    def sweep_orphans(self) -> None:
        """Objects that no record names.

        Results of a job that is final but not completed go at once, and so do the chunks of a completed one. Objects
        without any record go when their job cannot be one that Redis forgot and `scripts/recover` would bring back: no
        options lie beside the recording, so it was never accepted, or it is older than anything is kept.
        """
        for prefix in JOB_PREFIXES:
            for job_id, items in groupby(self._objects.list(prefix), key=lambda item: item.key.split("/")[1]):
                noted = any(item.key == end_key(job_id) for item in items)
                try:
                    job = self._jobs.get(job_id)
                except JobMissing:
                    if self._is_orphan(job_id):
                        remove_objects(job_id, self._objects)
                        log.info("orphans removed", job_id=job_id)
                    continue
                if job.status in (JobStatus.FAILED, JobStatus.CANCELLED) and not noted:
                    sweep_ended(job, self._objects)
                elif job.status is JobStatus.COMPLETED and prefix == "chunks/":
                    self._objects.delete_prefix(f"chunks/{job_id}/")

    def _is_orphan(self, job_id: str) -> bool:
        try:
            age = time.time() - created_at(job_id)
        except ValueError:
            return False  # Not a job's folder: somebody else's objects.
        kept = self._settings.retention_seconds
        if kept and age > kept + self._settings.upload_expires_seconds:
            # The id of an inbox's job is as old as its object, which may have lain there for long.
            return self._noted_age(job_id) > kept + self._settings.upload_expires_seconds
        if age < self._settings.upload_expires_seconds:
            return False
        try:
            self._objects.head(job_key(job_id))
        except ObjectMissing:
            return True
        return False

    def _noted_age(self, job_id: str) -> float:
        """Seconds since the job was accepted; without a note of it that can be read: for ever."""
        try:
            note = decode(self._objects.get(job_key(job_id)), JobNote)
        except (ObjectMissing, msgspec.DecodeError):
            return math.inf
        return time.time() - note.created_at
