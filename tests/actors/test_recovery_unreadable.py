"""Documents in the bucket that cannot be read: they concern their own job, and recovery goes on with all others."""

import threading

import msgspec
import pytest
from botocore.exceptions import ClientError

from storage.fetches import FetchNote, note_fetch, read_fetch
from storage.inbox import InboxIndex, sweep_marks
from storage.job import Job, JobStatus, Options, Source
from storage.keys import end_key, fetch_key, ingested_key, job_key, result_key, warnings_key, webhook_key
from storage.notes import note_end
from storage.settings import StorageSettings
from storage.webhooks import ensure_endpoint, find_endpoint
from tests.actors.test_janitor import House
from tests.actors.test_recovery import accepted, completed, lose_redis, recover
from tests.stack import Parts, lose_content
from tests.storage.test_job_store import a_job, wait_until
from tests.test_scripts import run

UNREADABLE = {
    "empty": b"",
    "cut off": b'{"job_id": "01',
    "of another type": b"[7]",
    "null": b"null",
    "binary": bytes(range(256)),
    "not UTF-8": b'{"status": "failed", "owner": "\xff", "text": "\xff", "error": "\xff"}',
    "UTF-16": '{"status": "failed"}'.encode("utf-16"),
    "lists in lists": b'{"status": "failed", "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a wrong type inside": b'{"status": 7, "owner": [], "text": {}}',
    "of a future version": b'{"status": "paused", "source": {"type": "carrier pigeon"}, "version": 9}',
}


@pytest.fixture
def house(fresh_settings: StorageSettings) -> House:
    return House(fresh_settings)


def spoil(house: House, job: Job, key: str, content: bytes) -> Job:
    house.objects.put(key, content, "application/json")
    return job


def test_every_document_that_cannot_be_read_is_skipped_with_its_reason(house: House) -> None:
    spoilt: dict[str, str] = {}
    for content in UNREADABLE.values():
        for key in (job_key, end_key, warnings_key, lambda job_id: result_key(job_id, "json")):
            job = completed(house, a_job(), ["the recording breaks off after 12.5 s"])
            spoilt[spoil(house, job, key(job.job_id), content).job_id] = key(job.job_id)
    sound = [accepted(house, a_job()), completed(house, a_job(), [])]
    lose_redis(house)

    outcomes = {outcome.job_id: outcome for outcome in recover(house)}

    assert {job.job_id: outcomes[job.job_id].what for job in sound} == {job.job_id: "recovered" for job in sound}
    skipped = {job_id: outcome.reason or "" for job_id, outcome in outcomes.items() if outcome.what == "skipped"}
    assert skipped.keys() == spoilt.keys()
    assert all(skipped[job_id].startswith(f"{key} cannot be read: ") for job_id, key in spoilt.items())


@pytest.mark.parametrize("key", ["", "../x", "a" * 1100, "a\0b", "/"])
def test_a_note_that_names_no_object_is_skipped(house: House, key: str) -> None:
    source = Source(type="object", key=key, filename="talk.mp3", size=3)
    odd = accepted(house, msgspec.structs.replace(a_job(), source=source), recording=False)
    sound = accepted(house, a_job())
    lose_redis(house)

    outcomes = {outcome.job_id: outcome.what for outcome in recover(house)}

    assert outcomes == {odd.job_id: "skipped", sound.job_id: "recovered"}


def test_times_that_are_none_do_not_come_back(house: House) -> None:
    odd = [accepted(house, msgspec.structs.replace(a_job(), created_at=at)) for at in (1e300, -1e300, 1e12)]
    ended = house.jobs.fail(accepted(house, a_job()).job_id, "audio_unreadable", "no audio in it")
    note_end(msgspec.structs.replace(ended, completed_at=1e300), house.objects)
    lose_redis(house)

    outcomes = recover(house)

    assert {outcome.job_id for outcome in outcomes if outcome.what == "skipped"} == {
        job.job_id for job in (*odd, ended)
    }


def test_the_script_goes_on_and_ends_with_1(fresh_settings: StorageSettings) -> None:
    stack = House(fresh_settings)
    garbled, sound = (accepted(stack, a_job()) for _ in range(2))
    spoil(stack, garbled, job_key(garbled.job_id), b'{"owner": "\xff"}')
    lose_redis(stack)

    done = run("recover.py", fresh_settings)
    as_json = run("recover.py", fresh_settings, "--json")

    assert (done.returncode, as_json.returncode) == (1, 1)
    assert done.stdout.startswith(f"  {garbled.job_id} skipped: sources/{garbled.job_id}/job.json cannot be read: ")
    assert done.stdout.endswith("1 recovered: 1 pending; 1 skipped\n")
    assert stack.jobs.get(sound.job_id).status == JobStatus.PENDING


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_other_documents_count_as_not_there(house: House, content: bytes) -> None:
    job = a_job(options=Options(model="base", webhook_url="https://example.org/"))
    for key in (fetch_key(job.job_id), webhook_key(job.owner), ingested_key(job.job_id)):
        house.objects.put(key, content, "application/json")

    assert sweep_marks(InboxIndex.connect(house.settings), house.objects, threading.Event(), 0) == 0
    assert read_fetch(job.job_id, house.objects) is None
    note_fetch(job.job_id, FetchNote(began=1.0), house.objects)
    assert read_fetch(job.job_id, house.objects) == FetchNote(began=1.0)
    assert find_endpoint(job.owner, house.objects) is None
    made = ensure_endpoint(job.owner, house.objects)
    assert find_endpoint(job.owner, house.objects) == made


def test_an_object_whose_content_the_store_lost_stops_no_other(parts: Parts, fresh_settings: StorageSettings) -> None:
    store = parts.start_store()
    settings = msgspec.structs.replace(
        fresh_settings, s3_endpoint_url=store.url, s3_access_key=store.access_key, s3_secret_key=store.secret_key
    )
    house = House(settings)
    lost = accepted(house, a_job())
    lose_content(store, settings.s3_bucket)
    wait_until(lambda: is_unreadable(house, job_key(lost.job_id)))
    sound = accepted(house, a_job())
    lose_redis(house)

    outcomes = {outcome.job_id: outcome for outcome in recover(house)}

    assert {job_id: outcome.what for job_id, outcome in outcomes.items()} == {
        lost.job_id: "skipped",
        sound.job_id: "recovered",
    }
    assert f"read sources/{lost.job_id}/job.json: the store answered 500" in (outcomes[lost.job_id].reason or "")


def is_unreadable(house: House, key: str) -> bool:
    try:
        house.objects._probe.get_object(Bucket=house.settings.s3_bucket, Key=key)["Body"].read()
    except ClientError:
        return True
    return False
