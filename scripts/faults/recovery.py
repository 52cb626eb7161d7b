"""How long the work of a killed worker lies: seen in Redis, from its last lease to another's token on the same work."""

import threading
import time
from typing import Any

import msgspec

from storage.errors import QueueUnavailable
from storage.job import FINAL
from storage.redis_client import JOBS_DATABASE, connect, redis_errors
from storage.settings import StorageSettings

_LOOK_SECONDS = 0.1


class Held(msgspec.Struct, frozen=True):
    """A worker's hold on a job or a chunk, as Redis has it."""

    token: str
    #: On Redis's clock.
    lease_ends: float
    phase: str


class Lost(msgspec.Struct, frozen=True):
    """A hold that may have been the killed worker's."""

    name: str
    held: Held
    killed_at: float


class Restart(msgspec.Struct, frozen=True):
    #: Id of the job, or `{id}/{number}` of its chunk.
    name: str
    #: On the monotonic clock.
    killed_at: float
    restarted_at: float

    @property
    def seconds(self) -> float:
        return self.restarted_at - self.killed_at


class RecoveryWatch:
    """Looks at every lease ten times a second.

    Redis does not say who holds what. But a lease that is never renewed after the kill, and whose work later has
    another token without having been done, was the dead one's.
    """

    def __init__(self, settings: StorageSettings) -> None:
        self._redis: Any = connect(settings, JOBS_DATABASE)
        self._held: dict[str, Held] = {}
        self._lost: list[Lost] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="recovery", daemon=True)
        self.recovered: list[Restart] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)

    def worker_killed(self, at: float) -> None:
        """`at`: on the monotonic clock. What is leased at this moment is watched."""
        with self._lock:
            known = {(lost.name, lost.held.token) for lost in self._lost}
            new = [Lost(name, held, at) for name, held in self._held.items() if (name, held.token) not in known]
            self._lost += new

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            try:
                self._look()
            except QueueUnavailable:
                continue  # It is being killed, too.

    @redis_errors()
    def _look(self) -> None:
        leases: dict[str, float] = dict(self._redis.zrange("bs:leases", 0, -1, withscores=True))
        held = {}
        for name, ends in leases.items():
            token, phase, _, _ = self._state(name)
            if token:
                held[name] = Held(token, ends, phase)
        now = time.monotonic()
        with self._lock:
            self._held = held
            lost = list(self._lost)
        left = [one for one in lost if not self._is_over(one, leases.get(one.name), now)]
        with self._lock:
            # A kill may have added some meanwhile.
            self._lost = left + self._lost[len(lost) :]

    def _is_over(self, lost: Lost, lease_ends: float | None, now: float) -> bool:
        token, phase, status, done = self._state(lost.name)
        if status in FINAL or not status or done or phase != lost.held.phase:
            return True  # Its worker lived and finished.
        if token and token != lost.held.token:
            self.recovered.append(Restart(lost.name, lost.killed_at, now))
            return True
        return token == lost.held.token and lease_ends is not None and lease_ends > lost.held.lease_ends

    def _state(self, name: str) -> tuple[str, str, str, bool]:
        """Token, phase and status, and whether the chunk is done."""
        job_id, _, number = name.partition("/")
        field = f"token:{number}" if number else "token"
        token, phase, status = self._redis.hmget(f"bs:job:{job_id}", field, "phase", "status")
        done = bool(number and self._redis.sismember(f"bs:done:{job_id}", number))
        return token or "", phase or "", status or "", done
