"""How a receiver that keeps everyone waiting is kept from keeping all threads: it gets one post at a time."""

import threading

#: Slow hosts remembered; with more of them all are given another chance.
_MOST = 1000


class Patience:
    """What one process knows of hosts; the others learn it as fast."""

    def __init__(self) -> None:
        #: Slow host → whether it is being waited for now.
        self._slow: dict[str, bool] = {}
        self._lock = threading.Lock()

    def enter(self, host: str) -> bool:
        """False: it is slow and being waited for already. True: go, and say afterwards how it was with `leave`."""
        with self._lock:
            if self._slow.get(host):
                return False
            if host in self._slow:
                self._slow[host] = True
            return True

    def leave(self, host: str, *, slow: bool) -> None:
        with self._lock:
            if not slow:
                self._slow.pop(host, None)
                return
            if len(self._slow) >= _MOST:
                self._slow.clear()
            self._slow[host] = False
