"""A client that knows only the HTTP contract: puts a recording into the bucket, gets a transcript."""

import json
import mimetypes
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_POLL_SECONDS = 0.3
#: Straight to this machine, whatever proxy the environment names.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class DemoFailed(Exception):
    """A step went wrong; the message is the server's."""


def transcribe(api: str, recording: Path, key: str = "", timeout_seconds: float = 300) -> dict[str, Any]:
    """The finished job, with transcript and links, of a recording that goes straight to the object store.

    Raises:
        DemoFailed: a step was refused, the job failed, or it took too long.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    content_type = mimetypes.guess_type(recording.name)[0] or "application/octet-stream"
    source = {
        "type": "upload",
        "filename": recording.name,
        "size": recording.stat().st_size,
        "content_type": content_type,
    }
    job = _call("POST", f"{api}/api/v1/jobs", headers, {"source": source})
    upload = job["upload"]
    _send(urllib.request.Request(upload["url"], recording.read_bytes(), upload["headers"], method=upload["method"]))
    _call("POST", f"{api}/api/v1/jobs/{job['job_id']}/start", headers)
    return _finished(f"{api}/api/v1/status/{job['job_id']}", headers, time.monotonic() + timeout_seconds)


def _finished(status_url: str, headers: dict[str, str], deadline: float) -> dict[str, Any]:
    while time.monotonic() < deadline:
        job = _call("GET", status_url, headers)
        if job["status"] == "completed":
            return job
        if job["status"] in ("failed", "cancelled"):
            raise DemoFailed(f"the job is {job['status']}: {job.get('error')}")
        time.sleep(_POLL_SECONDS)
    raise DemoFailed(f"the job was not finished in time: {job['status']}, {job['progress']} %")


def _call(method: str, url: str, headers: dict[str, str], body: object = None) -> dict[str, Any]:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json", **headers}, method=method)
    answer: dict[str, Any] = json.loads(_send(request))
    return answer


def _send(request: urllib.request.Request) -> bytes:
    try:
        with _opener.open(request, timeout=60) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        reason = error.read(2000).decode(errors="replace")
        raise DemoFailed(
            f"{request.method} {request.host}{request.selector.partition('?')[0]}: {error.code} {reason}"
        ) from error
    except OSError as error:
        raise DemoFailed(f"{request.method} {request.host}: {error}") from error
