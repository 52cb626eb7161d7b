"""A client that costs next to nothing, so that the service is what is measured: blocks of bytes over a socket."""

import http.client
import json
import select
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from scripts.benchmarks.benchmark import BenchmarkFailed

_BLOCK = 2**20
_BOUNDARY = "bucketscribe-benchmark-7d1f"
_POLL_SECONDS = 0.1
_FINAL = ("completed", "failed", "cancelled")


class Answer(msgspec.Struct, frozen=True):
    status: int
    #: Names in lower case.
    headers: dict[str, str]
    body: bytes
    #: From before the connection to the last byte received.
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)

    def expect(self, status: int) -> "Answer":
        """
        Raises:
            BenchmarkFailed: it is another.
        """
        if self.status != status:
            raise BenchmarkFailed(f"expected {status}, got {self.status}: {self.body[:500].decode(errors='replace')}")
        return self


class Client:
    """A connection a request: one that waits while the other side is measured would be closed by the server."""

    def __init__(self, url: str, timeout_seconds: float = 600) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port
        self._timeout_seconds = timeout_seconds

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def send(
        self, method: str, path: str, body: Iterable[bytes] = (), headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A body needs a Content-Length among the headers. An answer that comes early ends the sending."""
        began = time.perf_counter()
        with closing(http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_seconds)) as connection:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.endheaders()
            for block in body:
                if select.select([connection.sock], [], [], 0)[0]:
                    break
                connection.send(block)
            response = connection.getresponse()
            content = response.read()
        named = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, named, content, time.perf_counter() - began)


def post_form(client: Client, path: str, content: "Content", **fields: str) -> Answer:
    """A form as curl sends it, its file last."""
    head = "".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    head += (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{content.filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    tail = f"\r\n--{_BOUNDARY}--\r\n"
    headers = {
        "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
        "Content-Length": str(len(head) + content.size + len(tail)),
    }
    return client.send("POST", path, _chained(head.encode(), content, tail.encode()), headers)


def submit(client: Client, content: "Content", **fields: str) -> str:
    """The id of a job that was accepted."""
    return str(post_form(client, "/api/v1/transcribe-async", content, **fields).expect(202).json()["job_id"])


def timed(client: Client, content: "Content", **fields: str) -> tuple[float, dict[str, Any]]:
    """Seconds from the request to the completed job, and the job."""
    began = time.perf_counter()
    job = wait_final(client, submit(client, content, **fields))
    return time.perf_counter() - began, job


def upload(client: Client, content: "Content", **options: str) -> str:
    """The id of a job that is put into the store with a presigned link and not started yet."""
    source = {"type": "upload", "filename": content.filename, "size": content.size}
    asked = json.dumps({"source": source, **options}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(asked))}
    job = client.send("POST", "/api/v1/jobs", [asked], headers).expect(201).json()
    links = [job["upload"]] if "url" in job["upload"] else job["upload"]["parts"]
    blocks = content.block[: content.size]
    at = 0
    for link in links:
        part = Content(link.get("size", content.size), blocks[at:])
        at += part.size
        address = urlsplit(link["url"])
        told = {"Content-Length": str(part.size), **link.get("headers", {})}
        Client(link["url"]).send("PUT", f"{address.path}?{address.query}", part.blocks(), told).expect(200)
    return str(job["job_id"])


class Content(msgspec.Struct, frozen=True):
    """A file to send: so many bytes out of a block that is repeated, or all of a short one."""

    size: int
    block: bytes
    filename: str = "recording.wav"

    @classmethod
    def of(cls, path: Path) -> "Content":
        data = path.read_bytes()
        return cls(len(data), data, path.name)

    def blocks(self) -> Iterator[bytes]:
        left = self.size
        view = memoryview(self.block)
        while left:
            for start in range(0, min(left, len(view)), _BLOCK):
                piece = view[start : min(start + _BLOCK, left + start, len(view))]
                left -= len(piece)
                yield piece  # type: ignore[misc]  # a socket sends a memoryview as it does bytes


def wait_final(client: Client, job_id: str, timeout_seconds: float = 3600) -> dict[str, Any]:
    """The job, once completed.

    Raises:
        BenchmarkFailed: it failed, was cancelled, or took too long.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        job: dict[str, Any] = client.get(f"/api/v1/status/{job_id}").expect(200).json()
        if job["status"] == "completed":
            return job
        if job["status"] in _FINAL:
            raise BenchmarkFailed(f"a job is {job['status']}: {job.get('error')}")
        time.sleep(_POLL_SECONDS)
    raise BenchmarkFailed(f"a job was not finished in {timeout_seconds:.0f} s")


def _chained(head: bytes, content: Content, tail: bytes) -> Iterator[bytes]:
    yield head
    yield from content.blocks()
    yield tail
