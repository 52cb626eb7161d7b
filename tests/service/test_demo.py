"""The client with which `scripts/up` proves the stack, against settings that make it harder."""

from pathlib import Path

import pytest
from jiwer import wer
from whisper_normalizer.english import EnglishTextNormalizer

from deploy.embedded.demo import DemoFailed, transcribe
from tests.conftest import ROOT
from tests.service.apis import Api
from tests.service.conftest import StartApi

RECORDING = ROOT / "deploy/sample/sample.mp3"
SAID = (ROOT / "deploy/sample/sample.txt").read_text()
normalize = EnglishTextNormalizer()


@pytest.mark.parametrize(
    "settings",
    [{"RATE_LIMIT": "1 per 2 seconds"}, {"SINGLE_UPLOAD_MAX_BYTES": "1000"}, {"API_KEYS": "anna"}],
    ids=lambda settings: next(iter(settings)),
)
def test_the_sample_is_transcribed(api: Api, start_api: StartApi, settings: dict[str, str]) -> None:
    strict = start_api(api.settings, **settings)

    job = transcribe(strict.url, RECORDING, settings.get("API_KEYS", ""))

    assert wer(normalize(SAID), normalize(job["result"]["text"])) < 0.15


def test_a_refusal_is_the_servers_own_words(quiet_api: Api, tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp3"
    empty.touch()

    with pytest.raises(DemoFailed, match=r"^POST .*/api/v1/jobs: 422 .*source\.size"):
        transcribe(quiet_api.url, empty)


def test_a_limit_that_is_over_too_late_is_not_waited_for(api: Api, start_api: StartApi) -> None:
    strict = start_api(api.settings, RATE_LIMIT="1/hour")

    with pytest.raises(DemoFailed, match=r": 429 .*rate_limited"):
        transcribe(strict.url, RECORDING, timeout_seconds=240)
