"""The Python client against the real server, store and worker."""

import http.server
import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from service.client import (
    Client,
    Event,
    JobCancelled,
    JobFailed,
    RequestRefused,
    Stopped,
    Unreachable,
    UploadFailed,
    WaitTimedOut,
)
from storage.job import JobStatus
from storage.keys import source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.conftest import ROOT, Sample
from tests.listener import listening
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.gate import Gate, gate_to
from tests.service.openai_client import says_fox

MIB = 2**20


@pytest.fixture
def client(api: Api, tmp_path: Path) -> Client:
    return Client(api.url, state_folder=tmp_path / "state")


@pytest.fixture
def quiet_client(quiet_api: Api, tmp_path: Path) -> Client:
    """Of a server whose jobs stay pending."""
    return Client(quiet_api.url, state_folder=tmp_path / "state")


@pytest.fixture(scope="module")
def talk(speech: dict[str, list[Sample]]) -> Sample:
    return next(sample for sample in speech["en"] if "fox" in sample.text)


@pytest.fixture(scope="module")
def gate(store_settings: StorageSettings) -> Iterator[Gate]:
    with gate_to(store_settings.s3_endpoint_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def gated_api(start_api: StartApi, quiet_settings: StorageSettings, gate: Gate) -> Api:
    """Cuts uploads above 5 MiB into parts; its links lead through the gate."""
    settings = msgspec.structs.replace(quiet_settings, s3_public_endpoint_url=gate.url)
    return start_api(settings, SINGLE_UPLOAD_MAX_BYTES=str(5 * MIB))


def test_the_client_loads_nothing_of_the_server() -> None:
    program = "import sys, service.client, service.cli; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    modules = set(loaded.stdout.split())
    assert {"httpx", "typer"} <= modules
    assert not modules & {"litestar", "uvicorn", "boto3", "botocore", "redis", "dramatiq", "structlog", "numpy", "av"}


def test_a_file_is_transcribed_and_its_text_comes_while_it_is_found(api: Api, tmp_path: Path, talk: Sample) -> None:
    sent: list[tuple[int, int]] = []
    events: list[Event] = []

    with Client(api.url, state_folder=tmp_path) as client:
        job = client.transcribe(
            talk.path, language="en", on_upload=lambda *told: sent.append(told), on_event=events.append
        )

    assert job.result is not None
    assert says_fox(job.result.text)
    assert (job.status, job.options["language"], job.source.filename) == ("completed", "en", talk.path.name)
    assert sent[-1] == (talk.path.stat().st_size, talk.path.stat().st_size)
    assert [event.segment for event in events if event.segment] == job.result.segments
    assert (events[-1].type, events[-1].final) == ("completed", True)
    assert not list(tmp_path.glob("*.json"))


def test_bytes_and_streams_are_transcribed_as_well(client: Client, talk: Sample) -> None:
    content = talk.path.read_bytes()

    jobs = [
        client.transcribe(content, filename="bytes.wav"),
        client.transcribe(io.BufferedReader(io.BytesIO(content)), filename="Füchse.wav", vad_filter=False),
    ]

    assert [says_fox(job.result.text) for job in jobs if job.result] == [True, True]
    assert [job.source.filename for job in jobs] == ["bytes.wav", "Füchse.wav"]
    assert jobs[1].options["vad_filter"] is False


def test_subtitles_are_brought_to_a_file_and_the_job_is_deleted(client: Client, tmp_path: Path, talk: Sample) -> None:
    job = client.transcribe(talk.path)

    written = client.download(job.job_id, tmp_path / "talk.srt")
    client.delete(job.job_id)

    assert written.read_bytes().startswith(b"1\n00:00:0")
    with pytest.raises(RequestRefused) as refused:
        client.job(job.job_id)
    assert (refused.value.code, refused.value.status) == ("job_not_found", 404)


def test_a_job_that_fails_is_raised_with_its_code(client: Client) -> None:
    with pytest.raises(JobFailed) as failed:
        client.transcribe(b"this is no recording at all", filename="notes.txt")

    assert failed.value.code == "audio_unreadable"
    assert failed.value.detail == failed.value.job.error
    assert failed.value.job.status is JobStatus.FAILED
    assert failed.value.status is None


def test_what_the_server_refuses_is_raised_with_its_facts(quiet_client: Client) -> None:
    with pytest.raises(RequestRefused) as refused:
        quiet_client.submit(b"sound", model="enormous")

    assert (refused.value.code, refused.value.status) == ("invalid_parameter", 422)
    assert refused.value.facts["field"] == "model"
    assert "base" in refused.value.facts["allowed"]
    assert "'enormous' is not a known model" in refused.value.detail


def test_an_empty_recording_is_refused_before_anything_is_sent(quiet_client: Client) -> None:
    with pytest.raises(UploadFailed, match="0 bytes"):
        quiet_client.submit(b"")


def test_a_file_that_is_not_there_is_an_error_of_the_system(quiet_client: Client) -> None:
    with pytest.raises(FileNotFoundError):
        quiet_client.submit("nowhere.wav")


def test_a_name_that_ends_like_no_format_is_refused_unless_one_is_given(quiet_client: Client, tmp_path: Path) -> None:
    job = quiet_client.submit(b"sound")

    with pytest.raises(ValueError, match=r"no format ends with '\.docx'"):
        quiet_client.download(job.job_id, tmp_path / "talk.docx")
    with pytest.raises(RequestRefused) as asked:
        quiet_client.download(job.job_id, tmp_path / "talk.docx", format="text")

    assert asked.value.code == "job_conflict"


def test_an_address_without_its_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'localhost:8000' does not begin with http://"):
        Client("localhost:8000", state_folder=tmp_path)


def test_no_server_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 does not answer"):
        Client("http://127.0.0.1:9", state_folder=tmp_path).job("01a203b845cddfe3ab439e")


def test_a_wrong_key_is_told_and_the_right_one_opens(
    start_api: StartApi, quiet_settings: StorageSettings, tmp_path: Path
) -> None:
    api = start_api(quiet_settings, API_KEYS="the right one")

    with pytest.raises(RequestRefused) as refused:
        Client(api.url, "another", state_folder=tmp_path).submit(b"sound")
    job = Client(api.url, "the right one", state_folder=tmp_path).submit(b"sound")

    assert (refused.value.code, refused.value.status) == ("unauthorized", 401)
    assert job.status is JobStatus.PENDING


def test_waiting_ends_with_the_time_given_and_the_job_goes_on(quiet_client: Client) -> None:
    job = quiet_client.submit(b"sound")

    with pytest.raises(WaitTimedOut):
        quiet_client.wait(job.job_id, timeout_seconds=1)

    assert quiet_client.job(job.job_id).status is JobStatus.PENDING


def test_who_waits_for_a_cancelled_job_is_told(quiet_client: Client) -> None:
    job = quiet_client.submit(b"sound")
    threading.Timer(0.5, quiet_client.cancel, [job.job_id]).start()

    with pytest.raises(JobCancelled):
        quiet_client.wait(job.job_id, timeout_seconds=120)


def test_a_story_goes_on_where_its_connection_broke(quiet_api: Api, tmp_path: Path) -> None:
    with gate_to(quiet_api.url) as gate, Client(gate.url, state_folder=tmp_path) as client:
        job = client.submit(b"sound")
        told = []
        for event in client.events(job.job_id, timeout_seconds=120):
            told.append(event.type if event.status is None else str(event.status))
            if told[-1] == "pending":
                gate.cut()
                quiet_api.client.post(f"/api/v1/jobs/{job.job_id}/cancel")

    assert [one for one in told if one != "awaiting_upload"] == ["pending", "cancelled"]


def test_a_server_of_this_machine_is_reached_without_a_proxy(
    quiet_api: Api, talk: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as proxy:
        for name, value in proxy.variables.items():
            monkeypatch.setenv(name, value)

        job = Client(quiet_api.url, state_folder=tmp_path).submit(talk.path)

        assert job.status == "pending"
        assert proxy.connections == 0


def test_a_server_elsewhere_is_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as proxy:
        for name, value in proxy.variables.items():
            monkeypatch.setenv(name, value)

        with pytest.raises(Unreachable):
            Client("http://example.invalid", patience_seconds=0).job("01a203b845cddfe3ab439e")

        assert proxy.connections > 0


@contextmanager
def between(api: Api, answer: Callable[[str], httpx.Response | None]) -> Iterator[str]:
    """The url of a proxy that answers a path as it likes; None: as the server does."""

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answered = answer(self.path) or api.client.get(self.path)
            self.send_response(answered.status_code)
            self.send_header("Content-Length", str(len(answered.content)))
            self.send_header("Content-Type", answered.headers.get("Content-Type", "text/plain"))
            self.end_headers()
            self.wfile.write(answered.content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_without_live_events_is_asked_now_and_then(api: Api, client: Client, talk: Sample) -> None:
    events: list[Event] = []
    job_id = client.submit(talk.path).job_id

    with between(api, lambda path: httpx.Response(404) if path.endswith("/events") else None) as url:
        job = Client(url).wait(job_id, on_event=events.append)

    assert job.result is not None
    assert [event.segment for event in events if event.segment] == job.result.segments
    assert (events[-1].type, events[-1].id) == ("completed", "")


@pytest.mark.parametrize("sent", ["progress\ndata: <html>", "progress\ndata: 7", "segment\ndata: {}"])
def test_a_stream_of_something_else_is_no_story_and_the_job_is_asked_for(
    api: Api, client: Client, talk: Sample, sent: str
) -> None:
    job = client.transcribe(talk.path)
    stream = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=f"event: {sent}\n\n")

    with between(api, lambda path: stream if path.endswith("/events") else None) as url:
        events = list(Client(url).events(job.job_id))

    assert job.result is not None
    assert [event.segment for event in events if event.segment] == job.result.segments
    assert (events[-1].type, events[-1].id) == ("completed", "")


def test_an_answer_that_is_not_the_servers_is_told_as_such(quiet_api: Api, quiet_client: Client) -> None:
    job_id = quiet_client.submit(b"sound").job_id

    with between(quiet_api, lambda path: httpx.Response(200, html="<html>Log in to the network</html>")) as url:
        other = Client(url)
        for ask in (lambda: other.job(job_id), lambda: list(other.jobs()), lambda: list(other.events(job_id))):
            with pytest.raises(RequestRefused) as raised:
                ask()

            assert (raised.value.code, raised.value.status) == ("unexpected_answer", 200)


def test_jobs_are_listed_newest_first_over_pages(quiet_client: Client) -> None:
    made = [quiet_client.submit(b"sound").job_id for _ in range(3)]

    listed = [job.job_id for job in quiet_client.jobs("pending", limit=3)]

    assert listed == made[::-1]


def test_parts_go_side_by_side_and_arrive_whole(gated_api: Api, quiet_store: ObjectStore, tmp_path: Path) -> None:
    recording = tmp_path / "größe 7 🎧.wav"
    recording.write_bytes(os.urandom(40 * MIB))

    job = Client(gated_api.url, state_folder=tmp_path / "state").submit(recording)

    assert (job.status, job.source.filename) == (JobStatus.PENDING, "größe 7 🎧.wav")
    assert quiet_store.get(source_key(job.job_id)) == recording.read_bytes()


def test_a_stopped_upload_goes_on_with_the_parts_that_are_missing(
    gated_api: Api, gate: Gate, quiet_store: ObjectStore, tmp_path: Path
) -> None:
    recording, stop = tmp_path / "talk.wav", threading.Event()
    recording.write_bytes(os.urandom(40 * MIB))
    client = Client(gated_api.url, state_folder=tmp_path / "state", parallel=1)

    def stop_in_the_second_part(sent: int, _: int) -> None:
        if sent > 20 * MIB:
            stop.set()

    with pytest.raises(Stopped):
        client.submit(recording, on_upload=stop_in_the_second_part, stop=stop)
    gate.allow(None)
    job = client.submit(recording)

    # What the first one had put into its sockets may still come.
    assert 24 * MIB <= gate.passed < 32 * MIB
    assert quiet_store.get(source_key(job.job_id)) == recording.read_bytes()


def test_a_broken_connection_to_the_store_costs_one_part(
    gated_api: Api, gate: Gate, quiet_store: ObjectStore, tmp_path: Path
) -> None:
    recording, cuts = tmp_path / "talk.wav", [18 * MIB]
    recording.write_bytes(os.urandom(40 * MIB))
    told = []

    def cut_once(sent: int, total: int) -> None:
        told.append((sent, total))
        if cuts and sent > cuts[0]:
            cuts.pop()
            gate.cut()

    job = Client(gated_api.url, state_folder=tmp_path / "state", parallel=1).submit(recording, on_upload=cut_once)

    assert told[-1] == (40 * MIB, 40 * MIB)
    assert quiet_store.get(source_key(job.job_id)) == recording.read_bytes()


def test_a_changed_recording_is_another_job(gated_api: Api, tmp_path: Path) -> None:
    recording, stop = tmp_path / "talk.wav", threading.Event()
    recording.write_bytes(bytes(6 * MIB))
    client = Client(gated_api.url, state_folder=tmp_path / "state")
    stop.set()
    with pytest.raises(Stopped):
        client.submit(recording, stop=stop)
    recording.write_bytes(bytes(7 * MIB))

    job = client.submit(recording)

    assert job.source.size == 7 * MIB
    assert next(client.jobs("awaiting_upload", limit=1)).source.size == 6 * MIB
