"""The pages of the documents in a real browser: they work, and ask no other host for anything."""

from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser

from service import __version__
from tests.conftest import ROOT
from tests.service.apis import Api


@pytest.mark.parametrize(
    ("path", "shown"), [("/docs", "/api/v1/transcribe-async"), ("/redoc", "Transcribe in the background")]
)
def test_the_documents_show_the_api_without_any_other_host(
    quiet_api: Api, browser: Browser, tmp_path: Path, path: str, shown: str
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    page.set_default_timeout(240_000)
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))

    page.goto(quiet_api.url + path)
    page.locator(f":text('{shown}'):visible").first.wait_for()
    page.wait_for_load_state("networkidle")
    page.screenshot(path=tmp_path / "page.png")

    own = ("data:", "blob:", quiet_api.url)
    assert [url for url in asked if not url.startswith(own)] == []
    assert errors == []
    page.close()


def test_the_front_page_leads_to_the_docs(quiet_api: Api) -> None:
    answer = quiet_api.client.get("/")

    assert (answer.status_code, answer.headers["Location"]) == (302, "/docs")
    assert "/" not in quiet_api.client.get("/openapi.json").json()["paths"]


def test_the_document_is_kept_once_whatever_is_asked_with_it(quiet_api: Api) -> None:
    process = psutil.Process(quiet_api.running.pid)
    quiet_api.client.get("/openapi.json")
    before = process.memory_info().rss

    answers = {quiet_api.client.get("/openapi.json", params={"again": number}).content for number in range(500)}

    assert len(answers) == 1
    # Each is about 50 kB.
    assert process.memory_info().rss - before < 8 * 2**20


def test_the_version_is_the_projects() -> None:
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()
