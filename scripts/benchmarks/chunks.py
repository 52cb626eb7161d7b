"""A long recording's chunks, watched from outside: which are in work, since when, and by which claim."""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import msgspec

from actors.audio.decode import decode_channels
from actors.audio.flac import encode_flac
from actors.cut import Reading, with_short_start
from actors.settings import ActorSettings
from actors.voice import VoiceActivity
from scripts.benchmarks.benchmark import BenchmarkFailed
from scripts.benchmarks.running import RunningStack
from storage.chunk_store import ChunkStore
from storage.errors import QueueUnavailable
from storage.redis_client import JOBS_DATABASE, connect, redis_errors

_SECONDS = 0.02
_TOKEN = "token:"

#: A chunk's number and the token of the worker that holds it.
Claim = tuple[int, str]


class Held(msgspec.Struct):
    """Seconds since the epoch."""

    first_seen: float
    last_seen: float


class ChunkWatch:
    """Looks at a job's record fifty times a second, from `with` to its end."""

    def __init__(self, stack: RunningStack, job_id: str) -> None:
        self._job_id = job_id
        self._jobs = stack.jobs
        self._chunks = ChunkStore.connect(stack.plan.storage, stack.jobs)
        self._redis: Any = connect(stack.plan.storage, JOBS_DATABASE)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="chunks", daemon=True)
        #: Every claim that was ever seen.
        self.claims: dict[Claim, Held] = {}
        #: Those of the last look.
        self.held: frozenset[Claim] = frozenset()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def done(self) -> set[int]:
        return self._chunks.done(self._job_id)

    def is_cut(self) -> bool:
        return self._jobs.get(self._job_id).phase == "cut"

    def seconds(self) -> list[float]:
        """How long each chunk was in work that is not any more."""
        return [held.last_seen - held.first_seen for claim, held in self.claims.items() if claim not in self.held]

    def wait(self, what: str, condition: Callable[[], bool], timeout_seconds: float = 300) -> None:
        """
        Raises:
            BenchmarkFailed: it does not happen, or the job ended before it did.
        """
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            job = self._jobs.get(self._job_id)
            if job.status not in ("pending", "processing"):
                raise BenchmarkFailed(f"the long job is {job.status} before {what}: {job.error}")
            if time.monotonic() > deadline:
                raise BenchmarkFailed(f"no sign in {timeout_seconds:.0f} s of this: {what}")
            time.sleep(_SECONDS)

    def wait_for_claims(self, count: int) -> None:
        """Until so many claims were seen. Raises as `wait`."""
        self.wait(f"{count} chunks were begun", lambda: len(self.claims) >= count)

    def wait_until_done(self, claims: Iterable[Claim]) -> None:
        """Until their chunks are done, whoever did them. Raises as `wait`."""
        numbers = {number for number, _ in claims}
        self.wait(f"the chunks {sorted(numbers)} were done", lambda: numbers <= self.done())

    def _look(self) -> None:
        while not self._over.wait(_SECONDS):
            try:
                with redis_errors():
                    record = self._redis.hgetall(f"bs:job:{self._job_id}")
            except QueueUnavailable:
                continue
            now = time.time()
            held = {
                (int(name.removeprefix(_TOKEN)), token) for name, token in record.items() if name.startswith(_TOKEN)
            }
            for claim in held:
                self.claims.setdefault(claim, Held(now, now)).last_seen = now
            self.held = frozenset(held)


def cut_into_files(recording: Path, folder: Path, settings: ActorSettings) -> list[Path]:
    """The chunks that a worker would make of a recording."""
    folder.mkdir()
    paths: list[Path] = []
    with recording.open("rb") as file:
        reading = Reading(
            decode_channels(file),
            lambda: VoiceActivity().listen,
            settings.chunk_target_seconds,
            settings.chunk_max_seconds,
        )
        for pieces in (reading.pieces, reading.rest):
            for piece in pieces():
                for part in [piece] if paths else with_short_start(piece):
                    paths.append(folder / f"{len(paths):04}.flac")
                    paths[-1].write_bytes(encode_flac(part.samples))
    return paths
