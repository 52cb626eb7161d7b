"""OpenAI's client while it waits: streams, time that runs out, and clients that go away."""

import asyncio
from collections.abc import Iterator

import openai
import pytest
from openai.types.audio import Transcription

from service.app import create_app
from storage.job import JobStatus
from storage.job_store import JobStore
from storage.settings import StorageSettings
from storage.transcript import Segment
from tests.conftest import Sample
from tests.processes import environment
from tests.recordings import joined, wav
from tests.service.apis import Api
from tests.service.asgi import scope
from tests.service.conftest import StartApi
from tests.service.forms import END, FORM_TYPE, connection, first_line, head, part
from tests.service.openai_client import connected, newest, says_fox, told
from tests.service.test_transcribe import is_final, wait_for
from tests.storage.test_job_store import wait_until


@pytest.fixture(scope="module")
def talk(speech: dict[str, list[Sample]]) -> bytes:
    return next(sample for sample in speech["en"] if "fox" in sample.text).path.read_bytes()


@pytest.fixture(scope="module")
def long_talk(speech: dict[str, list[Sample]]) -> bytes:
    """Many seconds of work, which no test waits for."""
    return wav(joined(speech["en"], 300))


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[openai.OpenAI]:
    with connected(api) as client:
        yield client


def test_a_stream_sends_the_text_as_it_is_found_and_whole_at_the_end(client: openai.OpenAI, talk: bytes) -> None:
    stream = client.audio.transcriptions.create(file=("talk.wav", talk), model="whisper-1", stream=True)

    events = list(stream)

    deltas, whole = told(events)
    assert says_fox(whole)
    assert "".join(deltas) == whole
    # What the SDK made of it: nothing is missing that it has fields for, and nothing is there that it has none for.
    assert events[-1].model_dump(exclude_unset=True) == {"type": "transcript.text.done", "text": whole}


def test_a_long_recordings_text_comes_while_it_is_transcribed(
    client: openai.OpenAI, api: Api, speech: dict[str, list[Sample]]
) -> None:
    two_chunks = wav(joined(speech["en"], 80))

    with client.audio.transcriptions.create(
        file=("long.wav", two_chunks), model="whisper-1", stream=True, response_format="text"
    ) as stream:
        first = next(stream)
        job = newest(api)

        events = [first, *stream]

    assert job["status"] == "processing"
    deltas, whole = told(events)
    assert len(deltas) > 1
    assert "".join(deltas) == whole


def test_a_job_that_is_cancelled_breaks_its_stream_off(client: openai.OpenAI, api: Api, long_talk: bytes) -> None:
    stream = client.audio.transcriptions.create(file=("long.wav", long_talk), model="whisper-1", stream=True)
    next(stream)

    api.client.post(f"/api/v1/jobs/{newest(api)['job_id']}/cancel")

    with pytest.raises(openai.APIError, match="was cancelled") as raised:
        list(stream)
    assert (raised.value.code, raised.value.type) == ("job_cancelled", "invalid_request_error")


def test_a_client_that_stops_listening_cancels_its_job(client: openai.OpenAI, api: Api, long_talk: bytes) -> None:
    stream = client.audio.transcriptions.create(file=("long.wav", long_talk), model="whisper-1", stream=True)
    next(stream)
    job_id = newest(api)["job_id"]

    stream.close()

    assert wait_for(api, job_id, is_final)["status"] == "cancelled"
    assert "Traceback" not in api.log()


@pytest.mark.parametrize("response_format", ["srt", "vtt", "verbose_json"])
def test_what_is_no_text_is_answered_whole(api: Api, talk: bytes, response_format: str) -> None:
    """As OpenAI does with whisper-1."""
    asked = {"model": "whisper-1", "response_format": response_format, "stream": "true"}

    answer = api.client.post("/v1/audio/transcriptions", files={"file": ("talk.wav", talk)}, data=asked)

    assert not answer.headers["Content-Type"].startswith("text/event-stream")
    assert says_fox(answer.text)


def test_a_client_that_stops_waiting_cancels_its_job(api: Api, long_talk: bytes) -> None:
    # What the SDK says of its patience would make the API answer before.
    silent = {"X-Stainless-Read-Timeout": "600"}

    with connected(api, timeout=2.0) as hasty, pytest.raises(openai.APITimeoutError):
        hasty.audio.transcriptions.create(file=("long.wav", long_talk), model="whisper-1", extra_headers=silent)

    assert wait_for(api, newest(api)["job_id"], is_final)["status"] == "cancelled"


