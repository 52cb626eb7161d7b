"""A url's recording on its way into a real bucket, from a real server that does what servers do."""

import datetime
import hashlib
import random
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from actors.broker import queued
from actors.fetch import Fetcher
from actors.guard import Guard
from actors.messages import send_next
from actors.outcome import Later
from actors.recovery import Recovery
from actors.settings import ActorSettings
from storage.errors import StoreUnavailable
from storage.fetches import FetchNote, FetchUpload, note_fetch, read_fetch
from storage.job import Job, JobStatus, Options, Source, new_job_id
from storage.keys import job_key, source_key
from storage.notes import JobNote, note_job
from storage.removal import remove_job
from storage.settings import StorageSettings
from tests.actors.test_janitor import House
from tests.origin import Origin, Served
from tests.stack import Parts
from tests.storage.test_job_store import wait_until

MIB = 2**20
PART = 8 * MIB


class Fetching(House):
    """A worker's part that fetches, in this process."""

    def __init__(self, settings: StorageSettings, guard: Guard | None = None) -> None:
        super().__init__(settings)
        self.guard = guard or Guard("127.0.0.1/32")

    def fetcher(self, stopping: threading.Event | None = None, max_file_size: int = 2**32, **settings: Any) -> Fetcher:
        chosen = ActorSettings(**{"lease_seconds": 5, "fetch_idle_seconds": 1, "fetch_tries": 2, **settings})
        return Fetcher(
            self.jobs,
            self.objects,
            self.guard,
            chosen,
            max_file_size,
            "worker",
            stopping or threading.Event(),
            lambda job: send_next(self.broker, job),
        )

    def accept(self, url: str) -> str:
        """As the service does it."""
        job_id = new_job_id()
        source = Source(type="url", key=source_key(job_id), filename="talk.wav", size=0, url=url)
        options = Options(model="tiny.en")
        job = Job(
            job_id=job_id,
            owner="",
            status=JobStatus.PENDING,
            source=source,
            options=options,
            created_at=time.time(),
        )
        note_job(job, self.objects)
        self.jobs.create(job)
        return job_id

    def fetch(self, url: str, **settings: Any) -> Job:
        """Fetch, and try again at once where a worker would wait for a while."""
        job_id = self.accept(url)
        fetcher = self.fetcher(**settings)
        for _ in range(10):
            try:
                fetcher.fetch_source(job_id, last_try=False)
                break
            except Later:
                continue
        return self.jobs.get(job_id)

    def recording(self, job_id: str) -> bytes:
        return self.objects.get(source_key(job_id))

    def parts(self, job_id: str) -> int:
        """How many parts of an unfinished upload are in the store."""
        key = source_key(job_id)
        return sum(len(self.objects.list_parts(key, upload.upload_id)) for upload in self.objects.uploads(key))

    def leftovers(self, job_id: str) -> tuple[set[str], int]:
        """Names of the job's objects, and how many uploads are unfinished."""
        return self.keys(job_id), len(list(self.objects.uploads(source_key(job_id))))


@pytest.fixture
def house(fresh_settings: StorageSettings) -> Fetching:
    return Fetching(fresh_settings)


@pytest.fixture
def origin() -> Iterator[Origin]:
    started = Origin()
    yield started
    started.close()


@pytest.fixture(scope="module")
def large() -> bytes:
    """Two parts and a half."""
    return random.Random(1).randbytes(20 * MIB)


def test_a_recording_is_stored_as_its_server_names_it_and_its_job_waits_for_a_transcript(
    house: Fetching, origin: Origin
) -> None:
    named = {"Content-Disposition": "attachment; filename=\"x.wav\"; filename*=UTF-8''../Gespr%C3%A4ch.wav"}
    origin.served["/talk"] = Served(body=b"R" * 100_001, content_type="audio/x-wav; q=1", headers=named)

    job = house.fetch(f"{origin.url}/talk?token=secret")

    assert house.recording(job.job_id) == b"R" * 100_001
    assert house.objects.head(job.source.key).content_type == "audio/x-wav; q=1"
    assert (job.status, job.attempts, job.started_at) == (JobStatus.PENDING, 0, None)
    assert (job.source.filename, job.source.size) == ("Gespräch.wav", 100_001)
    assert job.source.digest == f"sha256:{hashlib.sha256(b'R' * 100_001).hexdigest()}"
    assert queued(house.broker) == {(job.job_id,)}
    assert msgspec.json.decode(house.objects.get(job_key(job.job_id)), type=JobNote).source == job.source
    assert house.leftovers(job.job_id) == ({"media", "job.json"}, 0)
    assert origin.asked[0].path == "/talk?token=secret"
    assert origin.asked[0].headers["accept-encoding"] == "identity"
    assert "range" not in origin.asked[0].headers


