"""The inbox: an object that is put under its prefix becomes a job by itself.

Two ways lead here. A poller in every API process lists the inbox, one process at a time; what is new is looked at again
the next time, and is taken when it has not changed. A notification of the store names an object, which is taken at
once. Both may come to the same object as often as may be and at the same time: the job's id derives from the object's
version (storage/inbox.py), so there is one job. Whoever dies between two of its steps (note, record, message, mark) is
followed by the next look, which does them again: only the mark says that they are done.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from itertools import islice
from pathlib import PurePosixPath

import msgspec
import structlog

from actors.beside import is_result
from actors.names import display_name
from service.auth import first_owner
from service.backend import Backend
from service.errors import ApiError
from service.options import OptionFields, fill_in, read_form, read_sidecar
from service.subtitles import subtitle_rules
from storage.errors import (
    BucketMissing,
    JobConflict,
    JobMissing,
    ObjectMissing,
    QueueUnavailable,
    StorageError,
    StoreRefused,
    StoreUnavailable,
    TooManyJobs,
)
from storage.inbox import InboxIndex, Version, is_marked, mark, sweep_marks, version_of
from storage.job import Job, JobStatus, Options, Source
from storage.keys import EXTENSIONS, KEY_BYTES, NAME_BYTES, refusal
from storage.notes import note_end, note_job
from storage.object_store import ObjectInfo
from storage.removal import OWN_PREFIXES, remove_objects
from storage.settings import SettingsError

log = structlog.get_logger()

#: Objects listed in one look, ten pages of S3's. A larger inbox is gone through in several looks.
_LISTED = 10_000
#: Objects taken in one look, and how many may wait before no more are listed.
_TAKEN, _WAITING = 500, 10_000
#: Bytes of a sidecar: options are a few lines.
_SIDECAR_BYTES = 64 * 1024
#: How many looks an object may break or be refused in before its job fails.
_TRIES = 5

#: What lies in an inbox and is no recording: results, options, and uploads that a client renames when they are whole.
_NOT_RECORDINGS = frozenset(
    {f".{extension}" for extension in EXTENSIONS.values()} | {".part", ".partial", ".filepart", ".crdownload", ".tmp"}
)


class Problem(msgspec.Struct, frozen=True):
    """Why a recording's job fails before a worker sees it."""

    code: str
    sentence: str


def read_prefix(inbox_prefix: str) -> str:
    """As keys begin: without a slash in front, with one behind.

    Raises:
        SettingsError: it is the whole bucket, or the service's own, or no key begins so.
    """
    prefix = inbox_prefix.strip("/") + "/"
    if prefix != "/" and (reason := refusal(prefix.rstrip("/"))) is not None:
        raise SettingsError(f"INBOX_PREFIX={inbox_prefix!r}: {reason}")
    if prefix == "/" or prefix.startswith(OWN_PREFIXES):
        raise SettingsError(f"INBOX_PREFIX={inbox_prefix!r}: a prefix of its own, not {', '.join(OWN_PREFIXES)}")
    return prefix


def is_recording(key: str, size: int, prefix: str) -> bool:
    """Whether an object may be somebody's recording. Hidden files are none, nor are folders, results and options."""
    name = key.removeprefix(prefix)
    return (
        key.startswith(prefix)
        and size > 0
        and not key.endswith("/")
        and not any(part.startswith(".") for part in name.split("/"))
        and PurePosixPath(name).suffix.lower() not in _NOT_RECORDINGS
    )


