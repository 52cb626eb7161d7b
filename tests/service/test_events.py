"""Live events through a real server: complete and in order for whoever comes, whenever, and however often it drops."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from storage.keys import result_key
from storage.object_store import ObjectStore
from tests.conftest import Sample
from tests.recordings import joined, samples_of, wav
from tests.service.apis import Api

FINAL = ("completed", "failed", "cancelled")


@contextmanager
def listening(api: Api, job_id: str, last_event_id: str = "") -> Iterator[Iterator[ServerSentEvent]]:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    # A client of its own: it is closed with a connection in the middle of an answer.
    with (
        httpx.Client(base_url=api.url, timeout=60) as client,
        connect_sse(client, "GET", f"/api/v1/jobs/{job_id}/events", headers=headers) as source,
    ):
        assert source.response.status_code == 200, source.response.read()
        yield source.iter_sse()


def heard(api: Api, job_id: str, last_event_id: str = "") -> list[ServerSentEvent]:
    """Everything up to the end of the stream."""
    with listening(api, job_id, last_event_id) as events:
        return list(events)


def heard_in_pieces(api: Api, job_id: str, each: int) -> list[ServerSentEvent]:
    """The same by a client whose connection breaks after every few events."""
    found: list[ServerSentEvent] = []
    while not found or found[-1].event not in FINAL:
        with listening(api, job_id, found[-1].id if found else "") as events:
            for _ in range(each):
                found.append(next(events))
                if found[-1].event in FINAL:
                    break
    return found


def segments(events: Sequence[ServerSentEvent]) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in events if event.event == "segment"]


def others(events: Sequence[ServerSentEvent]) -> list[tuple[str, str]]:
    """What happened beside the text."""
    return [(event.id.partition("/")[0], event.event) for event in events if event.event != "segment"]


def submit(api: Api, recording: bytes, **fields: str) -> str:
    answer = api.client.post("/api/v1/transcribe-async", files={"file": recording}, data=fields)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


def transcript(api: Api, job_id: str) -> dict[str, Any]:
    stored = ObjectStore(api.settings).get(result_key(job_id, "json"))
    return dict(msgspec.json.decode(stored))


@pytest.fixture(scope="session")
def talk(speech: dict[str, list[Sample]]) -> bytes:
    """Of several chunks."""
    return wav(joined(speech["en"], seconds=150, gap_seconds=4.0))


@pytest.fixture(scope="session")
def call(speech: dict[str, list[Sample]]) -> bytes:
    """Of two channels, in turns, and several chunks each."""
    said = joined(speech["en"], seconds=150, gap_seconds=4.0)
    turns = (np.arange(len(said)) // (20 * 16_000)) % 2
    return wav(np.stack([np.where(turns == channel, said, np.float32(0)) for channel in (0, 1)]))


def test_who_comes_late_is_told_the_whole_story(api: Api, speech: dict[str, list[Sample]]) -> None:
    job_id = submit(api, speech["en"][0].path.read_bytes())
    live = heard(api, job_id)

    late = heard(api, job_id)

    assert segments(live) == segments(late) == transcript(api, job_id)["segments"]
    assert others(live) == others(late)
    assert [event for _, event in others(late)][:2] == ["status", "status"]
    assert [event.event for event in late].count("completed") == 1
    job = json.loads(late[-1].data)
    assert (late[-1].event, job["status"], job["progress"]) == ("completed", "completed", 100)
    assert set(job["files"]) == {"json", "srt", "vtt", "txt", "tsv"}
    assert "result" not in job


@pytest.mark.parametrize("channels", ["mixed", "separate"])
def test_every_segment_comes_once_and_in_order_wherever_the_connection_breaks(
    channels: str, api: Api, talk: bytes, call: bytes
) -> None:
    job_id = submit(api, talk if channels == "mixed" else call, channels=channels)

    broken = heard_in_pieces(api, job_id, each=2)
    whole = heard(api, job_id)

    wanted = transcript(api, job_id)["segments"]
    assert len(wanted) > 10
    assert segments(broken) == segments(whole) == wanted
    assert others(broken) == others(whole)
    for cut in [*broken[:-1], *whole[:-1]]:
        rest = heard(api, job_id, cut.id)
        assert segments(rest) == wanted[int(cut.id.partition("/")[2]) :]
        assert rest[-1].event == "completed"
