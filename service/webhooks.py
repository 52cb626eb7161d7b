"""Webhooks: where a key's jobs are posted to when they have ended, and what came of it."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, delete, get, post, put
from litestar.concurrency import sync_to_thread
from litestar.datastructures import State
from msgspec import Meta

from actors.view import utc
from service.backend import Backend
from service.errors import ApiError, invalid, problems
from service.jobs import JobId
from service.options import WebhookUrl, read_json
from storage.errors import JobMissing
from storage.job import FINAL, Job
from storage.outbox import is_delivered
from storage.webhooks import (
    SECRET_PREFIX,
    Endpoint,
    ensure_endpoint,
    event_id,
    find_endpoint,
    forget_endpoint,
    new_secret,
    put_endpoint,
    recipient,
)

_ANY = ("unauthorized", "rate_limited")
_ANY_JOB = (*_ANY, "queue_unavailable", "job_not_found")

#: What Standard Webhooks allows.
_LEAST_SECRET_BYTES, _MOST_SECRET_BYTES = 24, 64

#: The answers carry a secret.
_NOT_KEPT = {"Cache-Control": "no-store"}


class WebhookFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key's webhook as it arrives."""

    url: Annotated[
        WebhookUrl | None,
        Meta(description="Where jobs are posted to that name no webhook_url of their own; null: nowhere."),
    ]
    secret: Annotated[
        Annotated[str, Meta(max_length=100)] | None,
        Meta(description="whsec_ and the base64 of 24 to 64 bytes; default: the one there is, or a new one."),
    ] = None


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A key's webhook. The secret signs all that is posted of the key's jobs, also to a webhook_url of their own."""

    url: str | None
    secret: str


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    at: datetime
    #: Seconds.
    duration: float
    #: As the receiver answered; null: it did not.
    status: int | None
    #: Why it did not count, where the status does not say it.
    error: str | None
    #: When it was to be tried again; null: not at all.
    next_attempt_at: datetime | None


class DeliveryLog(msgspec.Struct, frozen=True, kw_only=True):
    job_id: str
    #: What every post of this job carries as `webhook-id`.
    webhook_id: str
    #: none: there was nothing to post yet, or nobody to post it to.
    state: Literal["none", "pending", "delivered", "given_up"]
    #: The oldest first; of very many the latest.
    attempts: list[AttemptView]
    #: While it is pending.
    next_attempt_at: datetime | None


@get(
    "/webhook",
    summary="The key's webhook",
    tags=["Webhooks"],
    sync_to_thread=True,
    responses=problems(*_ANY, "storage_unavailable"),
)
def get_webhook(request: Request[Any, Any, State], backend: Backend) -> Response[Webhook]:
    """Where its jobs are posted to, and the secret that signs them: made now, if there was none."""
    return _answer(ensure_endpoint(request.state.owner, backend.objects))


@put(
    "/webhook",
    summary="Set the key's webhook",
    tags=["Webhooks"],
    responses=problems(
        *_ANY,
        "invalid_body",
        "body_too_large",
        "upload_stalled",
        "invalid_parameter",
        "url_not_allowed",
        "url_unreachable",
        "storage_unavailable",
    ),
)
async def put_webhook(request: Request[Any, Any, State], backend: Backend) -> Response[Webhook]:
    """From now on every job of the key that ends is posted there, also what is being tried at another address."""
    fields = read_json(await request.body(), WebhookFields)
    return await sync_to_thread(_put, fields, request.state.owner, backend)


@delete(
    "/webhook",
    summary="Remove the key's webhook",
    tags=["Webhooks"],
    sync_to_thread=True,
    responses=problems(*_ANY, "storage_unavailable"),
)
def delete_webhook(request: Request[Any, Any, State], backend: Backend) -> None:
    """Address and secret are gone; the next that is needed is a new one."""
    forget_endpoint(request.state.owner, backend.objects)


@get(
    "/jobs/{job_id:str}/deliveries",
    summary="What came of posting a job",
    tags=["Webhooks"],
    sync_to_thread=True,
    responses=problems(*_ANY_JOB, "storage_unavailable"),
)
def get_deliveries(request: Request[Any, Any, State], backend: Backend, job_id: JobId) -> DeliveryLog:
    """Every attempt, and when the next one is."""
    return _view(backend.jobs.get(job_id, request.state.owner), backend)


@post(
    "/jobs/{job_id:str}/redeliver",
    status_code=202,
    summary="Post a job again",
    tags=["Webhooks"],
    sync_to_thread=True,
    responses=problems(*_ANY_JOB, "job_conflict", "webhook_missing", "storage_unavailable"),
)
def redeliver(request: Request[Any, Any, State], backend: Backend, job_id: JobId) -> Response[DeliveryLog]:
    """Now, whether it was delivered, given up or is waiting for its next attempt; the day for trying begins anew."""
    job = backend.jobs.get(job_id, request.state.owner)
    if job.status not in FINAL:
        raise ApiError("job_conflict", f"the job is {job.status}: it is posted when it has ended", job_id=job_id)
    if recipient(job, backend.objects) is None:
        raise ApiError("webhook_missing", "neither the job nor its key has a webhook", job_id=job_id)
    if not backend.outbox.ask(job_id):
        raise JobMissing(f"job {job_id} was deleted in this moment")
    return Response(_view(job, backend), headers={"Location": f"/api/v1/jobs/{job_id}/deliveries"})


def _put(fields: WebhookFields, owner: str, backend: Backend) -> Response[Webhook]:
    if fields.url is not None:
        backend.check_url("url", fields.url)
    if fields.secret is not None:
        _check_secret(fields.secret)
    known = None if fields.secret else find_endpoint(owner, backend.objects)
    secret = fields.secret or (known.secret if known else new_secret())
    endpoint = Endpoint(url=fields.url, secret=secret)
    put_endpoint(owner, endpoint, backend.objects)
    return _answer(endpoint)


def _check_secret(secret: str) -> None:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not _LEAST_SECRET_BYTES <= len(key) <= _MOST_SECRET_BYTES:
        # The secret itself is not repeated: answers are logged on the way.
        raise invalid(
            "secret", f"{SECRET_PREFIX} and the base64 of {_LEAST_SECRET_BYTES} to {_MOST_SECRET_BYTES} bytes"
        )


def _answer(endpoint: Endpoint) -> Response[Webhook]:
    return Response(Webhook(url=endpoint.url, secret=endpoint.secret), headers=_NOT_KEPT)


def _view(job: Job, backend: Backend) -> DeliveryLog:
    deliveries = backend.outbox.deliveries(job.job_id)
    next_at = deliveries.next_at
    if next_at is not None and recipient(job, backend.objects) is None:
        next_at = None  # Every end is in the outbox until a worker has looked who waits for it.
    attempts = [
        AttemptView(
            at=utc(attempt.at),
            duration=attempt.seconds,
            status=attempt.status,
            error=attempt.error,
            next_attempt_at=None if attempt.next_at is None else utc(attempt.next_at),
        )
        for attempt in deliveries.attempts
    ]
    state: Literal["none", "pending", "delivered", "given_up"] = "none"
    if next_at is not None:
        state = "pending"
    elif deliveries.attempts:
        state = "delivered" if is_delivered(deliveries.attempts[-1].status) else "given_up"
    return DeliveryLog(
        job_id=job.job_id,
        webhook_id=event_id(job.job_id),
        state=state,
        attempts=attempts,
        next_attempt_at=None if next_at is None else utc(next_at),
    )
