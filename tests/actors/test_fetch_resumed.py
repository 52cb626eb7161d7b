"""A fetch whose worker stopped or died, whose store failed, whose record was lost: who goes on, and where."""

import threading
import time

import msgspec
import pytest

from actors.broker import queued
from actors.recovery import Recovery
from storage.errors import StoreUnavailable
from storage.fetches import FetchNote, FetchUpload, note_fetch, read_fetch
from storage.job import JobStatus
from storage.keys import source_key
from storage.removal import remove_job
from storage.settings import StorageSettings
from tests.actors.fetching import MIB, PART, Fetching
from tests.origin import Origin, Served
from tests.stack import Parts
from tests.storage.test_job_store import wait_until


@pytest.fixture
def house(fresh_settings: StorageSettings) -> Fetching:
    return Fetching(fresh_settings)


def test_a_worker_that_stops_hands_back_and_the_next_goes_on_after_the_last_part(
    house: Fetching, origin: Origin, large: bytes
) -> None:
    served = origin.served["/talk"] = Served(body=large, pause_at=18 * MIB)
    job_id = house.accept(f"{origin.url}/talk")
    stopping = threading.Event()
    fetcher = house.fetcher(stopping, fetch_idle_seconds=30)
    fetching = threading.Thread(target=fetcher.fetch_source, args=(job_id,), kwargs={"last_try": False})
    fetching.start()
    wait_until(lambda: house.parts(job_id) == 2)

    stopping.set()
    fetching.join(5)
    between = house.jobs.get(job_id)
    served.go.set()
    house.fetcher().fetch_source(job_id, last_try=False)

    assert (between.status, between.attempts) == (JobStatus.PENDING, 0)
    assert queued(house.broker) == {(job_id,)}
    assert origin.ranges() == [None, f"bytes={2 * PART}-"]
    assert house.recording(job_id) == large
    # The bytes of the first worker are not at hand any more.
    assert house.jobs.get(job_id).source.digest is None


def test_the_next_worker_begins_again_where_nothing_tells_that_the_bytes_are_the_same(
    house: Fetching, origin: Origin, large: bytes
) -> None:
    origin.served["/talk"] = Served(body=large, etag=None, pause_at=18 * MIB)
    job_id = house.accept(f"{origin.url}/talk")
    stopping = threading.Event()
    fetching = threading.Thread(target=house.fetcher(stopping).fetch_source, args=(job_id,), kwargs={"last_try": False})
    fetching.start()
    wait_until(lambda: house.parts(job_id) == 2)
    stopping.set()
    fetching.join(5)

    origin.served["/talk"] = Served(body=large[::-1], etag=None)
    house.fetcher().fetch_source(job_id, last_try=False)

    assert house.recording(job_id) == large[::-1]
    assert house.leftovers(job_id) == ({"media", "job.json"}, 0)


def test_a_recording_that_was_stored_by_a_dead_worker_is_not_fetched_again(house: Fetching, origin: Origin) -> None:
    origin.served["/talk"] = Served(body=b"other")
    job_id = house.accept(f"{origin.url}/talk")
    upload = FetchUpload(
        upload_id="completed", part_size=PART, validator='"one"', filename="a.ogg", content_type="audio/ogg"
    )
    note_fetch(job_id, FetchNote(began=time.time(), upload=upload), house.objects)
    house.objects.put(source_key(job_id), b"RIFF", "audio/ogg")

    house.fetcher().fetch_source(job_id, last_try=False)
    house.fetcher().fetch_source(job_id, last_try=False)

    job = house.jobs.get(job_id)
    assert (job.status, job.source.size, job.source.filename) == (JobStatus.PENDING, 4, "a.ogg")
    assert queued(house.broker) == {(job_id,)}
    assert origin.asked == []


def test_an_upload_that_the_store_dropped_is_begun_again(house: Fetching, origin: Origin) -> None:
    origin.served["/talk"] = Served(body=b"R" * 9)
    job_id = house.accept(f"{origin.url}/talk")
    upload_id = house.objects.start_upload(source_key(job_id), "audio/wav")
    house.objects.abort_upload(source_key(job_id), upload_id)
    upload = FetchUpload(upload_id=upload_id, part_size=PART, validator='"one"', filename="", content_type=None)
    note_fetch(job_id, FetchNote(began=time.time(), upload=upload), house.objects)

    house.fetcher().fetch_source(job_id, last_try=False)

    assert house.recording(job_id) == b"R" * 9


