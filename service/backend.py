"""What stands behind the handlers: storage, the queue, and the one way in which a job comes to be."""

from collections.abc import Callable

import msgspec
import structlog
from dramatiq.brokers.redis import RedisBroker

from actors import messages
from actors.broker import make_broker
from service.settings import ServiceSettings
from service.uploads import Uploads
from storage.chunk_store import ChunkStore
from storage.errors import StorageError
from storage.job import Job, JobStatus
from storage.job_events import JobEvents
from storage.job_store import JobStore
from storage.model_store import ModelStore
from storage.notes import note_end, note_job
from storage.object_store import ObjectStore
from storage.removal import remove_objects
from storage.settings import StorageSettings

log = structlog.get_logger()


class Backend(msgspec.Struct, frozen=True):
    """Shared by all requests. Its methods block: handlers call them in threads."""

    settings: ServiceSettings
    storage_settings: StorageSettings
    jobs: JobStore
    chunks: ChunkStore
    events: JobEvents
    objects: ObjectStore
    models: ModelStore
    broker: RedisBroker
    uploads: Uploads

    @classmethod
    def connect(cls, settings: ServiceSettings, storage_settings: StorageSettings) -> "Backend":
        """No I/O: the parts are connected to when first used."""
        objects = ObjectStore(storage_settings)
        broker = make_broker(storage_settings)
        jobs = JobStore.connect(storage_settings)
        return cls(
            settings=settings,
            storage_settings=storage_settings,
            jobs=jobs,
            chunks=ChunkStore.connect(storage_settings, jobs),
            events=JobEvents.connect(storage_settings),
            objects=objects,
            models=ModelStore(storage_settings, objects),
            broker=broker,
            uploads=Uploads(objects, settings, storage_settings.max_file_size),
        )

    def accept(self, job: Job) -> None:
        """Make a job: job.json beside the recording, then the record, then the message.

        Where one fails, all before it is undone, the uploaded recording too: the client hears an error, and nothing of
        its request is left.
        """
        try:
            note_job(job, self.objects)
            self.jobs.create(job)
            if job.status is JobStatus.PENDING:
                self.enqueue(job)
        except StorageError:
            self._undo(job)
            raise
        log.info("job accepted", job_id=job.job_id, source=job.source.type, size=job.source.size)

    def enqueue(self, job: Job) -> None:
        messages.send_next(self.broker, job)

    def cancel(self, job_id: str) -> Job:
        """Raises JobConflict: the job is final already."""
        job = self.jobs.cancel(job_id)
        try:
            note_end(job, self.objects)
        except StorageError as error:
            # It is cancelled all the same; the janitor makes up for the note.
            log.warning("end not noted", job_id=job_id, reason=str(error))
        return job

    def _undo(self, job: Job) -> None:
        steps: list[Callable[[], object]] = [
            lambda: self.jobs.delete(job.job_id),
            lambda: remove_objects(job.job_id, self.objects),
        ]
        if upload := job.upload:
            steps.append(lambda: self.objects.abort_upload(job.source.key, upload.upload_id))
        for step in steps:
            try:
                step()
            except StorageError as error:
                # What cannot be reached now is left to the janitor.
                log.warning("undoing failed", job_id=job.job_id, reason=str(error))
