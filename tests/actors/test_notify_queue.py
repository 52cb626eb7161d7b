"""Webhooks that wait: for a queue, for a worker after one that was killed, for a Redis that comes back."""

import os
import signal
import subprocess
import sys
from typing import Any

import dramatiq
import msgspec
import pytest
from dramatiq.brokers.redis import RedisBroker

from actors.broker import ERRANDS, make_broker, waiting
from actors.guard import Guard
from actors.messages import send_webhook
from actors.notify import Notifier
from storage.errors import QueueUnavailable
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.actors.office import Office
from tests.conftest import ROOT
from tests.processes import environment
from tests.receiver import Receiver, status
from tests.stack import Parts
from tests.storage.test_job_store import wait_until


@pytest.fixture
def settings(office: Office) -> StorageSettings:
    return office.settings


def queueing(office: Office, broker: RedisBroker) -> Notifier:
    """A notifier that sends messages, which nobody takes."""
    return Notifier(
        office.jobs,
        office.outbox,
        office.objects,
        Guard(),
        send=lambda job_id: send_webhook(broker, job_id),
        waiting=lambda: waiting(broker, ERRANDS),
        link_seconds=60,
    )


@pytest.fixture
def broker(settings: StorageSettings) -> RedisBroker:
    """Its queue is empty."""
    made = make_broker(settings, queues=[ERRANDS])
    made.flush_all()
    return made


def test_what_is_due_gets_its_message_once(office: Office, broker: RedisBroker) -> None:
    waited_for, not_waited_for = office.completed("http://127.0.0.1:9"), office.completed(None)
    notifier = queueing(office, broker)

    notifier.send_due()
    notifier.send_due()

    sent: Any = broker.client.hvals(f"{broker.namespace}:{ERRANDS}.msgs")
    assert [dramatiq.Message.decode(data).args for data in sent] == [(waited_for.job_id,)]
    assert office.next_at(not_waited_for.job_id) is None


def test_the_queue_does_not_grow_while_nobody_takes_its_messages(office: Office, broker: RedisBroker) -> None:
    jobs = [office.completed("http://127.0.0.1:9") for _ in range(130)]
    notifier = queueing(office, broker)
    notifier.send_due()

    for _ in range(3):
        for job in jobs:
            office.make_due(job.job_id)
        notifier.send_due()

    assert waiting(broker, ERRANDS) == 130
    assert office.redis.zcard("bs:outbox") == 130


def test_the_store_is_asked_once_for_the_address_of_many_jobs_of_a_key(
    office: Office, settings: StorageSettings, object_store: ObjectStore
) -> None:
    for _ in range(20):
        office.completed(None, owner="erin")
    asked: list[str] = []
    objects = ObjectStore(settings)
    objects._s3.meta.events.register("before-send.s3.*", lambda request, **_: asked.append(request.url))
    notifier = Notifier(
        office.jobs, office.outbox, objects, Guard(), send=lambda _: None, waiting=lambda: 0, link_seconds=60
    )

    notifier.send_due()

    assert [url.rpartition("/")[2] for url in asked].count("erin.json") == 1
    assert office.redis.zcard("bs:outbox") == 0


def test_a_worker_killed_between_the_post_and_its_note_posts_again_with_the_same_id(
    office: Office, receiver: Receiver
) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", POSTER, receiver.url], env={**os.environ, **environment(office.settings)}, cwd=ROOT
    )
    receiver.answers.append(lambda _: os.kill(worker.pid, signal.SIGKILL))
    job = office.completed(receiver.url)

    receiver.wait_for(1)
    worker.wait(120)
    noted = office.attempts(job.job_id)
    waiting = office.next_at(job.job_id)
    office.make_due(job.job_id)
    office.notifier.send_due()

    assert noted == []
    assert waiting is not None
    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert second.verified(office.secret())["job_id"] == job.job_id
    assert [attempt.status for attempt in office.attempts(job.job_id)] == [204]


#: A process that posts what is due, until it is killed.
POSTER = """
from storage.settings import StorageSettings, read_settings
from tests.actors.office import Office
office = Office(read_settings(StorageSettings))
while True:
    office.notifier.send_due()
"""


def test_a_redis_that_restarts_loses_no_delivery(
    parts: Parts, store_settings: StorageSettings, object_store: ObjectStore, receiver: Receiver
) -> None:
    redis = parts.start_redis()
    office = Office(msgspec.structs.replace(store_settings, redis_url=redis.url))
    receiver.answers.append(status(500))
    job = office.completed(receiver.url)
    office.notifier.send_due()

    redis.running.kill()
    with pytest.raises(QueueUnavailable):
        office.notifier.send_due()
    office.notifier.post(job.job_id)
    redis.running.start()
    wait_until(lambda: bool(office.redis.ping()))
    office.make_due(job.job_id)
    office.notifier.send_due()

    assert [attempt.status for attempt in office.attempts(job.job_id)] == [500, 204]
    redis.running.kill()
