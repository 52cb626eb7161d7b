"""Subtitles through the API: the rules of a job, other rules for a transcript that is there, and what breaks them."""

import msgspec
import pytest
import srt
import webvtt

from actors import formats
from actors.layout import layout_of
from storage.job import Options
from storage.job_store import JobStore
from storage.keys import result_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.actors.subtitles import read_srt, read_vtt, spoken, transcript
from tests.conftest import Sample
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.storage.test_job_store import a_job

SENTENCE = (
    "Unless to be rather cold hearted and rather selfish is to be ill-disposed, but he was, in general, well"
    " respected, for he conducted himself with propriety in the discharge of his ordinary duties."
)
SAID = transcript(spoken(SENTENCE, 0, 14), spoken("Did he?", 14.5, 15.2))
FIELD_PRACTICE = {
    "max_line_width": 42,
    "max_line_count": 2,
    "max_characters_per_second": 20.0,
    "min_cue_seconds": 0.833,
    "max_cue_seconds": 7.0,
    "min_gap_seconds": 0.083,
}


@pytest.fixture(scope="module")
def job_id(quiet_settings: StorageSettings, quiet_store: ObjectStore) -> str:
    """A completed job, as the worker leaves one behind."""
    jobs = JobStore.connect(quiet_settings)
    job = a_job(owner="", options=msgspec.convert({"model": "base", **FIELD_PRACTICE}, Options))
    jobs.create(job)
    claim = jobs.claim(job.job_id, "w", lease_seconds=60, max_attempts=3)
    files = {}
    for name, kind in formats.FORMATS.items():
        body = formats.render(SAID, name, layout_of(job.options))
        quiet_store.put(result_key(job.job_id, name), body, kind.media_type)
        files[name] = len(body)
    jobs.complete(job.job_id, claim.token, files, SAID.duration, [])
    return job.job_id


def test_a_transcript_is_laid_out_anew_by_other_rules(quiet_api: Api, job_id: str) -> None:
    path = f"/api/v1/jobs/{job_id}/transcript"

    stored = quiet_api.client.get(f"{path}.srt").text
    narrow = quiet_api.client.get(f"{path}.srt?max_line_width=20&max_line_count=1")
    plain = quiet_api.client.get(f"{path}.vtt?max_line_width=0&max_cue_seconds=0")

    assert [cue.lines for cue in read_srt(stored)][1] == ["but he was, in general, well respected,"]
    assert narrow.headers["content-type"] == "application/x-subrip; charset=utf-8"
    assert all(len(cue.lines) == 1 and len(cue.lines[0]) <= 20 for cue in read_srt(narrow.text))
    assert " ".join(cue.content for cue in srt.parse(narrow.text)) == f"{SENTENCE} Did he?"
    assert [cue.lines for cue in read_vtt(plain.text)] == [[SENTENCE], ["Did he?"]]
    assert [caption.text for caption in webvtt.from_string(plain.text).captions] == [SENTENCE, "Did he?"]
    assert quiet_api.client.get(f"{path}.srt").text == stored


def test_a_rule_that_is_not_given_is_the_jobs(quiet_api: Api, job_id: str) -> None:
    cues = read_srt(quiet_api.client.get(f"/api/v1/jobs/{job_id}/transcript.srt?max_line_width=30").text)

    assert {len(cue.lines) for cue in cues} == {1, 2}
    assert all(len(line) <= 30 for cue in cues for line in cue.lines)
    assert all(cue.end - cue.start >= 833 for cue in cues)


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [
        ("json", "application/json"),
        ("srt", "application/x-subrip"),
        ("vtt", "text/vtt"),
        ("txt", "text/plain"),
        ("tsv", "text/tab-separated-values"),
    ],
)
def test_every_format_states_its_media_type_and_its_charset_once(
    quiet_api: Api, job_id: str, kind: str, media_type: str
) -> None:
    answer = quiet_api.client.get(f"/api/v1/jobs/{job_id}/transcript.{kind}")

    assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"


