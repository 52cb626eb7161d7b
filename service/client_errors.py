"""What can go wrong for a client.

ClientError               code, detail, status
├── Unreachable           no connection, or it broke off again and again
├── RequestRefused        the server answered with an error: its code, its HTTP status and its facts
├── UploadFailed          the store refuses the bytes, or the recording changed while it was sent
├── Stopped               somebody else asked this upload to end
├── JobFailed             the job ended without a transcript; `job` has the rest
├── JobCancelled          somebody cancelled it
└── WaitTimedOut          it is not final yet; it goes on

Beside these: OSError where a file here cannot be read or written, ValueError where an argument makes no sense.
"""

from typing import Any, TypeVar

import httpx
import msgspec

from service.client_types import Job
from storage.job import JobStatus
from storage.structs import decode

T = TypeVar("T")


class ClientError(Exception):
    """`code` is stable, `detail` a sentence; `status` is the HTTP status, None where there was no such answer."""

    def __init__(self, code: str, detail: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status


class Unreachable(ClientError):
    pass


class RequestRefused(ClientError):
    status: int
    #: What the answer said beside code and detail: `field`, `allowed`, `missing`, `job_id`.
    facts: dict[str, Any]

    def __init__(self, code: str, detail: str, status: int, facts: dict[str, Any]) -> None:
        super().__init__(code, detail, status)
        self.facts = facts


class UploadFailed(ClientError):
    pass


class Stopped(ClientError):
    pass


class JobFailed(ClientError):
    def __init__(self, job: Job) -> None:
        super().__init__(job.error_code or "job_failed", job.error or f"the job is {job.status}")
        self.job = job


class JobCancelled(JobFailed):
    pass


class WaitTimedOut(ClientError, TimeoutError):
    pass


def read(response: httpx.Response, kind: type[T]) -> T:
    """
    Raises:
        RequestRefused: it says something else; it comes from something between, that asks for a login, say.
    """
    try:
        return decode(response.content, kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        fact = f"the server answered {response.status_code} with something that is none of its answers"
        raise RequestRefused("unexpected_answer", fact, response.status_code, {}) from error


def refusal(response: httpx.Response) -> RequestRefused:
    """An answer that is an error. One that is no problem+json comes from something between: a proxy, another server."""
    try:
        problem = decode(response.content, dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = {}
    code = str(problem.pop("code", "unexpected_answer"))
    moved = response.headers.get("location")
    detail = f"the server answered {response.status_code} {response.reason_phrase}"
    detail += f" and points to {moved}" if response.is_redirect and moved else ""
    return RequestRefused(code, str(problem.pop("detail", detail)), response.status_code, problem)


def raise_unless_completed(job: Job) -> None:
    """
    Raises:
        JobFailed, JobCancelled: what became of it.
    """
    if job.status is JobStatus.CANCELLED:
        raise JobCancelled(job)
    if job.status is not JobStatus.COMPLETED:
        raise JobFailed(job)
