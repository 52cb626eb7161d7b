"""The Python client of a Bucketscribe server: `pip install '.[client]'`, without the server's libraries being loaded.

    from service.client import Client

    with Client("http://localhost:8000") as client:
        job = client.transcribe("talk.mp4", model="base")
        print(job.result.text)
        client.download(job.job_id, "talk.srt")

A recording goes straight into the object store, in parts; an upload that broke off goes on with the next call.
"""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from service.client_errors import (
    ClientError,
    JobCancelled,
    JobFailed,
    RequestRefused,
    Stopped,
    Unreachable,
    UploadFailed,
    WaitTimedOut,
    raise_unless_completed,
    read,
)
from service.client_events import Story
from service.client_http import ApiConnection
from service.client_submit import Source, Submission, as_text, is_url
from service.client_types import EXTENSIONS, Event, Format, Job, JobPage, Option
from service.client_upload import OnProgress
from service.unfinished import Unfinished

__all__ = [
    "Client",
    "ClientError",
    "Event",
    "Job",
    "JobCancelled",
    "JobFailed",
    "RequestRefused",
    "Stopped",
    "Unreachable",
    "UploadFailed",
    "WaitTimedOut",
]

#: Jobs.
_PAGE = 200


class Client:
    """One server. Any method may be called from several threads.

    Args:
        url: The server's address; default: BUCKETSCRIBE_URL, else http://localhost:8000.
        api_key: Default: BUCKETSCRIBE_API_KEY, else none.
        parallel: Parts of an upload on their way at once.
        patience_seconds: How long a server that answered before and does not now is asked again.
        state_folder: Where it is noted which uploads are unfinished; default: the user's state folder.

    Raises:
        ValueError: the address does not begin with http:// or https://.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        parallel: int = 4,
        patience_seconds: float = 60,
        state_folder: Path | None = None,
    ) -> None:
        url = url or os.environ.get("BUCKETSCRIBE_URL") or "http://localhost:8000"
        self._api = ApiConnection(url, api_key or os.environ.get("BUCKETSCRIBE_API_KEY"), patience_seconds)
        self._parallel = parallel
        self._unfinished = Unfinished(state_folder or _state_folder())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._api.close()

    def transcribe(
        self,
        source: Source,
        *,
        filename: str | None = None,
        on_upload: OnProgress | None = None,
        on_event: Callable[[Event], None] | None = None,
        timeout_seconds: float | None = None,
        **options: Option,
    ) -> Job:
        """The completed job, with `result`. Its recording and results stay on the server until `delete`.

        A call that was killed, or whose waiting timed out, is gone on with by the same call again.

        Args:
            options: As in the API: model, language, task, timestamp_granularity, prompt, …

        Raises:
            JobFailed, JobCancelled, WaitTimedOut, UploadFailed, RequestRefused, Unreachable.
            OSError: the file cannot be read.
        """
        job = self._submission(filename, on_upload, threading.Event(), options).submit(source, join=True)
        try:
            job = self.wait(job.job_id, on_event=on_event, timeout_seconds=timeout_seconds)
        except JobFailed:
            self.forget(source, **options)
            raise
        self.forget(source, **options)
        return job

    def submit(
        self,
        source: Source,
        *,
        filename: str | None = None,
        on_upload: OnProgress | None = None,
        join: bool = False,
        stop: threading.Event | None = None,
        **options: Option,
    ) -> Job:
        """A job that is on its way. An upload that broke off earlier is gone on with: only what is missing is sent.

        Args:
            filename: For people; default: the file's own, or `recording`.
            join: Take a job that was made of this file with these options and whose end nobody has seen yet, in
                place of another one; it is one until `forget`.
            stop: Ends the upload soon after it is set.

        Raises:
            UploadFailed, RequestRefused, Unreachable, Stopped.
            OSError: the file cannot be read.
        """
        submission = self._submission(filename, on_upload, stop or threading.Event(), options)
        return submission.submit(source, join)

    def forget(self, source: Source, **options: Option) -> None:
        """The job that `join` would take is seen to its end."""
        if isinstance(source, str | os.PathLike) and not is_url(source) and Path(source).is_file():
            self._unfinished.forget(self._unfinished.name(self._api.url, Path(source), options))

    def wait(
        self,
        job_id: str,
        *,
        on_event: Callable[[Event], None] | None = None,
        timeout_seconds: float | None = None,
    ) -> Job:
        """The completed job, with `result`.

        Raises:
            JobFailed, JobCancelled, WaitTimedOut, RequestRefused, Unreachable.
        """
        for event in self.events(job_id, timeout_seconds=timeout_seconds):
            if on_event is not None:
                on_event(event)
        job = self.job(job_id)
        raise_unless_completed(job)
        return job

    def events(self, job_id: str, *, timeout_seconds: float | None = None) -> Iterator[Event]:
        """The job's whole story so far and as it goes on: each event once; ends after the final one.

        Raises:
            WaitTimedOut, RequestRefused, Unreachable.
        """
        return Story(self._api, job_id, timeout_seconds).events()

    def job(self, job_id: str, *, include: str = "result,files") -> Job:
        """
        Args:
            include: Of `result`, `files` and `partial` (the text so far), what is to come with it.

        Raises:
            RequestRefused, Unreachable.
        """
        return read(self._api.call("GET", f"/status/{_part_of_path(job_id)}", params={"include": include}), Job)

    def jobs(self, status: str | None = None, *, limit: int | None = None) -> Iterator[Job]:
        """Newest first, a page at a time, without transcripts.

        Raises:
            RequestRefused, Unreachable.
        """
        cursor, left = "", limit
        while left is None or left > 0:
            asked = {"limit": min(_PAGE, left or _PAGE), "cursor": cursor, **({"status": status} if status else {})}
            page = read(self._api.call("GET", "/jobs", params=asked), JobPage)
            yield from page.jobs
            left = None if left is None else left - len(page.jobs)
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    def cancel(self, job_id: str) -> Job:
        """
        Raises:
            RequestRefused: `job_conflict`, it is final already.
            Unreachable.
        """
        # Asked again after a lost answer it would be told that the job is cancelled already.
        return read(self._api.call("POST", f"/jobs/{_part_of_path(job_id)}/cancel", again=False), Job)

    def delete(self, job_id: str) -> None:
        """The recording, the results and the record are gone; a running job is cancelled first.

        Raises:
            RequestRefused, Unreachable.
        """
        self._api.call("DELETE", f"/jobs/{_part_of_path(job_id)}", again=False)

    def transcript(self, job_id: str, format: Format = "json", **layout: Option) -> bytes:
        """A completed job's transcript as a file.

        Args:
            layout: How subtitles are laid out, where it is to be another way than the job was asked for.

        Raises:
            RequestRefused: `job_conflict`, the job is not completed.
            Unreachable.
        """
        path = f"/jobs/{_part_of_path(job_id)}/transcript.{EXTENSIONS[format]}"
        return self._api.call("GET", path, params=as_text(layout)).content

    def download(
        self, job_id: str, path: str | os.PathLike[str], format: Format | None = None, **layout: Option
    ) -> Path:
        """Write the transcript to a file, whole or not at all.

        Args:
            format: Default: what the file's name ends with, text where it has no ending.
            layout: As in `transcript`.

        Raises:
            RequestRefused, Unreachable.
            ValueError: no format is given, and the file's name ends like none.
            OSError: the file cannot be written.
        """
        target = Path(path)
        write_whole(target, self.transcript(job_id, format or format_of(target), **layout))
        return target

    def _submission(
        self, filename: str | None, on_upload: OnProgress | None, stop: threading.Event, options: dict[str, Option]
    ) -> Submission:
        return Submission(
            self._api,
            self._unfinished,
            parallel=self._parallel,
            filename=filename,
            on_upload=on_upload,
            stop=stop,
            options=options,
        )


def format_of(path: Path) -> Format:
    """What a file's name ends with; text where it has no ending.

    Raises:
        ValueError: an ending that is no format's. Plain text under a name like talk.docx would help nobody.
    """
    if not path.suffix:
        return "text"
    for format, extension in EXTENSIONS.items():
        if path.suffix.lower() == f".{extension}":
            return format
    endings = ", ".join(f".{extension}" for extension in EXTENSIONS.values())
    raise ValueError(f"no format ends with {path.suffix!r}, only {endings}; say which it is to be")


def write_whole(path: Path, content: bytes) -> None:
    """Beside it first: whoever finds the file finds all of it."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)  # /dev/stdout, a named pipe.
        return
    written = path.with_name(f".{path.name}.part")
    try:
        written.write_bytes(content)
        written.replace(path)
    except OSError:
        written.unlink(missing_ok=True)
        raise


def _state_folder() -> Path:
    given = os.environ.get("XDG_STATE_HOME", "")
    return (Path(given) if given else Path.home() / ".local" / "state") / "bucketscribe"


def _part_of_path(job_id: str) -> str:
    """An id is letters and digits; whatever else a caller gives must not lead to another address."""
    if not (job_id.isascii() and job_id.isalnum()):
        raise RequestRefused("job_not_found", f"{job_id[:64]!r} is not a job's id", 404, {})
    return job_id
