"""A worker's hold on a job or a chunk while it works: renewed by a thread of its own and between two steps."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from storage.errors import JobFenced, QueueUnavailable

#: Between two steps the state is asked for at most this often.
_BEAT_SECONDS = 0.5


class Stopping(Exception):
    """The worker is asked to stop: what it holds goes back to the queue."""


class Lease:
    def __init__(self, beat: Callable[[float], None], lease_seconds: float, stopping: threading.Event) -> None:
        """`beat` renews the lease in storage and tells it the progress; it raises JobFenced when the lease is lost."""
        #: Share of the audio that is done, 0 to 99.
        self.progress = 0.0
        self._beat = beat
        self._lease_seconds = lease_seconds
        self._stopping = stopping
        self._lost: JobFenced | None = None
        self._done = threading.Event()
        self._next_beat = time.monotonic() + _BEAT_SECONDS

    def check(self) -> None:
        """Learn whether the work is still wanted; called between any two steps of it.

        Raises:
            JobFenced: the job was cancelled, deleted or taken over.
            Stopping: the worker is to stop.
        """
        if self._stopping.is_set():
            raise Stopping
        if self._lost is not None:
            raise self._lost
        if time.monotonic() >= self._next_beat:
            pause = _BEAT_SECONDS
            try:
                self._beat(self.progress)
            except QueueUnavailable:
                # While Redis is away the work goes on, and does not wait for it before every step: to throw it away
                # would cost more than to do it twice.
                pause = self._lease_seconds / 4
            self._next_beat = time.monotonic() + pause

    @contextmanager
    def kept(self) -> Iterator["Lease"]:
        """Renew the lease in the background, however long a step takes."""
        thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._done.set()
            thread.join()

    def _keep(self) -> None:
        while not self._done.wait(self._lease_seconds / 4):
            try:
                self._beat(self.progress)
            except JobFenced as lost:
                self._lost = lost
                return
            except QueueUnavailable:
                continue  # The lease may run out now; then it is another's and the next beat says so.
