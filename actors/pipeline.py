"""A recording's way: read → transcribe → write. Everything may run twice and be broken off anywhere.

A worker claims the job, which counts the attempt, and from then on gives signs of life; whatever it writes must show
that the job is still its own. The transcript's JSON is stored first and never overwritten: whoever comes later, a
second delivery or a worker that was frozen, finds it and goes on from there, so that all formats say the same. The
change of the record to completed is the commit point and comes last.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
import structlog

from actors import audio, formats
from actors.engine import Engine
from actors.errors import ActorError
from actors.settings import ActorSettings
from storage.errors import (
    BucketMissing,
    JobConflict,
    JobFenced,
    JobMissing,
    ModelUnavailable,
    ObjectExists,
    ObjectMissing,
    QueueUnavailable,
    StoreRefused,
    StoreUnavailable,
)
from storage.job import Job
from storage.job_store import Claim, JobStore
from storage.object_store import ObjectStore, result_key
from storage.removal import remove_objects
from storage.transcript import Segment, Transcript

log = structlog.get_logger()

#: A failing store or queue, by its own fault or its settings': the recording is not to blame, the job is tried again.
OUTAGES = (StoreUnavailable, StoreRefused, BucketMissing, QueueUnavailable)

#: Between two segments the job's state is asked for at most this often.
_BEAT_SECONDS = 0.5


class Stopping(Exception):
    """The worker is asked to stop: the job goes back to the queue."""


class Lease:
    """A worker's hold on a job while it works: renewed by a thread of its own and between segments."""

    def __init__(self, jobs: JobStore, claim: Claim, lease_seconds: float, stopping: threading.Event) -> None:
        self.token = claim.token
        self._jobs = jobs
        self._job_id = claim.job.job_id
        self._lease_seconds = lease_seconds
        self._stopping = stopping
        self._progress = claim.job.progress
        self._duration: float | None = None
        self._lost: JobFenced | None = None
        self._done = threading.Event()
        self._beaten_at = 0.0

    def check(self, progress: float = 0.0, duration: float | None = None) -> None:
        """Tell how far the work is, 0 to 99 %, and learn whether it is still wanted.

        Raises:
            JobFenced: the job was cancelled, deleted or taken over.
            Stopping: the worker is to stop.
        """
        self._progress = max(self._progress, min(progress, 99.0))
        self._duration = duration if duration is not None else self._duration
        if self._stopping.is_set():
            raise Stopping
        if self._lost is not None:
            raise self._lost
        if time.monotonic() - self._beaten_at >= _BEAT_SECONDS:
            self._beat()

    @contextmanager
    def kept(self) -> Iterator["Lease"]:
        """Renew the lease in the background, however long a step takes."""
        thread = threading.Thread(target=self._keep, name=f"lease-{self._job_id}", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._done.set()
            thread.join()

    def _keep(self) -> None:
        while not self._done.wait(self._lease_seconds / 4):
            try:
                self._beat()
            except JobFenced as lost:
                self._lost = lost
                return
            except QueueUnavailable:
                continue  # The lease may run out now; then the job is another's and the next beat says so.

    def _beat(self) -> None:
        self._jobs.beat(self._job_id, self.token, self._progress, self._lease_seconds, self._duration)
        self._beaten_at = time.monotonic()


class Pipeline:
    def __init__(
        self,
        jobs: JobStore,
        objects: ObjectStore,
        engine: Engine,
        settings: ActorSettings,
        worker_id: str,
        stopping: threading.Event,
    ) -> None:
        self._jobs = jobs
        self._objects = objects
        self._engine = engine
        self._settings = settings
        self._worker_id = worker_id
        self._stopping = stopping

    def transcribe_recording(self, job_id: str, *, last_try: bool) -> None:
        """Do a job from its recording to its results.

        Returns when there is nothing more to do: completed, failed for good, or not this worker's.

        Raises:
            Stopping: handed back because the worker stops; to be sent again.
            one of OUTAGES: handed back, worth another try; not raised on the last try, which fails the job.
        """
        try:
            claim = self._jobs.claim(
                job_id, self._worker_id, self._settings.lease_seconds, self._settings.max_job_attempts
            )
        except (JobMissing, JobConflict) as reason:
            # In other hands, or final. If those hands die, their lease runs out and the janitor sends a new message.
            log.info("job not taken", job_id=job_id, reason=str(reason))
            return
        log.info("job started", job_id=job_id, attempt=claim.job.attempts, size=claim.job.source.size)
        try:
            with Lease(self._jobs, claim, self._settings.lease_seconds, self._stopping).kept() as lease:
                self._do(claim.job, lease)
        except JobFenced as lost:
            log.info("job lost", job_id=job_id, reason=str(lost))
            self._sweep_if_unwanted(job_id)
        except (ActorError, ModelUnavailable, ObjectMissing) as error:
            self._fail(claim, error.code, str(error))
        except OUTAGES as error:
            if last_try:
                self._fail(claim, error.code, str(error))
                return
            log.warning("job handed back", job_id=job_id, reason=str(error))
            self._hand_back(claim)
            raise
        except Stopping:
            log.info("job handed back", job_id=job_id, reason="the worker stops")
            self._hand_back(claim)
            raise
        except Exception as error:  # The worker's edge: whatever a recording provokes fails that job alone.
            log.exception("job broke", job_id=job_id)
            sentence = f"the transcription broke with {type(error).__name__}; the worker's log says more"
            self._fail(claim, "internal_error", sentence)

    def _do(self, job: Job, lease: Lease) -> None:
        began = time.monotonic()
        transcript = self._stored(job)
        if transcript is None:
            transcript = self._transcribe(job, lease)
        transcript, files = self._write(job, transcript)
        self._jobs.complete(job.job_id, lease.token, files, transcript.duration)
        seconds = time.monotonic() - began
        self._jobs.record_work(job.source.size, seconds)
        log.info("job finished", job_id=job.job_id, seconds=round(seconds, 2), duration=round(transcript.duration, 2))

    def _transcribe(self, job: Job, lease: Lease) -> Transcript:
        """The whole recording in one go; cutting it into chunks takes this place."""
        began = time.monotonic()
        blocks = []
        with self._objects.open(job.source.key) as recording:
            for block in audio.decode(recording, max_seconds=self._settings.max_duration):
                lease.check()
                blocks.append(block)
        samples = np.concatenate(blocks)
        duration = len(samples) / audio.SAMPLE_RATE
        lease.check(duration=duration)
        result = self._engine.transcribe(samples, job.options)
        segments: list[Segment] = []
        for segment in result.segments:
            segments.append(segment)
            lease.check(progress=100 * segment.end / duration)
        return Transcript(
            text="".join(segment.text for segment in segments).strip(),
            language=result.language,
            language_probability=round(result.language_probability, 4),
            duration=round(duration, 3),
            processing_time=round(time.monotonic() - began, 3),
            segments=segments,
        )

    def _stored(self, job: Job) -> Transcript | None:
        """The transcript that an earlier attempt stored before it died, if any."""
        if job.attempts < 2:
            return None
        try:
            return msgspec.json.decode(self._objects.get(result_key(job.job_id, "json")), type=Transcript)
        except ObjectMissing:
            return None

    def _write(self, job: Job, transcript: Transcript) -> tuple[Transcript, dict[str, int]]:
        """Store every format, JSON first. Returns the transcript that counts, and the sizes in bytes by format."""
        key = result_key(job.job_id, "json")
        try:
            self._objects.put(
                key, formats.render(transcript, "json"), formats.FORMATS["json"].media_type, if_absent=True
            )
        except ObjectExists:
            transcript = msgspec.json.decode(self._objects.get(key), type=Transcript)
        files = {}
        for name, kind in formats.FORMATS.items():
            body = formats.render(transcript, name, job.options.max_line_width, job.options.max_line_count)
            if name != "json":
                self._objects.put(result_key(job.job_id, name), body, kind.media_type)
            files[name] = len(body)
        return transcript, files

    def _hand_back(self, claim: Claim) -> None:
        """The attempt does not count. Where Redis cannot be told, the lease runs out and the janitor takes over."""
        try:
            self._jobs.release(claim.job.job_id, claim.token, refund=True)
        except (JobFenced, JobMissing, QueueUnavailable) as reason:
            log.info("job not released", job_id=claim.job.job_id, reason=str(reason))

    def _fail(self, claim: Claim, code: str, message: str) -> None:
        try:
            self._jobs.fail(claim.job.job_id, code, message, claim.token)
            log.info("job failed", job_id=claim.job.job_id, code=code)
        except JobFenced as lost:
            log.info("job lost", job_id=claim.job.job_id, reason=str(lost))
            self._sweep_if_unwanted(claim.job.job_id)

    def _sweep_if_unwanted(self, job_id: str) -> None:
        """Take back the results of a job that was cancelled or deleted while they were written."""
        try:
            cancelled = self._jobs.get(job_id).status == "cancelled"
        except JobMissing:
            remove_objects(job_id, self._objects)
            return
        if cancelled:
            self._objects.delete_prefix(f"transcripts/{job_id}/")
