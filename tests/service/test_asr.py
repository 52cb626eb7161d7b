"""The /asr web service, asked as its clients ask it: Bazarr's whisperai provider, curl, requests."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests
import srt
import webvtt
from whisper_normalizer.english import EnglishTextNormalizer

from actors.audio.decode import SAMPLE_RATE
from service import __version__
from storage.keys import source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.conftest import Sample
from tests.recordings import joined, samples_of, wav
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.forms import END, connection, head, part

words_of = EnglishTextNormalizer()


@pytest.fixture(scope="module")
def talk(speech: dict[str, list[Sample]]) -> Sample:
    return next(sample for sample in speech["en"] if "fox" in sample.text)


def ask(api: Api, path: str, content: bytes, name: str = "a talk.wav", **parameters: Any) -> requests.Response:
    files = {"audio_file": (name, content)}
    return requests.post(f"{api.url}{path}", params=parameters, files=files, timeout=120)


def raw(samples: np.ndarray) -> bytes:
    """As `ffmpeg -f s16le -acodec pcm_s16le -ac 1 -ar 16000` writes it."""
    return bytes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def assert_says(heard: str, said: str) -> None:
    wanted, there = set(words_of(said).split()), set(words_of(heard).split())
    assert len(wanted & there) >= 0.7 * len(wanted), (heard, said)


def test_each_output_is_plain_text_to_be_saved(api: Api, talk: Sample) -> None:
    content = talk.path.read_bytes()

    answers = {name: ask(api, "/asr", content, output=name) for name in ("txt", "srt", "vtt", "tsv", "json")}
    untold = ask(api, "/asr", content)

    assert {answer.status_code for answer in answers.values()} == {200}
    assert {answer.headers["Content-Type"] for answer in answers.values()} == {"text/plain; charset=utf-8"}
    assert {answer.headers["Asr-Engine"] for answer in answers.values()} == {"faster_whisper"}
    names = [answer.headers["Content-Disposition"] for answer in answers.values()]
    assert names == [f'attachment; filename="a%20talk.wav.{output}"' for output in answers]
    assert_says(answers["txt"].text, talk.text)
    assert_says(" ".join(cue.content for cue in srt.parse(answers["srt"].text)), talk.text)
    assert_says(" ".join(cue.text for cue in webvtt.from_string(answers["vtt"].text).captions), talk.text)
    assert answers["tsv"].text.splitlines()[0] == "start\tend\ttext"
    assert untold.text == answers["txt"].text


def test_the_json_has_faster_whispers_fields(api: Api, talk: Sample) -> None:
    content = talk.path.read_bytes()

    plain = json.loads(ask(api, "/asr", content, output="json").text)
    timed = json.loads(ask(api, "/asr", content, output="json", word_timestamps="true").text)

    assert list(plain) == ["language", "segments", "text"]
    assert (plain["language"], plain["segments"][0]["words"]) == ("en", None)
    segment = timed["segments"][0]
    assert segment.keys() == {
        "id", "seek", "start", "end", "text", "tokens", "avg_logprob", "compression_ratio", "no_speech_prob", "words",
        "temperature",
    }  # fmt: skip
    assert segment["id"] == 1
    assert segment["tokens"]
    assert segment["avg_logprob"] < 0 < segment["compression_ratio"]
    assert segment["words"][0].keys() == {"start", "end", "word", "probability"}
    assert timed["text"] == "".join(one["text"] for one in timed["segments"])


def test_bazarr_gets_subtitles_for_raw_samples(api: Api, talk: Sample) -> None:
    samples = samples_of(talk)
    asked = {"task": "transcribe", "language": "en", "output": "srt", "encode": "false", "video_file": "/films/a.mkv"}

    # As its provider does: bytes without a name.
    answer = requests.post(f"{api.url}/asr", params=asked, files={"audio_file": raw(samples)}, timeout=(60, 120))

    cues = list(srt.parse(answer.content.decode()))
    assert_says(" ".join(cue.content for cue in cues), talk.text)
    assert cues[-1].end.total_seconds() <= len(samples) / SAMPLE_RATE + 0.01
    job = api.client.get(f"/api/v1/status/{answer.headers['X-Job-Id']}").json()
    assert job["source"]["duration"] == pytest.approx(len(samples) / SAMPLE_RATE, abs=0.001)
    assert job["warnings"] == []


@pytest.mark.parametrize(
    ("asked", "ending"),
    [({"output": "SRT"}, "srt"), ({"output": "Vtt"}, "vtt"), ({"output": "text"}, "txt"), ({"output": ""}, "txt"),
     ({"output": "TXT", "task": "", "language": "", "encode": "", "vad_filter": "", "word_timestamps": ""}, "txt"),
     ({"output": "json", "task": "Transcribe", "encode": "True", "initial_prompt": "x" * 5000}, "json")],
)  # fmt: skip
def test_parameters_may_be_empty_or_in_other_letters(
    api: Api, talk: Sample, asked: dict[str, str], ending: str
) -> None:
    answer = ask(api, "/asr", talk.path.read_bytes(), **asked)

    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"].endswith(f'.{ending}"')


def test_bazarrs_test_button_is_answered(start_api: StartApi, quiet_settings: StorageSettings) -> None:
    keyed_api = start_api(quiet_settings, API_KEYS="key")

    assert keyed_api.client.get("/status").json()["version"] == f"Bucketscribe {__version__}"


@pytest.mark.parametrize("content", [b"a letter\n" * 100, b""])
def test_an_error_of_detection_says_in_bazarrs_words_that_no_language_was_found(api: Api, content: bytes) -> None:
    answer = ask(api, "/detect-language", content)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "audio_unreadable")
    assert (problem["detected_language"], problem["language_code"]) == ("unknown", "und")
    assert "detected_language" not in ask(api, "/asr", content).json()


def test_what_others_know_and_we_do_not_is_ignored(api: Api, talk: Sample) -> None:
    asked = {"diarize": "true", "min_speakers": "2", "max_speakers": "3", "language": "", "initial_prompt": ""}

    answer = ask(api, "/asr", talk.path.read_bytes(), **asked)

    assert_says(answer.text, talk.text)


@pytest.mark.parametrize(
    ("asked", "field"),
    [({"output": "doc"}, "output"), ({"language": "klingon"}, "language"), ({"encode": "perhaps"}, "encode")],
)
def test_a_parameter_that_cannot_be_is_named(quiet_api: Api, asked: dict[str, str], field: str) -> None:
    answer = ask(quiet_api, "/asr", b"sound", **asked)

    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_the_recording_is_expected_in_its_own_field(quiet_api: Api) -> None:
    answer = requests.post(f"{quiet_api.url}/asr", files={"file": b"sound"}, timeout=120)

    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "file_missing", "audio_file")


def test_a_second_recording_is_refused_by_its_fields_name(quiet_api: Api) -> None:
    twice = [("audio_file", ("one.mp3", b"sound")), ("audio_file", ("two.mp3", b"sound"))]

    problem = requests.post(f"{quiet_api.url}/asr", files=twice, timeout=120).json()

    assert (problem["code"], problem["field"]) == ("invalid_parameter", "audio_file")
    assert problem["detail"] == "audio_file: one recording a request, there is a second"


def test_raw_samples_of_nothing_are_no_recording(quiet_api: Api) -> None:
    answer = ask(quiet_api, "/asr", b"", encode="false")

    assert (answer.status_code, answer.json()["code"]) == (422, "audio_unreadable")


def test_the_language_is_detected_from_the_first_minute_alone(api: Api, talk: Sample) -> None:
    samples = joined([talk], 90)

    encoded = ask(api, "/detect-language", wav(samples))
    bare = ask(api, "/detect-language", raw(samples), encode="false")

    assert encoded.headers["Content-Type"] == "application/json"
    assert encoded.json().keys() == {"detected_language", "language_code", "confidence"}
    assert (bare.json()["detected_language"], bare.json()["language_code"]) == ("english", "en")
    assert 0.5 < bare.json()["confidence"] <= 1
    job_id = bare.headers["X-Job-Id"]
    job = api.client.get(f"/api/v1/status/{job_id}").json()
    assert (job["status"], job["options"]["task"], job["result"]["text"]) == ("completed", "detect_language", "")
    assert job["source"]["duration"] == 60
    # A header and a minute: the rest was not stored.
    assert ObjectStore(api.settings).head(source_key(job_id)).size == 44 + 60 * SAMPLE_RATE * 2


def test_what_is_no_audio_has_no_language(api: Api) -> None:
    answer = ask(api, "/detect-language", b"this is a letter, not a song\n" * 100)

    assert (answer.status_code, answer.json()["code"]) == (422, "audio_unreadable")


def test_the_classic_api_does_not_offer_detection(quiet_api: Api) -> None:
    answer = requests.post(
        f"{quiet_api.url}/api/v1/transcribe-async",
        files={"file": b"sound"},
        data={"task": "detect_language"},
        timeout=120,
    )

    assert (answer.status_code, answer.json()["field"]) == (422, "task")


def test_a_key_is_asked_for_where_keys_are_set(start_api: StartApi, quiet_api: Api) -> None:
    locked = start_api(quiet_api.settings, API_KEYS="a-key")

    answers = [ask(locked, path, b"sound") for path in ("/asr", "/detect-language")]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(401, "unauthorized")] * 2


def test_the_job_of_a_client_that_hangs_up_is_cancelled(quiet_api: Api) -> None:
    body = part("audio_file", b"sound", "long.wav") + END
    with connection(quiet_api.url) as opened:
        opened.sendall(head("/asr?output=srt", Content_Length=str(len(body))) + body)
        job_id = wait_for(lambda: newest(quiet_api, "pending", "srt"))

    wait_for(lambda: quiet_api.client.get(f"/api/v1/status/{job_id}").json()["status"] == "cancelled")


def test_many_media_servers_wait_at_once(api: Api, talk: Sample) -> None:
    content = talk.path.read_bytes()

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: ask(api, "/asr", content, output="srt"), range(4)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1


def newest(api: Api, status: str, response_format: str) -> str | None:
    jobs = api.client.get("/api/v1/jobs?limit=1").json()["jobs"]
    if jobs and jobs[0]["status"] == status and jobs[0]["options"]["response_format"] == response_format:
        return str(jobs[0]["job_id"])
    return None


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.05)
    return found
