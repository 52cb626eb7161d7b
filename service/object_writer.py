"""Writes an object to the store while its bytes arrive: in parts, or at once where it is small."""

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from storage.errors import ObjectMissing, StorageError, UploadMissing
from storage.object_store import ObjectStore, Part

log = structlog.get_logger()

#: Parts on their way to the store at once, of one upload.
IN_FLIGHT = 2
#: S3's limits of a multipart upload.
MAX_PARTS, MIN_PART_BYTES = 10_000, 5 * 2**20


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
        #: The object may be there: the store was asked for it, whether or not it answered.
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
        await self._settle(IN_FLIGHT - 1)
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
            # The answer to a repeated request whose first answer was lost: then the object is there.
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
