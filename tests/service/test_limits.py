"""The rate limit: counted in Redis, so across processes; and whose address counts behind proxies."""

import msgspec
import pytest

from deploy.embedded.running import PartFailed
from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.stack import Parts

JOBS = "/api/v1/jobs"


@pytest.fixture
def own_redis(parts: Parts, quiet_settings: StorageSettings) -> StorageSettings:
    return msgspec.structs.replace(quiet_settings, redis_url=parts.start_redis().url)


def test_two_processes_count_together_and_say_what_is_left(start_api: StartApi, own_redis: StorageSettings) -> None:
    first, second = (start_api(own_redis, RATE_LIMIT="5/hour") for _ in range(2))

    answers = [(first, second)[number % 2].client.get(JOBS) for number in range(7)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 200, 429, 429]
    assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["4", "3", "2", "1", "0", "0", "0"]
    assert {answer.headers["RateLimit-Limit"] for answer in answers} == {"5"}
    refused = answers[-1]
    assert refused.json()["code"] == "rate_limited"
    assert 0 < int(refused.headers["Retry-After"]) <= 3600
    assert refused.headers["RateLimit-Reset"] == refused.headers["Retry-After"]
    # Health and documents are not counted.
    assert first.client.get("/health/live").status_code == 200


def test_each_key_has_its_own_count(start_api: StartApi, own_redis: StorageSettings) -> None:
    api = start_api(own_redis, RATE_LIMIT="2 per hour", API_KEYS="anna,bert")

    annas = [api.client.get(JOBS, headers={"X-API-Key": "anna"}).status_code for _ in range(3)]
    berts = [api.client.get(JOBS, headers={"X-API-Key": "bert"}).status_code for _ in range(2)]

    assert (annas, berts) == ([200, 200, 429], [200, 200])


def from_address(api: Api, address: str) -> int:
    return api.client.get(JOBS, headers={"X-Forwarded-For": address}).status_code


def test_a_forwarded_address_counts_only_from_a_trusted_proxy(start_api: StartApi, own_redis: StorageSettings) -> None:
    trusting = start_api(own_redis, RATE_LIMIT="2/hour", TRUSTED_PROXIES="127.0.0.1")
    wary = start_api(own_redis, RATE_LIMIT="2/hour")

    believed = [from_address(trusting, address) for address in ("203.0.113.1",) * 3 + ("203.0.113.2",)]
    ignored = [from_address(wary, f"203.0.113.{number}") for number in (3, 4, 5)]

    assert believed == [200, 200, 429, 200]
    assert ignored == [200, 200, 429]


def test_without_redis_nobody_is_let_through_uncounted(
    start_api: StartApi, parts: Parts, quiet_settings: StorageSettings
) -> None:
    redis = parts.start_redis()
    api = start_api(msgspec.structs.replace(quiet_settings, redis_url=redis.url), RATE_LIMIT="5/hour")
    redis.running.kill()

    answer = api.client.get("/api/v1/languages")

    assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")


@pytest.mark.parametrize("rate", ["often", "0/minute"])
def test_a_rate_that_makes_no_sense_stops_the_start(start_api: StartApi, own_redis: StorageSettings, rate: str) -> None:
    with pytest.raises(PartFailed, match='API cannot start" reason="RATE_LIMIT: ') as failed:
        start_api(own_redis, RATE_LIMIT=rate)

    assert "Traceback" not in str(failed.value)
