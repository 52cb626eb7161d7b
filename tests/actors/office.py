"""Where webhooks are posted from: the notifier, as tests call it."""

from actors.guard import Guard
from actors.notify import Notifier
from storage.job import Job, Options
from storage.job_store import JobStore
from storage.object_store import ObjectStore
from storage.outbox import Attempt, Outbox
from storage.redis_client import JOBS_DATABASE, connect
from storage.settings import StorageSettings
from storage.webhooks import ensure_endpoint
from tests.storage.test_job_store import a_job

LOOPBACK = "127.0.0.0/8"


class Office:
    """A notifier and what stands behind it. Messages are not sent but done at once, so that each test says when."""

    def __init__(self, settings: StorageSettings) -> None:
        self.settings = settings
        self.jobs = JobStore.connect(settings)
        self.objects = ObjectStore(settings)
        self.outbox = Outbox.connect(settings)
        self.redis = connect(settings, JOBS_DATABASE)
        self.notifier = self.guarded()

    def guarded(self, allowed_networks: str = LOOPBACK, timeout_seconds: float = 20) -> Notifier:
        notifier = Notifier(
            self.jobs,
            self.outbox,
            self.objects,
            Guard(allowed_networks),
            send=lambda job_id: notifier.post(job_id),  # noqa: PLW0108 - it is not made yet
            waiting=lambda: 0,
            link_seconds=60,
            timeout_seconds=timeout_seconds,
        )
        return notifier

    def completed(self, webhook_url: str | None, owner: str = "alice") -> Job:
        job = a_job(owner=owner, options=Options(model="base", webhook_url=webhook_url))
        self.jobs.create(job)
        claim = self.jobs.claim(job.job_id, "w", 30, 3)
        self.jobs.complete(job.job_id, claim.token, {"json": 20, "srt": 30}, 12.5)
        return self.jobs.get(job.job_id)

    def secret(self, owner: str = "alice") -> str:
        return ensure_endpoint(owner, self.objects).secret

    def make_due(self, job_id: str) -> None:
        """As if the pause were over."""
        self.redis.zadd("bs:outbox", {job_id: 0})

    def attempts(self, job_id: str) -> list[Attempt]:
        return self.outbox.deliveries(job_id).attempts

    def next_at(self, job_id: str) -> float | None:
        return self.outbox.deliveries(job_id).next_at
