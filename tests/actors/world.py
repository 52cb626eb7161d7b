"""A store, a Redis and real worker processes, for tests that may break any of them."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from actors import messages
from actors.broker import make_broker
from deploy.embedded.running import Running
from storage.chunk_store import ChunkStore
from storage.job import Job, JobStatus, Options, Source, new_job_id
from storage.job_store import JobStore
from storage.keys import result_key, source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from storage.transcript import Transcript
from tests.processes import new_worker
from tests.stack import Parts
from tests.storage.test_job_store import wait_until

#: Silence between sentences that are said again and again. Nearer to each other they look like a loop in the text, and
#: each window would be decoded six times; and what is said beside a word moves it by more than a cut does.
APART_SECONDS = 4.0


class World:
    """A store, a Redis and workers of one test module's own."""

    def __init__(self, parts: Parts, settings: StorageSettings, folder: Path) -> None:
        self.store = parts.start_store()
        self.redis = parts.start_redis()
        self.settings = msgspec.structs.replace(
            settings,
            s3_endpoint_url=self.store.url,
            s3_access_key=self.store.access_key,
            s3_secret_key=self.store.secret_key,
            redis_url=self.redis.url,
            default_model="tiny.en",
        )
        self.jobs = JobStore.connect(self.settings)
        self.chunks = ChunkStore.connect(self.settings, self.jobs)
        self.objects = ObjectStore(self.settings)
        self.objects.prepare()
        self._broker = make_broker(self.settings)
        self._folder = folder
        self._workers: list[Running] = []
        self._shared: Running | None = None

    def shared_worker(self) -> Running:
        """A worker for the tests that do it no harm; it is gone once a test starts one of its own."""
        if self._shared is None:
            # Nothing waits for its leases to run out, so that a loaded machine does not lose them.
            self._shared = self._new_worker(LEASE_SECONDS="30", HEARTBEAT_SECONDS="30")
        return self._shared

    def worker(self, **more: str) -> Running:
        """A running worker of the test's own."""
        if self._shared is not None:
            self._shared.stop()
            self._shared = None
        return self._new_worker(**more)

    def _new_worker(self, **more: str) -> Running:
        """Its lease and heartbeat are short, so that the next one need not wait for long when it is killed."""
        short = {"LEASE_SECONDS": "3", "HEARTBEAT_SECONDS": "3", "JANITOR_SECONDS": "1", "CHUNK_TARGET_SECONDS": "20"}
        worker = new_worker(self._folder / f"worker-{len(self._workers)}", self.settings, **{**short, **more})
        self._workers.append(worker)
        worker.start()
        return worker

    def submit(self, recording: bytes, **options: object) -> str:
        job_id = new_job_id()
        self.objects.put(source_key(job_id), recording, "application/octet-stream")
        return self.enqueue(job_id, len(recording), **options)

    def enqueue(self, job_id: str, size: int, **options: object) -> str:
        source = Source(type="form", key=source_key(job_id), filename="talk.wav", size=size)
        wanted = msgspec.convert({"model": "tiny.en", **options}, Options)
        job = Job(
            job_id=job_id,
            owner="",
            status=JobStatus.PENDING,
            source=source,
            options=wanted,
            created_at=time.time(),
        )
        self.jobs.create(job)
        messages.send(self._broker, job_id, wanted.priority)
        return job_id

    def until(self, job_id: str, condition: Callable[[Job], bool], seconds: float = 240) -> Job:
        wait_until(lambda: condition(self.jobs.get(job_id)), seconds)
        return self.jobs.get(job_id)

    def finished(self, job_id: str) -> Job:
        return self.until(job_id, lambda job: job.status in ("completed", "failed", "cancelled"))

    def transcript(self, job_id: str) -> Transcript:
        return msgspec.json.decode(self.objects.get(result_key(job_id, "json")), type=Transcript)

    def chunk_objects(self, job_id: str) -> list[str]:
        return [item.key for item in self.objects.list(f"chunks/{job_id}/")]

    def results(self, job_id: str) -> list[str]:
        return [item.key for item in self.objects.list(f"transcripts/{job_id}/")]

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self.store.running.kill()
        self.redis.running.kill()
