"""The queue: Dramatiq on Redis, with every default that loses or delays a message set otherwise."""

import threading
import time
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage, Retries

from storage.job import Priority
from storage.redis_client import QUEUE_DATABASE, connect, redis_errors
from storage.settings import StorageSettings

#: The queue of each priority, the one that goes first at the beginning.
QUEUES: dict[Priority, str] = {name: f"transcribe-{name}" for name in ("high", "normal", "low")}
_ORDER = list(QUEUES.values())

#: How often a message is tried again while the store or the queue fails: with backoff from 1 to 60 s, about 45 minutes.
MAX_RETRIES = 50


class SafeRetries(Retries):
    """Retries that survive an outage of Redis.

    Dramatiq swallows what its middleware raises and then acknowledges the message: an actor that raises while Redis is
    away would lose it. Blocking here keeps the message unacknowledged until the retry is enqueued.
    """

    def after_process_message(
        self, broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        options = dict(message.options)
        while True:
            try:
                super().after_process_message(broker, message, result=result, exception=exception)  # type: ignore[no-untyped-call]
                return
            except redis.RedisError:
                message.options.clear()
                message.options.update(options)
                time.sleep(1)


class OrderedBroker(RedisBroker):
    """Hands messages out by priority, and never more than a worker's threads can begin.

    Dramatiq's consumers fetch from each queue on their own: a busy worker would hold messages of one queue while
    another worker is idle, and low priority would go before high. Here all queues of a worker share its free threads,
    and a queue gives nothing while one of higher priority has messages.
    """

    def __init__(self, threads: int, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._free = threads
        self._counting = threading.Lock()

    def do_fetch(self, queue_name: str, wanted: int) -> list[bytes]:
        if queue_name not in _ORDER:
            return list(self._command("fetch", queue_name, wanted))
        with self._counting:
            higher = _ORDER[: _ORDER.index(queue_name)]
            if self._free == 0 or any(self.client.llen(f"{self.namespace}:{name}") for name in higher):
                return []
            fetched = list(self._command("fetch", queue_name, min(wanted, self._free)))
            self._free -= len(fetched)
            return fetched

    def do_ack(self, queue_name: str, message_id: str) -> None:
        self._command("ack", queue_name, message_id)
        self._give_back(queue_name, 1)

    def do_nack(self, queue_name: str, message_id: str) -> None:
        self._command("nack", queue_name, message_id)
        self._give_back(queue_name, 1)

    def do_requeue(self, queue_name: str, *message_ids: str) -> None:
        self._command("requeue", queue_name, *message_ids)
        self._give_back(queue_name, len(message_ids))

    def _command(self, name: str, *args: str | int) -> Any:
        return self._dispatch(name)(*args)  # type: ignore[no-untyped-call]

    def _give_back(self, queue_name: str, messages: int) -> None:
        if queue_name in _ORDER:
            with self._counting:
                self._free += messages


def make_broker(settings: StorageSettings, threads: int = 1) -> RedisBroker:
    """A broker that connects when first used. `threads`: of the worker it is for; senders need not say.

    A dead worker's messages are handed on by maintenance, which Dramatiq runs by chance, once in a thousand commands:
    an idle queue would wait for hours. Here every command does it. There is no time limit: recordings may last hours,
    and a job's lease tells whether its worker lives. There is no age limit: no job is lost because it waited long.
    """
    broker = OrderedBroker(
        threads,
        client=connect(settings, QUEUE_DATABASE, decode=False),
        heartbeat_timeout=settings.heartbeat_seconds * 1000,
        maintenance_chance=1_000_000,
        middleware=[CurrentMessage(), SafeRetries(max_retries=MAX_RETRIES, min_backoff=1000, max_backoff=60_000)],
    )
    for name in _ORDER:
        broker.declare_queue(name)
    return broker


@redis_errors()
def queue_depths(broker: RedisBroker) -> dict[str, int]:
    """Messages of each queue: waiting, in work, and delayed for a retry."""
    return {name: sum(broker.client.hlen(key) for key in _message_keys(broker, name)) for name in _ORDER}


@redis_errors()
def queued(broker: RedisBroker) -> set[tuple[str | int, ...]]:
    """What has a message, waiting, in work, or delayed for a retry: (job id,) and (job id, chunk number)."""
    return {
        tuple(dramatiq.Message.decode(data).args)
        for name in _ORDER
        for key in _message_keys(broker, name)
        for _, data in broker.client.hscan_iter(key, count=1000)
    }


def _message_keys(broker: RedisBroker, queue_name: str) -> list[str]:
    return [f"{broker.namespace}:{queue_name}{suffix}.msgs" for suffix in ("", ".DQ")]
