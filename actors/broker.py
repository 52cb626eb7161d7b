"""The queue: Dramatiq on Redis, with every default that loses or delays a message set otherwise."""

import time
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage, Retries

from storage.redis_client import QUEUE_DATABASE, connect, redis_errors
from storage.settings import StorageSettings

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


def make_broker(settings: StorageSettings, heartbeat_seconds: int = 15) -> RedisBroker:
    """A broker that connects when first used.

    A dead worker's messages are handed on by maintenance, which Dramatiq runs by chance, once in a thousand commands:
    an idle queue would wait for hours. Here every command does it. There is no time limit: recordings may last hours,
    and a job's lease tells whether its worker lives. There is no age limit: no job is lost because it waited long.
    """
    return RedisBroker(
        client=connect(settings, QUEUE_DATABASE, decode=False),
        heartbeat_timeout=heartbeat_seconds * 1000,
        maintenance_chance=1_000_000,
        middleware=[CurrentMessage(), SafeRetries(max_retries=MAX_RETRIES, min_backoff=1000, max_backoff=60_000)],
    )


@redis_errors()
def queue_depths(broker: RedisBroker) -> dict[str, int]:
    """Messages of each queue: waiting, in work, and delayed for a retry."""
    return {
        name: broker.client.hlen(f"{broker.namespace}:{name}.msgs")
        + broker.client.hlen(f"{broker.namespace}:{name}.DQ.msgs")
        for name in sorted(broker.get_declared_queues())
    }


@redis_errors()
def queued_job_ids(broker: RedisBroker) -> set[str]:
    """Jobs that have a message: waiting, in work, or delayed for a retry."""
    return {
        dramatiq.Message.decode(data).args[0]
        for name in broker.get_declared_queues()
        for suffix in ("", ".DQ")
        for _, data in broker.client.hscan_iter(f"{broker.namespace}:{name}{suffix}.msgs", count=1000)
    }
