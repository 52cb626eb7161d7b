"""A client that knows only the HTTP contract: puts a recording into the bucket, gets a transcript."""

import itertools
import json
import math
import mimetypes
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

#: Pauses between two questions whether the job is finished: a few short ones first, for a short recording.
_PAUSES_SECONDS = (0.3, 0.3, 0.3, 0.3)
_PAUSE_SECONDS = 1.0
#: Straight to this machine, whatever proxy the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class DemoFailed(Exception):
    """A step went wrong; the message is the server's."""


def transcribe(api: str, recording: Path, key: str = "", timeout_seconds: float = 300) -> dict[str, Any]:
    """The finished job, with transcript and links, of a recording that goes straight to the object store.

    Raises:
        DemoFailed: a step was refused, the job failed, or it took too long.
    """
    client = _Client(f"{api}/api/v1", key, time.monotonic() + timeout_seconds)
    content = recording.read_bytes()
    content_type = mimetypes.guess_type(recording.name)[0] or "application/octet-stream"
    source = {"type": "upload", "filename": recording.name, "size": len(content), "content_type": content_type}
    job = client.call("POST", "/jobs", {"source": source, "priority": "high"})
    client.upload(job["upload"], content)
    client.call("POST", f"/jobs/{job['job_id']}/start")
    return client.finished(job["job_id"])


class _Client:
    def __init__(self, api: str, key: str, deadline: float) -> None:
        """`deadline`: on the monotonic clock; nothing is waited for beyond it."""
        self._api = api
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._deadline = deadline

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._api}{path}", content, self._headers, method=method)
        answer: dict[str, Any] = json.loads(self._send(request))
        return answer

    def upload(self, links: dict[str, Any], content: bytes) -> None:
        """One link, or one for each part: the API decides by the size."""
        begin = 0
        for part in links.get("parts", [{**links, "size": len(content)}]):
            end = begin + part["size"]
            headers = links.get("headers", {})
            self._send(urllib.request.Request(part["url"], content[begin:end], headers, method=links["method"]))
            begin = end

    def finished(self, job_id: str) -> dict[str, Any]:
        for pause in itertools.chain(_PAUSES_SECONDS, itertools.repeat(_PAUSE_SECONDS)):
            job = self.call("GET", f"/status/{job_id}")
            if job["status"] == "completed":
                return job
            if job["status"] in ("failed", "cancelled"):
                raise DemoFailed(f"the job is {job['status']}: {job.get('error')}")
            if time.monotonic() > self._deadline:
                break
            time.sleep(pause)
        raise DemoFailed(f"the job was not finished in time: {job['status']}, {job['progress']} %")

    def _send(self, request: urllib.request.Request) -> bytes:
        """The answer's body. One that comes too early for the API's rate limit is sent again when it says so."""
        while True:
            try:
                with _opener.open(request, timeout=60) as answer:
                    content: bytes = answer.read()
                    return content
            except urllib.error.HTTPError as error:
                # The API says it in seconds.
                pause = float(error.headers.get("Retry-After", 1)) if error.code == 429 else math.inf
                if time.monotonic() + pause > self._deadline:
                    raise DemoFailed(_told(request, error)) from error
            except OSError as error:
                raise DemoFailed(f"{request.method} {request.host}: {error}") from error
            time.sleep(pause)


def _told(request: urllib.request.Request, error: urllib.error.HTTPError) -> str:
    # The query of a presigned link is its signature.
    path = request.selector.partition("?")[0]
    return f"{request.method} {request.host}{path}: {error.code} {error.read(2000).decode(errors='replace')}"
