"""A model is known by the names of other services and of the hub, in every door."""

from typing import Any

import httpx
import openai
import pytest

from service.model_names import OPENAI_NAMES, ModelNames, ModelUnknown
from storage.models import MODELS
from storage.settings import SettingsError, StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.dropped import Dropped
from tests.service.openai_client import connected

ALIASES = "my-model=small, Other=openai/whisper-tiny,whisper-1=tiny.en,mine=gpt-4o-transcribe"


@pytest.fixture(scope="module")
def named_api(start_api: StartApi, quiet_settings: StorageSettings) -> Api:
    return start_api(quiet_settings, MODEL_ALIASES=ALIASES, INBOX_SECONDS="0")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("base", "base"), ("Base", "base"), ("LARGE-V3", "large-v3"), ("turbo", "turbo"), ("whisper-base", "base"),
        ("whisper-large-v3", "large-v3"), ("whisper-large-v3-turbo", "large-v3-turbo"), ("whisper-turbo", "turbo"),
        ("openai/whisper-base", "base"), ("openai/whisper-large-v3", "large-v3"), ("openai/whisper-tiny.en", "tiny.en"),
        ("openai/whisper-large-v3-turbo", "large-v3-turbo"), ("Systran/faster-whisper-base", "base"),
        ("systran/faster-whisper-medium.en", "medium.en"), ("guillaumekln/faster-whisper-large-v2", "large-v2"),
        ("distil-whisper/distil-large-v3", "distil-large-v3"), ("distil-whisper/distil-small.en", "distil-small.en"),
        ("distil-whisper/distil-large-v3.5-ct2", "distil-large-v3.5"),
        ("Systran/faster-distil-whisper-large-v3", "distil-large-v3"),
        ("distil-whisper-large-v3-en", "distil-large-v3"), ("faster-whisper-small", "small"),
        ("deepdml/faster-whisper-large-v3-turbo-ct2", "large-v3-turbo"),
        ("mobiuslabsgmbh/faster-whisper-large-v3-turbo", "large-v3-turbo"),
        ("", None), ("whisper-1", None), ("gpt-4o-transcribe", None), ("gpt-4o-mini-transcribe", None),
        ("gpt-transcribe", None), ("gpt-4o-mini-transcribe-2025-12-15", None), ("openai/gpt-4o-transcribe", None),
    ],
)  # fmt: skip
def test_a_model_is_found_by_what_it_is_called(given: str, name: str | None) -> None:
    assert ModelNames("").find(given) == name


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_model_is_found_by_its_repository(model: Any) -> None:
    found = ModelNames("").find(model.repository)

    assert found is not None
    assert MODELS[found].repository == model.repository
    assert ModelNames("").find(model.name) == model.name


@pytest.mark.parametrize("given", ["gpt-5", "../base", "base/", "systran", "whisper-", "openai/", "base\0", "x" * 9999])
def test_what_is_no_model_is_unknown(given: str) -> None:
    with pytest.raises(ModelUnknown):
        ModelNames("").find(given)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [("my-model", "not a pair"), ("=base", "not a pair"), ("a=", "not a pair"), ("a=huge", "is not a model"),
     ("base=small", "base")],
)  # fmt: skip
def test_aliases_that_cannot_be_are_refused_at_start(setting: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=f"MODEL_ALIASES: .*{reason}"):
        ModelNames(setting)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("my-model", "small"), ("MY-MODEL", "small"), ("other", "tiny"), ("whisper-1", "tiny.en"), ("mine", "base"),
        ("gpt-4o-mini-transcribe", "base"), ("Systran/faster-whisper-small", "small"),
    ],
)  # fmt: skip
def test_every_door_knows_a_models_other_names(named_api: Api, given: str, name: str) -> None:
    sent = {"files": {"file": ("a.mp3", b"sound")}, "data": {"model": given}}
    source = {"type": "upload", "filename": "a.mp3", "size": 5}

    form = httpx.post(f"{named_api.url}/api/v1/transcribe-async", **sent, timeout=30).json()  # type: ignore[arg-type]
    job = named_api.client.post("/api/v1/jobs", json={"source": source, "model": given}).json()

    classic = named_api.client.get(f"/api/v1/status/{form['job_id']}").json()
    assert (classic["options"]["model"], job["options"]["model"]) == (name, name)


def test_openais_list_has_all_that_may_be_asked_for(named_api: Api) -> None:
    with connected(named_api) as client:
        listed = [model.id for model in client.models.list().data]
        asked = [*listed, "Systran/faster-whisper-base", "openai/whisper-large-v3"]
        found = [client.models.retrieve(name) for name in asked]
        with pytest.raises(openai.NotFoundError, match="there are whisper-1"):
            client.models.retrieve("Systran/faster-whisper-huge")

    assert listed == [*OPENAI_NAMES, "my-model", "other", "mine", *MODELS]
    assert [model.id for model in found] == asked


def test_the_inbox_knows_a_models_other_names(dropped: Dropped) -> None:
    dropped.put("inbox/a.mp3", metadata={"model": "openai/whisper-small"})
    dropped.put("inbox/b.mp3.json", b'{"model": "Systran/faster-whisper-tiny", "language": "German"}')
    dropped.put("inbox/b.mp3", metadata={"model": "small", "language": "en-US"})

    dropped.look_until(lambda: len(dropped.jobs()) == 2)

    options = {key: (job.options.model, job.options.language) for key, job in dropped.jobs().items()}
    assert options == {"inbox/a.mp3": ("small", None), "inbox/b.mp3": ("tiny", "de")}


def test_what_is_unknown_is_refused_with_the_list(named_api: Api) -> None:
    source = {"type": "upload", "filename": "a.mp3", "size": 5}

    answer = named_api.client.post("/api/v1/jobs", json={"source": source, "model": "gpt-5\x1b"})

    assert (answer.status_code, answer.json()["allowed"]) == (422, list(MODELS))
    assert answer.json()["detail"].startswith("model: 'gpt-5\ufffd' is not a known model; allowed: tiny")
