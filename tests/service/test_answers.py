"""What every answer carries: the request's id, and headers that tell browsers and caches what they may do."""

import http.client
import re
import socket
import string
from urllib.parse import quote_from_bytes

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser

from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi
from tests.service.forms import END, FORM_TYPE, connection, part

#: Of each kind: pages, documents, files, JSON, problems of both shapes, and what no route answers.
PATHS = [
    "/", "/docs", "/redoc", "/openapi.json", "/static/docs.js", "/health", "/health/live", "/api/v1/jobs",
    "/api/v1/languages", "/api/v1/status/nobody", "/v1/models", "/v1/models/none", "/nothing", "/static/nothing",
    "/v1/nothing", "/api/v1/transcribe",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_an_id_of_its_own_and_security_headers(quiet_api: Api, path: str) -> None:
    answers = [quiet_api.client.get(path) for _ in range(2)]

    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", request_id) for request_id in ids)
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert len(answer.headers.get_list("content-security-policy")) == 1
        assert answer.headers.get("cache-control") == (None if path == "/static/docs.js" else "no-store")


def test_a_sane_id_of_the_client_is_kept_and_stands_in_the_log(quiet_api: Api) -> None:
    answer = quiet_api.client.post(
        "/api/v1/jobs",
        json={"source": {"type": "upload", "filename": "a", "size": 5}},
        headers={"X-Request-Id": "my-id:4/2"},
    )

    assert answer.headers["x-request-id"] == "my-id:4/2"
    line = next(line for line in quiet_api.log().splitlines() if answer.json()["job_id"] in line)
    assert "request_id=my-id:4/2" in line


@pytest.mark.parametrize("given_id", ["", "a b", "x" * 129, "é", "a\x0bb"])
def test_another_id_is_replaced(quiet_api: Api, given_id: str) -> None:
    with connection(quiet_api.url) as opened:
        lines = [
            "GET /health/live HTTP/1.1",
            "Host: localhost",
            "Connection: close",
            f"X-Request-Id: {given_id}",
            "",
            "",
        ]
        opened.sendall("\r\n".join(lines).encode())
        told = b"".join(iter(lambda: opened.recv(65536), b"")).decode("latin-1")

    assert re.search(r"(?m)^x-request-id: [0-9a-f]{16}\r?$", told)


def test_streams_and_transcripts_are_kept_by_no_cache(quiet_api: Api) -> None:
    source = {"type": "upload", "filename": "a", "size": 5}
    job = quiet_api.client.post("/api/v1/jobs", json={"source": source})

    with quiet_api.client.stream("GET", f"/api/v1/jobs/{job.json()['job_id']}/events") as stream:
        headers = stream.headers

    assert job.headers["cache-control"] == "no-store"
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["x-request-id"]


def test_pages_may_run_scripts_of_this_server_only(quiet_api: Api) -> None:
    policy = quiet_api.client.get("/docs").headers["content-security-policy"]

    assert "script-src 'self';" in policy
    assert "<script>" not in quiet_api.client.get("/docs").text + quiet_api.client.get("/redoc").text


def test_the_docs_page_forgets_a_key_when_it_is_left(
    start_api: StartApi, quiet_settings: StorageSettings, browser: Browser
) -> None:
    api = start_api(quiet_settings, API_KEYS="secret-key")
    page = browser.new_page()
    page.goto(f"{api.url}/docs")
    page.locator("button.authorize").first.click()
    page.locator("input#api_key_value, input[aria-label='auth-bearer-value']").first.fill("secret-key")
    page.locator("button[aria-label='Apply credentials']").first.click()

    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")

    assert "secret-key" not in stored
    page.close()


ODD = st.binary(max_size=60).map(quote_from_bytes) | st.sampled_from(
    [
        "%00",
        "%ED%A0%80",
        "%FF",
        "%C0%AE%C0%AE",
        "..",
        "%2e%2e%2f",
        "%5C",
        "%0d%0a",
        "a" * 5000,
        "%E2%80%AE",
        "+",
        "%",
        "%zz",
    ]
)


@settings(max_examples=150, deadline=None)
@given(odd=ODD, value=st.text(string.printable.strip(), max_size=40) | st.text(max_size=20))
def test_no_odd_byte_in_a_request_is_a_server_error(quiet_api: Api, odd: str, value: str) -> None:
    prefixes = [
        "/static/", "/static/swagger-ui/", "/docs/", "/redoc/", "/", "/v1/models/", "/api/v1/status/", "/api/v1/jobs/",
        "/api/v1/jobs?cursor=", "/api/v1/jobs?status=", "/api/v1/jobs?limit=", "/api/v1/jobs?include=",
        "/openapi.json?", "/api/v1/status/x?include=", "/api/v1/jobs/x/events?",
        "/api/v1/jobs/x/transcript.json?max_line_width=",
    ]  # fmt: skip
    headers = [
        "Last-Event-ID", "Idempotency-Key", "X-API-Key", "Authorization", "Cookie", "Accept", "Content-Type", "Prefer",
        "Range", "If-None-Match", "Origin", "X-Request-Id", "Host", "Accept-Language",
    ]  # fmt: skip
    line = value.encode("utf-8", "replace").translate(None, b"\r\n\0")
    with connection(quiet_api.url) as opened:
        told = []
        for path in prefixes:
            opened.sendall(f"GET {path}{odd} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            told.append(_status(opened))
            if told[-1] == 400:
                break  # The connection is closed.
    for name in headers:
        with connection(quiet_api.url) as opened:
            others = b"" if name == "Host" else b"Host: localhost\r\n"
            given_header = name.encode() + b": " + line + b"\r\n"
            opened.sendall(b"POST /api/v1/jobs HTTP/1.1\r\nContent-Length: 2\r\n" + others + given_header + b"\r\n{}")
            told.append(_status(opened))

    assert max(told) < 500, told


def _status(opened: socket.socket) -> int:
    """Of one answer, which is read to its end."""
    response = http.client.HTTPResponse(opened)
    response.begin()
    response.read()
    return response.status


@pytest.mark.parametrize("text", ["%00", "\0", "\x1b[31m", "\udcff", "\u202e", "a" * 300])
@pytest.mark.parametrize("field", ["language", "model", "prompt", "file", "filename"])
def test_odd_text_in_a_form_is_answered_and_logged_harmlessly(quiet_api: Api, field: str, text: str) -> None:
    content = text.encode("utf-8", "surrogatepass")
    filename = content.replace(b"\0", b"%00") if field == "filename" else b"a.mp3"
    file = part("file", b"sound", "NAME").replace(b"NAME", filename)
    form = (b"" if field in ("file", "filename") else part(field, content)) + file + END

    answer = httpx.post(
        f"{quiet_api.url}/api/v1/transcribe-async", content=form, headers={"Content-Type": FORM_TYPE}, timeout=30
    )

    assert answer.status_code in (202, 400, 422), answer.text
    assert all(line.isprintable() for line in quiet_api.log().splitlines())
