"""The classic API with a worker behind it: real speech in, a transcript out."""

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
import requests
import srt
import webvtt
from whisper_normalizer.english import EnglishTextNormalizer

from actors.audio.decode import SAMPLE_RATE
from storage.object_store import ObjectStore
from tests.conftest import Sample
from tests.recordings import joined, wav
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.forms import END, connection, head, part
from tests.storage.test_job_store import wait_until

PATH = "/api/v1/transcribe"
words_of = EnglishTextNormalizer()


@pytest.fixture(scope="module")
def talk(speech: dict[str, list[Sample]]) -> Sample:
    # Not the one that counts: "1-2-3" or "one, two, three" is Whisper's choice.
    return next(sample for sample in speech["en"] if "fox" in sample.text)


@pytest.fixture(scope="module")
def long_talk(speech: dict[str, list[Sample]]) -> bytes:
    """Some minutes: many seconds of work."""
    return wav(joined(speech["en"], 300))


def post(
    api: Api, content: bytes, path: str = PATH, headers: dict[str, str] | None = None, **fields: str
) -> requests.Response:
    files = {"file": ("talk.wav", content)}
    return requests.post(api.url + path, files=files, data=fields, headers=headers, timeout=120)


def wait_for(
    api: Api,
    job_id: str,
    wanted: Callable[[dict[str, Any]], bool],
    seconds: float = 240,
    include: str = "result,files",
) -> dict[str, Any]:
    ends = time.monotonic() + seconds
    while True:
        job: dict[str, Any] = api.client.get(f"/api/v1/status/{job_id}?include={include}").json()
        if wanted(job):
            return job
        assert time.monotonic() < ends, job
        time.sleep(0.05)


def is_final(job: dict[str, Any]) -> bool:
    return job["status"] in ("completed", "failed", "cancelled")


def assert_says(heard: str, said: str) -> None:
    """Most words are there: tiny.en is a small model."""
    wanted, there = set(words_of(said).split()), set(words_of(heard).split())
    assert len(wanted & there) >= 0.7 * len(wanted), (heard, said)


def test_curl_gets_the_transcript_as_json(api: Api, talk: Sample) -> None:
    answer = subprocess.run(
        ["curl", "-sS", "-i", "-F", f"file=@{talk.path}", "-F", "timestamp_granularity=word", api.url + PATH],
        capture_output=True, check=True,
    )  # fmt: skip

    headers, _, body = answer.stdout.decode().rpartition("\r\n\r\n")
    transcript = json.loads(body)
    assert "content-type: application/json; charset=utf-8" in headers.lower()
    assert transcript.keys() == {
        "text", "language", "language_probability", "duration", "processing_time", "segments"
    }  # fmt: skip
    assert_says(transcript["text"], talk.text)
    assert transcript["language"] == "en"
    segment = transcript["segments"][0]
    assert segment.keys() == {"id", "start", "end", "text", "confidence", "words"}
    assert segment["words"][0].keys() == {"word", "start", "end", "confidence"}
    assert all(0 <= one["confidence"] <= 1 for one in (segment, *segment["words"]))


def test_the_engine_is_chosen_by_request(api: Api, talk: Sample) -> None:
    content = talk.path.read_bytes()

    answer = post(api, content, engine="sequential", response_format="text")
    unknown = post(api, content, engine="fastest")

    assert answer.status_code == 200
    assert_says(answer.text, talk.text)
    assert unknown.status_code == 422
    assert "engine" in unknown.json()["detail"]
    assert "windowed" in unknown.text


def test_each_format_is_answered_as_itself(api: Api, talk: Sample) -> None:
    content = talk.path.read_bytes()

    answers = {name: post(api, content, response_format=name) for name in ("text", "srt", "vtt", "tsv", "json")}

    assert {name: answer.headers["Content-Type"] for name, answer in answers.items()} == {
        "text": "text/plain; charset=utf-8",
        "srt": "application/x-subrip; charset=utf-8",
        "vtt": "text/vtt; charset=utf-8",
        "tsv": "text/tab-separated-values; charset=utf-8",
        "json": "application/json; charset=utf-8",
    }
    bodies = {name: answer.content.decode() for name, answer in answers.items()}
    assert_says(bodies["text"], talk.text)
    assert_says(" ".join(cue.content for cue in srt.parse(bodies["srt"])), talk.text)
    assert_says(" ".join(cue.text for cue in webvtt.from_string(bodies["vtt"]).captions), talk.text)
    assert_says(answers["json"].json()["text"], talk.text)
    assert "words" not in answers["json"].json()["segments"][0]


