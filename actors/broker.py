"""The queue: Dramatiq on Redis, with every default that loses or delays a message set otherwise."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import CurrentMessage, Retries

from storage.job import Priority
from storage.redis_client import QUEUE_DATABASE, connect, redis_errors
from storage.settings import StorageSettings

_PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")
#: The queue of each priority, the one that goes first at the beginning: of jobs' steps, and of the chunks of long
#: recordings. Each kind has threads of its own, so that a short recording waits for no chunk: the engine takes turns.
QUEUES: dict[Priority, str] = {name: f"transcribe-{name}" for name in _PRIORITIES}
CHUNK_QUEUES: dict[Priority, str] = {name: f"chunks-{name}" for name in _PRIORITIES}
_STEPS = (*QUEUES.values(), *CHUNK_QUEUES.values())
#: Of what waits for others' servers, fetching a recording or posting a webhook: each has threads of its own, so that
#: no transcription waits for a slow one, and no webhook for the recordings of hours.
FETCHES, ERRANDS = "fetches", "errands"

#: How often a message is tried again while the store or the queue fails: with backoff from 1 to 60 s, about 45 minutes.
MAX_RETRIES = 50

#: How often a broker looks for messages that Redis holds for it and that it knows nothing of.
_LOOK_SECONDS = 5.0
#: How often at most a broker asks for messages where it sees none: an idle worker costs little.
_ASK_SECONDS = 1.0
#: A delayed message is put back into its queue by the worker that has it in memory. One that is later than this is not.
_OVERDUE_MILLISECONDS = 10_000


class SafeConsumer(_RedisConsumer):
    """Dramatiq's thread for a queue ends for good when putting messages back fails: here it sees a lost connection."""

    def requeue(self, messages: Iterable[Any]) -> None:
        try:
            super().requeue(messages)  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            raise ConnectionClosed(error) from None


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
    another worker is idle, and low priority would go before high. Here all queues of a broker share its free threads,
    and a queue gives nothing while one of higher priority has messages.

    Redis keeps the ids of the messages that it gave to a broker until they are acknowledged or the broker is dead.
    Those whose answer was lost on the way, and delayed ones that Dramatiq drops from memory when a connection breaks,
    would lie there for as long as the worker lives. So what this broker does not know of goes back into its queue.
    """

    def __init__(self, threads: int, order: Sequence[str], **options: Any) -> None:
        """`order`: the queues that share the threads, the one that goes first at the beginning."""
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._threads = threads
        self._order = list(order)
        #: Queue → ids of the messages in this broker's hands.
        self._held: dict[str, set[str]] = defaultdict(set)
        self._look_at: dict[str, float] = defaultdict(float)
        self._ask_at: dict[str, float] = defaultdict(float)
        # By asking a broker says that it lives, too.
        self._ask_seconds = min(_ASK_SECONDS, self.heartbeat_timeout / 4000)
        self._counting = threading.Lock()

    @property
    def consumer_class(self) -> type[SafeConsumer]:
        return SafeConsumer

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Any:
        """A queue's messages, from the beginning or after a connection broke."""
        if queue_name not in self._order:
            # With its connection Dramatiq drops the delayed messages that wait in memory.
            self._held.pop(queue_name, None)
        self._look_at.pop(queue_name, None)
        return super().consume(queue_name, prefetch, timeout)

    def do_fetch(self, queue_name: str, wanted: int) -> list[bytes]:
        with self._counting:
            self._put_back_unknown(queue_name)
            if not self._is_to_ask(queue_name):
                return []
            if queue_name in self._order:
                free = self._threads - sum(len(self._held[name]) for name in self._order)
                higher = self._order[: self._order.index(queue_name)]
                if free <= 0 or any(self.client.llen(f"{self.namespace}:{name}") for name in higher):
                    return []
                wanted = min(wanted, free)
            # An id that was in the queue twice has no message any more once the first was acknowledged.
            fetched = [data for data in self._command("fetch", queue_name, wanted) if data is not None]
            self._held[queue_name].update(map(_redis_id, fetched))
            return fetched

    def do_ack(self, queue_name: str, message_id: str) -> None:
        self._command("ack", queue_name, message_id)
        self._let_go(queue_name, [message_id])

    def do_nack(self, queue_name: str, message_id: str) -> None:
        self._command("nack", queue_name, message_id)
        self._let_go(queue_name, [message_id])

    def do_requeue(self, queue_name: str, *message_ids: str) -> None:
        self._command("requeue", queue_name, *message_ids)
        self._let_go(queue_name, message_ids)

    def _command(self, name: str, *args: str | int) -> Any:
        try:
            return self._dispatch(name)(*args)  # type: ignore[no-untyped-call]
        except redis.ConnectionError:
            raise
        except redis.RedisError as error:
            # Dramatiq waits for a connection to come back, but gives up a message for any other trouble: a Redis that
            # hangs, or whose disk is full.
            raise redis.ConnectionError(str(error)) from error

    def _let_go(self, queue_name: str, message_ids: Sequence[str]) -> None:
        with self._counting:
            self._held[queue_name].difference_update(message_ids)

    def _is_to_ask(self, queue_name: str) -> bool:
        """Whether there is something, or it is time to ask anyway, by which dead brokers' messages are handed on."""
        now = time.monotonic()
        if now >= self._ask_at[queue_name]:
            self._ask_at[queue_name] = now + self._ask_seconds
            return True
        # Delayed messages are not looked for in between: their time comes later than that.
        return queue_name in self._order and bool(self.client.llen(f"{self.namespace}:{queue_name}"))

    def _put_back_unknown(self, queue_name: str) -> None:
        """Only the thread that fetches from this queue comes here, so nothing is on its way to it."""
        if time.monotonic() < self._look_at[queue_name]:
            return
        given: Any = self.client.smembers(f"{self.namespace}:__acks__.{self.broker_id}.{queue_name}")
        unknown = {message_id.decode() for message_id in given} - self._held[queue_name]
        if unknown:
            self._command("requeue", queue_name, *unknown)
        self._look_at[queue_name] = time.monotonic() + _LOOK_SECONDS


