"""Live events through a real server: complete and in order for whoever comes, whenever, and however often it drops."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import numpy as np
import psutil
import pytest
from httpx_sse import ServerSentEvent, connect_sse
from playwright.sync_api import Browser

from storage.job import Job
from storage.job_store import JobStore
from storage.keys import result_key
from storage.object_store import ObjectStore
from storage.redis_client import JOBS_DATABASE, connect
from storage.settings import StorageSettings
from storage.transcript import Segment
from tests.conftest import Sample
from tests.recordings import joined, wav
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.stack import Parts
from tests.storage.test_job_store import stored, wait_until

FINAL = ("completed", "failed", "cancelled")


@contextmanager
def listening(api: Api, job_id: str, last_event_id: str = "") -> Iterator[Iterator[ServerSentEvent]]:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    # A client of its own: it is closed with a connection in the middle of an answer.
    with (
        httpx.Client(base_url=api.url, timeout=120) as client,
        connect_sse(client, "GET", f"/api/v1/jobs/{job_id}/events", headers=headers) as source,
    ):
        assert source.response.status_code == 200, source.response.read()
        yield source.iter_sse()


def heard(api: Api, job_id: str, last_event_id: str = "") -> list[ServerSentEvent]:
    """Everything up to the end of the stream."""
    with listening(api, job_id, last_event_id) as events:
        return list(events)


def heard_in_pieces(api: Api, job_id: str, each: int) -> list[ServerSentEvent]:
    """The same by a client whose connection breaks after every few events."""
    found: list[ServerSentEvent] = []
    while not found or found[-1].event not in FINAL:
        with listening(api, job_id, found[-1].id if found else "") as events:
            for _ in range(each):
                found.append(next(events))
                if found[-1].event in FINAL:
                    break
    return found


def segments(events: Sequence[ServerSentEvent]) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in events if event.event == "segment"]


def others(events: Sequence[ServerSentEvent]) -> list[tuple[str, str]]:
    """What happened beside the text."""
    return [(event.id.partition("/")[0], event.event) for event in events if event.event != "segment"]


def submit(api: Api, recording: bytes, **fields: str) -> str:
    answer = api.client.post("/api/v1/transcribe-async", files={"file": recording}, data=fields)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def transcript(api: Api, job_id: str) -> dict[str, Any]:
    stored = ObjectStore(api.settings).get(result_key(job_id, "json"))
    return dict(msgspec.json.decode(stored))


@pytest.fixture(scope="session")
def talk(speech: dict[str, list[Sample]]) -> bytes:
    """Of several chunks."""
    return wav(joined(speech["en"], seconds=110, gap_seconds=4.0))


@pytest.fixture(scope="session")
def call(speech: dict[str, list[Sample]]) -> bytes:
    """Of two channels, in turns, and several chunks each."""
    said = joined(speech["en"], seconds=110, gap_seconds=4.0)
    turns = (np.arange(len(said)) // (20 * 16_000)) % 2
    return wav(np.stack([np.where(turns == channel, said, np.float32(0)) for channel in (0, 1)]))


def test_who_comes_late_is_told_the_whole_story(api: Api, speech: dict[str, list[Sample]]) -> None:
    job_id = submit(api, speech["en"][0].path.read_bytes())
    live = heard(api, job_id)

    late = heard(api, job_id)

    assert segments(live) == segments(late) == transcript(api, job_id)["segments"]
    assert others(live) == others(late)
    assert [event for _, event in others(late)][:2] == ["status", "status"]
    assert [event.event for event in late].count("completed") == 1
    job = json.loads(late[-1].data)
    assert (late[-1].event, job["status"], job["progress"]) == ("completed", "completed", 100)
    assert set(job["files"]) == {"json", "srt", "vtt", "txt", "tsv"}
    assert "result" not in job


@pytest.mark.parametrize("channels", ["mixed", "separate"])
def test_every_segment_comes_once_and_in_order_wherever_the_connection_breaks(
    channels: str, api: Api, talk: bytes, call: bytes
) -> None:
    job_id = submit(api, talk if channels == "mixed" else call, channels=channels)

    broken = heard_in_pieces(api, job_id, each=2)
    whole = heard(api, job_id)

    wanted = transcript(api, job_id)["segments"]
    assert len(wanted) > 2
    names = [event.event for event in broken]
    assert names.index("segment") < len(names) - 1 - names[::-1].index("progress"), "the text came at the end only"
    assert segments(broken) == segments(whole) == wanted
    assert others(broken) == others(whole)
    for cut in {event.id: event for event in [*broken[:-1], *whole[:-1]]}.values():
        rest = heard(api, job_id, cut.id)
        assert segments(rest) == wanted[int(cut.id.partition("/")[2]) :]
        assert rest[-1].event == "completed"


# What follows needs no worker: the jobs stay pending, and the tests say what happens to them.


@pytest.fixture
def quiet_jobs(quiet_settings: StorageSettings) -> JobStore:
    return JobStore.connect(quiet_settings)


def cancelled_soon(jobs: JobStore, job: Job) -> None:
    threading.Timer(0.3, lambda: jobs.cancel(job.job_id)).start()


def test_the_last_event_ends_the_stream_and_there_is_nothing_to_come_back_for(
    quiet_api: Api, quiet_jobs: JobStore
) -> None:
    job = stored(quiet_jobs, owner="")
    cancelled_soon(quiet_jobs, job)

    events = heard(quiet_api, job.job_id)
    again = quiet_api.client.get(f"/api/v1/jobs/{job.job_id}/events", headers={"Last-Event-ID": events[-1].id})

    assert [event.event for event in events] == ["status", "cancelled"]
    assert (again.status_code, again.content) == (204, b"")


def test_whoever_listens_hears_that_the_job_is_deleted(quiet_api: Api, quiet_jobs: JobStore) -> None:
    job = stored(quiet_jobs, owner="")

    with listening(quiet_api, job.job_id) as events:
        first = next(events)
        quiet_api.client.delete(f"/api/v1/jobs/{job.job_id}")
        rest = list(events)

    assert (first.event, [event.event for event in rest]) == ("status", ["cancelled"])
    assert json.loads(rest[0].data)["status"] == "cancelled"
    assert quiet_api.client.get(f"/api/v1/jobs/{job.job_id}/events").json()["code"] == "job_not_found"


def test_a_job_of_another_key_has_no_events_and_a_made_up_id_is_refused(quiet_api: Api, quiet_jobs: JobStore) -> None:
    own, foreign = stored(quiet_jobs, owner=""), stored(quiet_jobs, owner="somebody else")

    answers = [
        quiet_api.client.get(f"/api/v1/jobs/{job_id}/events", headers={"Last-Event-ID": last})
        for job_id, last in (
            (foreign.job_id, ""),
            *((own.job_id, last) for last in ("7", "1-1/x", "9" * 99, "0-0/-5", "0-0/+5", "0-0/")),
        )
    ]

    assert [answer.json()["code"] for answer in answers] == ["job_not_found", *6 * ["invalid_parameter"]]
    assert answers[1].json()["field"] == "Last-Event-ID"


def test_who_claims_to_come_from_the_future_is_told_what_happens_from_now_on(
    quiet_api: Api, quiet_jobs: JobStore
) -> None:
    job = stored(quiet_jobs, owner="")

    with listening(quiet_api, job.job_id, f"{'9' * 19}-0/1") as events:
        quiet_jobs.cancel(job.job_id)
        rest = list(events)

    assert [event.event for event in rest] == ["cancelled"]


@pytest.fixture(scope="module")
def small_api(start_api: StartApi, quiet_settings: StorageSettings, quiet_api: Api) -> Api:
    """For one listener, with signs of life every second, and open to pages of the other server."""
    return start_api(quiet_settings, KEEP_ALIVE_SECONDS="1", MAX_LISTENERS="1", CORS_ORIGINS=quiet_api.url)


def test_a_silent_stream_says_that_it_lives_and_one_too_many_is_refused(small_api: Api, quiet_jobs: JobStore) -> None:
    api, job = small_api, stored(quiet_jobs, owner="")
    path = f"/api/v1/jobs/{job.job_id}/events"

    with httpx.stream("GET", api.url + path, timeout=120) as answer:
        lines = answer.iter_lines()
        while not next(lines).startswith(":"):
            pass
        refused = api.client.get(path)
    wait_until(lambda: not _is_refused(api, path))

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"].startswith("no-store")
    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_listeners")
    assert "retry-after" in refused.headers


def _is_refused(api: Api, path: str) -> bool:
    with httpx.stream("GET", api.url + path) as answer:
        return answer.status_code == 503


def test_a_stream_goes_on_when_redis_comes_back(
    start_api: StartApi, parts: Parts, store_settings: StorageSettings
) -> None:
    redis = parts.start_redis()
    settings = msgspec.structs.replace(store_settings, redis_url=redis.url)
    api, jobs = start_api(settings), JobStore.connect(settings)
    job = stored(jobs, owner="")

    with listening(api, job.job_id) as events:
        first = next(events)
        redis.running.kill()
        redis.running.start()
        jobs.cancel(job.job_id)
        rest = list(events)

    assert (first.event, [event.event for event in rest]) == ("status", ["cancelled"])
    assert rest[0].id != first.id


def test_open_streams_do_not_hold_up_a_server_that_is_to_stop(
    start_api: StartApi, quiet_settings: StorageSettings, quiet_jobs: JobStore
) -> None:
    api = start_api(quiet_settings)
    job = stored(quiet_jobs, owner="")

    with listening(api, job.job_id) as events:
        first = next(events)
        began = time.monotonic()
        api.running.stop()
        seconds = time.monotonic() - began
        rest = list(events)

    assert (first.event, rest) == ("status", [])
    assert seconds < 25, "a request under way has half a minute"


def test_five_hundred_listeners_cost_no_thread_each(quiet_api: Api, quiet_jobs: JobStore) -> None:
    jobs = [stored(quiet_jobs, owner="") for _ in range(10)]
    process = psutil.Process(quiet_api.running.pid)
    opened = [_listener(quiet_api, jobs[number % 10].job_id) for number in range(500)]
    told = [_until(listener, b"event: status") for listener in opened]
    threads = process.num_threads()

    for job in jobs:
        quiet_jobs.cancel(job.job_id)
    endings = [_until(listener, b"event: cancelled") for listener in opened]

    assert all(told)
    assert all(endings)
    assert threads < 60, "32 are for requests"
    for listener in opened:
        listener.close()


def test_who_goes_away_leaves_nothing_behind(
    quiet_api: Api, quiet_settings: StorageSettings, quiet_jobs: JobStore
) -> None:
    opened = [_listener(quiet_api, stored(quiet_jobs, owner="").job_id) for _ in range(20)]
    assert all(_until(listener, b"event: status") for listener in opened)
    client = connect(quiet_settings, JOBS_DATABASE)

    def reading() -> bool:
        return any(one["cmd"] == "xread" and "b" in one["flags"] for one in client.client_list())

    wait_until(reading)
    for listener in opened:
        listener.close()

    # The reader reads as long as there is anything to read for.
    wait_until(lambda: not reading())


def test_a_slow_listener_costs_no_memory_and_misses_nothing(quiet_api: Api, quiet_jobs: JobStore) -> None:
    job = stored(quiet_jobs, owner="")
    claim = quiet_jobs.claim(job.job_id, "w", lease_seconds=600, max_attempts=3)
    process = psutil.Process(quiet_api.running.pid)
    slow = [_listener(quiet_api, job.job_id) for _ in range(30)]
    for listener in slow:
        assert _until(listener, b"event: status")
    before = process.memory_info().rss

    for number in range(0, 1000, 100):
        said = [Segment(id, id, id + 1.0, "long " * 800, 0.5) for id in range(number, number + 100)]
        quiet_jobs.tell(claim, number, said, "en", 1.0)
    quick: list[int] = []
    with listening(quiet_api, job.job_id) as events:
        while len(quick) < 1000:
            event = next(events)
            quick += [json.loads(event.data)["id"]] if event.event == "segment" else []
    grown = process.memory_info().rss - before
    quiet_jobs.cancel(job.job_id)

    assert quick == list(range(1000))
    assert grown < 50 * 2**20, "4 MB were held for each of the slow ones"
    for listener in slow:
        assert _until(listener, b"event: cancelled")
        listener.close()


def _listener(api: Api, job_id: str) -> socket.socket:
    """A connection that asks for a job's events, and whose answer waits to be read."""
    address = httpx.URL(api.url)
    opened = socket.create_connection((address.host, address.port), timeout=120)
    opened.sendall(f"GET /api/v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {address.host}\r\n\r\n".encode())
    return opened


