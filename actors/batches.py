"""The engine's threads, shared by all jobs of a worker: they gather windows of several jobs into one batch.

A window costs less in company: on two cores a batch of eight short clips takes half the time of eight clips one by one.
So jobs do not decode; they submit windows and wait. Jobs take turns: each batch begins with the window of the job that
waited longest and is filled from the others, one window each, so that a voice message never waits behind the many
windows of a long recording. Windows that wait alone are not kept waiting for company.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger()

Item = TypeVar("Item")
Answer = TypeVar("Answer")

#: Windows in a batch; more gain nothing on a CPU.
BATCH = 8

#: How long a batch waits for the first window of a job that was opened and has not submitted any.
WAIT_SECONDS = 0.02


class Entry(Generic[Item, Answer]):
    """A window in a queue, and who is to hear what came of it."""

    def __init__(self, key: object, item: Item, decode: Callable[[Sequence[Item]], list[Answer]]) -> None:
        #: Only entries of equal keys share a batch; equal keys have the same `decode`.
        self.key = key
        self.item = item
        self.decode = decode
        self.future: Future[Answer] = Future()


class Queue(Generic[Item, Answer]):
    """One job's windows. Close it when the job ends, however it ends: what still waits is dropped."""

    def __init__(self, batcher: "Batcher[Item, Answer]") -> None:
        self._batcher = batcher
        self.waiting: deque[Entry[Item, Answer]] = deque()
        #: Windows that this job may have in a batch while it is alone: few at first, so that its first text comes soon.
        self.allowance = 1
        self.fresh = True

    def submit(
        self, key: object, item: Item, decode: Callable[[Sequence[Item]], list[Answer]], *, first: bool = False
    ) -> "Future[Answer]":
        """Queue a window, behind or before this job's others. The future raises what `decode` raised for it alone."""
        entry = Entry(key, item, decode)
        self._batcher.add(self, entry, first=first)
        return entry.future

    def close(self) -> None:
        self._batcher.remove(self)


class Batcher(Generic[Item, Answer]):
    """As many threads as the model has workers, and the queues of the jobs in hand."""

    def __init__(self, threads: int, batch: int = BATCH, wait_seconds: float = WAIT_SECONDS) -> None:
        self._batch = batch
        self._wait_seconds = wait_seconds
        self._changed = threading.Condition()
        #: In the order in which their turns come.
        self._queues: deque[Queue[Item, Answer]] = deque()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"engine-{number}", daemon=True) for number in range(threads)
        ]
        self._idle = 0
        for thread in self._threads:
            thread.start()

    def open(self) -> Queue[Item, Answer]:
        """A job's queue. From now on batches wait a moment for its first window."""
        queue: Queue[Item, Answer] = Queue(self)
        with self._changed:
            # A new job comes before those that had their turn already.
            self._queues.appendleft(queue)
        return queue

    def close(self) -> None:
        """Finish the batches in hand and end the threads: one inside the engine at exit would abort the process."""
        with self._changed:
            self._closed = True
            for queue in self._queues:
                self._drop(queue)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def add(self, queue: Queue[Item, Answer], entry: Entry[Item, Answer], *, first: bool) -> None:
        with self._changed:
            if self._closed:
                entry.future.cancel()
                return
            queue.fresh = False
            if first:
                queue.waiting.appendleft(entry)
            else:
                queue.waiting.append(entry)
            self._changed.notify_all()

    def remove(self, queue: Queue[Item, Answer]) -> None:
        with self._changed:
            if queue in self._queues:
                self._queues.remove(queue)
            self._drop(queue)
            self._changed.notify_all()

    @staticmethod
    def _drop(queue: Queue[Item, Answer]) -> None:
        for entry in queue.waiting:
            entry.future.cancel()
        queue.waiting.clear()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                batch = self._next_batch()
                self._idle -= 1
            if batch is None:
                return
            self._decode(batch)

    def _next_batch(self) -> list[Entry[Item, Answer]] | None:
        """Wait for windows and take a batch of them; None once closed. Called with the lock held."""
        while not self._closed:
            if not any(queue.waiting for queue in self._queues):
                self._changed.wait()
                continue
            if any(queue.fresh for queue in self._queues):
                self._changed.wait(self._wait_seconds)
                for queue in self._queues:
                    queue.fresh = False  # Whoever is not there by now has more to read; the others go on.
                continue
            return self._take()
        return None

    def _take(self) -> list[Entry[Item, Answer]]:
        seed = next(queue for queue in self._queues if queue.waiting)
        key = seed.waiting[0].key
        matching = {queue: sum(entry.key == key for entry in queue.waiting) for queue in self._queues}
        total = sum(matching.values())
        # Idle threads share what there is, and a job that is alone begins with little.
        limit = min(self._batch, -(-total // max(1, self._idle)))
        if matching[seed] == total:
            limit = min(limit, seed.allowance)
            seed.allowance = min(self._batch, seed.allowance * 2)
        batch: list[Entry[Item, Answer]] = []
        while len(batch) < limit and any(matching.values()):
            for queue in list(self._queues):
                if len(batch) == limit or not matching[queue]:
                    continue
                entry = next(entry for entry in queue.waiting if entry.key == key)
                queue.waiting.remove(entry)
                matching[queue] -= 1
                if entry.future.set_running_or_notify_cancel():
                    batch.append(entry)
        self._queues.remove(seed)
        self._queues.append(seed)
        return batch

    def _decode(self, batch: Sequence[Entry[Item, Answer]]) -> None:
        """Answer every entry. Where a batch fails, each is tried alone, so that only the one at fault fails."""
        if not batch:
            return
        try:
            answers = batch[0].decode([entry.item for entry in batch])
        except Exception as error:  # noqa: BLE001 Whatever a window provokes belongs to its job, which raises it.
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            log.warning("batch failed", windows=len(batch), error=type(error).__name__)
            for entry in batch:
                self._decode([entry])
            return
        for entry, answer in zip(batch, answers, strict=True):
            entry.future.set_result(answer)
