"""A client that says how long it waits is answered before it gives up."""

import openai
import pytest

from service.openai import patience_seconds
from tests.service.apis import Api
from tests.service.openai_client import connected


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 600),
        ({"x-stainless-read-timeout": "5"}, 4.5),
        ({"x-stainless-read-timeout": "0.5"}, 0.45),
        ({"x-stainless-read-timeout": "20.0"}, 18),
        ({"x-stainless-read-timeout": "50"}, 45),
        ({"x-stainless-read-timeout": "100"}, 95),
        ({"x-stainless-read-timeout": "600"}, 595),
        ({"x-stainless-read-timeout": "3600"}, 600),
        ({"x-stainless-timeout": "5"}, 4.5),
        ({"x-stainless-timeout": "600"}, 595),
        ({"x-stainless-timeout": "5", "x-stainless-read-timeout": "600"}, 4.5),
        ({"x-stainless-timeout": "600", "x-stainless-read-timeout": "5"}, 4.5),
        ({"x-stainless-timeout": "0"}, 600),
        ({"x-stainless-read-timeout": "-1"}, 600),
        ({"x-stainless-read-timeout": "NaN"}, 600),
        ({"x-stainless-read-timeout": "inf"}, 600),
        ({"x-stainless-read-timeout": "None"}, 600),
        ({"x-stainless-timeout": "5,5"}, 600),
    ],
)
def test_a_tenth_is_left_and_five_seconds_at_most(headers: dict[str, str], seconds: float) -> None:
    assert patience_seconds(headers, 600) == pytest.approx(seconds)


@pytest.mark.parametrize("header", ["X-Stainless-Timeout", "X-Stainless-Read-Timeout"])
def test_node_and_python_are_answered_while_they_wait(quiet_api: Api, header: str) -> None:
    """No worker takes the job, so what is answered is that it goes on."""
    other = ({"X-Stainless-Timeout", "X-Stainless-Read-Timeout"} - {header}).pop()

    with connected(quiet_api, timeout=60) as client, pytest.raises(openai.InternalServerError) as raised:
        client.audio.transcriptions.create(
            file=("talk.wav", b"sound"), model="base", extra_headers={header: "1", other: ""}
        )

    assert (raised.value.status_code, raised.value.code) == (504, "still_running")
    assert "0.9 s" in raised.value.message
