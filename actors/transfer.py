"""A recording on its way from its origin into the store: parts of a multipart upload, one of them in memory.

What the store has of it outlives the worker: the next one asks for the list of the parts and goes on after the last.
The object is there when it is whole and not before.
"""

import hashlib
import time

import msgspec
import structlog

from actors.errors import AudioUnreadable, FileTooLarge
from actors.origin import Answer
from storage.errors import ObjectMissing, UploadMissing
from storage.fetches import FetchNote, FetchUpload, drop_fetch, note_fetch, read_fetch
from storage.job import Job, Source
from storage.object_store import ObjectStore, Part

log = structlog.get_logger()

#: Bytes of a part: what a killed worker loses at most; a fetch holds two in memory. Parts of what may be larger than so
#: many times _MAX_PARTS, 80 GiB, are larger.
_PART_BYTES = 8 * 2**20
#: S3's limit.
_MAX_PARTS = 10_000


class Transfer:
    """Every method but `write` between two full parts asks the store, and raises its errors."""

    def __init__(self, job: Job, objects: ObjectStore, max_bytes: int) -> None:
        """Takes up what another worker left, if anything."""
        self._job = job
        self._objects = objects
        self._max_bytes = max_bytes
        self._note = read_fetch(job.job_id, objects) or FetchNote(began=time.time())
        #: Bytes taken so far.
        self.size = 0
        self._parts: list[Part] = []
        self._buffer = bytearray()
        #: Of all bytes taken; None: some were taken by another worker.
        self._digest: hashlib._Hash | None = hashlib.sha256()
        if self._note.upload is not None:
            self._take_up(self._note.upload)

    @property
    def began(self) -> float:
        """When the first worker began; seconds since the epoch."""
        return self._note.began

    @property
    def validator(self) -> str | None:
        """What the bytes taken so far are of; None: they cannot be gone on with."""
        return self._note.upload.validator if self._note.upload else None

    def begin(self, answer: Answer) -> None:
        """Make ready for what an origin is about to send.

        Raises:
            FileTooLarge: it says itself that it is.
        """
        if answer.total is not None and answer.total > self._max_bytes:
            raise FileTooLarge(f"the recording has {answer.total} bytes, the limit is {self._max_bytes}")
        known = self._note.upload
        if known is not None and (self.size or known.validator == answer.validator):
            return
        upload = FetchUpload(
            upload_id=known.upload_id
            if known
            else self._objects.start_upload(self._job.source.key, answer.content_type),
            part_size=max(_PART_BYTES, -(-(answer.total or self._max_bytes) // _MAX_PARTS)),
            validator=answer.validator,
            filename=answer.filename,
            content_type=answer.content_type,
        )
        self._write_note(upload=upload)

    def write(self, block: bytes) -> None:
        """Take bytes.

        Raises:
            FileTooLarge: there are more than may be.
            UploadMissing: somebody dropped the upload.
        """
        if self.size + len(block) > self._max_bytes:
            raise FileTooLarge(f"more than {self._max_bytes} bytes came, which is the limit")
        if self._digest is not None:
            self._digest.update(block)
        self._buffer += block
        self.size += len(block)
        part_size = self._upload.part_size
        while len(self._buffer) >= part_size:
            self._send(part_size)

    def finish(self) -> None:
        """Make the object of the parts.

        Raises:
            AudioUnreadable: there are no bytes.
            UploadMissing: the upload is completed already, or somebody dropped it.
        """
        if self.size == 0:
            raise AudioUnreadable("the recording is empty (0 bytes)")
        if self._buffer:
            self._send(len(self._buffer))
        self._objects.complete_upload(self._job.source.key, self._upload.upload_id, self._parts)

    def restart(self) -> None:
        """Begin again with the first byte: what was taken is of no use."""
        drop_fetch(self._job.job_id, self._objects)
        self.size, self._parts, self._buffer, self._digest = 0, [], bytearray(), hashlib.sha256()
        self._write_note(upload=None)

    def note_failure(self) -> int:
        """How often the origin has failed, this time included; the next worker knows it, too."""
        self._write_note(upload=self._note.upload, failures=self._note.failures + 1)
        return self._note.failures

    def whole(self) -> Source | None:
        """The recording as it is in the store; None: it is not whole."""
        given = self._job.source
        try:
            stored = self._objects.head(given.key)
        except ObjectMissing:
            return None
        upload = self._note.upload
        counted = self._digest is not None and self.size == stored.size
        return msgspec.structs.replace(
            given,
            size=stored.size,
            filename=(upload.filename if upload else "") or given.filename,
            content_type=upload.content_type if upload else stored.content_type or None,
            digest=f"sha256:{self._digest.hexdigest()}" if self._digest is not None and counted else None,
        )

    def _take_up(self, upload: FetchUpload) -> None:
        try:
            stored = self._objects.list_parts(self._job.source.key, upload.upload_id)
        except UploadMissing:
            return  # Completed, or dropped: who goes on finds out which.
        for number, part in enumerate(stored, start=1):
            # After a gap, or a part that was the last one of a shorter whole, all is fetched again.
            if part.number != number or part.size != upload.part_size:
                break
            self._parts.append(part)
            self.size += part.size
        if self._parts:
            self._digest = None
            log.info("fetch taken up", job_id=self._job.job_id, size=self.size)

    def _send(self, count: int) -> None:
        number = len(self._parts) + 1
        part = bytes(self._buffer[:count])
        self._parts.append(self._objects.upload_part(self._job.source.key, self._upload.upload_id, number, part))
        del self._buffer[:count]

    @property
    def _upload(self) -> FetchUpload:
        if self._note.upload is None:
            raise UploadMissing("the upload was not begun")
        return self._note.upload

    def _write_note(self, **changes: object) -> None:
        self._note = msgspec.structs.replace(self._note, **changes)
        note_fetch(self._job.job_id, self._note, self._objects)