class Inbox:
    """Its methods block. Each raises StorageError when the store or Redis fails: nothing is lost, ask again."""

    def __init__(self, backend: Backend, index: InboxIndex, listed: int = _LISTED) -> None:
        """No I/O. `listed`: how many objects are listed in one look.

        Raises:
            SettingsError: the prefix cannot be used.
        """
        self._backend = backend
        self._jobs, self._objects = backend.jobs, backend.objects
        self._index = index
        self._listed = listed
        self._owner = first_owner(backend.settings.api_keys)
        self.bucket = backend.storage_settings.s3_bucket
        self.prefix = read_prefix(backend.settings.inbox_prefix)

    # The poller

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """While this is entered, the inbox is looked through again and again, unless INBOX_SECONDS is 0."""
        seconds = self._backend.settings.inbox_seconds
        if seconds == 0:
            yield
            return
        stopping = threading.Event()
        watching = asyncio.create_task(self._watch(seconds, stopping))
        try:
            yield
        finally:
            stopping.set()
            watching.cancel()

    async def _watch(self, seconds: int, stopping: threading.Event) -> None:
        while True:
            try:
                await asyncio.to_thread(self.look, stopping)
            except StorageError as error:
                log.warning("inbox not looked through", reason=str(error))
            except Exception:  # One surprise must not end the watch for good.
                log.exception("inbox look broke")
            await asyncio.sleep(seconds)

    def look(self, stopping: threading.Event) -> None:
        """Take what was new at an earlier look and has not changed; find what is new. One of all processes does it."""
        seconds = self._backend.settings.inbox_seconds
        if not self._jobs.due("inbox", seconds * 0.9):
            return
        for version in self._index.remembered(seconds / 2, _TAKEN):
            if stopping.is_set():
                return
            try:
                self._look_again(version)
            except TooManyJobs as error:
                log.info("inbox waits", reason=str(error))
                break
            except (StoreUnavailable, BucketMissing, QueueUnavailable):
                raise
            except Exception as error:  # One object must not keep the others from their turn. It is found again.
                log.exception("object not taken", job_id=version.job_id)
                self._index.forget(version)
                if self._index.count_try(version) >= _TRIES:
                    self._give_up(version, error)
        if self._index.waiting() < _WAITING and self._find_new() and self._jobs.due("inbox marks", 86_400):
            self._index.drop_unseen()
            log.info("inbox marks swept", removed=sweep_marks(self._index, self._objects, stopping))

    def _find_new(self) -> bool:
        """Go on listing where the last look ended; True at the end of the inbox."""
        found = list(islice(self._objects.list(self.prefix, self._index.cursor()), self._listed))
        versions = [version_of(item) for item in found if is_recording(item.key, item.size, self.prefix)]
        for begin in range(0, len(versions), 1000):
            some = versions[begin : begin + 1000]
            known = self._index.known([version.job_id for version in some])
            self._index.remember(version for version in some if version.job_id not in known)
        ended = len(found) < self._listed
        self._index.set_cursor("" if ended else found[-1].key)
        return ended

    def _look_again(self, version: Version) -> None:
        try:
            info = self._objects.head(version.key)
        except ObjectMissing:
            self._index.forget(version)
            return
        now = version_of(info)
        if now.job_id == version.job_id:
            self._take(info)
        elif self._index.known([now.job_id]):
            # Taken already. A store whose lists tell the time otherwise than its heads would show this one for ever.
            self._index.note_known(version.job_id)
        else:
            self._index.remember([now])
        self._index.forget(version)

    # One object

    def take(self, key: str) -> str | None:
        """The id of the job of what lies at the key now, made unless there is one; None: no recording lies there."""
        if not is_recording(key, 1, self.prefix) or not (refusal(key) is None or self._lists(key)):
            return None
        try:
            info = self._objects.head(key)
        except ObjectMissing:
            return None  # Removed since; what was told of it came late.
        return self._take(info) if info.size else None

    def _lists(self, key: str) -> bool:
        """Whether the store itself spells a key so: another spelling could reach an object outside the inbox."""
        try:
            return any(item.key == key for item in islice(self._objects.list(key), 1))
        except StoreRefused:
            return False

    def _take(self, info: ObjectInfo) -> str:
        version = version_of(info)
        if not self._index.known([version.job_id]):
            if not is_marked(version, self._objects):
                self._accept(*self._job(version, info))
            self._index.note_known(version.job_id)
        return version.job_id

    def _give_up(self, version: Version, error: Exception) -> None:
        """Tell by a failed job that the object cannot be taken. A store that refuses everything refuses this, too."""
        problem = Problem("internal_error", "taking the recording broke; the service's log says more")
        if isinstance(error, StoreRefused):
            problem = Problem(error.code, "the store refuses the recording or its options; the service's log says more")
        # Nothing is known of it but its key.
        info = ObjectInfo(version.key, size=0, content_type="", modified=0.0, etag="")
        self._accept(self._new_job(version, info, self._filled_in(OptionFields()), problem), problem)
        self._index.note_known(version.job_id)

    def _accept(self, job: Job, problem: Problem | None) -> None:
        if not self._has_record(job.job_id):
            note_job(job, self._objects)
            try:
                made = self._jobs.create(job, limit=self._backend.waiting_limit("inbox"))
            except TooManyJobs:
                if not self._has_record(job.job_id):
                    remove_objects(job.job_id, self._objects)
                raise
            if made:
                log.info("job accepted", job_id=job.job_id, source=job.source.type, size=job.source.size)
                if problem is None:
                    # Not sent, the janitor of the workers sends it.
                    self._backend.enqueue(job)
            elif not self._has_record(job.job_id):
                # Its client deleted it just now, and with it the note.
                remove_objects(job.job_id, self._objects)
        if problem is not None:
            self._fail(job.job_id, problem)
        mark(job, self._objects)

    def _has_record(self, job_id: str) -> bool:
        try:
            self._jobs.get(job_id)
        except JobMissing:
            return False
        return True

    def _fail(self, job_id: str, problem: Problem) -> None:
        try:
            if self._jobs.get(job_id).status is not JobStatus.AWAITING_UPLOAD:
                return  # It is on its way: the problem came up after it was made.
            note_end(self._jobs.fail(job_id, problem.code, problem.sentence), self._objects)
        except (JobConflict, JobMissing):
            return  # Another process was quicker, or its client deleted it.

    # What the job is to be

    def _job(self, version: Version, info: ObjectInfo) -> tuple[Job, Problem | None]:
        limit = self._backend.storage_settings.max_file_size
        options, problem = self._options(info)
        if info.size > limit:
            problem = Problem("file_too_large", f"the recording has {info.size} bytes, the limit is {limit}")
        return self._new_job(version, info, options, problem), problem

    def _new_job(self, version: Version, info: ObjectInfo, options: Options, problem: Problem | None) -> Job:
        """With a problem, the job is one that no worker takes: it fails as soon as it is there."""
        now = time.time()
        source = Source(
            type="inbox",
            key=info.key,
            filename=display_name(info.key),
            size=info.size,
            content_type=info.content_type or None,
            digest=f"etag:{info.etag}" if info.etag else None,
        )
        return Job(
            job_id=version.job_id,
            owner=self._owner,
            status=JobStatus.PENDING if problem is None else JobStatus.AWAITING_UPLOAD,
            source=source,
            options=options,
            created_at=now,
            expires_at=None if problem is None else now + self._backend.storage_settings.upload_expires_seconds,
        )

    def _options(self, info: ObjectInfo) -> tuple[Options, Problem | None]:
        """From the object's metadata, and over them those of the sidecar."""
        where, names = "x-amz-meta-*", self._backend.model_names
        if (reason := refusal(info.key)) is not None:
            return self._filled_in(OptionFields()), Problem("invalid_parameter", f"the object's name: {reason}")
        try:
            given = read_form({name.replace("-", "_"): _decoded(text) for name, text in info.metadata.items()}, names)
            self._check(given)
            sidecar = self._sidecar(info.key)
            if sidecar is not None:
                where = f"{display_name(info.key)}.json"
                if sidecar.size > _SIDECAR_BYTES:
                    raise ApiError("invalid_body", f"it has {sidecar.size} bytes, the limit is {_SIDECAR_BYTES}")
                given = read_sidecar(self._objects.get(sidecar.key), given, names)
                self._check(given)
            return self._filled_in(given), None
        except ApiError as error:
            code = "invalid_parameter" if error.code == "invalid_body" else error.code
            return self._filled_in(OptionFields()), Problem(code, f"{where}: {error.detail}")

    def _check(self, given: OptionFields) -> None:
        if given.webhook_url is not None:
            self._backend.check_url("webhook_url", given.webhook_url)

    def _filled_in(self, given: OptionFields) -> Options:
        return fill_in(given, self._backend.storage_settings.default_model, subtitle_rules(self._backend.settings))

    def _sidecar(self, key: str) -> ObjectInfo | None:
        """The object beside the recording that holds its options, if there is one."""
        try:
            info = self._objects.head(f"{key}.json")
        except ObjectMissing:
            return None
        except StoreRefused:
            name = key.rpartition("/")[2]
            if len(f"{name}.json".encode()) > NAME_BYTES or len(f"{key}.json".encode()) > KEY_BYTES:
                return None  # Nothing can lie at a key that the store does not know.
            raise
        return None if is_result(info) else info


def _decoded(text: str) -> str:
    """Headers are ASCII: stores send other text as RFC 2047 has it."""
    if "=?" not in text:
        return text
    try:
        decoded = str(make_header(decode_header(text)))
        decoded.encode()
    # Besides charsets that are none: some decode to half a character, `undefined` refuses with a bare UnicodeError, and
    # a name with a zero is a ValueError.
    except (HeaderParseError, LookupError, ValueError):
        return text
    return decoded
