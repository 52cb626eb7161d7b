"""A recording's way into the store: parts side by side, each tried again by itself, progress as it goes out.

The store is given the links that the API signed and nothing else: no key of the API ever goes there.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

import httpx

from service.client_errors import ClientError, Stopped, Unreachable, UploadFailed
from service.client_http import WITHOUT_PROXY
from service.client_types import UploadLinks, UploadPart

#: Bytes sent, bytes in all. Called from several threads, one at a time; a part that is sent again takes its bytes back.
OnProgress = Callable[[int, int], None]

_BLOCK_BYTES = 2**20
#: Of a part: half a minute for a store that is started anew, and fresh links once for one that refuses.
_ATTEMPTS, _ATTEMPTS_REFUSED = 8, 2
_LONGEST_PAUSE_SECONDS = 10.0
#: The store may need long to answer the last byte of a large part; sending itself must go on.
_TIMEOUT = httpx.Timeout(60, connect=10, read=300)


class Recording(Protocol):
    """Bytes of which any part can be read, by several threads at once."""

    size: int

    def open(self) -> BinaryIO: ...


class FileRecording:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size

    def open(self) -> BinaryIO:
        return self._path.open("rb")


class BytesRecording:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def open(self) -> BinaryIO:
        return BytesIO(self._content)


class Sending:
    """One upload. `again` gives fresh links: old ones end, and a broken upload may have got further than we know."""

    def __init__(
        self,
        recording: Recording,
        again: Callable[[], UploadLinks],
        *,
        parallel: int,
        on_progress: OnProgress | None,
        stop: threading.Event,
    ) -> None:
        self._recording = recording
        self._again = again
        self._parallel = parallel
        self._on_progress = on_progress
        self._stopped_by_caller = stop
        #: One part failed for good, so the others need not go on.
        self._failed = threading.Event()
        self._counting = threading.Lock()
        self._sent = 0

    def send(self, links: UploadLinks) -> None:
        """All parts that the store does not have yet are there when this returns.

        Raises:
            UploadFailed, Unreachable, Stopped.
        """
        parts = _parts(links, self._recording.size)
        each = parts[0].size
        self._count(sum(part.size for part in parts if part.uploaded))
        waiting: queue.SimpleQueue[UploadPart] = queue.SimpleQueue()
        for part in parts:
            if not part.uploaded:
                waiting.put(part)
        ended: queue.SimpleQueue[ClientError | None] = queue.SimpleQueue()
        limits = httpx.Limits(max_connections=self._parallel)
        with closing(httpx.Client(timeout=_TIMEOUT, limits=limits, mounts=WITHOUT_PROXY)) as store:
            count = min(self._parallel, waiting.qsize())
            for _ in range(count):
                # A daemon: whoever interrupts the program does not wait for a socket that hangs.
                threading.Thread(target=self._work, args=(store, each, waiting, ended), daemon=True).start()
            try:
                errors = [error for error in (ended.get() for _ in range(count)) if error is not None]
            except BaseException:  # Also KeyboardInterrupt: the threads stop with the program.
                self._failed.set()
                raise
        if errors:
            # The first is the reason; the others were only stopped by it.
            raise next((error for error in errors if not isinstance(error, Stopped)), errors[0])

    def _work(
        self,
        store: httpx.Client,
        each: int,
        waiting: "queue.SimpleQueue[UploadPart]",
        ended: "queue.SimpleQueue[ClientError | None]",
    ) -> None:
        try:
            while True:
                self._send_part(store, waiting.get_nowait(), each)
        except queue.Empty:
            ended.put(None)
        except ClientError as error:
            self._failed.set()
            ended.put(error)
        except Exception as error:  # noqa: BLE001  # Of the recording, or of the caller's on_progress: not to end unseen here.
            self._failed.set()
            failed = UploadFailed("upload_failed", f"the recording cannot be sent: {error or type(error).__name__}")
            failed.__cause__ = error
            ended.put(failed)

    def _send_part(self, store: httpx.Client, part: UploadPart, each: int) -> None:
        pause, attempt = 0.5, 0
        while True:
            attempt += 1
            sent_before = _Sent()
            try:
                answer = store.put(
                    part.url,
                    content=self._blocks(part, each, sent_before),
                    headers={**part.headers, "Content-Length": str(part.size)},
                )
            except httpx.TransportError as error:
                problem: ClientError = Unreachable(
                    "storage_unavailable", f"the store does not take the recording: {error or type(error).__name__}"
                )
                problem.__cause__ = error
            else:
                if answer.is_success:
                    return
                problem = _store_refusal(part, answer)
            self._count(-sent_before.size)
            if attempt == _attempts(problem.status):
                raise problem
            self._pause(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            part = self._links_again(part)
            if part.uploaded:
                # The store had it all, only its answer was lost.
                self._count(part.size)
                return

    def _links_again(self, part: UploadPart) -> UploadPart:
        links = self._again()
        return next(fresh for fresh in _parts(links, self._recording.size) if fresh.number == part.number)

    def _blocks(self, part: UploadPart, each: int, sent: "_Sent") -> Iterator[bytes]:
        with self._recording.open() as file:
            file.seek((part.number - 1) * each)
            left = part.size
            while left:
                self._raise_if_stopped()
                block = file.read(min(left, _BLOCK_BYTES))
                if not block:
                    raise UploadFailed("file_changed", "the recording got shorter while it was sent")
                yield block
                left -= len(block)
                sent.size += len(block)
                self._count(len(block))

    def _count(self, size: int) -> None:
        with self._counting:
            self._sent += size
            if self._on_progress is not None:
                self._on_progress(self._sent, self._recording.size)

    def _pause(self, seconds: float) -> None:
        if self._failed.wait(seconds):
            self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._failed.is_set() or self._stopped_by_caller.is_set():
            raise Stopped("stopped", "the upload was stopped")


class _Sent:
    """Bytes of a part that were given to the socket in this attempt."""

    size = 0


def _parts(links: UploadLinks, size: int) -> list[UploadPart]:
    """A single upload is its part 1."""
    if links.parts is not None:
        return links.parts
    return [UploadPart(number=1, url=links.url or "", size=size, uploaded=links.uploaded, headers=links.headers)]


def _attempts(status: int | None) -> int:
    if status is None:
        return _ATTEMPTS  # No answer at all.
    if status == 404:
        return 1  # The upload is gone, not only its links.
    return _ATTEMPTS_REFUSED if 400 <= status < 500 and status not in (408, 429) else _ATTEMPTS


def _store_refusal(part: UploadPart, answer: httpx.Response) -> UploadFailed:
    code = answer.text.partition("<Code>")[2].partition("</Code>")[0][:100]
    return UploadFailed(
        "upload_refused",
        f"the store answered part {part.number} with {answer.status_code} {code}".rstrip(),
        answer.status_code,
    )
