"""Notifications of the store: what was put into the bucket, told at once. The inbox's poller finds it anyway, later.

Taken are S3's records, which MinIO, Ceph and RustFS write, too, as they are or in the envelopes of SNS, SQS and
EventBridge. Only the key counts: what lies there now decides, so late, repeated and unordered ones do no harm.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
"""

import hmac
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

import msgspec
import structlog
from litestar import Request, post
from litestar.concurrency import sync_to_thread
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from service.auth import require_key
from service.errors import ApiError, problems
from service.inbox import Inbox
from service.settings import ServiceSettings
from storage.structs import NOT_JSON, decode, why_not_json

log = structlog.get_logger()

#: Envelopes in envelopes: EventBridge or S3 in SNS in SQS.
_MAX_DEPTH = 4
#: Objects of one notification: each costs a few requests to the store. S3 and MinIO tell of one, queues of ten.
_MAX_OBJECTS = 1000


class Created(msgspec.Struct, frozen=True):
    """An object that was put, says the store."""

    bucket: str
    #: As it was told: mostly encoded as in a query, with + and %.
    key: str


class TakenObject(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    job_id: str


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a notification."""

    #: Objects of the inbox, each with its job: a new one, or the one that there was.
    jobs: list[TakenObject]
    #: Objects that are no recordings in the inbox, or are gone.
    ignored: int


def require_token(settings: ServiceSettings, *more: Guard) -> Guard:
    """A guard: S3_EVENTS_TOKEN, or an API key and what `more` guards say, as everywhere.

    Where neither is set, everyone may, unless the inbox is switched off.
    """
    token, api_keys = settings.s3_events_token, settings.api_keys
    require_api_key = require_key(api_keys)

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if token or (not api_keys and settings.inbox_seconds == 0):
            scheme, _, given = connection.headers.get("authorization", "").partition(" ")
            if token and scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
                return
            if not api_keys:
                raise ApiError(
                    "unauthorized",
                    "send S3_EVENTS_TOKEN as `Authorization: Bearer`" + ("" if token else "; none is set"),
                    headers={"WWW-Authenticate": 'Bearer realm="bucketscribe"'},
                )
        for other in (require_api_key, *more):
            if (answer := other(connection, handler)) is not None:
                await answer

    return guard


@post(
    "/events/s3",
    status_code=200,
    summary="A notification of the store",
    tags=["Jobs"],
    responses=problems(
        "unauthorized",
        "invalid_body",
        "body_too_large",
        "unsupported_coding",
        "upload_stalled",
        "client_disconnected",
        "rate_limited",
        "queue_unavailable",
        "storage_unavailable",
        "too_many_jobs",
        "client_jobs_exceeded",
    ),
)
async def take_notification(request: Request[Any, Any, State], inbox: Inbox) -> Taken:
    """Objects that were put into the inbox become jobs at once. Other buckets, prefixes and events are ignored.

    One notification may tell of 1000 objects.
    """
    try:
        told = decode(await request.body(), object)
    except NOT_JSON as error:
        raise ApiError("invalid_body", f"the body is not JSON: {why_not_json(error)}") from error
    # The same object may be told of twice in one request.
    objects = list(dict.fromkeys(created(told)))
    if len(objects) > _MAX_OBJECTS:
        told_of = f"the notification tells of {len(objects)} objects"
        raise ApiError("body_too_large", f"{told_of}, the limit is {_MAX_OBJECTS}")
    return await sync_to_thread(_take, objects, inbox)


def created(told: object, depth: int = 0) -> Iterator[Created]:
    """The objects that a notification says were put, in whatever envelope; everything else is passed over."""
    match told:
        case {"Records": [*records]}:
            for record in records:
                yield from _of_record(record, depth)
        case {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}:
            match detail:
                case {"bucket": {"name": str(bucket)}, "object": {"key": str(key)}}:
                    yield Created(bucket, key)
        case {"EventName": str(event), "Key": str(path)} if _is_creation(event):
            # What MinIO writes beside its records: bucket/key.
            bucket, _, key = path.partition("/")
            yield Created(bucket, key)
        case {"Type": "Notification", "Message": str(message)}:
            yield from _unwrapped(message, depth)


def _of_record(record: object, depth: int) -> Iterator[Created]:
    match record:
        case {"eventName": str(event), "s3": {"bucket": {"name": str(bucket)}, "object": {"key": str(key)}}}:
            if _is_creation(event):
                yield Created(bucket, key)
        case {"Sns": {"Message": str(message)}} | {"body": str(message)}:
            yield from _unwrapped(message, depth)


def _unwrapped(message: str, depth: int) -> Iterator[Created]:
    if depth >= _MAX_DEPTH:
        return
    try:
        told = decode(message, object)
    except NOT_JSON:
        return  # A message of another kind.
    yield from created(told, depth + 1)


def _is_creation(event: str) -> bool:
    """MinIO writes s3: before the name, S3 does not."""
    return event.removeprefix("s3:").startswith("ObjectCreated:")


def _take(told: list[Created], inbox: Inbox) -> Taken:
    jobs: dict[str, TakenObject] = {}
    for one in told:
        if one.bucket != inbox.bucket:
            continue
        # EventBridge tells a key as it is. Which of two ways was meant is told by what is there.
        for key in dict.fromkeys((unquote_plus(one.key), one.key)):
            if job_id := inbox.take(key):
                jobs[key] = TakenObject(key=key, job_id=job_id)
                break
    ignored = len(told) - len(jobs)
    log.info("notification taken", jobs=len(jobs), ignored=ignored)
    return Taken(jobs=list(jobs.values()), ignored=ignored)
