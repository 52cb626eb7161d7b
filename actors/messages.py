"""The messages of the queue: ids and numbers, nothing else. Light enough for the API to import and send.

The functions that do the work are bound to their names in worker.py, so that sending never loads the engine.
"""

from collections.abc import Callable

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from actors.broker import CHUNK_QUEUES, ERRANDS, FETCHES, QUEUES
from storage.job import Job, Priority
from storage.redis_client import redis_errors

_ADVANCE, _CHUNK, _FETCH, _WEBHOOK = "advance_job", "transcribe_chunk", "fetch_source", "post_webhook"


def send_next(broker: RedisBroker, job: Job, priority: Priority | None = None) -> None:
    """Ask for whatever is next for a job: to be fetched, else as `send`. `priority`: other than the job's own."""
    if job.source.type == "url" and job.source.size == 0:
        _send(broker, _FETCH, (job.job_id,), FETCHES)
    else:
        send(broker, job.job_id, priority or job.options.priority)


def send(broker: RedisBroker, job_id: str, priority: Priority) -> None:
    """Ask for the job's next step. It may be asked twice: a worker that finds the job in other hands leaves it alone.

    Raises:
        QueueUnavailable: the message is not in the queue.
    """
    _send(broker, _ADVANCE, (job_id,), QUEUES[priority])


def send_chunk(broker: RedisBroker, job_id: str, number: int, priority: Priority) -> None:
    """Ask for one chunk of a job to be transcribed; as harmless to ask twice, and raises the same."""
    _send(broker, _CHUNK, (job_id, number), CHUNK_QUEUES[priority])


def send_webhook(broker: RedisBroker, job_id: str) -> None:
    """Ask for the job to be posted to whoever waits for its end; as harmless to ask twice, and raises the same."""
    _send(broker, _WEBHOOK, (job_id,), ERRANDS)


def declare(broker: RedisBroker, advance_job: Callable[[str], None]) -> None:
    """Bind the work to its messages, in a worker. Which queue a message comes from makes no difference to it."""
    dramatiq.actor(broker=broker, actor_name=_ADVANCE, queue_name=QUEUES["high"])(advance_job)


def declare_chunks(broker: RedisBroker, transcribe_chunk: Callable[[str, int], None]) -> None:
    """The same, of the worker's threads for chunks."""
    dramatiq.actor(broker=broker, actor_name=_CHUNK, queue_name=CHUNK_QUEUES["high"])(transcribe_chunk)


def declare_fetches(broker: RedisBroker, fetch_source: Callable[[str], None]) -> None:
    """The same, of the worker's threads that fetch urls."""
    dramatiq.actor(broker=broker, actor_name=_FETCH, queue_name=FETCHES)(fetch_source)


def declare_errands(broker: RedisBroker, post_webhook: Callable[[str], None]) -> None:
    """The same, of the worker's threads for errands."""
    dramatiq.actor(broker=broker, actor_name=_WEBHOOK, queue_name=ERRANDS)(post_webhook)


@redis_errors()
def _send(broker: RedisBroker, actor: str, args: tuple[str | int, ...], queue: str) -> None:
    broker.enqueue(dramatiq.Message(queue_name=queue, actor_name=actor, args=args, kwargs={}, options={}))