def test_a_job_ends_with_its_transcript_and_links_to_its_files(api: Api, talk: Sample) -> None:
    accepted = post(api, talk.path.read_bytes(), "/api/v1/transcribe-async").json()

    job = wait_for(api, accepted["job_id"], is_final)

    assert (job["status"], job["progress"]) == ("completed", 100)
    assert_says(job["result"]["text"], talk.text)
    assert job["source"]["duration"] == pytest.approx(job["result"]["duration"], abs=0.01)
    assert job["created_at"] <= job["started_at"] <= job["completed_at"] <= job["expires_at"]
    assert job["files"].keys() == {"json", "srt", "vtt", "txt", "tsv"}
    for name, link in job["files"].items():
        got = httpx.get(link["url"])
        assert len(got.content) == link["size"]
        assert f'filename="talk.{name}"' in got.headers["Content-Disposition"]
        assert link["expires_at"] > job["completed_at"]
    assert httpx.get(job["files"]["srt"]["url"]).headers["Content-Type"].startswith("application/x-subrip")
    listed = api.client.get("/api/v1/jobs?limit=1&include=files").json()["jobs"][0]
    assert "result" not in listed
    assert listed["files"].keys() == job["files"].keys()


def test_a_completed_job_cannot_be_cancelled(api: Api, talk: Sample) -> None:
    job_id = post(api, talk.path.read_bytes()).headers["X-Job-Id"]

    answer = api.client.post(f"/api/v1/jobs/{job_id}/cancel")

    assert (answer.status_code, answer.json()["detail"]) == (409, "the job is completed already")


def test_a_transcript_is_read_by_its_format_also_while_it_grows(api: Api, talk: Sample, long_talk: bytes) -> None:
    done = post(api, talk.path.read_bytes(), headers={"Prefer": "respond-async"}).json()["job_id"]
    growing = post(api, long_talk, headers={"Prefer": "respond-async"}, temperature="1.0").json()["job_id"]
    wait_for(api, done, is_final)
    so_far = wait_for(api, growing, lambda job: bool(job["partial"]["segments"]), include="partial")

    answers = {
        kind: api.client.get(f"/api/v1/jobs/{done}/transcript.{kind}") for kind in ("json", "srt", "vtt", "txt", "tsv")
    }
    partial = api.client.get(f"/api/v1/jobs/{growing}/transcript.srt?partial=true")
    too_early = api.client.get(f"/api/v1/jobs/{growing}/transcript.srt")
    unknown = api.client.get(f"/api/v1/jobs/{done}/transcript.doc")
    api.client.delete(f"/api/v1/jobs/{growing}")

    assert so_far["status"] == "processing"
    assert [answer.status_code for answer in answers.values()] == [200] * 5
    assert answers["srt"].headers["content-type"] == "application/x-subrip; charset=utf-8"
    assert list(srt.parse(partial.text, ignore_errors=False))
    assert (too_early.status_code, too_early.json()["code"]) == (409, "job_conflict")
    assert unknown.status_code == 404


def test_an_upload_with_a_link_is_transcribed(api: Api, talk: Sample) -> None:
    content = talk.path.read_bytes()
    source = {"type": "upload", "filename": "Grüße.wav", "size": len(content), "content_type": "audio/wav"}
    job = api.client.post("/api/v1/jobs", json={"source": source}).json()
    httpx.put(job["upload"]["url"], content=content, headers=job["upload"]["headers"])

    api.client.post(f"/api/v1/jobs/{job['job_id']}/start")

    done = wait_for(api, job["job_id"], is_final)
    assert_says(done["result"]["text"], talk.text)
    name = httpx.get(done["files"]["vtt"]["url"]).headers["Content-Disposition"]
    assert "filename*=UTF-8''Gr%C3%BC%C3%9Fe.vtt" in name


def test_an_object_of_the_bucket_is_transcribed(api: Api, talk: Sample) -> None:
    store = ObjectStore(api.settings)
    store.put("archive/talk.wav", talk.path.read_bytes(), "audio/wav")

    job = api.client.post("/api/v1/jobs", json={"source": {"type": "object", "key": "archive/talk.wav"}}).json()

    assert_says(wait_for(api, job["job_id"], is_final)["result"]["text"], talk.text)
    assert store.head("archive/talk.wav").size == talk.path.stat().st_size


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"this is a letter, not a song\n" * 100, "audio_unreadable"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio_unreadable"),
        (b"\x00", "audio_unreadable"),
    ],
)
def test_what_is_no_audio_is_refused_at_once_and_fails_its_job(api: Api, content: bytes, code: str) -> None:
    refused = post(api, content)
    accepted = post(api, content, "/api/v1/transcribe-async").json()
    job = wait_for(api, accepted["job_id"], is_final)

    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert (job["status"], job["error_code"]) == ("failed", code)
    assert job["error"] == refused.json()["detail"]
    assert (job["result"], job["files"]) == (None, {})


