"""A url's recording is brought into the bucket; from there on its job is one like any other.

A worker holds the job by lease while it fetches. A connection that breaks is taken up where it broke, where the origin
can tell that the bytes are still the same; so does another worker after one that was killed. An origin that fails is
tried again with growing pauses, in which the job waits in the queue and no thread for it. The recording is whole in the
store first, then noted, then the record says so: whoever comes twice finds what was done.
"""

import random
import threading
import time
from collections.abc import Callable

import msgspec
import structlog

from actors.errors import ActorError, OriginBroke, OriginChanged, OriginFailing, OriginTimeout, UrlUnreachable
from actors.guard import Guard, parse
from actors.lease import Lease
from actors.origin import Origin
from actors.outcome import Later, carry_out_job
from actors.settings import ActorSettings
from actors.transfer import Transfer
from storage.errors import JobMissing, StorageError, StoreUnavailable, UploadMissing, UploadRefused
from storage.job import Job, JobStatus, Source
from storage.job_store import Claim, JobStore
from storage.keys import fetch_key
from storage.notes import note_job
from storage.object_store import ObjectStore

log = structlog.get_logger()

#: A server that may be well again a moment later.
_PASSING = (UrlUnreachable, OriginFailing, OriginBroke, OriginTimeout)

#: A connection that brought so many bytes before it broke was worth it: it is taken up at once.
_WORTH_BYTES = 256 * 1024
#: How often a fetch begins again with the first byte before the origin is given up, or left alone for a while.
_MAX_RESTARTS = 2
#: The longest pause between two tries, in seconds; the first is one second.
_LONGEST_PAUSE_SECONDS = 60


class Fetcher:
    def __init__(
        self,
        jobs: JobStore,
        objects: ObjectStore,
        guard: Guard,
        settings: ActorSettings,
        max_file_size: int,
        worker_id: str,
        stopping: threading.Event,
        send_next: Callable[[Job], None],
    ) -> None:
        """`send_next` puts the message of a job's next step into the queue."""
        self._jobs = jobs
        self._objects = objects
        self._origin = Origin(guard, settings.fetch_idle_seconds)
        self._settings = settings
        self._max_file_size = max_file_size
        self._worker_id = worker_id
        self._stopping = stopping
        self._send_next = send_next

    def fetch_source(self, job_id: str, *, last_try: bool) -> None:
        """Bring a job's recording into the bucket and hand the job on.

        Returns when there is nothing more to do here: fetched, failed for good, handed back because the worker stops,
        or not this worker's.

        Raises:
            Later, one of outcome.OUTAGES: handed back, worth another try.
        """
        if self._is_fetched(job_id):
            return
        carry_out_job(
            job_id,
            self._fetch,
            self._jobs,
            self._objects,
            self._settings,
            self._worker_id,
            self._stopping,
            send_again=self._send_next,
            last_try=last_try,
        )

    def _is_fetched(self, job_id: str) -> bool:
        """Whether the recording is in the bucket. Then the job is handed on: who fetched it may have died before."""
        try:
            job = self._jobs.get(job_id)
        except JobMissing:
            return False
        if job.source.size and job.status is JobStatus.PENDING:
            self._send_next(job)
        return job.source.size > 0

    def _fetch(self, claim: Claim, lease: Lease) -> None:
        job = claim.job
        transfer = Transfer(job, self._objects, self._max_file_size)
        source = transfer.whole()
        if source is None:
            try:
                self._bring(job, transfer, lease)
            except _PASSING as error:
                failures = transfer.note_failure()
                if failures >= self._settings.fetch_tries or self._is_too_long(transfer):
                    raise type(error)(f"{error}; it was tried {failures} times") from error
                raise Later(str(error), delay=_pause(error, failures)) from error
            except (UploadMissing, UploadRefused) as error:
                raise StoreUnavailable(f"the store loses uploads: {error}") from error
            source = transfer.whole()
        if source is None:
            raise StoreUnavailable("the recording was stored and is not there")
        lease.check()
        self._hand_on(claim, source)

    def _bring(self, job: Job, transfer: Transfer, lease: Lease) -> None:
        """Read the recording into the store, over as many connections as it takes."""
        host = parse(job.source.url or "").host
        log.info("fetch started", job_id=job.job_id, host=host, attempt=job.attempts, size=transfer.size)
        for _ in range(_MAX_RESTARTS + 1):
            try:
                self._read_on(job, transfer, lease)
                return
            except (OriginChanged, OriginBroke, UploadMissing, UploadRefused) as error:
                lease.check()
                if transfer.whole() is not None:
                    return  # Another worker completed it, or this one did and did not hear of it.
                if isinstance(error, OriginBroke) and (transfer.validator or not transfer.size):
                    raise
                log.info("fetch begins again", job_id=job.job_id, host=host, reason=str(error))
                transfer.restart()
                failure = error
        raise failure

    def _read_on(self, job: Job, transfer: Transfer, lease: Lease) -> None:
        """Read until the recording is whole, as long as each connection is worth it."""

        def still_wanted() -> None:
            lease.check()
            if self._is_too_long(transfer):
                raise OriginTimeout(f"the fetch took longer than {self._settings.fetch_seconds} s, which is the limit")

        if transfer.size and transfer.validator is None:
            transfer.restart()
        while True:
            had = transfer.size
            try:
                with self._origin.ask(job.source.url or "", had, transfer.validator, still_wanted) as answer:
                    transfer.begin(answer)
                    known = had - answer.begin
                    for block in answer.blocks:
                        transfer.write(block[known:])
                        known = max(0, known - len(block))
                    if answer.total is not None and transfer.size != answer.total:
                        # Some serve no more than so much of a range at once.
                        raise OriginBroke(f"{transfer.size} of {answer.total} bytes came")
                break
            except (OriginBroke, OriginTimeout) as error:
                if transfer.size - had < _WORTH_BYTES or transfer.validator is None or self._is_too_long(transfer):
                    raise
                log.info("fetch goes on", job_id=job.job_id, size=transfer.size, reason=str(error))
        lease.check()
        transfer.finish()

    def _hand_on(self, claim: Claim, source: Source) -> None:
        """Note what the recording is, then say so in the record, then ask for what is next."""
        job = msgspec.structs.replace(claim.job, source=source)
        note_job(job, self._objects)
        job = self._jobs.fetched(job.job_id, claim.token, source)
        log.info("source fetched", job_id=job.job_id, size=source.size)
        self._send_next(job)
        try:
            self._objects.delete(fetch_key(job.job_id))
        except StorageError:
            return  # It goes with the job.

    def _is_too_long(self, transfer: Transfer) -> bool:
        return time.time() - transfer.began > self._settings.fetch_seconds


def _pause(error: ActorError, failures: int) -> int:
    """Milliseconds until the next try: doubled each time, a quarter more or less, or what the server asks for."""
    doubled = min(2.0 ** (failures - 1), _LONGEST_PAUSE_SECONDS) * random.uniform(0.75, 1.25)
    wanted = error.retry_after if isinstance(error, OriginFailing) else 0.0
    return round(1000 * max(doubled, wanted))
