"""The queue on a real Valkey: nothing is lost when Redis or a worker dies."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import msgspec
import pytest

from actors import messages
from actors.broker import make_broker, queue_depths, queued_job_ids
from storage.errors import QueueUnavailable
from storage.settings import StorageSettings
from tests.stack import Parts, RedisServer
from tests.storage.test_job_store import wait_until


@pytest.fixture
def redis_server(parts: Parts) -> Iterator[RedisServer]:
    server = parts.start_redis()
    yield server
    server.running.kill()


@pytest.fixture
def settings(store_settings: StorageSettings, redis_server: RedisServer) -> StorageSettings:
    return msgspec.structs.replace(store_settings, redis_url=redis_server.url)


def working(broker: Any, threads: int = 1) -> dramatiq.Worker:
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=20)
    worker.start()
    return worker


def test_a_message_sent_is_counted_and_known_by_its_job(settings: StorageSettings) -> None:
    broker = make_broker(settings)

    messages.send(broker, "job-1")
    messages.send(broker, "job-2")

    assert queue_depths(broker) == {"transcribe": 2}
    assert queued_job_ids(broker) == {"job-1", "job-2"}


def test_sending_while_redis_is_away_is_queue_unavailable(settings: StorageSettings, redis_server: RedisServer) -> None:
    broker = make_broker(settings)
    redis_server.running.kill()

    with pytest.raises(QueueUnavailable):
        messages.send(broker, "job-1")


def test_a_message_whose_actor_raises_while_redis_is_away_is_not_lost(
    settings: StorageSettings, redis_server: RedisServer
) -> None:
    broker = make_broker(settings)
    done: list[str] = []
    tries: list[str] = []
    away, back = threading.Event(), threading.Event()

    def act(job_id: str) -> None:
        tries.append(job_id)
        if len(tries) == 1:
            redis_server.running.kill()
            away.set()
            raise QueueUnavailable("Redis is away")
        done.append(job_id)

    messages.declare(broker, act)
    messages.send(broker, "job-1")
    worker = working(broker)
    try:
        assert away.wait(20)
        # Long enough for a retry that is not safe to have been tried, lost and acknowledged.
        back.wait(2)
        redis_server.running.start()

        wait_until(lambda: done == ["job-1"], seconds=40)
        wait_until(lambda: queue_depths(broker) == {"transcribe": 0}, seconds=20)
    finally:
        worker.stop()

    assert tries == ["job-1", "job-1"]


def test_a_dead_workers_message_goes_to_another_after_its_heartbeat(settings: StorageSettings) -> None:
    dead = make_broker(settings, heartbeat_seconds=1)
    messages.send(dead, "job-1")
    fetched = dead.do_fetch("transcribe", 1)  # Taken by a broker that then says no more.
    alive = make_broker(settings, heartbeat_seconds=1)
    done: list[str] = []
    messages.declare(alive, done.append)
    began = time.monotonic()

    worker = working(alive)
    try:
        wait_until(lambda: done == ["job-1"], seconds=15)
    finally:
        worker.stop()

    assert len(fetched) == 1
    assert 0.5 < time.monotonic() - began < 10