@pytest.mark.parametrize("kind", ["json", "txt", "tsv"])
def test_what_is_no_subtitle_is_not_laid_out(quiet_api: Api, job_id: str, kind: str) -> None:
    path = f"/api/v1/jobs/{job_id}/transcript.{kind}"

    answers = [quiet_api.client.get(path), quiet_api.client.get(f"{path}?max_line_width=10&max_line_count=1")]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize("kind", ["json", "srt", "vtt"])
def test_a_report_says_what_breaks_the_rules(quiet_api: Api, job_id: str, kind: str) -> None:
    path = f"/api/v1/jobs/{job_id}/transcript.{kind}?report=true"

    kept = quiet_api.client.get(path).json()
    broken = quiet_api.client.get(f"{path}&max_characters_per_second=5")

    assert kept == {"rules": FIELD_PRACTICE, "cues": 4, "breaches": []}
    assert broken.headers["content-type"].startswith("application/json")
    first = broken.json()["breaches"][0]
    assert first.keys() == {"cue", "start", "rule", "value", "limit"}
    assert (first["cue"], first["start"], first["rule"], first["limit"]) == (1, 0.0, "max_characters_per_second", 5.0)
    assert first["value"] > 5


@pytest.mark.parametrize(
    ("query", "field", "allowed"),
    [
        ("max_line_width=-1", "max_line_width", "0 to 1000"),
        ("max_line_count=many", "max_line_count", "0 to 1000"),
        ("min_cue_seconds=nan", "min_cue_seconds", "0 to 60"),
        ("max_cue_seconds=1e9", "max_cue_seconds", "0 to 3600"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(
    quiet_api: Api, job_id: str, query: str, field: str, allowed: str
) -> None:
    answer = quiet_api.client.get(f"/api/v1/jobs/{job_id}/transcript.srt?{query}")

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert answer.json()["field"] == field
    assert answer.json()["allowed"] == [allowed]


def test_a_job_gets_the_rules_of_the_settings_where_it_asks_for_none(
    start_api: StartApi, quiet_api: Api, quiet_settings: StorageSettings
) -> None:
    broadcaster = start_api(quiet_settings, SUBTITLE_LINE_WIDTH="37", SUBTITLE_CHARACTERS_PER_SECOND="15.5")
    source = {"type": "upload", "filename": "talk.mp3", "size": 5}

    def rules(api: Api, **asked: float) -> dict[str, float]:
        options = api.client.post("/api/v1/jobs", json={"source": source, **asked}).json()["options"]
        return {rule: options[rule] for rule in FIELD_PRACTICE}

    assert rules(quiet_api) == FIELD_PRACTICE
    assert rules(broadcaster) == FIELD_PRACTICE | {"max_line_width": 37, "max_characters_per_second": 15.5}
    assert rules(broadcaster, max_line_width=0) == FIELD_PRACTICE | {
        "max_line_width": 0,
        "max_characters_per_second": 15.5,
    }


def test_a_worker_lays_subtitles_out_by_the_jobs_rules(api: Api, speech: dict[str, list[Sample]]) -> None:
    talk = next(sample for sample in speech["en"] if "fox" in sample.text)
    rules = {"max_line_width": "16", "max_line_count": "2", "response_format": "vtt"}

    answer = api.client.post("/api/v1/transcribe", files={"file": talk.path.read_bytes()}, data=rules)

    cues = read_vtt(answer.text)
    assert len(cues) > 1
    assert all(len(cue.lines) <= 2 and len(line) <= 16 for cue in cues for line in cue.lines)
    stored = api.client.get(f"/api/v1/jobs/{answer.headers['X-Job-Id']}/transcript.json").content
    assert " ".join(" ".join(cue.lines) for cue in cues) == msgspec.json.decode(stored)["text"]
