"""The queue on a real Valkey: nothing is lost when Redis or a worker dies."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import msgspec
import pytest

from actors import messages
from actors.broker import ERRANDS, QUEUES, make_broker, queue_depths, queued, waiting
from storage.errors import QueueUnavailable
from storage.job import Priority
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

    messages.send(broker, "job-1", "normal")
    messages.send_chunk(broker, "job-2", 7, "low")

    waiting_in = {name for name, depth in queue_depths(broker).items() if depth}
    assert waiting_in == {"transcribe-normal", "chunks-low"}
    assert queued(broker) == {("job-1",), ("job-2", 7)}


def test_an_errand_is_not_taken_for_a_step_of_its_job(settings: StorageSettings) -> None:
    broker = make_broker(settings)

    messages.send_webhook(broker, "job-1")

    assert queued(broker) == set()
    assert waiting(broker, ERRANDS) == 1


def test_sending_while_redis_is_away_is_queue_unavailable(settings: StorageSettings, redis_server: RedisServer) -> None:
    broker = make_broker(settings)
    redis_server.running.kill()

    with pytest.raises(QueueUnavailable):
        messages.send(broker, "job-1", "normal")


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
    messages.send(broker, "job-1", "normal")
    worker = working(broker)
    try:
        assert away.wait(120)
        # Long enough for a retry that is not safe to have been tried, lost and acknowledged.
        back.wait(2)
        redis_server.running.start()

        wait_until(lambda: "job-1" in done)
        wait_until(lambda: not any(queue_depths(broker).values()))
    finally:
        worker.stop()

    # At least once: an enqueue whose answer was lost is repeated.
    assert len(tries) >= 2


def test_a_dead_workers_message_goes_to_another_after_its_heartbeat(settings: StorageSettings) -> None:
    settings = msgspec.structs.replace(settings, heartbeat_seconds=1)
    dead = make_broker(settings)
    messages.send(dead, "job-1", "normal")
    began = time.monotonic()
    fetched = dead.do_fetch(QUEUES["normal"], 1)  # Taken by a broker that then says no more.
    alive = make_broker(settings)
    done: list[str] = []
    messages.declare(alive, done.append)

    worker = working(alive)
    try:
        wait_until(lambda: done == ["job-1"])
    finally:
        worker.stop()

    assert len(fetched) == 1
    assert time.monotonic() - began > 0.5


def test_high_goes_before_normal_and_normal_before_low_however_they_came(settings: StorageSettings) -> None:
    broker = make_broker(settings, threads=1)
    done: list[str] = []
    messages.declare(broker, done.append)
    order: list[Priority] = ["low", "normal", "high", "low", "normal", "high"]
    for number, priority in enumerate(order):
        messages.send(broker, f"{priority}-{number}", priority)

    worker = working(broker)
    try:
        wait_until(lambda: len(done) == 6)
    finally:
        worker.stop()

    assert done == ["high-2", "high-5", "normal-1", "normal-4", "low-0", "low-3"]


def test_a_busy_worker_holds_no_message_that_an_idle_one_could_do(settings: StorageSettings) -> None:
    busy, idle = make_broker(settings, threads=1), make_broker(settings, threads=1)
    began, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def block(job_id: str) -> None:
        began.set()
        go_on.wait(120)

    messages.declare(busy, block)
    messages.declare(idle, done.append)
    messages.send(busy, "long", "low")
    first = working(busy)
    assert began.wait(120)
    order: list[Priority] = ["high", "normal", "low"]
    for number, priority in enumerate(order):
        messages.send(busy, f"{priority}-{number}", priority)

    second = working(idle)
    try:
        wait_until(lambda: len(done) == 3)
    finally:
        go_on.set()
        first.stop()
        second.stop()

    assert done == ["high-0", "normal-1", "low-2"]


def test_a_message_that_redis_gave_out_but_nobody_heard_of_is_done_all_the_same(settings: StorageSettings) -> None:
    broker = make_broker(settings)
    done: list[str] = []
    messages.declare(broker, done.append)
    messages.send(broker, "job-1", "normal")
    # A frozen Redis that wakes up does what it was asked by a connection that has long been given up.
    unheard = broker._command("fetch", QUEUES["normal"], 1)

    worker = working(broker)
    try:
        wait_until(lambda: done == ["job-1"])
    finally:
        worker.stop()

    assert len(unheard) == 1
    assert queued(broker) == set()


def test_a_message_that_stands_in_the_queue_twice_takes_no_thread_away(settings: StorageSettings) -> None:
    broker = make_broker(settings, threads=1)
    done: list[str] = []
    messages.declare(broker, done.append)
    messages.send(broker, "job-1", "normal")
    # As an enqueue leaves it that is repeated because its answer was lost.
    (twice,) = broker.client.lrange(f"dramatiq:{QUEUES['normal']}", 0, -1)
    broker.client.rpush(f"dramatiq:{QUEUES['normal']}", twice)
    messages.send(broker, "job-2", "normal")

    worker = working(broker)
    try:
        wait_until(lambda: done == ["job-1", "job-2"])
    finally:
        worker.stop()


def test_a_message_that_waits_to_be_tried_again_survives_an_outage_of_redis(
    settings: StorageSettings, redis_server: RedisServer
) -> None:
    broker = make_broker(settings)
    tries: list[str] = []

    def act(job_id: str) -> None:
        tries.append(job_id)
        if len(tries) == 1:
            raise QueueUnavailable("the first time it fails")

    messages.declare(broker, act)
    messages.send(broker, "job-1", "normal")
    worker = working(broker)
    try:
        # The worker has it in memory and waits for its time.
        wait_until(lambda: bool(broker.client.keys("dramatiq:__acks__.*.DQ")))
        redis_server.running.kill()
        time.sleep(2)  # Its time comes while Redis is away; nothing else marks that.
        redis_server.running.start()

        wait_until(lambda: len(tries) == 2)
        wait_until(lambda: not any(queue_depths(broker).values()))
    finally:
        worker.stop()


def test_what_no_worker_will_be_given_counts_as_gone(settings: StorageSettings) -> None:
    broker = make_broker(settings)
    for job_id in ("waiting", "taken"):
        messages.send(broker, job_id, "normal")
    queue: Any = broker.client.lrange(f"dramatiq:{QUEUES['normal']}", 0, -1)
    broker.client.lrem(f"dramatiq:{QUEUES['normal']}", 0, queue[1])
    for job_id, seconds in (("later", 60), ("overdue", -60)):
        message: dramatiq.Message[None] = dramatiq.Message(QUEUES["normal"], "advance_job", (job_id,), {}, {})
        broker.enqueue(message, delay=seconds * 1000)

    assert queued(broker) == {("waiting",), ("later",)}


def test_a_redis_that_hangs_is_asked_once(settings: StorageSettings, redis_server: RedisServer) -> None:
    broker = make_broker(settings)
    messages.send(broker, "job-1", "normal")
    redis_server.running.pause()
    began = time.monotonic()

    with pytest.raises(QueueUnavailable):
        messages.send(broker, "job-2", "normal")

    took = time.monotonic() - began
    redis_server.running.resume()
    assert took < 15
