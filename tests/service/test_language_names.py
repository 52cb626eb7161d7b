"""A language may be named in many ways in every door; a job keeps Whisper's code."""

from pathlib import Path

import pytest

from actors.languages import LANGUAGES
from tests.conftest import Sample
from tests.service.apis import Api
from tests.service.commands import run
from tests.service.dropped import Dropped

SOURCE = {"type": "upload", "filename": "a.mp3", "size": 5}
NAMED = [
    ("auto", None), ("", None), ("en-US", "en"), ("zh-TW", "zh"), ("English", "en"), ("eng", "en"), ("ger", "de"),
    ("iw", "he"), ("jv", "jw"), ("nb", "no"), ("fil", "tl"), ("PT-br", "pt"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "code"), NAMED)
def test_forms_and_json_take_a_language_by_any_name(quiet_api: Api, given: str, code: str | None) -> None:
    form = quiet_api.client.post(
        "/api/v1/transcribe-async", files={"file": ("a.mp3", b"sound")}, data={"language": given}
    ).json()
    job = quiet_api.client.post("/api/v1/jobs", json={"source": SOURCE, "language": given}).json()

    classic = quiet_api.client.get(f"/api/v1/status/{form['job_id']}").json()
    assert (classic["options"]["language"], job["options"]["language"]) == (code, code)


@pytest.mark.parametrize("given", ["auto", "English", "EN_us"])
def test_doors_that_wait_take_a_language_by_any_name(api: Api, speech: dict[str, list[Sample]], given: str) -> None:
    talk = speech["en"][0].path.read_bytes()
    files, data = {"file": ("a.wav", talk)}, {"language": given, "response_format": "verbose_json"}

    openais = api.client.post("/v1/audio/transcriptions", files=files, data=data)
    asr = api.client.post("/asr", params={"language": given, "output": "JSON"}, files={"audio_file": ("a.wav", talk)})

    assert (openais.status_code, openais.json()["language"]) == (200, "english")
    assert (asr.status_code, asr.json()["language"]) == (200, "en")


def test_the_inbox_takes_a_language_by_any_name(dropped: Dropped) -> None:
    for number, (given, _) in enumerate(NAMED):
        dropped.put(f"inbox/{number}.mp3", metadata={"language": given or "auto"})
        dropped.put(f"inbox/{number}-beside.mp3.json", f'{{"language": "{given}"}}'.encode())
        dropped.put(f"inbox/{number}-beside.mp3", metadata={"language": "fr"})

    dropped.look_until(lambda: len(dropped.jobs()) == 2 * len(NAMED))

    jobs = dropped.jobs()
    for number, (_, code) in enumerate(NAMED):
        assert jobs[f"inbox/{number}.mp3"].options.language == code
        assert jobs[f"inbox/{number}-beside.mp3"].options.language == code


def test_the_command_line_takes_a_language_by_any_name(quiet_api: Api, tmp_path: Path) -> None:
    (tmp_path / "talk.mp3").write_bytes(b"sound")

    made = run(quiet_api.url, tmp_path, "transcribe", "talk.mp3", "--no-wait", "--language", "de-AT", "--model", "Base")

    options = quiet_api.client.get(f"/api/v1/status/{made.stdout.strip()}").json()["options"]
    assert (options["language"], options["model"]) == ("de", "base")


@pytest.mark.parametrize("given", ["klingon", "xx-XX", "en\x00", "123"])
def test_what_is_unknown_is_refused_with_the_list(quiet_api: Api, given: str) -> None:
    files = {"file": ("a.mp3", b"sound")}
    answers = [
        quiet_api.client.post("/api/v1/jobs", json={"source": SOURCE, "language": given}),
        quiet_api.client.post("/api/v1/transcribe", files=files, data={"language": given}),
        quiet_api.client.post("/asr", params={"language": given}, files={"audio_file": ("a.mp3", b"sound")}),
    ]
    openais = quiet_api.client.post("/v1/audio/transcriptions", files=files, data={"language": given})

    for answer in answers:
        assert (answer.status_code, answer.json()["allowed"]) == (422, list(LANGUAGES))
    assert (openais.status_code, openais.json()["error"]["param"]) == (400, "language")
    assert "yue, zh" in openais.json()["error"]["message"]
