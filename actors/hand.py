"""The work that a worker holds: several jobs and chunks, or a single one that is suspected of killing workers.

storage/risk.py says why. A suspect waits until everything else is done, and nothing new is begun while it waits or is
in work, so it waits no longer than the work in hand takes.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from actors.lease import Stopping
from storage.errors import JobSuspect
from storage.risk import Risk

C = TypeVar("C")

#: How often one that waits looks whether the worker stops.
_LOOK_SECONDS = 0.2


class Hand:
    """Safe to share between threads: each takes one job or chunk at a time."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._changed = threading.Condition()
        self._names: set[str] = set()
        #: Threads that have work in hand, or are about to claim it; suspects that wait for them or are in work.
        self._sharing, self._exclusive = 0, 0
        # One claim at a time, so that each knows of the others.
        self._claiming = threading.Lock()

    @property
    def is_reserved(self) -> bool:
        """Whether a suspect is in work or waits for its turn: nothing else is begun."""
        return self._exclusive > 0

    @contextmanager
    def holding(self, name: str, claim: Callable[[Risk], C]) -> Iterator[C]:
        """Claim work and have it in hand. `name`: as in bs:leases, `{id}` or `{id}/{number}`.

        Raises:
            Stopping: the worker stops while this waits for its turn.
            what `claim` raises, but for a first JobSuspect: then it is called again with nothing else in hand.
        """
        with self._shared():
            try:
                claimed = self._claimed(name, claim, exclusive=False)
            except JobSuspect:
                pass
            else:
                yield from self._held(name, claimed)
                return
        with self._alone():
            yield from self._held(name, self._claimed(name, claim, exclusive=True))

    def _claimed(self, name: str, claim: Callable[[Risk], C], *, exclusive: bool) -> C:
        with self._claiming:
            claimed = claim(Risk(sorted(self._names.copy()), exclusive))
            self._names.add(name)
            return claimed

    def _held(self, name: str, claimed: C) -> Iterator[C]:
        try:
            yield claimed
        finally:
            self._names.discard(name)

    @contextmanager
    def _shared(self) -> Iterator[None]:
        with self._changed:
            self._wait(lambda: self._exclusive == 0)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._changed:
            self._exclusive += 1
            try:
                self._wait(lambda: self._sharing == 0)
            except Stopping:
                self._exclusive -= 1
                raise
            # Other suspects wait as if this one were one of many.
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._exclusive -= 1
                self._changed.notify_all()

    def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._stopping.is_set():
                raise Stopping
            self._changed.wait(_LOOK_SECONDS)
