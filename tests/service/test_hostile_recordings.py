"""Recordings made to hurt their decoder, through the door that waits: each is refused, and nobody else notices."""

import pytest
import requests

from tests.conftest import Sample
from tests.hostile import flac_of_long_frames, mp4_of_many_tracks, wav_header
from tests.service.apis import Api

HOSTILE = {
    "frames of hours": (flac_of_long_frames(), "4 samples a second, the limits are 1000 and 768000"),
    "250 MHz": (wav_header(250_000_000), "250000000 samples a second, the limits are 1000 and 768000"),
    "900 tracks": (mp4_of_many_tracks(), "more memory than the limit of 512 MiB"),
}


def post(api: Api, content: bytes) -> requests.Response:
    return requests.post(f"{api.url}/api/v1/transcribe", files={"file": ("talk.wav", content)}, timeout=120)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_recording_that_claims_too_much_is_refused_with_the_limit(api: Api, name: str) -> None:
    recording, limit = HOSTILE[name]

    refused = post(api, recording)

    assert (refused.status_code, refused.json()["code"]) == (422, "audio_unreadable")
    assert limit in refused.json()["detail"]


def test_a_sound_recording_beside_hostile_ones_is_transcribed(api: Api, speech: dict[str, list[Sample]]) -> None:
    sound = next(sample for sample in speech["en"] if "fox" in sample.text)
    accepted = [
        requests.post(f"{api.url}/api/v1/transcribe-async", files={"file": ("talk.wav", recording)}, timeout=60).json()
        for recording, _ in HOSTILE.values()
    ]

    answer = post(api, sound.path.read_bytes())

    assert len(accepted) == len(HOSTILE)
    assert answer.status_code == 200
    assert answer.json()["text"]
