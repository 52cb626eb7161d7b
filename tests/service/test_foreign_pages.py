"""Web pages of others: what their visitors' browsers send changes nothing, and a rebound host name shows nothing."""

import httpx
import pytest
from playwright.sync_api import Browser

from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.forms import END, FORM_TYPE, part

NEW = {"source": {"type": "upload", "filename": "a.mp3", "size": 5}}
#: Routes that change something: method and path.
CHANGES = [
    ("POST", "/api/v1/jobs"), ("POST", "/api/v1/jobs/x/start"), ("POST", "/api/v1/jobs/x/cancel"),
    ("DELETE", "/api/v1/jobs/x"), ("PUT", "/api/v1/webhook"), ("DELETE", "/api/v1/webhook"),
    ("POST", "/api/v1/jobs/x/redeliver"), ("POST", "/api/v1/transcribe"), ("POST", "/api/v1/transcribe-async"),
    ("POST", "/v1/audio/transcriptions"), ("POST", "/v1/audio/translations"), ("POST", "/asr"),
    ("POST", "/detect-language"), ("POST", "/api/v1/events/s3"),
]  # fmt: skip


@pytest.fixture(scope="module")
def open_api(start_api: StartApi, quiet_settings: StorageSettings) -> Api:
    """Open to the pages of one origin and served under one name."""
    return start_api(quiet_settings, CORS_ORIGINS="https://friend.example", ALLOWED_HOSTS="Scribe.example, other:8000")


def code_of(answer: httpx.Response) -> tuple[int, str]:
    told = answer.json()
    return answer.status_code, told["error"]["code"] if "error" in told else told["code"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"}, {"Origin": ""},
        {"Origin": "http://127.0.0.1"}, {"Origin": "chrome-extension://abc"}, {"Origin": "file://"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://friend.example.evil.example"},
    ],
)  # fmt: skip
def test_what_a_foreign_page_sends_changes_nothing(open_api: Api, headers: dict[str, str]) -> None:
    before = open_api.client.get("/api/v1/jobs").json()["total"]

    answers = [open_api.client.request(method, path, headers=headers) for method, path in CHANGES]
    text = open_api.client.post("/api/v1/jobs", json=NEW, headers={**headers, "Content-Type": "text/plain"})
    form = part("file", b"sound", "a.mp3") + END
    sent = open_api.client.post(
        "/api/v1/transcribe-async", content=form, headers={**headers, "Content-Type": FORM_TYPE}
    )

    assert {code_of(answer) for answer in (*answers, text, sent)} == {(403, "origin_not_allowed")}
    assert "error" in answers[9].json()
    assert open_api.client.get("/api/v1/jobs").json()["total"] == before


def test_requests_of_programs_own_pages_and_allowed_ones_are_taken(open_api: Api) -> None:
    own = open_api.url
    accepted: list[dict[str, str]] = [
        {},
        {"Origin": own},
        {"Origin": own, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"},
        {"Host": "scribe.example", "Origin": "https://scribe.example"},
        # Behind a proxy that names the API as it knows it.
        {"Host": "127.0.0.1:8000", "Origin": "https://scribe.example"},
        {"Host": "scribe.example:443", "Origin": "https://scribe.example"},
    ]

    answers = [open_api.client.post("/api/v1/jobs", json=NEW, headers=headers) for headers in accepted]

    assert [answer.status_code for answer in answers] == [201] * len(accepted)


def test_a_foreign_page_may_read_nothing_by_cors(open_api: Api) -> None:
    answer = open_api.client.get("/api/v1/jobs", headers={"Origin": "https://evil.example"})

    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/api/v1/webhook", "/api/v1/jobs", "/v1/models", "/docs", "/openapi.json", "/health"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "evil", "[::"]
)
def test_a_rebound_name_shows_nothing(quiet_api: Api, path: str, host: str) -> None:
    answer = quiet_api.client.get(path, headers={"Host": host})

    assert code_of(answer) == (403, "host_not_allowed")
    assert "ALLOWED_HOSTS" in answer.text


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.", "api.localhost", "127.0.0.1", "127.9.8.7:1", "[::1]:8000", "10.0.0.7",
     "[2001:db8::1]", "scribe.example", "SCRIBE.example:9", "other:8000"],
)  # fmt: skip
def test_loopback_names_addresses_and_allowed_names_are_served(open_api: Api, host: str) -> None:
    assert open_api.client.get("/api/v1/jobs", headers={"Host": host}).status_code == 200


def test_the_name_in_the_stores_public_address_is_served(start_api: StartApi, quiet_settings: StorageSettings) -> None:
    api = start_api(quiet_settings, S3_PUBLIC_ENDPOINT_URL="https://box.example:8333")

    assert api.client.get("/api/v1/jobs", headers={"Host": "box.example:8000"}).status_code == 200


def test_with_keys_any_name_is_served_and_foreign_pages_are_still_refused(
    start_api: StartApi, quiet_settings: StorageSettings
) -> None:
    api = start_api(quiet_settings, API_KEYS="anna")
    key = {"X-API-Key": "anna", "Host": "anything.example"}

    served = api.client.get("/api/v1/jobs", headers=key)
    foreign = api.client.post("/api/v1/jobs", json=NEW, headers={**key, "Origin": "https://evil.example"})

    assert served.status_code == 200
    assert code_of(foreign) == (403, "origin_not_allowed")


def test_any_host_and_any_origin_can_be_allowed(start_api: StartApi, quiet_settings: StorageSettings) -> None:
    api = start_api(quiet_settings, ALLOWED_HOSTS="*", CORS_ORIGINS="*")
    headers = {"Host": "anything.example", "Origin": "https://page.example"}

    assert api.client.post("/api/v1/jobs", json=NEW, headers=headers).status_code == 201


def test_a_real_page_of_another_origin_makes_no_job(quiet_api: Api, open_api: Api, browser: Browser) -> None:
    before = quiet_api.client.get("/api/v1/jobs").json()["total"]
    page = browser.new_page()
    # Another port is another origin; `localhost` is another site than an address.
    page.goto(open_api.url.replace("127.0.0.1", "localhost") + "/health/live")
    statuses: list[int] = []
    page.on("response", lambda response: statuses.append(response.status) if quiet_api.url in response.url else None)

    page.evaluate(
        """async ([api, body]) => {
          await fetch(api + "/api/v1/jobs", {method: "POST", mode: "no-cors", body}).catch(() => {});
        }""",
        [quiet_api.url, '{"source": {"type": "upload", "filename": "a", "size": 5}}'],
    )
    page.close()

    assert statuses == [403]
    assert quiet_api.client.get("/api/v1/jobs").json()["total"] == before
