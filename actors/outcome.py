"""Work under a lease: whatever happens to it ends in the right change of the record."""

import threading
from collections.abc import Callable
from contextlib import ExitStack

import structlog
from dramatiq.errors import Retry

from actors.errors import ActorError, DecoderUnavailable
from actors.hand import Hand
from actors.lease import Lease, Stopping
from actors.settings import ActorSettings
from storage.errors import (
    BucketMissing,
    JobConflict,
    JobFenced,
    JobMissing,
    ModelUnavailable,
    ObjectMissing,
    QueueUnavailable,
    StoreRefused,
    StoreUnavailable,
)
from storage.job import Job
from storage.job_store import Claim, JobStore
from storage.object_store import ObjectStore
from storage.removal import sweep_if_unwanted
from storage.risk import Risk

log = structlog.get_logger()

#: A failing store, queue or machine, by its own fault or its settings': the recording is not to blame, the job is tried
#: again.
OUTAGES = (StoreUnavailable, StoreRefused, BucketMissing, QueueUnavailable, DecoderUnavailable)


class Later(Retry):
    """Nothing to be done for now (a remote server fails, say): the message comes again after `delay` ms."""


def carry_out_job(
    job_id: str,
    work: Callable[[Claim, Lease], None],
    jobs: JobStore,
    objects: ObjectStore,
    settings: ActorSettings,
    worker_id: str,
    stopping: threading.Event,
    *,
    send_again: Callable[[Job], None],
    last_try: bool,
    hand: Hand | None = None,
) -> None:
    """Hold a job and work on it as `carry_out` says; a job that is not this worker's is left alone.

    `send_again` puts the job's message back into the queue. `hand`: what the worker has in hand; None: the work cannot
    kill it.
    """
    seconds = settings.lease_seconds

    def claim_job(risk: Risk | None) -> Claim:
        return jobs.claim(job_id, worker_id, seconds, settings.max_job_attempts, risk)

    with ExitStack() as held:
        try:
            claim = claim_job(None) if hand is None else held.enter_context(hand.holding(job_id, claim_job))
        except (JobMissing, JobConflict) as reason:
            # In other hands, or final, if only by this attempt. If those hands die, the janitor sends a new message.
            log.info("job not taken", job_id=job_id, reason=str(reason))
            sweep_if_unwanted(job_id, jobs, objects)
            return
        except Stopping:
            raise Later("the worker stops", delay=0) from None
        lease = Lease(lambda progress: jobs.beat(job_id, claim.token, progress, seconds), seconds, stopping)
        carry_out(
            job_id,
            lambda: work(claim, lease),
            lease,
            jobs,
            objects,
            fail=lambda code, message: jobs.fail(job_id, code, message, claim.token),
            hand_back=lambda: jobs.release(job_id, claim.token),
            send_again=lambda: send_again(claim.job),
            last_try=last_try,
        )


def carry_out(
    job_id: str,
    work: Callable[[], None],
    lease: Lease,
    jobs: JobStore,
    objects: ObjectStore,
    *,
    fail: Callable[[str, str], object],
    hand_back: Callable[[], None],
    send_again: Callable[[], None],
    last_try: bool,
) -> None:
    """Work under a lease until it is done, has failed for good, is handed back because the worker stops, or is lost.

    `fail`, `hand_back`: change the record; `send_again`: puts the message back into the queue.

    Raises:
        Later, one of OUTAGES: handed back, worth another try; an outage is not raised on the last try, which fails.
    """
    failure: tuple[str, str] | None = None
    try:
        with lease.kept():
            work()
    except JobFenced as lost:
        log.info("job lost", job_id=job_id, reason=str(lost))
        sweep_if_unwanted(job_id, jobs, objects)
    except Later as later:
        log.info("job handed back", job_id=job_id, reason=str(later))
        _hand_back(job_id, hand_back)
        raise
    except OUTAGES as error:
        if not last_try:
            log.warning("job handed back", job_id=job_id, reason=str(error))
            _hand_back(job_id, hand_back)
            raise
        failure = error.code, str(error)
    except (ActorError, ModelUnavailable, ObjectMissing) as error:
        failure = error.code, str(error)
    except Stopping:
        log.info("job handed back", job_id=job_id, reason="the worker stops")
        _hand_back(job_id, hand_back)
        send_again()
    except Exception as error:  # The worker's edge: whatever a recording provokes fails that job alone.
        log.exception("job broke", job_id=job_id)
        failure = "internal_error", f"the work broke with {type(error).__name__}; the worker's log says more"
    if failure is not None:
        try:
            fail(*failure)
            log.info("job failed", job_id=job_id, code=failure[0])
        except JobFenced as lost:
            log.info("job lost", job_id=job_id, reason=str(lost))
        sweep_if_unwanted(job_id, jobs, objects)


def _hand_back(job_id: str, hand_back: Callable[[], None]) -> None:
    """The attempt does not count. Where Redis cannot be told, the lease runs out and the janitor takes over."""
    try:
        hand_back()
    except (JobFenced, JobMissing, QueueUnavailable) as reason:
        log.info("job not released", job_id=job_id, reason=str(reason))
