"""OpenAI's own client, pointed at our API."""

from typing import Any

import openai
from openai.types.audio import TranscriptionStreamEvent, TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent
from whisper_normalizer.english import EnglishTextNormalizer

from tests.service.apis import Api

words_of = EnglishTextNormalizer()


def connected(api: Api, key: str = "none", **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{api.url}/v1", api_key=key, **{"max_retries": 0, **more})


def says_fox(text: str) -> bool:
    """Most words are there: tiny.en is a small model."""
    return len({"quick", "brown", "fox", "jumps", "lazy", "dog"} & set(words_of(text).split())) >= 4


def newest(api: Api) -> dict[str, Any]:
    job: dict[str, Any] = api.client.get("/api/v1/jobs?limit=1").json()["jobs"][0]
    return job


def told(events: list[TranscriptionStreamEvent]) -> tuple[list[str], str]:
    """What a stream says: bit by bit, and at its end whole."""
    *deltas, done = events
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert all(isinstance(event, TranscriptionTextDeltaEvent) for event in deltas)
    return [event.delta for event in deltas if isinstance(event, TranscriptionTextDeltaEvent)], done.text