def test_a_failing_store_is_not_the_servers_fault(parts: Parts, house: Fetching, origin: Origin, large: bytes) -> None:
    store = parts.start_store()
    world = Fetching(
        msgspec.structs.replace(
            house.settings, s3_endpoint_url=store.url, s3_access_key=store.access_key, s3_secret_key=store.secret_key
        )
    )
    served = origin.served["/talk"] = Served(body=large, pause_at=9 * MIB)
    job_id = world.accept(f"{origin.url}/talk")
    raised: list[BaseException] = []

    def fetch() -> None:
        try:
            world.fetcher(fetch_idle_seconds=30).fetch_source(job_id, last_try=False)
        except StoreUnavailable as error:
            raised.append(error)

    fetching = threading.Thread(target=fetch)
    fetching.start()
    assert served.paused.wait(120)
    store.running.kill()
    served.go.set()
    fetching.join(60)
    between = world.jobs.get(job_id)
    store.running.start()
    world.fetcher().fetch_source(job_id, last_try=False)

    assert [type(error) for error in raised] == [StoreUnavailable]
    assert (between.status, between.attempts) == (JobStatus.PENDING, 0)
    assert world.recording(job_id) == large
    note = read_fetch(job_id, world.objects)
    assert note is None or note.failures == 0
    store.running.kill()


@pytest.mark.parametrize("how_far", ["not fetched", "half fetched", "fetched"])
def test_a_job_whose_record_was_lost_is_made_again_and_goes_on(
    house: Fetching, origin: Origin, large: bytes, how_far: str
) -> None:
    served = origin.served["/talk"] = Served(body=large, pause_at=18 * MIB if how_far == "half fetched" else None)
    job_id = house.accept(f"{origin.url}/talk")
    stopping = threading.Event()
    if how_far == "half fetched":
        fetching = threading.Thread(
            target=house.fetcher(stopping).fetch_source, args=(job_id,), kwargs={"last_try": False}
        )
        fetching.start()
        wait_until(lambda: house.parts(job_id) == 2)
        stopping.set()
        fetching.join(5)
        served.go.set()
    elif how_far == "fetched":
        house.fetcher().fetch_source(job_id, last_try=False)
    house.jobs._redis.flushall()

    outcomes = list(Recovery(house.jobs, house.objects, house.broker, house.settings).run())
    house.janitor.sweep_orphans()
    again = house.jobs.get(job_id)
    waiting = queued(house.broker)
    house.fetcher().fetch_source(job_id, last_try=False)

    assert [(outcome.what, outcome.status) for outcome in outcomes] == [("recovered", JobStatus.PENDING)]
    assert again.source.size == (len(large) if how_far == "fetched" else 0)
    assert waiting == {(job_id,)}
    assert house.recording(job_id) == large
    assert house.jobs.get(job_id).source.size == len(large)
    assert origin.ranges() == [None] + ([f"bytes={2 * PART}-"] if how_far == "half fetched" else [])


def test_a_lost_message_is_sent_again_to_where_the_job_stands(house: Fetching, origin: Origin) -> None:
    origin.served["/talk"] = Served(body=b"R" * 9)
    job_id = house.accept(f"{origin.url}/talk")
    house.jobs._redis.zadd("bs:status:pending", {job_id: time.time() - 100})

    house.janitor.send_lost_messages()
    unfetched = house.broker.client.llen("dramatiq:fetches")
    house.fetcher().fetch_source(job_id, last_try=False)

    assert unfetched == 1
    assert house.broker.client.llen("dramatiq:transcribe-normal") == 1


def test_a_deleted_job_leaves_no_upload_of_a_dead_worker(house: Fetching, origin: Origin) -> None:
    job_id = house.accept(f"{origin.url}/talk")
    upload_id = house.objects.start_upload(source_key(job_id), "audio/wav")
    house.objects.upload_part(source_key(job_id), upload_id, 1, b"R")

    remove_job(house.jobs.get(job_id), house.jobs, house.objects)

    assert house.leftovers(job_id) == (set(), 0)
