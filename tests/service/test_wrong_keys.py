"""Guessing API keys: wrong ones are counted by address."""

import pytest

from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi

JOBS = "/api/v1/jobs"


def ask(api: Api, key: str, address: str = "203.0.113.1", path: str = JOBS) -> int:
    headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": address}
    return api.client.get(path, headers=headers).status_code


@pytest.fixture
def keyed_api(start_api: StartApi, quiet_settings: StorageSettings) -> Api:
    return start_api(quiet_settings, API_KEYS="anna,bert", RATE_LIMIT="5/hour", TRUSTED_PROXIES="127.0.0.1")


def test_a_guesser_is_stopped_and_no_other_address_with_it(keyed_api: Api) -> None:
    guesses = [ask(keyed_api, f"guess-{number}") for number in range(8)]

    refused = keyed_api.client.get(JOBS, headers={"X-API-Key": "guess", "X-Forwarded-For": "203.0.113.1"})

    assert guesses == [401] * 5 + [429] * 3
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["Retry-After"]) <= 3600
    # The right key is a guess like any other by now; elsewhere it is not.
    assert ask(keyed_api, "anna") == 429
    assert ask(keyed_api, "anna", "203.0.113.2") == 200
    assert ask(keyed_api, "guess", "203.0.113.2") == 401
    openais = keyed_api.client.get("/v1/models", headers={"X-API-Key": "x", "X-Forwarded-For": "203.0.113.1"})
    assert (openais.status_code, openais.json()["error"]["code"]) == (429, "rate_limit_exceeded")


def test_a_client_that_shares_its_address_with_a_guesser_goes_on(keyed_api: Api) -> None:
    assert ask(keyed_api, "anna") == 200
    guesses = [ask(keyed_api, "guess") for _ in range(7)]

    assert guesses == [401] * 5 + [429] * 2
    assert (ask(keyed_api, "anna"), ask(keyed_api, "bert")) == (200, 429)


def test_a_request_without_a_key_is_no_guess(keyed_api: Api) -> None:
    answers = {keyed_api.client.get(JOBS).status_code for _ in range(10)}

    assert answers == {401}
    assert ask(keyed_api, "anna", "127.0.0.1") == 200


def test_addresses_of_one_ipv6_network_count_together(keyed_api: Api) -> None:
    guesses = [ask(keyed_api, "guess", f"2001:db8::{number}") for number in range(7)]

    assert guesses == [401] * 5 + [429] * 2


def test_guesses_of_the_stores_token_count_too(start_api: StartApi, quiet_settings: StorageSettings) -> None:
    api = start_api(quiet_settings, S3_EVENTS_TOKEN="token", RATE_LIMIT="5/hour")

    guesses = [
        api.client.post("/api/v1/events/s3", json={}, headers={"Authorization": f"Bearer {number}"}).status_code
        for number in range(7)
    ]

    assert guesses == [401] * 5 + [429] * 2


def test_guesses_are_counted_without_a_rate_limit(start_api: StartApi, quiet_settings: StorageSettings) -> None:
    api = start_api(quiet_settings, API_KEYS="anna")

    guesses = [ask(api, "guess") for _ in range(102)]

    assert guesses == [401] * 100 + [429] * 2
