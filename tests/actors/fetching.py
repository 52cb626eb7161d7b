"""A worker's part that fetches, as tests call it: with no queue between, and with no waiting."""

import threading
import time
from typing import Any

from actors.fetch import Fetcher
from actors.guard import Guard
from actors.messages import send_next
from actors.outcome import Later
from actors.settings import ActorSettings
from storage.job import Job, JobStatus, Options, Source, new_job_id
from storage.keys import source_key
from storage.notes import note_job
from storage.settings import StorageSettings
from tests.actors.test_janitor import House

MIB = 2**20
PART = 8 * MIB


class Fetching(House):
    """A worker's part that fetches, in this process."""

    def __init__(self, settings: StorageSettings, guard: Guard | None = None) -> None:
        super().__init__(settings)
        self.guard = guard or Guard("127.0.0.1/32")

    def fetcher(self, stopping: threading.Event | None = None, max_file_size: int = 2**32, **settings: Any) -> Fetcher:
        chosen = ActorSettings(**{"lease_seconds": 30, "fetch_idle_seconds": 20, "fetch_tries": 2, **settings})
        return Fetcher(
            self.jobs,
            self.objects,
            self.guard,
            chosen,
            max_file_size,
            "worker",
            stopping or threading.Event(),
            lambda job: send_next(self.broker, job),
        )

    def accept(self, url: str) -> str:
        """As the service does it."""
        job_id = new_job_id()
        source = Source(type="url", key=source_key(job_id), filename="talk.wav", size=0, url=url)
        options = Options(model="tiny.en")
        job = Job(
            job_id=job_id,
            owner="",
            status=JobStatus.PENDING,
            source=source,
            options=options,
            created_at=time.time(),
        )
        note_job(job, self.objects)
        self.jobs.create(job)
        return job_id

    def fetch(self, url: str, **settings: Any) -> Job:
        """Fetch, and try again at once where a worker would wait for a while."""
        job_id = self.accept(url)
        fetcher = self.fetcher(**settings)
        for _ in range(10):
            try:
                fetcher.fetch_source(job_id, last_try=False)
                break
            except Later:
                continue
        return self.jobs.get(job_id)

    def recording(self, job_id: str) -> bytes:
        return self.objects.get(source_key(job_id))

    def parts(self, job_id: str) -> int:
        """How many parts of an unfinished upload are in the store."""
        key = source_key(job_id)
        return sum(len(self.objects.list_parts(key, upload.upload_id)) for upload in self.objects.uploads(key))

    def leftovers(self, job_id: str) -> tuple[set[str], int]:
        """Names of the job's objects, and how many uploads are unfinished."""
        return self.keys(job_id), len(list(self.objects.uploads(source_key(job_id))))
