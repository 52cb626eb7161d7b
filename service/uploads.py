"""One streamed request body → one object: bounded buffers, no temporary file, nothing left behind when it breaks off.

The form is parsed as it comes from the socket. Its file goes to the store in parts, two of them on their way while the
third fills, so an upload holds about three parts in memory, whatever its size. A small recording is one put.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import structlog
from litestar import Request
from litestar.exceptions import InternalServerException
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from service.clients import Places, client_of, share_of
from service.errors import ApiError
from service.settings import ServiceSettings
from storage.errors import ObjectMissing, StorageError, UploadMissing
from storage.object_store import ObjectStore, Part

log = structlog.get_logger()

T = TypeVar("T")

#: Parts on their way to the store at once, of one upload.
_IN_FLIGHT = 2
#: How long a client that has its share of uploads waits for one of them to end.
_PLACE_SECONDS = 5
#: S3's limits of a multipart upload.
MAX_PARTS, MIN_PART_BYTES = 10_000, 5 * 2**20
#: A form is a file and a few fields; what is beyond is an attack or a mistake.
_MAX_SEGMENTS, _MAX_FIELD_BYTES = 64, 64 * 1024
#: How much longer than its file a form may be: fields, boundaries and part headers.
_FORM_OVERHEAD_BYTES = 2**20


#: A form's text fields as they came; a name may come more than once. `dict(fields)` keeps the last of each.
Fields = list[tuple[str, str]]


class Form(msgspec.Struct, frozen=True):
    """What came with the file; the file itself is in the store."""

    #: As the client sent it; empty when it sent none.
    filename: str
    content_type: str | None
    #: Bytes of the object.
    size: int
    fields: Fields
    #: Of the object's bytes, as `sha256:…`; None: nobody asked.
    digest: str | None


class FormShape(msgspec.Struct, frozen=True):
    """Where a form has its recording, and what is stored of it."""

    #: Name of the part.
    file_field: str = "file"
    #: Stored before the file's own bytes: what a decoder needs to know of raw samples.
    header: bytes = b""
    #: Bytes of the file that are stored; what comes after them is read and dropped. None: all.
    kept_bytes: int | None = None
    #: Text fields that are read and dropped, however long they are.
    dropped: frozenset[str] = frozenset()


CLASSIC = FormShape()


class Uploads:
    """The API's uploads: so many at once, and so many of one client."""

    def __init__(self, objects: ObjectStore, settings: ServiceSettings, max_file_size: int) -> None:
        self._objects = objects
        most = settings.max_concurrent_uploads
        share = share_of(most, settings.max_uploads_per_client)
        self._places = Places(most, share, "uploads", codes=("too_many_uploads", "client_uploads_exceeded"))
        self._max_bytes = max_file_size
        smallest = max(MIN_PART_BYTES, -(-max_file_size // MAX_PARTS))
        self._part_bytes = max(settings.upload_part_bytes, smallest)
        # Threads of their own: a slow store must not keep other requests waiting for a thread.
        self._threads = ThreadPoolExecutor(_IN_FLIGHT * settings.max_concurrent_uploads + 1, "upload")

    async def receive(
        self,
        request: Request[Any, Any, Any],
        key: str,
        check_field: Callable[[Fields], object],
        check_all: Callable[[Fields], object],
        shape: FormShape = CLASSIC,
        *,
        hashed: bool = False,
    ) -> Form:
        """Read a multipart form and store its file at the key. Fields may come before or after it.

        `check_field` sees the fields that came before the file, so that a mistake is told before gigabytes are sent;
        `check_all` sees all of them before the object is made. Both raise what the client is to hear. `hashed`: the
        form is to have its digest.

        Raises:
            ApiError: too_many_uploads, client_uploads_exceeded, unsupported_media_type, invalid_body, file_missing,
                file_too_large, audio_unreadable (no bytes), upload_stalled, client_disconnected, and what the checks
                raise.
            StorageError: the store failed.
        """
        boundary = _boundary(request)
        self._refuse_if_announced_too_large(request)
        async with self._place(client_of(request)):
            writer = ObjectWriter(self._objects, key, self._part_bytes, self._threads, hashed=hashed)
            try:
                form = await self._read(request, boundary, writer, check_field, shape)
                check_all(form.fields)
                await writer.finish()
            except BaseException as error:  # Also CancelledError: the server stops.
                # The abort is not to be cancelled with us.
                await asyncio.shield(asyncio.ensure_future(writer.abort()))
                log.info("upload aborted", key=key, received=writer.size, reason=type(error).__name__)
                raise
        return msgspec.structs.replace(form, digest=writer.digest)

    def close(self) -> None:
        self._threads.shutdown(wait=True)

    @asynccontextmanager
    async def _place(self, client: str) -> AsyncIterator[None]:
        await self._places.take_soon(client, _PLACE_SECONDS)
        try:
            yield
        finally:
            self._places.leave(client)

    def _refuse_if_announced_too_large(self, request: Request[Any, Any, Any]) -> None:
        announced = request.headers.get("content-length", "")
        if announced.isdecimal():
            self._refuse_too_large(int(announced))

    def _refuse_too_large(self, form_bytes: int) -> None:
        if form_bytes > self._max_bytes + _FORM_OVERHEAD_BYTES:
            raise self._too_large(f"the body has {form_bytes} bytes or more")

    def _too_large(self, fact: str) -> ApiError:
        return ApiError("file_too_large", f"{fact}, the limit of a recording is {self._max_bytes}")

    async def _read(
        self,
        request: Request[Any, Any, Any],
        boundary: str,
        writer: "ObjectWriter",
        check_field: Callable[[Fields], object],
        shape: FormShape,
    ) -> Form:
        fields: Fields = []
        file: MultipartSegment | None = None
        came = received = 0
        segment: MultipartSegment | None = None
        text = bytearray()
        try:
            with PushMultipartParser(boundary, max_segment_count=_MAX_SEGMENTS, strict=True) as parser:
                stream = request.stream()
                while not parser.closed:
                    chunk = await anext(stream, b"")
                    if not chunk:
                        break
                    # What is dropped counts, too: else nothing would bound a form that comes in chunks.
                    came += len(chunk)
                    self._refuse_too_large(came)
                    for event in parser.parse(chunk):
                        if isinstance(event, MultipartSegment):
                            segment, text = event, bytearray()
                            if segment.name == shape.file_field:
                                _refuse_second(file, shape)
                                file = segment
                                check_field(fields)
                                await writer.write(shape.header)
                            elif segment.filename is not None:
                                raise _file_missing(f"the part {segment.name[:100]!r} is a file", shape)
                        elif segment is None:
                            continue
                        elif event is None:
                            if segment is not file:
                                fields.append((segment.name, text.decode()))
                        elif segment is file:
                            kept = shape.kept_bytes
                            await writer.write(event if kept is None else event[: max(kept - received, 0)])
                            received += len(event)
                            if received > self._max_bytes:
                                raise self._too_large(f"{received} bytes came")
                        elif segment.name not in shape.dropped:
                            text += event
                            if len(text) > _MAX_FIELD_BYTES:
                                detail = f"{segment.name[:100]!r} is longer than {_MAX_FIELD_BYTES} bytes"
                                raise ApiError("invalid_body", detail, field=segment.name[:100])
        except MultipartError as error:
            raise ApiError("invalid_body", f"the form cannot be read: {error}") from error
        except UnicodeDecodeError as error:
            raise ApiError("invalid_body", "a field of the form is not UTF-8") from error
        except InternalServerException as error:
            # Litestar's word for a client that went away.
            raise ApiError("client_disconnected", "the connection was closed before the form's end") from error
        # Browsers send an empty part without a name where no file was chosen.
        if file is None or (received == 0 and not file.filename):
            raise _file_missing("the form has none", shape)
        if received == 0:
            raise ApiError("audio_unreadable", "the recording is empty (0 bytes)")
        return Form(file.filename or "", file.content_type, writer.size, fields, None)


class ObjectWriter:
    """An object on its way into the store. What its threads have done is known even when the task was cancelled."""

    def __init__(
        self, objects: ObjectStore, key: str, part_bytes: int, threads: ThreadPoolExecutor, *, hashed: bool = False
    ) -> None:
        #: Bytes taken so far.
        self.size = 0
        self._hash = hashlib.sha256() if hashed else None
        self._objects = objects
        self._key = key
        self._part_bytes = part_bytes
        self._threads = threads
        self._buffer = bytearray()
        self._upload_id: str | None = None
        #: The object may be there: the store was asked for it, whatever became of the answer.
        self._asked = False
        self._parts: list[Part] = []
        self._last_number = 0
        self._running: set[asyncio.Future[Any]] = set()

    @property
    def digest(self) -> str | None:
        """Of all bytes, once it is finished, as `sha256:…`; None: it was not to be hashed."""
        return f"sha256:{self._hash.hexdigest()}" if self._hash is not None else None

    async def write(self, data: bytes) -> None:
        """Take bytes; waits while two parts are on their way. Parts are equal: some stores insist on it."""
        self.size += len(data)
        left = memoryview(data)
        while left:
            room = self._part_bytes - len(self._buffer)
            self._buffer += left[:room]
            left = left[room:]
            if len(self._buffer) == self._part_bytes:
                await self._send_part()

    async def finish(self) -> None:
        """The object is there, whole, when this returns."""
        if self._upload_id is None:
            await self._in_thread(self._put, self._take_buffer())
            return
        if self._buffer:
            await self._send_part()
        await self._settle(0)
        await self._in_thread(self._complete)

    async def abort(self) -> None:
        """Nothing is there when this returns; what the store does not let go now is left to the janitor."""
        self._buffer = bytearray()
        await asyncio.gather(*self._running, return_exceptions=True)
        try:
            if self._upload_id is not None:
                await self._in_thread(self._objects.abort_upload, self._key, self._upload_id)
            if self._asked:
                await self._in_thread(self._objects.delete, self._key)
        except StorageError as error:
            log.warning("upload not removed", key=self._key, reason=str(error))

    async def _send_part(self) -> None:
        if self._upload_id is None:
            await self._in_thread(self._start)
        await self._settle(_IN_FLIGHT - 1)
        self._last_number += 1
        data = self._take_buffer()
        if self._hash is not None:
            # In order, while the part before is still on its way.
            await self._in_thread(self._hash.update, data)
        self._begin(self._send, self._last_number, data)

    async def _settle(self, allowed: int) -> None:
        """Wait until at most so many calls are running; a failed one raises here."""
        while len(self._running) > allowed:
            done, self._running = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for call in done:
                call.result()

    def _take_buffer(self) -> bytes:
        data, self._buffer = bytes(self._buffer), bytearray()
        return data

    def _begin(self, call: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
        self._running.add(future)
        return future

    async def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> None:
        future = self._begin(call, *arguments)
        # Shielded: a cancelled task must still learn, in abort(), what its thread has done.
        await asyncio.shield(future)
        self._running.discard(future)

    # In threads

    def _start(self) -> None:
        self._upload_id = self._objects.start_upload(self._key, "application/octet-stream")

    def _send(self, number: int, data: bytes) -> None:
        assert self._upload_id is not None
        self._parts.append(self._objects.upload_part(self._key, self._upload_id, number, data))

    def _complete(self) -> None:
        assert self._upload_id is not None
        self._asked = True
        try:
            self._objects.complete_upload(self._key, self._upload_id, self._parts)
        except UploadMissing:
            # As a repeated request hears whose first answer was lost: then the object is there.
            if not self._is_whole():
                raise

    def _put(self, data: bytes) -> None:
        if self._hash is not None:
            self._hash.update(data)
        self._asked = True
        self._objects.put(self._key, data, "application/octet-stream")

    def _is_whole(self) -> bool:
        try:
            return self._objects.head(self._key).size == self.size
        except ObjectMissing:
            return False


def _boundary(request: Request[Any, Any, Any]) -> str:
    media_type, parameters = request.content_type
    if media_type != "multipart/form-data":
        detail = f"multipart/form-data is expected, not {media_type[:100] or 'nothing'}"
        raise ApiError("unsupported_media_type", detail)
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise ApiError("invalid_body", "the Content-Type has no boundary")
    return boundary


def _file_missing(fact: str, shape: FormShape) -> ApiError:
    detail = f"{fact}; the recording belongs in the part named {shape.file_field!r}"
    return ApiError("file_missing", detail, field=shape.file_field)


def _refuse_second(file: MultipartSegment | None, shape: FormShape) -> None:
    if file is not None:
        name = shape.file_field
        raise ApiError("invalid_parameter", f"{name}: one recording a request, there is a second", field=name)
