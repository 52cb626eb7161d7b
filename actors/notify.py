"""Webhooks: whoever waits for the end of a job is posted it, as often as it takes, for up to a day.

The outbox says which jobs are due (storage/outbox.py). `send_due` sends their messages and `post` does the errand of
one; a message that comes twice or for nothing is harmless. Delivery is at least once: what is posted of one job's end
has the same `webhook-id` every time. Headers and signature are those of Standard Webhooks
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
"""

import base64
import hashlib
import hmac
import random
import secrets
import time
from collections.abc import Callable

import httpcore
import msgspec
import structlog

from actors.errors import UrlNotAllowed, UrlUnreachable
from actors.guard import Guard
from actors.outgoing import open_pool, to_httpcore
from actors.patience import Patience
from actors.view import view_job
from storage.errors import JobMissing, QueueUnavailable, StorageError
from storage.job import Job
from storage.job_store import JobStore
from storage.object_store import ObjectStore
from storage.outbox import GIVE_UP_SECONDS, Attempt, Outbox, Taken, is_delivered
from storage.webhooks import SECRET_PREFIX, ensure_endpoint, event_id, find_endpoint, recipient

log = structlog.get_logger()

#: Jobs looked at at once.
_BATCH = 100

#: The pause after a failure, in seconds: doubled each time from the first to the second of these, a quarter more or
#: less at random, so that a receiver that was away is not met by all jobs at once.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 5.0, 3600.0
#: How long a job waits whose receiver is slow and busy with another.
_PUT_OFF_SECONDS = 15.0, 45.0

#: "Gone": the receiver wants no more.
_GONE = 410

#: Bytes of an answer that are read and thrown away; what counts is its status.
_MAX_ANSWER_BYTES = 64 * 1024


class TooSlow(Exception):
    """The receiver took longer than it may, in whatever way."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of one post."""

    #: As the receiver answered; None: it did not.
    status: int | None = None
    #: Why it did not count, where the status does not say it.
    error: str | None = None
    #: Seconds that the receiver wants to be left alone.
    retry_after: float = 0.0


