"""OpenAI's API, asked by OpenAI's own client: what is written for it works here, and learns what is wrong."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import openai
import pytest
import srt
import webvtt
from openai.types.audio import TranscriptionVerbose, TranslationVerbose

from service.model_names import OPENAI_NAMES
from storage.models import MODELS
from storage.settings import StorageSettings
from tests.conftest import Sample
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.openai_client import connected, says_fox, words_of
from tests.stack import Parts

SEGMENT_FIELDS = {
    "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob"
}  # fmt: skip

#: The SDK warns of OpenAI's plans to end translations; they work here.
old_but_used = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def talk(speech: dict[str, list[Sample]]) -> bytes:
    return next(sample for sample in speech["en"] if "fox" in sample.text).path.read_bytes()


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[openai.OpenAI]:
    with connected(api) as client:
        yield client


@pytest.fixture(scope="module")
def quiet_client(quiet_api: Api) -> Iterator[openai.OpenAI]:
    """Of an API without a worker."""
    with connected(quiet_api) as client:
        yield client


def options_of(api: Api, job_id: str) -> dict[str, Any]:
    options: dict[str, Any] = api.client.get(f"/api/v1/status/{job_id}").json()["options"]
    return options


def test_the_sdk_gets_a_transcription(client: openai.OpenAI, api: Api, talk: bytes) -> None:
    answer = client.audio.transcriptions.create(file=("talk.wav", talk), model="whisper-1", language="en")

    assert says_fox(answer.text)
    assert answer.usage is not None
    assert answer.usage.model_dump() == {"type": "duration", "seconds": 3}
    assert api.client.get("/api/v1/jobs?limit=1").json()["jobs"][0]["options"]["model"] == "tiny.en"


def test_text_and_subtitles_come_as_strings(client: openai.OpenAI, talk: bytes) -> None:
    def ask(response_format: Any) -> str:
        answer = client.audio.transcriptions.create(
            file=("talk.wav", talk), model="tiny.en", response_format=response_format
        )
        assert isinstance(answer, str)
        return answer

    text, subtitles, captions = ask("text"), ask("srt"), ask("vtt")

    assert says_fox(text)
    assert says_fox(" ".join(cue.content for cue in srt.parse(subtitles, ignore_errors=False)))
    assert says_fox(" ".join(caption.text for caption in webvtt.from_string(captions).captions))


def test_verbose_json_has_real_values_in_every_field_of_the_sdks_model(client: openai.OpenAI, talk: bytes) -> None:
    raw = client.audio.transcriptions.with_raw_response.create(
        file=("talk.wav", talk),
        model="whisper-1",
        response_format="verbose_json",
        timestamp_granularities=["segment", "word"],
    )

    sent, parsed = json.loads(raw.text), raw.parse()
    # The SDK itself takes whatever comes: here it is held to its own types, and nothing is lost.
    checked = TranscriptionVerbose.model_validate(sent, strict=True)
    assert checked.model_dump(exclude_unset=True) == parsed.model_dump(exclude_unset=True) == sent
    assert set(sent) == {"task", "language", "duration", "text", "segments", "words", "usage"}
    assert checked.model_extra == {"task": "transcribe"}
    assert (checked.language, checked.usage and checked.usage.seconds) == ("english", 3)
    assert checked.duration == pytest.approx(2.9, abs=0.1)
    assert checked.segments
    assert checked.words
    for segment in sent["segments"]:
        assert set(segment) == SEGMENT_FIELDS
        assert -1 < segment["avg_logprob"] < 0
        assert 0.5 < segment["compression_ratio"] < 2.4
        assert 0 <= segment["no_speech_prob"] < 0.6
        assert segment["temperature"] == 0
        assert 0 <= segment["seek"] <= round(segment["start"] * 100) + 1
        assert len(segment["tokens"]) >= len(segment["text"].split())
    assert says_fox(" ".join(word.word for word in checked.words))
    assert all(word.word == word.word.strip() and word.start <= word.end for word in checked.words)


@pytest.mark.parametrize(
    ("granularities", "there"),
    [
        ([], {"segments"}),
        ([("timestamp_granularities[]", "segment")], {"segments"}),
        ([("timestamp_granularities[]", "word")], {"words"}),
        ([("timestamp_granularities", "word"), ("timestamp_granularities", "segment")], {"segments", "words"}),
        ([("timestamp_granularity", "word")], {"segments", "words"}),
    ],
)
def test_granularities_are_read_however_they_are_spelled(
    api: Api, talk: bytes, granularities: list[tuple[str, str]], there: set[str]
) -> None:
    fields: dict[str, list[str]] = {"response_format": ["verbose_json"], "model": ["whisper-1"]}
    for name, value in granularities:
        fields.setdefault(name, []).append(value)

    answer = api.client.post("/v1/audio/transcriptions", files={"file": ("talk.wav", talk)}, data=fields).json()

    assert {"segments", "words"} & set(answer) == there


def test_what_the_newest_sdk_can_send_does_no_harm(client: openai.OpenAI, api: Api, talk: bytes) -> None:
    raw = client.audio.transcriptions.with_raw_response.create(
        file=("talk.wav", talk),
        model="whisper-1",
        include=["logprobs"],
        chunking_strategy={"type": "server_vad", "threshold": 0.5},
        known_speaker_names=["Anna", "Bert"],
        known_speaker_references=["data:audio/wav;base64," + "A" * 200_000, "data:audio/wav;base64,AAAA"],
        keywords=["fox", "dog"],
        languages=["en"],
        temperature=0.2,
        prompt="Animals.",
    )

    options = options_of(api, raw.headers["X-Job-Id"])
    assert says_fox(raw.parse().text)
    assert (options["hotwords"], options["language"]) == ("fox, dog", "en")
    assert (options["temperature"], options["prompt"]) == (0.2, "Animals.")


def test_our_own_options_are_taken_and_unknown_ones_are_not_minded(
    client: openai.OpenAI, api: Api, talk: bytes
) -> None:
    raw = client.audio.transcriptions.with_raw_response.create(
        file=("talk.wav", talk),
        model="whisper-1",
        response_format="verbose_json",
        extra_body={"engine": "sequential", "vad_filter": False, "priority": "high", "best_of": 5, "user": "anna"},
    )

    options, (segment, *_) = options_of(api, raw.headers["X-Job-Id"]), json.loads(raw.text)["segments"]
    assert (options["engine"], options["vad_filter"], options["priority"]) == ("sequential", False, "high")
    # Both engines keep what OpenAI's segments have.
    assert set(segment) == SEGMENT_FIELDS
    assert -1 < segment["avg_logprob"] < 0
    assert segment["tokens"]


@old_but_used
def test_french_is_translated_into_english(client: openai.OpenAI, speech: dict[str, list[Sample]]) -> None:
    hello = next(sample for sample in speech["fr"] if "Bonjour" in sample.text)

    raw = client.audio.translations.with_raw_response.create(
        file=(hello.path.name, hello.path.read_bytes()), model="base", response_format="verbose_json"
    )

    answer = TranslationVerbose.model_validate(json.loads(raw.text), strict=True)
    assert {"hello", "morning", "day"} & set(words_of(answer.text).split())
    assert answer.language == "english"
    assert answer.model_extra == {"task": "translate"}
    assert answer.segments


def test_a_translation_that_our_own_field_asked_for_is_told_as_one(api: Api, talk: bytes) -> None:
    answer = api.client.post(
        "/v1/audio/transcriptions",
        files={"file": ("talk.wav", talk)},
        data={"model": "base", "task": "translate", "language": "fr", "response_format": "verbose_json"},
    ).json()

    assert (answer["task"], answer["language"]) == ("translate", "english")
    assert "usage" not in answer


@pytest.mark.parametrize(
    ("more", "param", "said"),
    [
        ({"response_format": "diarized_json"}, "response_format", "speakers are not told apart"),
        ({"response_format": "tsv"}, "response_format", "verbose_json"),
        ({"temperature": 3.0}, "temperature", "0 to 1"),
        ({"language": "klingon"}, "language", "klingon"),
        ({"timestamp_granularities": ["letter"]}, "timestamp_granularities[]", "letter"),
        ({"extra_body": {"vad_filter": "perhaps"}}, "vad_filter", "vad_filter"),
    ],
)
def test_what_cannot_be_done_is_a_bad_request(
    quiet_client: openai.OpenAI, talk: bytes, more: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        quiet_client.audio.transcriptions.create(file=("talk.wav", talk), model="base", **more)

    assert isinstance(raised.value.body, dict)
    assert raised.value.body.keys() == {"message", "type", "param", "code"}
    assert (raised.value.type, raised.value.param, raised.value.code) == (
        "invalid_request_error", param, "invalid_parameter"
    )  # fmt: skip
    assert said in raised.value.message


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_audio_is_a_bad_request(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.audio.transcriptions.create(file=("a.mp3", b"a letter\n" * 100), model="whisper-1", stream=stream)

    assert (raised.value.code, raised.value.param) == ("audio_unreadable", None)


@old_but_used
def test_a_model_that_knows_english_only_does_not_translate(client: openai.OpenAI, talk: bytes) -> None:
    with pytest.raises(openai.BadRequestError, match=r"tiny\.en knows English only"):
        client.audio.translations.create(file=("talk.wav", talk), model="whisper-1")


def test_an_unknown_model_or_address_is_not_found(quiet_client: openai.OpenAI, talk: bytes) -> None:
    with pytest.raises(openai.NotFoundError) as of_audio:
        quiet_client.audio.transcriptions.create(file=("talk.wav", talk), model="../gpt-4o-transcribe")
    with pytest.raises(openai.NotFoundError) as of_models:
        quiet_client.models.retrieve("gpt-5")
    with pytest.raises(openai.NotFoundError) as of_address:
        quiet_client.responses.create(model="base", input="Hello")

    errors = [raised.value for raised in (of_audio, of_models, of_address)]
    assert [(error.param, error.code) for error in errors] == [
        ("model", "model_not_found"), ("model", "model_not_found"), (None, "not_found")
    ]  # fmt: skip


def test_a_wrong_key_is_an_authentication_error(start_api: StartApi, quiet_settings: StorageSettings) -> None:
    api = start_api(quiet_settings, API_KEYS="anna-key")

    with connected(api, "wrong-key") as stranger, pytest.raises(openai.AuthenticationError) as raised:
        stranger.audio.transcriptions.create(file=("talk.wav", b"sound"), model="base")
    with connected(api, "anna-key") as anna:
        models = anna.models.list().data

    assert (raised.value.code, raised.value.type) == ("invalid_api_key", "invalid_request_error")
    assert models


def test_too_many_requests_are_a_rate_limit_error(
    start_api: StartApi, parts: Parts, quiet_settings: StorageSettings
) -> None:
    own_redis = msgspec.structs.replace(quiet_settings, redis_url=parts.start_redis().url)

    with connected(start_api(own_redis, RATE_LIMIT="1/hour")) as client:
        client.models.list()
        with pytest.raises(openai.RateLimitError) as raised:
            client.models.list()

    assert raised.value.code == "rate_limit_exceeded"
    assert int(raised.value.response.headers["Retry-After"]) > 0


def test_models_are_those_that_can_be_asked_for(quiet_client: openai.OpenAI) -> None:
    models = quiet_client.models.list().data
    one = quiet_client.models.retrieve("large-v3")

    assert [model.id for model in models] == [*OPENAI_NAMES, *MODELS]
    assert {model.object for model in models} == {"model"}
    assert (one.id, one.created, one.owned_by) == ("large-v3", 1699228800, "Systran")
    assert models[0].created == next(model.created for model in models if model.id == "base")


def test_errors_have_the_shape_of_the_door_they_come_from(quiet_api: Api) -> None:
    answers: list[httpx.Response] = [
        quiet_api.client.post("/v1/audio/transcriptions", json={}),
        quiet_api.client.post("/v1/audio/transcriptions", data={"model": "base"}, files={"other": b""}),
        quiet_api.client.delete("/v1/models"),
        quiet_api.client.get("/v1/nothing"),
    ]
    classic = quiet_api.client.get("/api/v1/nothing")

    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [
        (400, "file_missing"), (400, "file_missing"), (405, "method_not_allowed"), (404, "not_found")
    ]  # fmt: skip
    assert all(answer.json()["error"].keys() == {"message", "type", "param", "code"} for answer in answers)
    assert all(answer.headers["Content-Type"].startswith("application/json") for answer in answers)
    assert classic.headers["Content-Type"] == "application/problem+json"
