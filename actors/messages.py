"""The messages of the queue: ids, nothing else. Light enough for the API to import and send.

The functions that do the work are bound to their names in worker.py, so that sending never loads the engine.
"""

from collections.abc import Callable

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from storage.redis_client import redis_errors

QUEUE = "transcribe"

_ACTOR = "transcribe_recording"


@redis_errors()
def send(broker: RedisBroker, job_id: str) -> None:
    """Ask for a job to be done. It may be asked twice: a worker that finds the job in other hands leaves it alone.

    Raises:
        QueueUnavailable: the message is not in the queue.
    """
    broker.declare_queue(QUEUE)
    broker.enqueue(dramatiq.Message(queue_name=QUEUE, actor_name=_ACTOR, args=(job_id,), kwargs={}, options={}))


def declare(broker: RedisBroker, transcribe_recording: Callable[[str], None]) -> None:
    """Bind the work to its message, in a worker."""
    dramatiq.actor(broker=broker, actor_name=_ACTOR, queue_name=QUEUE)(transcribe_recording)
