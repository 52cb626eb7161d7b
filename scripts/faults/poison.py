"""A client whose recordings crash or bloat their decoder while the jobs of others run."""

import random
import threading
import time
from collections.abc import Callable

from scripts.faults.clients import FINAL, Accepted, Client, GaveUp
from scripts.faults.speech import Known
from tests.hostile import flac_of_long_frames, mp4_of_many_tracks, wav_header

#: How long a recording may take to fail once everything runs again.
_PATIENCE_SECONDS = 300
_LOOK_SECONDS = 0.3


def poisons() -> list[Known]:
    """Decoded without limits they take 5.6 GB, 2 GB, and minutes."""
    return [
        Known("frames-of-hours", 1, flac_of_long_frames(), "frames.flac", 0.0, {}),
        Known("250-mhz", 1, wav_header(250_000_000), "fast.wav", 0.0, {}),
        Known("many-tracks", 1, mp4_of_many_tracks(), "tracks.mp4", 0.0, {}),
    ]


class Poisoner:
    """Hands in one recording after another, spread over the run, each kind in turn."""

    def __init__(self, client: Client, count: int, seed: int) -> None:
        self._client = client
        self._count = count
        self._chance = random.Random(seed)
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self.accepted: list[Accepted] = []
        #: Why one was not handed in, or did not fail as it should; one sentence for each.
        self.reasons: list[str] = []

    def start(self, share_final: Callable[[], float]) -> None:
        """`share_final`: the share of the others' jobs that are final, 0 to 1."""
        self._thread = threading.Thread(target=self._submit, args=[share_final], name="poisoner", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait for the end of every job and look at it."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        for one in self.accepted:
            if reason := self._survived(one):
                self.reasons.append(f"{one.job_id} (poison {one.known.name} by {one.way}) {reason}")

    def _submit(self, share_final: Callable[[], float]) -> None:
        kinds = poisons()
        for number in range(self._count):
            while share_final() < number / self._count and not self._over.wait(_LOOK_SECONDS):
                pass
            way = self._chance.choice(["form", "link"])
            try:
                self.accepted.append(self._client.submit(kinds[number % len(kinds)], way, "normal"))
            except GaveUp as reason:
                self.reasons.append(f"poison not handed in: {reason}")

    def _survived(self, one: Accepted) -> str:
        """What is wrong with its end; empty: it failed as unreadable."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (job := self._client.status(one.job_id, "")) is not None and job["status"] not in FINAL:
            if time.monotonic() > deadline:
                return f"is {job['status']} after {_PATIENCE_SECONDS} s"
            time.sleep(_LOOK_SECONDS)
        if job is None:
            return "is without a record"
        if (job["status"], job["error_code"]) != ("failed", "audio_unreadable"):
            return f"is {job['status']}: {job['error_code']}: {job['error']}"
        return ""
