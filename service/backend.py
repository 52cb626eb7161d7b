"""What stands behind the handlers: storage, the queue, and the one way in which a job comes to be."""

from collections.abc import Callable

import msgspec
import structlog
from dramatiq.brokers.redis import RedisBroker

from actors import messages
from actors.broker import make_broker
from actors.errors import ActorError
from actors.guard import Guard
from actors.reuse import EarlierResults
from service.clients import share_of
from service.errors import ApiError
from service.listeners import Listeners
from service.model_names import ModelNames
from service.settings import ServiceSettings
from service.stories import Stories
from service.uploads import Uploads
from storage.chunk_store import ChunkStore
from storage.errors import JobMissing, QueueUnavailable, StorageError
from storage.idempotency import Once, Requests
from storage.job import Job, JobStatus
from storage.job_events import JobEvents
from storage.job_store import JobStore, WaitingLimit
from storage.model_store import ModelStore
from storage.notes import note_end, note_job
from storage.object_store import ObjectStore
from storage.outbox import Outbox
from storage.removal import remove_objects
from storage.settings import StorageSettings

log = structlog.get_logger()

#: How often a record is tried to be made whose Idempotency-Key others take and let go of meanwhile.
_CREATE_TRIES = 10


class Backend(msgspec.Struct, frozen=True):
    """Shared by all requests. Its methods block: handlers call them in threads."""

    settings: ServiceSettings
    storage_settings: StorageSettings
    jobs: JobStore
    chunks: ChunkStore
    events: JobEvents
    stories: Stories
    listeners: Listeners
    objects: ObjectStore
    models: ModelStore
    broker: RedisBroker
    model_names: ModelNames
    uploads: Uploads
    outbox: Outbox
    guard: Guard
    requests: Requests
    earlier: EarlierResults

    @classmethod
    def connect(cls, settings: ServiceSettings, storage_settings: StorageSettings) -> "Backend":
        """No I/O: the parts are connected to when first used."""
        objects = ObjectStore(storage_settings)
        broker = make_broker(storage_settings)
        jobs = JobStore.connect(storage_settings)
        chunks = ChunkStore.connect(storage_settings, jobs)
        return cls(
            settings=settings,
            storage_settings=storage_settings,
            jobs=jobs,
            chunks=chunks,
            events=JobEvents.connect(storage_settings),
            stories=Stories(jobs, chunks, objects, storage_settings.link_seconds, settings.events_memory_bytes),
            listeners=Listeners(
                settings.max_listeners,
                settings.keep_alive_seconds,
                share_of(settings.max_listeners, settings.max_listeners_per_client),
            ),
            objects=objects,
            models=ModelStore(storage_settings, objects),
            broker=broker,
            model_names=ModelNames(settings.model_aliases),
            uploads=Uploads(objects, settings, storage_settings.max_file_size),
            outbox=Outbox.connect(storage_settings),
            guard=Guard(storage_settings.allowed_networks),
            requests=Requests.connect(storage_settings),
            earlier=EarlierResults(jobs, objects, storage_settings),
        )

    def accept(self, job: Job, once: Once | None = None, client: str = "") -> Job:
        """Make a job: job.json beside the recording, then the record, then the message.

        `client`: whose limit of waiting jobs applies; empty: no limit.

        Returns it as it is then; of a request that has made a job before, that one, and nothing is left of the new one.
        Where one step fails, all before it is undone, the uploaded recording too: the client hears an error, and
        nothing of its request is left. What another request may have been answered with stays: see `_undo`.
        """
        try:
            # Before anything is looked up: a host that the request named may be gone by now, its job is not.
            made = self.made(once)
            if made is None:
                job = self._prepared(job)
        except (StorageError, ApiError):
            self._remove(job)
            raise
        try:
            made = made or self._create(job, once, self.waiting_limit(client) if client else None)
            if made.job_id != job.job_id:
                self._remove(job)
                return made
            if job.status is JobStatus.PENDING:
                job = self._enqueue_new(job, once)
        except StorageError:
            self._undo(job, once)
            raise
        log.info("job accepted", job_id=job.job_id, source=job.source.type, size=job.source.size)
        return job

    def made(self, once: Once | None) -> Job | None:
        """The job that a request has made before, None: it has made none. Raises IdempotencyConflict."""
        job_id = self.requests.made(once) if once is not None else None
        try:
            return self.jobs.get(job_id) if job_id is not None else None
        except JobMissing:
            return None  # It was deleted in this moment, and the key is free.

    def enqueue(self, job: Job) -> Job:
        """Put a job into the queue, unless it is completed at once with earlier results. Returns it as it is then."""
        if self.earlier.complete(job):
            return self.jobs.get(job.job_id)
        messages.send_next(self.broker, job)
        return job

    def waiting_limit(self, client: str) -> WaitingLimit:
        most = self.settings.max_waiting_jobs
        return WaitingLimit(client, share_of(most, self.settings.max_waiting_jobs_per_client), most)

    def check_url(self, field: str, url: str) -> None:
        """Whether the service may go to what a client named. Raises ApiError: url_not_allowed or url_unreachable."""
        try:
            self.guard.check(url)
        except ActorError as error:
            raise ApiError(error.code, f"{field}: {error}", field=field) from error

    def cancel(self, job_id: str) -> Job:
        """Raises JobConflict: the job is final already."""
        job = self.jobs.cancel(job_id)
        try:
            note_end(job, self.objects)
        except StorageError as error:
            # It is cancelled all the same; the janitor makes up for the note.
            log.warning("end not noted", job_id=job_id, reason=str(error))
        return job

    def _prepared(self, job: Job) -> Job:
        """All that can be done and refused before there is a record."""
        if job.options.webhook_url is not None:
            self.check_url("webhook_url", job.options.webhook_url)
        if job.status is JobStatus.PENDING:
            job = self.earlier.identified(job)
        note_job(job, self.objects)
        # While Redis is away nothing is asked of it whose answer could be lost: it is certain that no record was made.
        self.jobs.check()
        return job

    def _create(self, job: Job, once: Once | None, limit: WaitingLimit | None) -> Job:
        """Make the record, unless the request has made one. Returns the job that stands for the request."""
        for _ in range(_CREATE_TRIES):
            if self.jobs.create(job, once, limit):
                return job
            if (made := self.made(once)) is not None:
                return made
            # The other was deleted in this moment; yet another may have come since.
        raise QueueUnavailable("the jobs of this request are made and deleted all the time; try again")

    def _enqueue_new(self, job: Job, once: Once | None) -> Job:
        try:
            return self.enqueue(job)
        except QueueUnavailable as error:
            if once is None:
                raise
            # Whoever sent the same request meanwhile was answered with this job. The janitor sends its message.
            log.warning("message not sent", job_id=job.job_id, reason=str(error))
            return job

    def _undo(self, job: Job, once: Once | None) -> None:
        """Take back a job whose record may be there: Redis may have made it and died before it said so.

        With an Idempotency-Key a record stays: another request may have been answered with it, and the retry is. While
        Redis does not say whether there is one, the recording stays too, for a worker, scripts/recover or the janitor.
        """
        try:
            if once is not None:
                self.jobs.get(job.job_id)
                return
            self.jobs.delete(job.job_id)
        except JobMissing:
            pass
        except StorageError as error:
            log.warning("undoing failed", job_id=job.job_id, reason=str(error))
            return
        self._remove(job)

    def _remove(self, job: Job) -> None:
        """All of a job that is in the store. What cannot be reached now is left to the janitor."""
        steps: list[Callable[[], object]] = [lambda: remove_objects(job.job_id, self.objects)]
        if upload := job.upload:
            steps.append(lambda: self.objects.abort_upload(job.source.key, upload.upload_id))
        for step in steps:
            try:
                step()
            except StorageError as error:
                log.warning("undoing failed", job_id=job.job_id, reason=str(error))
