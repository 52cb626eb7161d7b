"""API keys: who may call, and whose a job is."""

import base64

import pytest
import requests

from deploy.embedded.running import PartFailed
from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.forms import connection, first_line, head

ANNA, BERT = {"Authorization": "Bearer anna-key"}, {"X-API-Key": "bert-key"}


@pytest.fixture(scope="module")
def keyed_api(start_api: StartApi, quiet_settings: StorageSettings) -> Api:
    return start_api(quiet_settings, API_KEYS="anna-key, bert-key")


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YW5uYS1rZXk="}, {"X-API-Key": ""},
     {"X-API-Key": "anna-key,bert-key"}, {"X-API-Key": "anna-ke"}, {"Authorization": "Bearer"}],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/models", "/api/v1/status/0000000000000000000000"])
def test_without_a_valid_key_there_is_no_answer(keyed_api: Api, path: str, headers: dict[str, str]) -> None:
    answer = keyed_api.client.get(path, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_keys_that_hold_no_key_open_no_door(start_api: StartApi, quiet_settings: StorageSettings) -> None:
    with pytest.raises(PartFailed, match="API_KEYS: it is set and holds no key"):
        start_api(quiet_settings, API_KEYS=" , ")


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


CARRIERS = {
    "bearer": ANNA,
    "bearer in other letters": {"Authorization": "bearer anna-key"},
    "our header": {"X-API-Key": "anna-key"},
    "azure's header": {"api-key": "anna-key"},
    "basic": basic("anyone", "anna-key"),
    "basic without a user": basic("", "anna-key"),
    "basic without a password": basic("anna-key", ""),
    "basic of a proxy beside our header": {**basic("proxy", "its-password"), "X-API-Key": "anna-key"},
}


@pytest.mark.parametrize("headers", CARRIERS.values(), ids=CARRIERS)
@pytest.mark.parametrize("path", ["/api/v1/jobs", "/v1/models"])
def test_a_key_comes_in_many_ways(keyed_api: Api, path: str, headers: dict[str, str]) -> None:
    assert keyed_api.client.get(path, headers=headers).status_code == 200


def test_a_key_may_stand_in_an_address(keyed_api: Api) -> None:
    address = keyed_api.url.replace("http://", "http://bazarr:anna-key@")

    assert requests.get(f"{address}/api/v1/jobs", timeout=30).status_code == 200
    assert requests.get(f"{address}/status", timeout=30).json()["version"]


@pytest.mark.parametrize(
    "headers",
    [basic("anna-key", "wrong"), basic("", ""), basic("anyone", "anna-key "), basic("anyone", "anna-key,bert-key"),
     {"Authorization": "Basic anna-key"}, {"Authorization": "Basic"}, {"Authorization": "Basic Zm/="},
     {"Authorization": "Digest anna-key"}, {"api-key": "wrong"}, {"api-key": ""}],
)  # fmt: skip
def test_a_wrong_key_is_none_in_whichever_way_it_comes(keyed_api: Api, headers: dict[str, str]) -> None:
    answer = keyed_api.client.get("/api/v1/jobs", headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert "Basic realm=" in answer.headers["WWW-Authenticate"]


def test_a_browser_is_not_offered_to_keep_a_password(keyed_api: Api) -> None:
    answer = keyed_api.client.get("/api/v1/jobs", headers={"Sec-Fetch-Mode": "cors"})

    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="bucketscribe"'


def test_the_document_names_every_way(quiet_api: Api) -> None:
    document = quiet_api.client.get("/openapi.json").json()

    schemes = document["components"]["securitySchemes"]
    assert {"bearer", "basic"} == {one["scheme"] for one in schemes.values() if one["type"] == "http"}
    assert {"X-API-Key", "api-key"} == {one["name"] for one in schemes.values() if one["type"] == "apiKey"}
    assert {name for way in document["paths"]["/asr"]["post"]["security"] for name in way} == set(schemes)


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/docs", "/redoc", "/openapi.json"])
def test_health_and_documents_are_open(keyed_api: Api, path: str) -> None:
    assert keyed_api.client.get(path).status_code == 200


def test_a_body_is_not_read_without_a_key(keyed_api: Api) -> None:
    with connection(keyed_api.url) as opened:
        opened.sendall(head("/api/v1/transcribe", Content_Length="100000000", Expect="100-continue"))

        assert first_line(opened) == "HTTP/1.1 401 Unauthorized"


def test_another_keys_job_does_not_exist(keyed_api: Api) -> None:
    files = {"file": ("a.mp3", b"sound")}
    accepted = requests.post(f"{keyed_api.url}/api/v1/transcribe-async", files=files, headers=ANNA, timeout=120).json()
    job_id = accepted["job_id"]

    berts = [
        keyed_api.client.get(f"/api/v1/status/{job_id}", headers=BERT),
        keyed_api.client.post(f"/api/v1/jobs/{job_id}/cancel", headers=BERT),
        keyed_api.client.post(f"/api/v1/jobs/{job_id}/start", headers=BERT),
        keyed_api.client.get(f"/api/v1/jobs/{job_id}/upload", headers=BERT),
        keyed_api.client.delete(f"/api/v1/jobs/{job_id}", headers=BERT),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in berts] == [(404, "job_not_found")] * 5
    assert keyed_api.client.get("/api/v1/jobs", headers=BERT).json()["total"] == 0
    assert keyed_api.client.get(f"/api/v1/status/{job_id}", headers=ANNA).json()["status"] == "pending"


def test_no_key_is_in_the_log(keyed_api: Api) -> None:
    keyed_api.client.get("/api/v1/jobs", headers=ANNA)
    keyed_api.client.get("/api/v1/jobs", headers={"X-API-Key": "a-wrong-key"})

    assert "-key" not in keyed_api.log()
