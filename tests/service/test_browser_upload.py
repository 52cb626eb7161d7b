"""The browser's way: a page of another origin puts a recording straight into the store."""

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, Page

from storage.keys import source_key
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.service.apis import Api
from tests.service.conftest import StartApi

MIB = 2**20

#: Uploads a Blob of pseudo-random bytes as the job says, skipping what is there; `only` stops after so many parts.
UPLOAD = """
async ({api, size, jobId, only}) => {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i++) bytes[i] = (i * 2654435761) >>> 24;
  const blob = new Blob([bytes]);
  const json = async (method, path, body) => {
    const answer = await fetch(api + path, {method, body: body && JSON.stringify(body)});
    return answer.json();
  };
  const put = (link, body) => new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", link.url);
    for (const [name, value] of Object.entries(link.headers || {})) request.setRequestHeader(name, value);
    let progress = 0;
    request.upload.onprogress = event => { progress = event.loaded; };
    request.onload = () => resolve({status: request.status, progress});
    request.onerror = () => reject(new Error("the PUT was refused"));
    request.send(body);
  });
  let upload;
  if (jobId) {
    upload = await json("GET", `/api/v1/jobs/${jobId}/upload`);
  } else {
    const source = {type: "upload", filename: "talk.webm", size, content_type: "audio/webm"};
    const job = await json("POST", "/api/v1/jobs", {source});
    jobId = job.job_id;
    upload = job.upload;
  }
  const sent = [];
  if (upload.url) {
    sent.push(await put(upload, blob));
  } else {
    const missing = upload.parts.filter(part => !part.uploaded).slice(0, only || undefined);
    for (const part of missing) {
      const begin = (part.number - 1) * upload.part_size;
      sent.push({number: part.number, ...await put(part, blob.slice(begin, begin + part.size))});
    }
  }
  return {jobId, sent, started: await json("POST", `/api/v1/jobs/${jobId}/start`)};
}
"""


def content(size: int) -> bytes:
    """The bytes that UPLOAD makes."""
    return bytes(((i * 2654435761) & 0xFFFFFFFF) >> 24 for i in range(size))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web site of its own, with one empty page."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text("<!doctype html><title>A site</title>")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def settings(fresh_bucket: StorageSettings, origin: str) -> StorageSettings:
    """The site's origin may upload, and no other."""
    return msgspec.structs.replace(fresh_bucket, s3_cors_origins=origin)


@pytest.fixture(scope="module")
def open_api(start_api: StartApi, settings: StorageSettings, origin: str) -> Api:
    ObjectStore(settings).prepare()
    return start_api(settings, CORS_ORIGINS=origin, SINGLE_UPLOAD_MAX_BYTES=str(5 * MIB))


@pytest.fixture
def page(browser: Browser, origin: str) -> Iterator[Page]:
    opened = browser.new_page()
    opened.set_default_timeout(240_000)
    opened.goto(origin)
    yield opened
    opened.close()


def test_a_page_puts_a_recording_with_one_link(open_api: Api, settings: StorageSettings, page: Page) -> None:
    done = page.evaluate(UPLOAD, {"api": open_api.url, "size": MIB})

    assert done["sent"] == [{"status": 200, "progress": MIB}]
    assert done["started"]["status"] == "pending"
    assert ObjectStore(settings).get(source_key(done["jobId"])) == content(MIB)


def test_a_page_resumes_an_upload_in_parts(open_api: Api, settings: StorageSettings, page: Page) -> None:
    size = 34 * MIB
    broken = page.evaluate(UPLOAD, {"api": open_api.url, "size": size, "only": 1})
    assert broken["started"]["code"] == "upload_incomplete"
    assert broken["started"]["missing"] == [2, 3]

    resumed = page.evaluate(UPLOAD, {"api": open_api.url, "size": size, "jobId": broken["jobId"]})

    assert [part["number"] for part in resumed["sent"]] == [2, 3]
    assert resumed["started"]["status"] == "pending"
    stored = ObjectStore(settings).get(source_key(broken["jobId"]))
    digest = page.evaluate(
        """async size => {
          const bytes = new Uint8Array(size);
          for (let i = 0; i < size; i++) bytes[i] = (i * 2654435761) >>> 24;
          const digest = new Uint8Array(await (new Response(new Blob([bytes]))).arrayBuffer().then(
            buffer => window.crypto.subtle.digest("SHA-256", buffer)));
          return Array.from(digest, byte => byte.toString(16).padStart(2, "0")).join("");
        }""",
        size,
    )
    assert hashlib.sha256(stored).hexdigest() == digest


def test_a_page_of_a_foreign_origin_uploads_nothing(
    open_api: Api, settings: StorageSettings, browser: Browser, tmp_path: Path
) -> None:
    source = {"type": "upload", "filename": "x", "size": 5, "content_type": "audio/webm"}
    job = open_api.client.post("/api/v1/jobs", json={"source": source}).json()
    foreign = browser.new_page()
    foreign.set_default_timeout(240_000)
    foreign.goto(f"{open_api.url}/redoc")

    status = foreign.evaluate(
        """async link => {
          try { return (await fetch(link.url, {method: "PUT", headers: link.headers, body: "sound"})).status; }
          catch (error) { return "refused"; }
        }""",
        job["upload"],
    )

    foreign.close()
    assert status == "refused"
    assert list(ObjectStore(settings).list(source_key(job["job_id"]))) == []
