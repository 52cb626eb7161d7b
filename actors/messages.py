"""The messages of the queue: ids and numbers, nothing else. Light enough for the API to import and send.

The functions that do the work are bound to their names in worker.py, so that sending never loads the engine.
"""

from collections.abc import Callable

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from actors.broker import QUEUES
from storage.job import Priority
from storage.redis_client import redis_errors

_ADVANCE, _CHUNK = "advance_job", "transcribe_chunk"


def send(broker: RedisBroker, job_id: str, priority: Priority) -> None:
    """Ask for the job's next step. It may be asked twice: a worker that finds the job in other hands leaves it alone.

    Raises:
        QueueUnavailable: the message is not in the queue.
    """
    _send(broker, _ADVANCE, (job_id,), priority)


def send_chunk(broker: RedisBroker, job_id: str, number: int, priority: Priority) -> None:
    """Ask for one chunk of a job to be transcribed; as harmless to ask twice, and raises the same."""
    _send(broker, _CHUNK, (job_id, number), priority)


def declare(
    broker: RedisBroker, advance_job: Callable[[str], None], transcribe_chunk: Callable[[str, int], None]
) -> None:
    """Bind the work to its messages, in a worker. Which queue a message comes from makes no difference to it."""
    queue = next(iter(QUEUES.values()))
    dramatiq.actor(broker=broker, actor_name=_ADVANCE, queue_name=queue)(advance_job)
    dramatiq.actor(broker=broker, actor_name=_CHUNK, queue_name=queue)(transcribe_chunk)


@redis_errors()
def _send(broker: RedisBroker, actor: str, args: tuple[str | int, ...], priority: Priority) -> None:
    broker.enqueue(dramatiq.Message(queue_name=QUEUES[priority], actor_name=actor, args=args, kwargs={}, options={}))
