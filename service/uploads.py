"""One streamed request body → one object: bounded buffers, no temporary file, nothing left behind when it breaks off.

The form is parsed as it comes from the socket. Its file goes to the store in parts, two of them on their way while the
third fills, so an upload holds about three parts in memory, whatever its size. A small recording is one put.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog
from litestar import Request
from litestar.exceptions import InternalServerException
from multipart import MultipartError, MultipartSegment

from service.clients import Places, client_of, share_of
from service.errors import ApiError
from service.form_parser import FormParser
from service.json_audio import JsonAudio, JsonAudioInvalid, as_fields, audio_name
from service.object_writer import IN_FLIGHT, MAX_PARTS, MIN_PART_BYTES, ObjectWriter
from service.settings import ServiceSettings
from storage.errors import quoted
from storage.object_store import ObjectStore
from storage.structs import NOT_JSON, why_not_json

log = structlog.get_logger()

#: How long a client at its limit of uploads waits for one of them to end.
_PLACE_SECONDS = 5
#: Limit of a text field, and of the text before the first part.
_MAX_FIELD_BYTES = 64 * 1024
#: The field that may be longer: its end counts (service.options).
_LONG_FIELD = "prompt"
#: Bytes within a character of UTF-8. What is cut off may have begun one.
_CONTINUATIONS = bytes(range(0x80, 0xC0))
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
    #: A JSON body with the recording in it (service.json_audio) is taken, too.
    json: bool = False


CLASSIC = FormShape()


class Uploads:
    """The API's uploads, limited in all and for each client."""

    def __init__(self, objects: ObjectStore, settings: ServiceSettings, max_file_size: int) -> None:
        self._objects = objects
        most = settings.max_concurrent_uploads
        share = share_of(most, settings.max_uploads_per_client)
        self._places = Places(most, share, "uploads", codes=("too_many_uploads", "client_uploads_exceeded"))
        self._max_bytes = max_file_size
        smallest = max(MIN_PART_BYTES, -(-max_file_size // MAX_PARTS))
        self._part_bytes = max(settings.upload_part_bytes, smallest)
        # Threads of their own: a slow store must not keep other requests waiting for a thread.
        self._threads = ThreadPoolExecutor(IN_FLIGHT * settings.max_concurrent_uploads + 1, "upload")

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
        boundary = "" if shape.json and request.content_type[0] == "application/json" else _boundary(request)
        # Base64 takes four signs for three bytes, and may come in lines.
        limit = (self._max_bytes if boundary else self._max_bytes * 3 // 2) + _FORM_OVERHEAD_BYTES
        announced = request.headers.get("content-length", "")
        if announced.isdecimal():
            self._refuse_too_large(int(announced), limit)
        async with self._place(client_of(request)):
            writer = ObjectWriter(self._objects, key, self._part_bytes, self._threads, hashed=hashed)
            chunks = self._chunks(request, limit)
            try:
                if boundary:
                    form = await self._read(chunks, boundary, writer, check_field, shape)
                else:
                    form = await self._read_json(chunks, writer, check_field)
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

    def _refuse_too_large(self, body_bytes: int, limit: int) -> None:
        if body_bytes > limit:
            raise self._too_large(f"the body has {body_bytes} bytes or more")

    def _too_large(self, fact: str) -> ApiError:
        return ApiError("file_too_large", f"{fact}, the limit of a recording is {self._max_bytes}")

    async def _chunks(self, request: Request[Any, Any, Any], limit: int) -> AsyncIterator[bytes]:
        """The pieces of a body of at most `limit` bytes."""
        came, stream = 0, request.stream()
        try:
            while True:
                chunk = await anext(stream, b"")
                if not chunk:
                    return
                # Dropped fields count, too: without that a chunked body would have no limit.
                came += len(chunk)
                self._refuse_too_large(came, limit)
                yield chunk
        except InternalServerException as error:
            # Litestar's word for a client that went away.
            raise ApiError("client_disconnected", "the connection was closed before the body's end") from error

    async def _read_json(
        self, chunks: AsyncIterator[bytes], writer: ObjectWriter, check_field: Callable[[Fields], object]
    ) -> Form:
        body, checked = JsonAudio(), False
        try:
            async for chunk in chunks:
                for audio in body.feed(chunk):
                    if not checked:
                        check_field(as_fields(body.before))
                        checked = True
                    await writer.write(audio)
                    if writer.size > self._max_bytes:
                        raise self._too_large(f"{writer.size} bytes arrived")
            rest = body.rest
        except JsonAudioInvalid as error:
            raise ApiError("invalid_body", f"input_audio.data: {error}", field="input_audio.data") from error
        except NOT_JSON as error:
            raise ApiError("invalid_body", f"the body is not JSON: {why_not_json(error)}") from error
        if not body.has_audio:
            raise ApiError("file_missing", "the recording belongs in input_audio.data", field="input_audio.data")
        if writer.size == 0:
            raise ApiError("audio_unreadable", "the recording is empty (0 bytes)")
        return Form(audio_name(rest), None, writer.size, as_fields(rest), None)

    async def _read(
        self,
        chunks: AsyncIterator[bytes],
        boundary: str,
        writer: ObjectWriter,
        check_field: Callable[[Fields], object],
        shape: FormShape,
    ) -> Form:
        fields: Fields = []
        file: MultipartSegment | None = None
        came = received = 0
        segment: MultipartSegment | None = None
        text = bytearray()
        try:
            with FormParser(boundary) as parser:
                async for chunk in chunks:
                    came += len(chunk)
                    for event in parser.parse(chunk):
                        if isinstance(event, MultipartSegment):
                            segment, text = event, bytearray()
                            if segment.name == shape.file_field:
                                _refuse_second(file, shape)
                                file = segment
                                check_field(fields)
                                await writer.write(shape.header)
                            elif segment.filename is not None:
                                raise _file_missing(f"the part {quoted(segment.name)} is a file", shape)
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
                                raise self._too_large(f"{received} bytes arrived")
                        elif segment.name not in shape.dropped:
                            text += event
                            if len(text) > _MAX_FIELD_BYTES and segment.name == _LONG_FIELD:
                                text = text[-_MAX_FIELD_BYTES:].lstrip(_CONTINUATIONS)
                            elif len(text) > _MAX_FIELD_BYTES:
                                detail = f"{quoted(segment.name)} is longer than {_MAX_FIELD_BYTES} bytes"
                                raise ApiError("invalid_body", detail, field=segment.name[:100])
                    if segment is None and came > _MAX_FIELD_BYTES:
                        raise ApiError("invalid_body", f"no part of the form begins in its first {came} bytes")
        except MultipartError as error:
            raise ApiError("invalid_body", f"the form cannot be read: {error}") from error
        except UnicodeDecodeError as error:
            raise ApiError("invalid_body", "a field of the form is not UTF-8") from error
        # Browsers send an empty part without a name where no file was chosen.
        if file is None or (received == 0 and not file.filename):
            raise _file_missing("the form has none", shape)
        if received == 0:
            raise ApiError("audio_unreadable", "the recording is empty (0 bytes)")
        return Form(file.filename or "", file.content_type, writer.size, fields, None)


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
    detail = f"{fact}; the recording belongs in the part named {quoted(shape.file_field)}"
    return ApiError("file_missing", detail, field=shape.file_field)


def _refuse_second(file: MultipartSegment | None, shape: FormShape) -> None:
    if file is not None:
        name = shape.file_field
        raise ApiError("invalid_parameter", f"{name}: one recording a request, there is a second", field=name)
