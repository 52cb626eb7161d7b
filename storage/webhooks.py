"""Where a key's jobs are posted to and what signs them: an object in the bucket, for Redis may be lost."""

import base64
import secrets

import msgspec
import structlog

from storage.errors import ObjectExists, ObjectMissing
from storage.job import Job
from storage.keys import webhook_key
from storage.object_store import ObjectStore
from storage.structs import decode

log = structlog.get_logger()

#: Begins a signing secret; what follows is base64 (Standard Webhooks, https://www.standardwebhooks.com).
SECRET_PREFIX = "whsec_"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    #: Where the key's jobs are posted to when they name no address of their own; None: nowhere.
    url: str | None = None
    #: Signs whatever is posted of the key's jobs, also to an address of their own: whsec_ and base64.
    secret: str


def event_id(job_id: str) -> str:
    """The `webhook-id`: a job ends once, so it is the same however often it is posted and whatever was lost."""
    return f"msg_{job_id}"


def new_secret() -> str:
    """256 random bits, as SHA-256 has."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def find_endpoint(owner: str, objects: ObjectStore) -> Endpoint | None:
    """None: this owner has never needed one, or it cannot be read: one owner's must not stop the webhooks of all."""
    try:
        return decode(objects.get(webhook_key(owner)), Endpoint)
    except ObjectMissing:
        return None
    except msgspec.DecodeError as error:
        log.warning("webhook settings unreadable", key=webhook_key(owner), reason=str(error))
        return None


def ensure_endpoint(owner: str, objects: ObjectStore) -> Endpoint:
    """The owner's, with a secret that is made now if there was none. Of two that make one, both get the first."""
    while True:
        if found := find_endpoint(owner, objects):
            return found
        made = Endpoint(secret=new_secret())
        try:
            objects.put(webhook_key(owner), msgspec.json.encode(made), "application/json", if_absent=True)
        except ObjectExists:
            if find_endpoint(owner, objects) is None:
                # What is there cannot be read, so nothing signs with it.
                put_endpoint(owner, made, objects)
            continue
        return made


def put_endpoint(owner: str, endpoint: Endpoint, objects: ObjectStore) -> None:
    objects.put(webhook_key(owner), msgspec.json.encode(endpoint), "application/json")


def forget_endpoint(owner: str, objects: ObjectStore) -> None:
    objects.delete(webhook_key(owner))


def recipient(job: Job, objects: ObjectStore) -> str | None:
    """Where the end of a job is posted to; None: nobody waits for it."""
    if job.options.webhook_url:
        return job.options.webhook_url
    found = find_endpoint(job.owner, objects)
    return found.url if found else None
