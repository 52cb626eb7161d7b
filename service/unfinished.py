"""Which job an interrupted upload belongs to: a small file each, so that the next run goes on with it."""

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from service.client_types import Option
from storage.structs import decode

#: Longer than any upload's links live.
_KEPT_SECONDS = 14 * 86400


class _Note(msgspec.Struct, frozen=True):
    job_id: str


class Unfinished:
    """The notes in one folder. A folder that cannot be written only means that nothing is resumed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def name(self, server: str, path: Path, options: Mapping[str, Option]) -> str:
        """The same for the same recording, unchanged, sent to the same server with the same options."""
        stat = path.stat()
        known_by = [server, os.fsencode(path.resolve()).hex(), stat.st_size, stat.st_mtime_ns, sorted(options.items())]
        return hashlib.sha256(msgspec.json.encode(known_by)).hexdigest()[:32]

    def find(self, name: str) -> str | None:
        """The job's id."""
        try:
            return decode(self._path(name).read_bytes(), _Note).job_id
        except (OSError, msgspec.DecodeError):
            return None

    def note(self, name: str, job_id: str) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Whole or not at all: it is read again after a kill.
            written = self._path(name).with_suffix(".new")
            written.write_bytes(msgspec.json.encode(_Note(job_id)))
            written.replace(self._path(name))
            self._forget_old()
        except OSError:
            pass  # See above.

    def forget(self, name: str) -> None:
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError:
            pass  # As in note.

    def _forget_old(self) -> None:
        for path in self._folder.iterdir():
            if path.stat().st_mtime < time.time() - _KEPT_SECONDS:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
