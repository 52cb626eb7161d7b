"""A url's recording on its way into a real bucket, from a real server that does what servers do."""

import hashlib
import threading
import time

import msgspec
import pytest

from actors.broker import queued
from actors.outcome import Later
from storage.job import JobStatus
from storage.keys import job_key, source_key
from storage.notes import JobNote
from storage.settings import StorageSettings
from tests.actors.fetching import MIB, PART, Fetching
from tests.origin import Origin, Served
from tests.storage.test_job_store import wait_until


@pytest.fixture
def house(fresh_settings: StorageSettings) -> Fetching:
    return Fetching(fresh_settings)


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
    assert served.paused.wait(120)
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

    # Short only where it is waited for: a loaded machine lets an origin that is well keep us waiting, too.
    job = house.fetch(f"{origin.url}/talk", fetch_idle_seconds=1 if code == "url_timeout" else 20)

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
    assert served.paused.wait(120)
    wait_until(lambda: bool(list(house.objects.uploads(source_key(job_id)))))

    house.jobs.cancel(job_id)
    fetching.join(25)

    assert not fetching.is_alive()
    assert house.jobs.get(job_id).status == JobStatus.CANCELLED
    assert house.leftovers(job_id) == ({"job.json", "end.json"}, 0)


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
