"""An inbox as tests fill it: with the minio client, as people's own tools would do it."""

import io
import secrets
import threading
from collections.abc import Callable
from typing import Any

import redis
from minio import Minio

from actors.broker import make_broker, queue_depths
from service.backend import Backend
from service.inbox import Inbox
from service.settings import ServiceSettings
from storage.inbox import InboxIndex
from storage.job import Job
from storage.redis_client import JOBS_DATABASE
from storage.settings import StorageSettings
from tests.storage.test_job_store import wait_until


class Dropped:
    """A bucket and a Redis of a test's own, a minio client, and an inbox in this process whose looks the test makes."""

    def __init__(self, settings: StorageSettings, **service: Any) -> None:
        self.settings = settings
        self.bucket = settings.s3_bucket
        self.client = minio(settings)
        self.index = InboxIndex.connect(settings)
        self.backend = Backend.connect(ServiceSettings(inbox_seconds=1, **service), settings)
        self.inbox = Inbox(self.backend, self.index)
        self.redis = redis.Redis.from_url(settings.redis_url, db=JOBS_DATABASE)

    def put(self, key: str, content: bytes = b"sound", metadata: dict[str, str] | None = None) -> None:
        self.client.put_object(self.bucket, key, io.BytesIO(content), len(content), metadata=dict(metadata or {}))

    def jobs(self) -> dict[str, Job]:
        """By key; of an object that was replaced, the newest."""
        page = self.backend.jobs.list_jobs("", limit=200)
        return {job.source.key: job for job in reversed(page.jobs)}

    def look_until(self, condition: Callable[[], bool]) -> None:
        def looked() -> bool:
            self.redis.delete("bs:due:inbox")
            self.inbox.look(threading.Event())
            return condition()

        wait_until(looked)

    def settle(self) -> None:
        """Look until an object that is put now has become a job: whatever lay there before had its chance."""
        last = f"inbox/zzz-{secrets.token_hex(4)}.wav"
        self.put(last, b"last")
        self.look_until(lambda: last in self.jobs())
        self.backend.objects.delete(last)
        self.backend.jobs.delete(self.jobs()[last].job_id)

    def messages(self) -> int:
        return sum(queue_depths(make_broker(self.settings)).values())

    def forget(self) -> None:
        """The index is lost, as with Redis; the jobs are not."""
        self.redis.delete("bs:inbox:known", "bs:inbox:new", "bs:inbox:cursor", "bs:due:inbox marks")


def minio(settings: StorageSettings) -> Minio:
    return Minio(
        settings.s3_endpoint_url.removeprefix("http://"),
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        secure=False,
    )
