"""How a recording becomes a job: a file or bytes with presigned links, a stream as a form, a URL by the server."""

import os
import threading
import uuid
from pathlib import Path
from typing import Any, BinaryIO

from service.client_errors import RequestRefused, Stopped, UploadFailed, read
from service.client_http import ApiConnection
from service.client_types import Accepted, Job, Option, UploadLinks
from service.client_upload import BytesRecording, FileRecording, OnProgress, Recording, Sending
from service.unfinished import Unfinished
from storage.job import JobStatus

#: A path, the URL of a recording, its bytes, or a stream of unknown length.
Source = str | os.PathLike[str] | bytes | BinaryIO

#: How often a start may find that the store lost a part.
_STARTS = 3
#: The store puts the parts of a large upload together, or takes the last of a stream, while the answer is waited for.
_ANSWER_SECONDS = 300


class Submission:
    """One recording with its options."""

    def __init__(
        self,
        api: ApiConnection,
        unfinished: Unfinished,
        *,
        parallel: int,
        filename: str | None,
        on_upload: OnProgress | None,
        stop: threading.Event,
        options: dict[str, Option],
    ) -> None:
        self._api = api
        self._unfinished = unfinished
        self._parallel = parallel
        self._filename = filename
        self._on_upload = on_upload
        self._stop = stop
        self._options = options

    def submit(self, source: Source, join: bool) -> Job:
        """The started job. See Client.submit."""
        if isinstance(source, bytes):
            recording = BytesRecording(source)
            return self._upload(self._create(recording, "recording"), recording)
        if not isinstance(source, str | os.PathLike):
            return self._send_stream(source, "recording")
        if is_url(source):
            return self._new_job({"type": "url", "url": source})
        path = Path(source)
        if not path.exists() or path.is_file():
            return self._send_file(path, join)
        with path.open("rb") as stream:  # A named pipe: it has no size that could be announced.
            return self._send_stream(stream, shown_name(path))

    def _send_file(self, path: Path, join: bool) -> Job:
        recording = FileRecording(path)
        note = self._unfinished.name(self._api.url, path, self._options)
        job = self._begun(note, join)
        if job is not None and _awaits_upload(job):
            try:
                job = self._upload(job, recording)
            except (UploadFailed, RequestRefused) as error:
                if error.status not in (404, 409):
                    raise
                job = None  # It expired, or was cancelled, just now.
        if job is None:
            job = self._create(recording, shown_name(path))
            self._unfinished.note(note, job.job_id)
            job = self._upload(job, recording)
        if not join:
            self._unfinished.forget(note)
        return job

    def _begun(self, note: str, join: bool) -> Job | None:
        """The job that an earlier call left, if there is something to go on with."""
        job_id = self._unfinished.find(note)
        if job_id is None:
            return None
        try:
            job = read(self._api.call("GET", f"/status/{job_id}", params={"include": ""}), Job)
        except RequestRefused as error:
            if error.code != "job_not_found":
                raise
            return None
        joined = join and job.status not in (JobStatus.FAILED, JobStatus.CANCELLED)
        return job if _awaits_upload(job) or joined else None

    def _create(self, recording: Recording, name: str) -> Job:
        if recording.size == 0:
            raise UploadFailed("audio_unreadable", "the recording is empty (0 bytes)")
        return self._new_job({"type": "upload", "filename": self._filename or name, "size": recording.size})

    def _new_job(self, source: dict[str, Any]) -> Job:
        # With a key of its own the request may be sent again: it makes one job.
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        asked = {"source": source, **self._options}
        return read(self._api.call("POST", "/jobs", json=asked, headers=headers), Job)

    def _upload(self, job: Job, recording: Recording) -> Job:
        """The started job."""

        def links_again() -> UploadLinks:
            return read(self._api.call("GET", f"/jobs/{job.job_id}/upload"), UploadLinks)

        links = job.upload or links_again()
        for starts_left in reversed(range(_STARTS)):
            sending = Sending(
                recording, links_again, parallel=self._parallel, on_progress=self._on_upload, stop=self._stop
            )
            sending.send(links)
            try:
                answer = self._api.call("POST", f"/jobs/{job.job_id}/start", timeout=_ANSWER_SECONDS)
                break
            except RequestRefused as error:
                if error.code != "upload_incomplete" or starts_left == 0:
                    raise
                links = links_again()
        return read(answer, Job)

    def _send_stream(self, stream: BinaryIO, name: str) -> Job:
        """A form of unknown length: what is read goes on to the server at once."""
        file = (self._filename or name, _Counted(stream, self._on_upload, self._stop), "application/octet-stream")
        answer = self._api.call(
            "POST",
            "/transcribe-async",
            again=False,
            files={"file": file},
            data=as_text(self._options),
            timeout=_ANSWER_SECONDS,
        )
        job_id = read(answer, Accepted).job_id
        return read(self._api.call("GET", f"/status/{job_id}", params={"include": ""}), Job)


class _Counted:
    """A stream that can only be read, so that nobody takes a pipe's size for its length."""

    def __init__(self, stream: BinaryIO, on_progress: OnProgress | None, stop: threading.Event) -> None:
        self._stream = stream
        self._on_progress = on_progress
        self._stop = stop
        self._size = 0

    def read(self, size: int) -> bytes:
        if self._stop.is_set():
            raise Stopped("stopped", "the upload was stopped")
        block = self._stream.read(size)
        self._size += len(block)
        if self._on_progress is not None:
            # How much there will be is known at the end.
            self._on_progress(self._size, 0 if block else self._size)
        return block


def is_url(source: str | os.PathLike[str]) -> bool:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def shown_name(path: Path) -> str:
    """A file's name as text; what is no UTF-8 in it is shown as �."""
    return os.fsencode(path.name).decode("utf-8", "replace")


def as_text(options: dict[str, Option]) -> dict[str, str]:
    """As forms and queries spell them."""
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in options.items()}


def _awaits_upload(job: Job) -> bool:
    return job.status is JobStatus.AWAITING_UPLOAD
