"""Every door takes `audio_track`: a recording whose first track is silent and whose second one speaks."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
import requests

from service.errors import ApiError
from service.model_names import ModelNames
from service.options import OptionFields, read_form, read_job, read_sidecar
from tests.conftest import Sample
from tests.service.apis import Api
from tests.service.commands import run

NAMES = ModelNames("")

#: What is asked for → the answer.
Door = Callable[[Api, bytes, dict[str, Any]], requests.Response]


@pytest.fixture(scope="module")
def film(speech: dict[str, list[Sample]], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    spoken = next(sample for sample in speech["en"] if "fox" in sample.text)
    target = tmp_path_factory.mktemp("film") / "film.mkv"
    silence = ("-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-shortest")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(spoken.path), *silence]
    names = ("-metadata:s:a:0", "language=ger", "-metadata:s:a:1", "language=eng", "-disposition:a:0", "default")
    subprocess.run([*command, "-map", "1:a", "-map", "0:a", *names, str(target)], check=True)
    return target.read_bytes()


def by_form(api: Api, content: bytes, asked: dict[str, Any]) -> requests.Response:
    return requests.post(f"{api.url}/api/v1/transcribe", data=asked, files={"file": content}, timeout=120)


def by_openai(api: Api, content: bytes, asked: dict[str, Any]) -> requests.Response:
    data = {"model": "whisper-1", **asked}
    return requests.post(f"{api.url}/v1/audio/transcriptions", data=data, files={"file": content}, timeout=120)


def by_asr(api: Api, content: bytes, asked: dict[str, Any]) -> requests.Response:
    parameters = {"output": "json", **asked}
    return requests.post(f"{api.url}/asr", params=parameters, files={"audio_file": content}, timeout=120)


@pytest.mark.parametrize("ask", [by_form, by_openai, by_asr])
def test_each_door_hears_the_track_that_is_asked_for(ask: Door, api: Api, film: bytes) -> None:
    first, second, english = (ask(api, film, {"language": "en", "audio_track": track}) for track in ("1", "2", "en"))

    assert json.loads(first.text)["text"] == ""
    assert "fox" in json.loads(second.text)["text"].lower()
    assert json.loads(english.text)["text"] == json.loads(second.text)["text"]


def test_the_language_is_detected_in_the_track_that_is_asked_for(api: Api, film: bytes) -> None:
    spoken, missing = (
        requests.post(
            f"{api.url}/detect-language", params={"audio_track": track}, files={"audio_file": film}, timeout=120
        )
        for track in ("en", "3")
    )

    assert spoken.json()["language_code"] == "en"
    assert "the recording has no audio track 3" in missing.text


def test_the_command_line_asks_for_a_track(api: Api, film: bytes, tmp_path: Path) -> None:
    (tmp_path / "film.mkv").write_bytes(film)

    done = run(api.url, tmp_path, "transcribe", "film.mkv", "--audio-track", "2", "--language", "en")

    assert done.returncode == 0, done.stderr
    assert "fox" in done.stdout.lower()


def test_a_track_that_is_not_there_fails_the_job_with_those_that_are(api: Api, film: bytes) -> None:
    answer = by_form(api, film, {"audio_track": "3"})

    assert answer.status_code == 422
    assert answer.json()["code"] == "audio_unreadable"
    assert answer.json()["detail"] == "the recording has no audio track 3: it has 1 (ger), 2 (eng)"


def test_a_number_and_text_mean_the_same_track() -> None:
    source = {"type": "object", "key": "a.mkv"}

    asked = [
        read_form({"audio_track": " 2 "}, NAMES),
        read_job(json.dumps({"source": source, "audio_track": 2}).encode(), NAMES),
        read_job(json.dumps({"source": source, "audio_track": "2"}).encode(), NAMES),
        read_sidecar(b'{"audio_track": 2}', OptionFields(), NAMES),
    ]

    assert [options.audio_track for options in asked] == ["2", "2", "2", "2"]


@pytest.mark.parametrize("track", [0, -1, "0", " ", 2.5, True, "x" * 65])
def test_what_can_be_no_track_is_refused_with_the_name_of_the_field(track: object) -> None:
    with pytest.raises(ApiError) as caught:
        read_job(json.dumps({"source": {"type": "object", "key": "a.mkv"}, "audio_track": track}).encode(), NAMES)

    assert caught.value.code == "invalid_parameter"
    assert "audio_track" in caught.value.detail