def test_a_connection_that_breaks_is_taken_up_where_it_broke(house: Fetching, origin: Origin, large: bytes) -> None:
    origin.served["/talk"] = Served(body=large, breaks=[9 * MIB, 5 * MIB + 1])

    job = house.fetch(f"{origin.url}/talk")

    assert house.recording(job.job_id) == large
    assert origin.ranges() == [None, f"bytes={9 * MIB}-", f"bytes={14 * MIB + 1}-"]
    assert {asked.headers.get("if-range") for asked in origin.asked[1:]} == {'"one"'}
    assert job.source.digest == f"sha256:{hashlib.sha256(large).hexdigest()}"


def test_a_date_is_good_enough_to_go_on_and_a_weak_etag_is_not(house: Fetching, origin: Origin, large: bytes) -> None:
    day_ago = time.time() - 86400
    origin.served["/dated"] = Served(body=large, etag=None, modified=day_ago, breaks=[9 * MIB])
    origin.served["/weak"] = Served(body=large, etag='W/"one"', modified=day_ago, breaks=[9 * MIB])
    origin.served["/just-now"] = Served(body=large, etag=None, modified=time.time() + 60, breaks=[9 * MIB])

    jobs = [house.fetch(f"{origin.url}{path}") for path in origin.served]

    assert [house.recording(job.job_id) == large for job in jobs] == [True, True, True]
    assert origin.ranges() == [None, f"bytes={9 * MIB}-", None, None, None, None]


def test_a_server_without_ranges_is_read_again_and_what_is_there_is_kept(
    house: Fetching, origin: Origin, large: bytes
) -> None:
    origin.served["/talk"] = Served(body=large, ranges=False, breaks=[9 * MIB])

    job = house.fetch(f"{origin.url}/talk")

    assert house.recording(job.job_id) == large
    assert [asked.status for asked in origin.asked] == [200, 200]
    assert job.source.digest == f"sha256:{hashlib.sha256(large).hexdigest()}"


def test_a_server_that_gives_a_range_in_pieces_is_asked_for_the_next(
    house: Fetching, origin: Origin, large: bytes
) -> None:
    origin.served["/talk"] = Served(body=large, breaks=[9 * MIB], most=4 * MIB)

    job = house.fetch(f"{origin.url}/talk")

    assert house.recording(job.job_id) == large
    assert origin.ranges() == [None, *(f"bytes={at * MIB}-" for at in (9, 13, 17))]