def test_when_waiting_takes_too_long_the_sdk_is_told_and_the_job_goes_on(api: Api, long_talk: bytes) -> None:
    # It says that it waits for 1 s, and is answered while it does; and it does not send the recording again.
    patient = connected(api, timeout=60.0, max_retries=2)
    before = api.client.get("/api/v1/jobs").json()["total"]

    with patient, pytest.raises(openai.InternalServerError) as raised:
        patient.audio.transcriptions.create(
            file=("long.wav", long_talk), model="whisper-1", extra_headers={"X-Stainless-Read-Timeout": "1"}
        )

    job_id = raised.value.response.headers["X-Job-Id"]
    assert (raised.value.status_code, raised.value.code) == (504, "still_running")
    assert job_id in raised.value.message
    assert api.client.get("/api/v1/jobs").json()["total"] == before + 1
    assert api.client.post(f"/api/v1/jobs/{job_id}/cancel").json()["status"] == "cancelled"


@pytest.mark.filterwarnings("ignore::litestar.utils.deprecation.LitestarDeprecationWarning")
def test_a_client_that_is_gone_before_its_stream_begins_cancels_its_job(
    quiet_settings: StorageSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No client can be as quick as that on purpose, so the API is asked as a server asks it.
    for name, value in environment(quiet_settings).items():
        monkeypatch.setenv(name, value)
    jobs = JobStore.connect(quiet_settings)
    before = {job.job_id for job in jobs.list_jobs("").jobs}
    # An upload of which all has come.
    coming = [{"type": "http.request", "body": part("stream", b"true") + part("file", b"sound", "a.wav") + END}]
    began = asyncio.Event()

    def made() -> list[str]:
        return [job.job_id for job in jobs.list_jobs("").jobs if job.job_id not in before]

    async def receive() -> dict[str, object]:
        if coming:
            return {**coming.pop(), "more_body": False}
        if not began.is_set():
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        began.set()

    async def ask() -> str:
        request = scope("POST", "/v1/audio/transcriptions", content_type=FORM_TYPE)
        asked = asyncio.create_task(create_app()(request, receive, send))  # type: ignore[arg-type]
        await asyncio.to_thread(wait_until, lambda: bool(made()))
        (job_id,) = made()
        claim = await asyncio.to_thread(jobs.claim, job_id, "w", 60, 3)
        await asyncio.to_thread(jobs.tell, claim, 0, [Segment(0, 0.0, 1.0, " The", 0.5)], "en", 1.0)
        await asked
        await asyncio.to_thread(wait_until, lambda: jobs.get(job_id).status != JobStatus.PROCESSING)
        return jobs.get(job_id).status

    assert asyncio.run(ask()) == "cancelled"


def test_a_stream_that_there_is_no_place_for_is_refused_before_anything_is_uploaded(
    start_api: StartApi, quiet_settings: StorageSettings
) -> None:
    full = start_api(quiet_settings, MAX_LISTENERS="1")
    source = {"type": "upload", "filename": "talk.wav", "size": 5}
    waiting = full.client.post("/api/v1/jobs", json={"source": source}).json()["job_id"]
    address = "/v1/audio/transcriptions"

    with full.client.stream("GET", f"/api/v1/jobs/{waiting}/events"):
        with connection(full.url) as early:
            # The recording does not come.
            early.sendall(head(address, Content_Length="100000") + part("stream", b"true"))
            early.sendall(part("file", b"sound" * 1000, "a.wav"))
            told_early = first_line(early)
        late = full.client.post(address, content=part("file", b"sound", "a.wav") + part("stream", b"true") + END,
                                headers={"Content-Type": FORM_TYPE})  # fmt: skip

    assert " 503 " in told_early
    assert (late.status_code, late.json()["error"]["code"]) == (503, "too_many_listeners")
    assert newest(full)["job_id"] == waiting


def test_a_place_is_free_again_when_its_upload_is_refused(start_api: StartApi, quiet_settings: StorageSettings) -> None:
    api = start_api(quiet_settings, MAX_LISTENERS="1")
    form = part("stream", b"true") + part("file", b"", "a.wav") + END

    answers = [
        api.client.post("/v1/audio/transcriptions", content=form, headers={"Content-Type": FORM_TYPE}) for _ in "12"
    ]

    assert [answer.json()["error"]["code"] for answer in answers] == ["audio_unreadable"] * 2


def test_the_asynchronous_client_asks_for_several_at_once(api: Api, talk: bytes) -> None:
    async def ask() -> tuple[list[Transcription], str]:
        async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:
            answers = await asyncio.gather(
                *(client.audio.transcriptions.create(file=("talk.wav", talk), model="whisper-1") for _ in range(3))
            )
            stream = await client.audio.transcriptions.create(file=("talk.wav", talk), model="whisper-1", stream=True)
            return answers, told([event async for event in stream])[1]

    answers, streamed = asyncio.run(ask())

    assert [says_fox(text) for text in (*(answer.text for answer in answers), streamed)] == [True] * 4