def _until(listener: socket.socket, wanted: bytes) -> bool:
    """Read on until something comes; False: the answer ended before."""
    end = b""
    while wanted not in end:
        block = listener.recv(2**20)
        if not block:
            return False
        end = end[-len(wanted) :] + block
    return True


LISTEN = """
([url, names]) => new Promise((resolve, reject) => {
  const found = [];
  const source = new EventSource(url);
  source.onerror = () => source.readyState === EventSource.CLOSED && reject(new Error("it was refused"));
  for (const name of names) source.addEventListener(name, event => {
    found.push([event.type, event.lastEventId]);
    if (name === "cancelled") { source.close(); resolve(found); }
  });
})
"""


def test_a_page_of_an_allowed_origin_listens_with_event_source(
    small_api: Api, quiet_api: Api, quiet_jobs: JobStore, browser: Browser
) -> None:
    job = stored(quiet_jobs, owner="")
    url = f"{small_api.url}/api/v1/jobs/{job.job_id}/events"
    page = browser.new_page()
    page.set_default_timeout(240_000)
    # The page is another server's: its port makes it another origin.
    page.goto(f"{quiet_api.url}/health/live")
    cancelled_soon(quiet_jobs, job)

    found = page.evaluate(LISTEN, [url, ["status", "cancelled"]])

    assert [name for name, _ in found] == ["status", "cancelled"]
    assert found[1][1].endswith("/0")
    page.close()