def make_broker(
    settings: StorageSettings, threads: int = 1, queues: Sequence[str] = tuple(QUEUES.values())
) -> RedisBroker:
    """A broker that connects when first used. `threads`, `queues`: of the worker it is for; senders need not say.

    A dead worker's messages are handed on by maintenance, which Dramatiq runs by chance, once in a thousand commands:
    an idle queue would wait for hours. Here every command does it. There is no time limit: recordings may last hours,
    and a job's lease tells whether its worker lives. There is no age limit: no job is lost because it waited long.
    """
    broker = OrderedBroker(
        threads,
        queues,
        client=connect(settings, QUEUE_DATABASE, decode=False),
        heartbeat_timeout=settings.heartbeat_seconds * 1000,
        maintenance_chance=1_000_000,
        middleware=[CurrentMessage(), SafeRetries(max_retries=MAX_RETRIES, min_backoff=1000, max_backoff=60_000)],
    )
    for name in queues:
        broker.declare_queue(name)
    return broker


@redis_errors()
def queue_depths(broker: RedisBroker) -> dict[str, int]:
    """Messages of each queue of steps and of chunks: waiting, in work, and delayed for a retry."""
    return {name: sum(broker.client.hlen(key) for key in _message_keys(broker, name)) for name in _STEPS}


@redis_errors()
def waiting(broker: RedisBroker, queue_name: str) -> int:
    """Messages of a queue that no worker has been given."""
    return int(broker.client.llen(f"{broker.namespace}:{queue_name}"))


@redis_errors()
def queued(broker: RedisBroker) -> set[tuple[str | int, ...]]:
    """What a worker will be given, now or when its delay is over: (job id,) and (job id, chunk number).

    A message that was given to a worker does not count: what is in work is known by its lease, and without a lease the
    worker may be dead. Errands are no steps of a job.
    """
    found = set()
    overdue = time.time() * 1000 - _OVERDUE_MILLISECONDS
    for name in (*_STEPS, FETCHES):
        ready = set(broker.client.lrange(f"{broker.namespace}:{name}", 0, -1))
        for key in _message_keys(broker, name):
            for message_id, data in broker.client.hscan_iter(key, count=1000):
                message = dramatiq.Message.decode(data)
                if message_id in ready or message.options.get("eta", 0) > overdue:
                    found.add(tuple(message.args))
    return found


def _redis_id(data: bytes) -> str:
    return str(dramatiq.Message.decode(data).options["redis_message_id"])


def _message_keys(broker: RedisBroker, queue_name: str) -> list[str]:
    return [f"{broker.namespace}:{queue_name}{suffix}.msgs" for suffix in ("", ".DQ")]
