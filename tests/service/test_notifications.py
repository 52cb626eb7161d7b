"""Notifications as stores send them: records of S3 and MinIO, in whatever envelope; who may send them."""

import json
import re
import secrets
from typing import Any

import httpx
import msgspec
import pytest

from service.auth import owner_of
from service.notifications import Created, created
from storage.job_store import JobStore
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.stack import Parts

S3 = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "eventName": "ObjectCreated:CompleteMultipartUpload",
    "s3": {"bucket": {"name": "b"}, "object": {"key": "inbox/my+talk+%26+more.mp3", "size": 5, "sequencer": "1"}},
}
MINIO = {
    "EventName": "s3:ObjectCreated:Put",
    "Key": "b/inbox/my talk & more.mp3",
    "Records": [
        {
            "eventName": "s3:ObjectCreated:Put",
            "s3": {"bucket": {"name": "b"}, "object": {"key": "inbox%2Fmy+talk+%26+more.mp3"}},
        }
    ],
}
EVENT_BRIDGE = {
    "detail-type": "Object Created",
    "source": "aws.s3",
    "detail": {"bucket": {"name": "b"}, "object": {"key": "inbox/my talk & more.mp3"}},
}
SNS = {"Type": "Notification", "Message": json.dumps({"Records": [S3]})}


@pytest.mark.parametrize(
    ("told", "key"),
    [
        ({"Records": [S3]}, "inbox/my+talk+%26+more.mp3"),
        (MINIO, "inbox%2Fmy+talk+%26+more.mp3"),
        ({"EventName": MINIO["EventName"], "Key": MINIO["Key"]}, "inbox/my talk & more.mp3"),
        (EVENT_BRIDGE, "inbox/my talk & more.mp3"),
        (SNS, "inbox/my+talk+%26+more.mp3"),
        ({"Records": [{"body": json.dumps(SNS)}]}, "inbox/my+talk+%26+more.mp3"),
        ({"Records": [{"Sns": {"Message": SNS["Message"]}}]}, "inbox/my+talk+%26+more.mp3"),
        ({"Records": [{"s3": None}, None, {"eventName": "ObjectRemoved:Delete", "s3": S3["s3"]}, S3]}, None),
    ],
)
def test_an_object_that_was_put_is_found_in_every_envelope(told: object, key: str | None) -> None:
    assert list(created(told)) == [Created("b", key or "inbox/my+talk+%26+more.mp3")]


@pytest.mark.parametrize(
    "told",
    [
        {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"},
        {"Records": [{**S3, "eventName": "s3:ObjectRemoved:Delete"}]},
        {"Records": [{**S3, "eventName": "s3:ObjectAccessed:Get"}]},
        {**EVENT_BRIDGE, "detail-type": "Object Deleted"},
        {"Type": "SubscriptionConfirmation", "SubscribeURL": "https://example.com", "Message": "confirm"},
        {"Type": "Notification", "Message": "hello"},
        {"Type": "Notification", "Message": "[" * 100_000},
        {"Records": "none"},
        [],
        None,
    ],
)
def test_every_other_event_is_passed_over(told: object) -> None:
    assert list(created(told)) == []


def test_envelopes_do_not_nest_for_ever() -> None:
    told: dict[str, Any] = {"Records": [S3]}
    for _ in range(10):
        told = {"Type": "Notification", "Message": json.dumps(told)}

    assert list(created(told)) == []


@pytest.fixture(scope="module")
def told_api(start_api: StartApi, parts: Parts, store_settings: StorageSettings) -> Api:
    """It never looks by itself, so whatever becomes a job was told of."""
    settings = msgspec.structs.replace(
        store_settings, s3_bucket=f"told-{secrets.token_hex(4)}", redis_url=parts.start_redis().url
    )
    ObjectStore(settings).prepare()
    return start_api(settings, INBOX_SECONDS="0", S3_EVENTS_TOKEN="a-token", API_KEYS="alice,bob")


def tell(api: Api, told: object, **headers: str) -> httpx.Response:
    # SNS says text/plain of its JSON.
    headers = headers or {"Authorization": "Bearer a-token"}
    body = re.sub(r'(\\*")b\1', rf"\g<1>{api.settings.s3_bucket}\1", json.dumps(told))
    return api.client.post("/api/v1/events/s3", content=body, headers={"content-type": "text/plain", **headers})


def test_a_notification_makes_one_job_however_often_it_comes(told_api: Api) -> None:
    store = ObjectStore(told_api.settings)
    store.put("inbox/my talk & more.mp3", b"sound", "audio/mpeg")

    answers = [tell(told_api, told) for told in ({"Records": [S3, S3]}, MINIO, EVENT_BRIDGE, SNS)]

    (job,) = JobStore.connect(told_api.settings).list_jobs(owner_of(b"alice")).jobs
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json()["jobs"] for answer in answers] == [
        [{"key": "inbox/my talk & more.mp3", "job_id": job.job_id}]
    ] * 4
    assert (job.status, job.source.key) == ("pending", "inbox/my talk & more.mp3")