@pytest.mark.parametrize("told", ["bytes {many}-{many}/{many}", "bytes 524288-1048575/{many}"])
def test_a_range_of_endless_numbers_is_refused(house: Fetching, origin: Origin, told: str) -> None:
    lie = {"Content-Range": told.format(many="9" * 5000)}
    origin.served["/talk"] = Served(body=bytes(MIB), breaks=[MIB // 2], headers=lie)

    job = house.fetch(f"{origin.url}/talk")

    assert (job.status, job.error_code) == (JobStatus.FAILED, "url_refused")
    assert "another part of the recording" in (job.error or "")


def test_a_recording_that_changed_meanwhile_is_fetched_anew_from_its_beginning(
    house: Fetching, origin: Origin, large: bytes
) -> None:
    served = origin.served["/talk"] = Served(body=large, pause_at=9 * MIB, breaks=[10 * MIB])
    job_id = house.accept(f"{origin.url}/talk")
    fetching = threading.Thread(target=house.fetcher().fetch_source, args=(job_id,), kwargs={"last_try": False})
    fetching.start()
    served.paused.wait(20)
    origin.served["/talk"] = Served(body=large[::-1], etag='"two"')

    served.go.set()
    fetching.join(60)

    assert house.recording(job_id) == large[::-1]
    assert house.leftovers(job_id) == ({"media", "job.json"}, 0)


def test_a_recording_that_changes_again_and_again_fails(house: Fetching, origin: Origin) -> None:
    origin.served["/talk"] = Served(body=b"R" * MIB, restless=True, breaks=[600_000] * 9)

    job = house.fetch(f"{origin.url}/talk")

    assert (job.status, job.error_code) == (JobStatus.FAILED, "url_changed")
    assert house.leftovers(job.job_id) == ({"job.json", "end.json"}, 0)


def test_too_many_bytes_are_refused_before_they_come_where_the_server_tells(house: Fetching, origin: Origin) -> None:
    origin.served["/told"] = Served(body=b"R" * 1001)
    origin.served["/untold"] = Served(body=b"R" * (9 * MIB + 1), chunked=True)

    told = house.fetch(f"{origin.url}/told", max_file_size=1000)
    untold = house.fetch(f"{origin.url}/untold", max_file_size=9 * MIB)

    assert (told.error_code, told.error) == ("file_too_large", "the recording has 1001 bytes, the limit is 1000")
    assert (untold.error_code, untold.error) == (
        "file_too_large",
        f"more than {9 * MIB} bytes came, which is the limit",
    )
    for job in (told, untold):
        assert house.leftovers(job.job_id) == ({"job.json", "end.json"}, 0)
    assert len(origin.asked) == 2


def test_a_recording_of_the_limit_itself_and_unknown_length_is_taken(house: Fetching, origin: Origin) -> None:
    origin.served["/talk"] = Served(body=b"R" * PART, chunked=True)

    job = house.fetch(f"{origin.url}/talk", max_file_size=PART)

    assert (job.status, job.source.size) == (JobStatus.PENDING, PART)


@pytest.mark.parametrize(
    ("served", "code", "said", "requests"),
    [
        (None, "url_not_found", "127.0.0.1 answered 404 Not Found", 1),
        (Served(statuses=[410]), "url_not_found", "127.0.0.1 answered 410 Gone", 1),
        (Served(statuses=[403]), "url_refused", "127.0.0.1 answered 403 Forbidden", 1),
        (Served(statuses=[204]), "url_refused", "127.0.0.1 answered 204 No Content", 1),
        (Served(body=b""), "audio_unreadable", "the recording is empty (0 bytes)", 1),
        (
            Served(body=b"R", headers={"Content-Encoding": "gzip"}),
            "url_refused",
            "127.0.0.1 sends the recording as 'gzip', which was not asked for",
            1,
        ),
        (
            Served(statuses=[503, 500]),
            "url_failing",
            "127.0.0.1 answered 500 Internal Server Error; it was tried 2 times",
            2,
        ),
        (
            Served(statuses=[429, 429]),
            "url_failing",
            "127.0.0.1 answered 429 Too Many Requests; it was tried 2 times",
            2,
        ),
        (Served(body=b"R", lie=5), "url_broken_off", "it was tried 2 times", 2),
        (Served(body=b"R" * 9, pause_at=0), "url_timeout", "127.0.0.1 sent", 2),
        (Served(body=b"R" * 999, drip_seconds=0.2), "url_timeout", "127.0.0.1 sent", 2),
        (Served(statuses=[302], headers={"Location": "/talk"}), "audio_unreadable", "empty", 2),
        (Served(statuses=[302] * 9, headers={"Location": "/talk"}), "url_refused", "more than 5 redirects", 6),
        (Served(statuses=[301]), "url_refused", "127.0.0.1 redirects to nowhere", 1),
        (Served(statuses=[503] * 2, headers={"Retry-After": "9" * 5000}), "url_failing", "it was tried 2 times", 2),
        (Served(statuses=[307], headers={"Location": "http://127.0.0.2/"}), "url_not_allowed", "not public", 1),
        (Served(statuses=[307], headers={"Location": "http://[::1]:80/"}), "url_not_allowed", "not public", 1),
        (Served(statuses=[307], headers={"Location": "file:///etc/passwd"}), "url_not_allowed", "http://", 1),
        (Served(statuses=[307], headers={"Location": "http://a@127.0.0.1/"}), "url_not_allowed", "user", 1),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_what_a_server_does_wrong_fails_the_job_with_its_own_code(
    house: Fetching, origin: Origin, served: Served | None, code: str, said: str, requests: int
) -> None:
    if served is not None:
        origin.served["/talk"] = msgspec.structs.replace(
            served, statuses=[*served.statuses], go=threading.Event(), paused=threading.Event()
        )

    job = house.fetch(f"{origin.url}/talk")

    assert (job.status, job.error_code) == (JobStatus.FAILED, code)
    assert said in (job.error or "")
    assert len(origin.asked) == requests
    assert house.leftovers(job.job_id) == ({"job.json", "end.json"}, 0)


def test_a_failing_server_is_left_alone_for_as_long_as_it_wants_and_the_job_waits(
    house: Fetching, origin: Origin
) -> None:
    origin.served["/talk"] = Served(body=b"R" * 9, statuses=[503], headers={"Retry-After": "7"})
    job_id = house.accept(f"{origin.url}/talk")
    fetcher = house.fetcher()

    with pytest.raises(Later) as later:
        fetcher.fetch_source(job_id, last_try=False)
    waiting = house.jobs.get(job_id)
    fetcher.fetch_source(job_id, last_try=False)

    assert later.value.delay == 7000
    assert (waiting.status, waiting.attempts) == (JobStatus.PENDING, 0)
    assert house.recording(job_id) == b"R" * 9


def test_nobody_there_is_unreachable(house: Fetching, origin: Origin) -> None:
    origin.close()

    job = house.fetch(f"{origin.url}/talk")

    assert job.error_code == "url_unreachable"
    assert job.error == ("127.0.0.1 cannot be reached: [Errno 111] Connection refused; it was tried 2 times")


def test_a_redirect_is_followed_and_names_the_recording(house: Fetching, origin: Origin) -> None:
    origin.served["/short"] = Served(statuses=[302], headers={"Location": "deep/a talk%20of%20mine.ogg?sig=secret"})
    origin.served["/deep/a%20talk%20of%20mine.ogg"] = Served(body=b"R" * 9, content_type="audio/ogg")

    job = house.fetch(f"{origin.url}/short")

    assert house.recording(job.job_id) == b"R" * 9
    assert (job.source.filename, job.source.content_type) == ("a talk of mine.ogg", "audio/ogg")


def test_an_endless_recording_ends_after_the_time_that_a_fetch_may_take(house: Fetching, origin: Origin) -> None:
    origin.served["/radio"] = Served(body=b"R" * MIB, drip_seconds=0.00001)

    job = house.fetch(f"{origin.url}/radio", fetch_seconds=1, fetch_idle_seconds=30, fetch_tries=100)

    assert (job.error_code, job.error) == (
        "url_timeout",
        "the fetch took longer than 1 s, which is the limit; it was tried 1 times",
    )


def test_a_cancelled_job_stops_though_its_server_is_silent_and_leaves_nothing_half(
    house: Fetching, origin: Origin, large: bytes
) -> None:
    served = origin.served["/talk"] = Served(body=large, pause_at=9 * MIB)
    job_id = house.accept(f"{origin.url}/talk")
    fetcher = house.fetcher(fetch_idle_seconds=30)
    fetching = threading.Thread(target=fetcher.fetch_source, args=(job_id,), kwargs={"last_try": False})
    fetching.start()
    served.paused.wait(20)
    wait_until(lambda: bool(list(house.objects.uploads(source_key(job_id)))))

    house.jobs.cancel(job_id)
    fetching.join(5)

    assert not fetching.is_alive()
    assert house.jobs.get(job_id).status == JobStatus.CANCELLED
    assert house.leftovers(job_id) == ({"job.json", "end.json"}, 0)


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
    served.paused.wait(20)
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


class Authority:
    """Signs certificates for a test; its own is written where SSL_CERT_FILE may point to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test")])
        self.path = folder / "authority.pem"
        certificate = self._signed(self._key, self._name, x509.BasicConstraints(ca=True, path_length=None))
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, host: str) -> ssl.SSLContext:
        """For a server of this name."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = x509.SubjectAlternativeName([x509.DNSName(host)])
        certificate = self._signed(key, x509.Name([]), alternative)
        path = self._folder / f"{host}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _signed(
        self, key: ec.EllipticCurvePrivateKey, name: x509.Name, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=True)
            .sign(self._key, hashes.SHA256())
        )


def test_a_certificate_must_be_valid_and_for_the_name(
    fresh_settings: StorageSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    origin = Origin(authority.server("talks.example"))
    origin.served["/talk"] = Served(body=b"R" * 9)
    house = Fetching(fresh_settings, Guard("127.0.0.1/32", resolve=lambda host, port: ["127.0.0.1"]))

    unknown = house.fetch(f"https://talks.example:{origin.port}/talk")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    trusted = house.fetch(f"https://talks.example:{origin.port}/talk")
    other = house.fetch(f"https://others.example:{origin.port}/talk")
    origin.close()

    assert (unknown.error_code, unknown.error) == (
        "url_untrusted",
        "the certificate of talks.example is not valid: unable to get local issuer certificate",
    )
    assert trusted.source.size == 9
    assert other.error_code == "url_untrusted"
    assert "others.example" in (other.error or "")
    assert [asked.headers["host"] for asked in origin.asked] == [f"talks.example:{origin.port}"]


def test_neither_log_nor_message_tells_the_url(
    house: Fetching, origin: Origin, capsys: pytest.CaptureFixture[str]
) -> None:
    origin.served["/talk"] = Served(body=b"R" * MIB, breaks=[600_000], statuses=[503])
    origin.served["/gone"] = Served(statuses=[302], headers={"Location": "/nowhere?sig=hush"})

    fetched = house.fetch(f"{origin.url}/talk?token=hush")
    failed = house.fetch(f"{origin.url}/gone?token=hush")

    assert fetched.source.size == MIB
    assert failed.error_code == "url_not_found"
    said = capsys.readouterr().out
    assert "fetch goes on" in said
    assert "hush" not in said + (failed.error or "") + fetched.source.filename
