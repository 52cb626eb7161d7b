"""Faults and a supervisor in small: parts are killed and frozen; what died is started again, what froze is thawed."""

import random
import time
from collections import Counter
from typing import Literal

import msgspec

from deploy.embedded.running import Running
from deploy.embedded.unsupervised import Unsupervised

Deed = Literal["kill", "freeze", "stop"]

#: What may be done to which part → how often beside the others, once each was done. kill: SIGKILL, freeze: SIGSTOP and
#: later SIGCONT, stop: SIGTERM.
_WEIGHTS: dict[tuple[Deed, str], int] = {
    ("kill", "worker"): 10,
    ("kill", "redis"): 3,
    ("kill", "store"): 3,
    ("kill", "api"): 3,
    ("freeze", "worker"): 2,
    ("stop", "worker"): 2,
    ("freeze", "redis"): 1,
    ("freeze", "store"): 1,
}
#: A part that was just started has nothing in hand that could be lost.
_SETTLED_SECONDS = 4
#: Between two strikes, so that they do not all fall on one moment.
_LEAST_PAUSE_SECONDS = 1.5


class Strike(msgspec.Struct, frozen=True):
    deed: Deed
    #: worker, api, redis or store.
    target: str
    #: Of all jobs, how many must be final before: strikes are spread over the run, however long it takes.
    after_share: float
    #: How long a frozen part stays so, or a dead one dead.
    seconds: float


class Struck(msgspec.Struct, frozen=True):
    """A strike that was carried out. Times are on the monotonic clock."""

    deed: Deed
    #: The very part, as `worker-2`.
    part: str
    at: float
    seconds: float


def plan_strikes(count: int, seed: int, lease_seconds: float) -> list[Strike]:
    """Each kind once, as far as `count` allows, the rest by chance; in random order, evenly spread.

    A frozen worker sleeps longer than its lease. The first outages of Redis and of the store by freezing last 30 s,
    where there are strikes enough to wait for them.
    """
    chance = random.Random(seed)
    kinds = list(_WEIGHTS)[:count]
    kinds += chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=count - len(kinds))
    long_outages = {kind for kind in (("freeze", "redis"), ("freeze", "store")) if count >= 20}
    chance.shuffle(kinds)
    strikes = []
    for number, (deed, target) in enumerate(kinds):
        seconds = chance.uniform(0.5, 2.0)
        if deed == "freeze":
            seconds = lease_seconds + chance.uniform(2, 6) if target == "worker" else chance.uniform(5, 12)
            if (deed, target) in long_outages:
                long_outages.remove((deed, target))
                seconds = 30.0
        strikes.append(Strike(deed, target, (number + chance.uniform(0, 0.9)) / count * 0.95, seconds))
    return strikes


class Tormentor:
    """Carries the strikes out and mends. Its owner calls `tick` often, from one thread that outlives the parts."""

    def __init__(self, stack: Unsupervised, strikes: list[Strike], seed: int) -> None:
        self._parts = {running.part.name: running for running in (stack.redis, stack.store, stack.api, *stack.workers)}
        self._waiting = list(strikes)
        self._chance = random.Random(seed)
        self._next_at = time.monotonic()
        self._started_at = dict.fromkeys(self._parts, self._next_at)
        self._restart_at: dict[str, float] = {}
        self._thaw_at: dict[str, float] = {}
        self.struck: list[Struck] = []

    @property
    def done(self) -> bool:
        """Every strike was carried out, and every part is back."""
        return not self._waiting and not self._thaw_at and not any(part.ended() for part in self._parts.values())

    def counts(self) -> Counter[str]:
        return Counter(f"{struck.deed} {struck.part.partition('-')[0]}" for struck in self.struck)

    def tick(self, share_final: float) -> Struck | None:
        """Mend what is due and strike if it is time. Returns the strike, if any."""
        now = time.monotonic()
        self._mend(now)
        if not self._waiting or share_final < self._waiting[0].after_share or now < self._next_at:
            return None
        strike = self._waiting[0]
        names = [name for name in self._parts if name.partition("-")[0] == strike.target and self._is_up(name, now)]
        if not names:
            return None  # It is down from an earlier strike: this one waits.
        self._waiting.pop(0)
        self._next_at = now + _LEAST_PAUSE_SECONDS + self._chance.uniform(0, 3)
        struck = Struck(strike.deed, self._chance.choice(names), now, strike.seconds)
        self._carry_out(struck)
        self.struck.append(struck)
        return struck

    def _carry_out(self, struck: Struck) -> None:
        part = self._parts[struck.part]
        match struck.deed:
            case "kill":
                part.kill()
                self._restart_at[struck.part] = struck.at + struck.seconds
            case "freeze":
                part.pause()
                self._thaw_at[struck.part] = struck.at + struck.seconds
            case "stop":
                part.terminate()

    def _mend(self, now: float) -> None:
        for name, thaw_at in list(self._thaw_at.items()):
            if now >= thaw_at:
                self._parts[name].resume()
                del self._thaw_at[name]
        for name, part in self._parts.items():
            if part.ended() and now >= self._restart_at.setdefault(name, now + 1.0):
                part.launch()
                del self._restart_at[name]
                self._started_at[name] = now

    def _is_up(self, name: str, now: float) -> bool:
        part: Running = self._parts[name]
        settled = now - self._started_at[name] > _SETTLED_SECONDS
        return settled and name not in self._thaw_at and not part.ended()