def test_a_recording_that_is_too_long_is_refused_with_both_numbers(api: Api) -> None:
    # The worker takes 700 s.
    refused = post(api, wav(np.zeros(701 * SAMPLE_RATE, np.float32)))

    assert (refused.status_code, refused.json()["code"]) == (422, "audio_too_long")
    assert "700" in refused.json()["detail"]
    assert any(number in refused.json()["detail"] for number in ("701", "700.", "more than"))


def test_a_client_that_would_rather_not_wait_gets_the_job(api: Api, talk: Sample) -> None:
    answer = post(api, talk.path.read_bytes(), headers={"Prefer": "respond-async"}, response_format="srt")

    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert answer.headers["Location"] == f"/api/v1/status/{job['job_id']}"
    assert wait_for(api, job["job_id"], is_final)["status"] == "completed"


def test_when_waiting_takes_too_long_the_job_goes_on(api: Api, start_api: StartApi, long_talk: bytes) -> None:
    hasty = start_api(api.settings, SYNC_TIMEOUT_SECONDS="1")

    answer = post(hasty, long_talk)

    job = answer.json()
    assert answer.status_code == 202
    assert not is_final(job)
    assert int(answer.headers["Retry-After"]) >= 1
    api.client.post(f"/api/v1/jobs/{job['job_id']}/cancel")


def test_the_job_of_a_client_that_goes_away_is_cancelled(api: Api, long_talk: bytes) -> None:
    body = part("file", long_talk, "long.wav") + END
    with connection(api.url) as opened:
        opened.sendall(head(PATH, Content_Length=str(len(body))) + body)
        newest = wait_for_newest(api, "processing")

    assert wait_for(api, newest, is_final)["status"] == "cancelled"
    assert "Traceback" not in api.log()


def test_a_running_job_is_cancelled_between_segments(api: Api, long_talk: bytes) -> None:
    job_id = post(api, long_talk, "/api/v1/transcribe-async").json()["job_id"]
    running = wait_for(api, job_id, lambda job: job["progress"] > 0)
    assert running["status"] == "processing"
    assert 0 < running["progress"] < 100

    cancelled = api.client.post(f"/api/v1/jobs/{job_id}/cancel").json()

    assert cancelled["status"] == "cancelled"
    assert api.client.post(f"/api/v1/jobs/{job_id}/cancel").status_code == 409
    # The worker is free for the next.
    assert post(api, wav(np.zeros(SAMPLE_RATE, np.float32))).status_code == 200
    assert api.client.get(f"/api/v1/status/{job_id}").json()["status"] == "cancelled"


def test_a_running_job_is_deleted_with_all_it_has(api: Api, long_talk: bytes) -> None:
    job_id = post(api, long_talk, "/api/v1/transcribe-async").json()["job_id"]
    wait_for(api, job_id, lambda job: job["progress"] > 0)

    assert api.client.delete(f"/api/v1/jobs/{job_id}").status_code == 200

    assert api.client.get(f"/api/v1/status/{job_id}").status_code == 404
    # The next recording is done, so the worker has let go of the deleted one, or does so in this moment.
    post(api, wav(np.zeros(SAMPLE_RATE, np.float32)))
    objects = ObjectStore(api.settings)
    wait_until(lambda: not [info.key for info in objects.list("") if job_id in info.key])


def test_many_clients_wait_without_a_thread_each(api: Api, talk: Sample) -> None:
    content = talk.path.read_bytes()

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: post(api, content, response_format="text"), range(8)))

    assert {answer.status_code for answer in answers} == {200}
    for answer in answers:
        assert_says(answer.text, talk.text)


def test_the_worker_and_its_model_are_seen(api: Api) -> None:
    health = api.client.get("/health/async")
    models = api.client.get("/api/v1/models").json()

    assert (health.status_code, health.json()["checks"]["workers"]) == (200, 1)
    assert models["current_model"] == "tiny.en"
    assert [model["name"] for model in models["models"] if model["loaded"]] == ["tiny.en"]


def wait_for_newest(api: Api, status: str) -> str:
    """Id of the newest job, once it has the status."""
    ends = time.monotonic() + 120
    while True:
        newest = api.client.get("/api/v1/jobs?limit=1").json()["jobs"]
        if newest and newest[0]["status"] == status:
            return str(newest[0]["job_id"])
        assert time.monotonic() < ends
        time.sleep(0.05)