class Notifier:
    def __init__(
        self,
        jobs: JobStore,
        outbox: Outbox,
        objects: ObjectStore,
        guard: Guard,
        send: Callable[[str], None],
        waiting: Callable[[], int],
        link_seconds: int,
        timeout_seconds: float = 15,
    ) -> None:
        """`send` puts the message of one job into the queue, and `waiting` counts those that are there.

        `timeout_seconds` bounds a post, all of it together. The look-up of a name cannot be broken off: it takes what
        the machine's resolver takes, and where that was too long nothing is posted.
        """
        self._jobs = jobs
        self._outbox = outbox
        self._objects = objects
        self._guard = guard
        self._send = send
        self._waiting = waiting
        self._link_seconds = link_seconds
        self._timeout_seconds = timeout_seconds
        self._patience = Patience()

    def send_due(self) -> None:
        """Send the messages of all jobs that are due, every second or so; any number of workers may do it at once.

        Raises:
            QueueUnavailable: what was not sent is due again after a while.
        """
        ticket = secrets.token_hex(8)
        # Of what waits longer than a message may be on its way another is sent: while the receivers are slow, what is
        # due stays in the outbox, or the queue would fill with the same jobs over and over.
        while self._waiting() <= _BATCH and (job_ids := self._outbox.due(ticket, _BATCH)):
            # Only for this batch: who set an address before a job ended is not to be told that there was none.
            addresses: dict[str, str | None] = {}
            for job_id in job_ids:
                try:
                    wanted = self._is_wanted(job_id, addresses)
                except QueueUnavailable:
                    raise
                except StorageError as error:
                    log.warning("webhooks wait for the store", reason=str(error))
                    return
                if wanted:
                    self._send(job_id)
                else:
                    self._outbox.drop(job_id, ticket)

    def _is_wanted(self, job_id: str, addresses: dict[str, str | None]) -> bool:
        """Whether somebody waits for the job's end. `addresses`: what is known of owners; those asked for are added."""
        try:
            job = self._jobs.get(job_id)
        except JobMissing:
            return False
        if job.options.webhook_url:
            return True
        if job.owner not in addresses:
            addresses[job.owner] = recipient(job, self._objects)
        return addresses[job.owner] is not None

    def post(self, job_id: str) -> None:
        """Post a job to whoever waits for its end, if it is due. The outbox asks again for what is broken off here."""
        try:
            taken = self._outbox.take(job_id)
            if taken is not None:
                self._deliver(self._jobs.get(job_id), taken)
        except StorageError as error:
            log.warning("webhook put off", job_id=job_id, reason=str(error))

    def _deliver(self, job: Job, taken: Taken) -> None:
        own = job.options.webhook_url
        endpoint = ensure_endpoint(job.owner, self._objects) if own else find_endpoint(job.owner, self._objects)
        url = own or (endpoint.url if endpoint is not None else None)
        if endpoint is None or url is None:
            self._outbox.drop(job.job_id, taken.token)
            return
        host = url.partition("://")[2].partition("/")[0]
        if not self._patience.enter(host):
            self._outbox.put_off(job.job_id, taken, random.uniform(*_PUT_OFF_SECONDS))
            return
        slow = False
        try:
            slow = self._attempt(job, url, endpoint.secret, taken) > self._timeout_seconds / 2
        finally:
            self._patience.leave(host, slow=slow)

    def _attempt(self, job: Job, url: str, secret: str, taken: Taken) -> float:
        """Returns how long the receiver took, in seconds."""
        body = msgspec.json.encode(view_job(job, self._objects, self._link_seconds, include=("files",)))
        signed = headers(event_id(job.job_id), round(time.time()), body, secret)
        began = time.monotonic()
        outcome = self._post(url, signed, body)
        seconds = round(time.monotonic() - began, 3)
        delivered, next_at = is_delivered(outcome.status), None
        if not delivered and outcome.status != _GONE:
            next_at = _next_at(taken, seconds, outcome.retry_after)
        attempt = Attempt(at=taken.at, seconds=seconds, status=outcome.status, error=outcome.error, next_at=next_at)
        self._outbox.settle(job.job_id, taken, attempt)
        log.info(
            "webhook delivered" if delivered else "webhook failed" if next_at else "webhook given up",
            job_id=job.job_id,
            attempt=taken.failures + 1,
            status=outcome.status,
            seconds=seconds,
            reason=outcome.error,
        )
        return seconds

    def _post(self, url: str, headers: dict[bytes | str, bytes | str], body: bytes) -> Outcome:
        ends = time.monotonic() + self._timeout_seconds

        def check_time() -> None:
            if time.monotonic() >= ends:
                raise TooSlow

        each = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_seconds)
        try:
            with (
                open_pool(self._guard, check_time) as pool,
                pool.stream(
                    "POST", to_httpcore(url), headers=headers, content=body, extensions={"timeout": each}
                ) as response,
            ):
                _finish(response)
                return _outcome(response)
        except (TooSlow, httpcore.ReadTimeout, httpcore.WriteTimeout):
            return Outcome(error=f"no answer within {self._timeout_seconds:g} s")
        except (UrlNotAllowed, UrlUnreachable) as reason:
            return Outcome(error=str(reason))
        except (httpcore.TimeoutException, httpcore.NetworkError) as reason:
            return Outcome(error=f"no connection: {str(reason) or type(reason).__name__}")
        except httpcore.ProtocolError as reason:
            return Outcome(error=f"the connection was closed without an answer, or it is not HTTP: {reason}")


def _finish(response: httpcore.Response) -> None:
    """Hear the receiver out, within bounds: some take a connection that is closed early for a failure."""
    read = 0
    try:
        for part in response.iter_stream():
            read += len(part)
            if read > _MAX_ANSWER_BYTES:
                return
    except (TooSlow, httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        return  # The status was said, and it alone counts.


def _outcome(response: httpcore.Response) -> Outcome:
    stated = {name.lower(): value for name, value in response.headers}.get(b"retry-after", b"")
    retry_after = float(stated) if stated.isdigit() else 0.0
    error = "redirects are not followed" if 300 <= response.status < 400 else None
    return Outcome(response.status, error, retry_after)


def headers(message_id: str, timestamp: int, body: bytes, secret: str) -> dict[bytes | str, bytes | str]:
    """Of a post at `timestamp`, in seconds since the epoch. `secret`: whsec_ and base64."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "user-agent": "bucketscribe",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def pause_seconds(failures: int, chance: float) -> float:
    """How long to wait after one more failure than `failures`; `chance`: from 0.0 to 1.0."""
    doubled: float = _FIRST_PAUSE_SECONDS * 2 ** min(failures, 30)
    return min(doubled, _LONGEST_PAUSE_SECONDS) * (0.75 + chance / 2)


def _next_at(taken: Taken, seconds: float, retry_after: float) -> float | None:
    """When a job is tried again whose post took so long and failed; None: it is given up."""
    pause = max(pause_seconds(taken.failures, random.random()), min(retry_after, _LONGEST_PAUSE_SECONDS))
    next_at = round(taken.at + seconds + pause, 3)
    return next_at if next_at <= taken.began + GIVE_UP_SECONDS else None