def test_a_key_is_found_as_it_was_meant(told_api: Api) -> None:
    store = ObjectStore(told_api.settings)
    for key in ("inbox/a+b.mp3", "inbox/100%25.mp3"):
        store.put(key, b"sound", "audio/mpeg")
    told = [
        {**EVENT_BRIDGE, "detail": {"bucket": {"name": "b"}, "object": {"key": "inbox/a+b.mp3"}}},
        {"Records": [{**S3, "s3": {"bucket": {"name": "b"}, "object": {"key": "inbox/100%2525.mp3"}}}]},
    ]

    found = [tell(told_api, one).json()["jobs"][0]["key"] for one in told]

    assert found == ["inbox/a+b.mp3", "inbox/100%25.mp3"]


def test_late_and_foreign_notifications_are_ignored(told_api: Api) -> None:
    store = ObjectStore(told_api.settings)
    store.put("elsewhere/talk.mp3", b"sound", "audio/mpeg")
    store.put("inbox/talk.mp3", b"sound", "audio/mpeg")
    keys = ["inbox/removed-since.mp3", "elsewhere/talk.mp3", "inbox/talk.en.srt", "inbox/folder/"]
    records = [{**S3, "s3": {"bucket": {"name": "b"}, "object": {"key": key}}} for key in keys]
    foreign = {**S3, "s3": {"bucket": {"name": "another"}, "object": {"key": "inbox/talk.mp3"}}}

    answer = tell(told_api, {"Records": [*records, foreign]})

    assert (answer.status_code, answer.json()) == (200, {"jobs": [], "ignored": 5})


def test_the_stores_test_is_answered(told_api: Api) -> None:
    answer = tell(told_api, {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"})

    assert (answer.status_code, answer.json()) == (200, {"jobs": [], "ignored": 0})


def test_only_the_token_or_an_api_key_may_tell(told_api: Api) -> None:
    given = {
        "Bearer a-token": 200,
        "bearer bob": 200,
        "Bearer another": 401,
        "Basic a-token": 401,
        "Bearer": 401,
    }

    told = {header: tell(told_api, {}, Authorization=header).status_code for header in given}

    assert told == given
    assert tell(told_api, {}, **{"X-API-Key": "alice"}).status_code == 200


def test_more_objects_than_one_notification_may_tell_of_are_refused(told_api: Api) -> None:
    records = [{**S3, "s3": {"bucket": {"name": "b"}, "object": {"key": f"elsewhere/{n}"}}} for n in range(1001)]

    most = tell(told_api, {"Records": [*records[:1000], records[0]]})
    more = tell(told_api, {"Records": records})

    assert (most.status_code, most.json()) == (200, {"jobs": [], "ignored": 1000})
    assert (more.status_code, more.json()["code"]) == (413, "body_too_large")
    assert more.json()["detail"] == "the notification tells of 1001 objects, the limit is 1000"


def test_only_who_shows_the_token_may_tell_as_often_as_it_likes(start_api: StartApi, told_api: Api) -> None:
    keys = {"S3_EVENTS_TOKEN": "a-token", "API_KEYS": f"carol-{secrets.token_hex(4)}"}
    api = start_api(told_api.settings, INBOX_SECONDS="0", RATE_LIMIT="2/hour", **keys)

    with_key = [tell(api, {}, **{"X-API-Key": keys["API_KEYS"]}) for _ in range(3)]
    with_token = [tell(api, {}) for _ in range(3)]

    api.running.kill()
    assert [answer.status_code for answer in with_key] == [200, 200, 429]
    assert (with_key[2].json()["code"], with_key[1].headers["RateLimit-Remaining"]) == ("rate_limited", "0")
    assert [answer.status_code for answer in with_token] == [200, 200, 200]


def test_where_the_inbox_is_off_nobody_may_tell_without_a_token_or_a_key(start_api: StartApi, told_api: Api) -> None:
    api = start_api(told_api.settings, INBOX_SECONDS="0")

    answers = [tell(api, {}, Authorization=given) for given in ("Bearer", "Bearer a-token", "Basic x")]

    api.running.kill()
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(401, "unauthorized")] * 3


def test_a_body_that_is_no_json_is_refused(told_api: Api) -> None:
    headers = {"Authorization": "Bearer a-token"}

    answers = [
        told_api.client.post("/api/v1/events/s3", content=body, headers=headers)
        for body in (b"", b"{", b"\xff", b"[" * 100_000)
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(400, "invalid_body")] * 4
