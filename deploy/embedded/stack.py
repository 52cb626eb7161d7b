"""What is decided before anything starts: the folder, the ports, the keys, and each program's command."""

import fcntl
import os
import secrets
import sys
from pathlib import Path
from typing import IO

import msgspec

from actors.settings import ActorSettings
from deploy.embedded.parts import GRPC_OFFSET, HOST, STORE_PORTS, Part, is_free, redis_part, store_part
from deploy.environment import ROOT, STACK_FILE, data_folder, merged, read_file
from deploy.settings import StackSettings
from service.auth import read_keys
from service.settings import ServiceSettings
from storage.models import check_default
from storage.rate_limit import read_rate
from storage.settings import StorageSettings, read_settings


class StackRefused(Exception):
    """The stack cannot be started as it is asked for; the message says what to change."""


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    folder: Path
    #: Of every program, keys included.
    environment: dict[str, str]
    stack: StackSettings
    storage: StorageSettings
    service: ServiceSettings
    actors: ActorSettings

    @property
    def api(self) -> str:
        """The API's address as this machine reaches it."""
        anywhere = self.service.api_host in ("0.0.0.0", "::")
        return f"http://{HOST if anywhere else self.service.api_host}:{self.service.api_port}"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def stop_seconds(self) -> dict[str, int]:
        """How long each may take to end. A store that is killed loses nothing, it only starts slower."""
        return {"redis": 15, "store": 40, "worker": self.actors.shutdown_grace_seconds + 10, "api": 40}

    def parts(self) -> list[Part]:
        """In the order of starting."""
        storage = self.storage
        python = {name: [sys.executable, "-m", name] for name in ("actors.worker", "service")}
        return [
            redis_part(self.folder / "redis", self.stack.redis_port, self.stack.redis_password),
            store_part(self.folder / "store", self.stack.s3_port, storage.s3_access_key, storage.s3_secret_key),
            Part(name="worker", argv=python["actors.worker"], env={}, directory=ROOT),
            Part(name="api", argv=python["service"], env={}, directory=ROOT),
        ]


def plan(environment: dict[str, str]) -> Stack:
    """The stack that the variables ask for. Keys that they do not name are made once and kept in the data folder.

    Raises:
        SettingsError: a variable has a value that cannot be used.
        StackRefused: the folder's name cannot be used, or the folder cannot be made.
    """
    folder = data_folder(environment)
    if set('#;\n"') & set(str(folder)):
        raise StackRefused(f"BUCKETSCRIBE_DATA={folder}: supervisord reads no path with quotes, # or ; in it")
    _make(folder)
    kept = read_file(folder / STACK_FILE)
    made = {
        name: kept.get(name, secrets.token_hex(20)) for name in ("S3_ACCESS_KEY", "S3_SECRET_KEY", "REDIS_PASSWORD")
    }
    environment = merged(environment, {"MODEL_DIR": str(folder / "models"), **made})
    stack = read_settings(StackSettings, environment)
    environment |= {
        "S3_ENDPOINT_URL": f"http://{HOST}:{stack.s3_port}",
        "REDIS_URL": f"redis://:{stack.redis_password}@{HOST}:{stack.redis_port}",
        "PYTHONUNBUFFERED": "1",
    }
    storage, service = read_settings(StorageSettings, environment), read_settings(ServiceSettings, environment)
    # What a part would refuse at its start is refused before any of them starts.
    check_default(storage.default_model)
    read_keys(service.api_keys)
    if service.rate_limit:
        read_rate(service.rate_limit)
    return Stack(
        folder=folder,
        environment=environment,
        stack=stack,
        storage=storage,
        service=service,
        actors=read_settings(ActorSettings, environment),
    )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "logs").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StackRefused(f"BUCKETSCRIBE_DATA: cannot make the folder {folder}: {error.strerror}") from error


def close_to_others(folder: Path) -> None:
    """Take the rights of other users from what an earlier version left in the data folder.

    Only from what the stack made there: a folder that was there before may hold other things, too.
    """
    for name in (STACK_FILE, "lock", "supervisord.ini", "logs", "redis", "store"):
        for path in (folder / name, *(folder / name).rglob("*")):
            if path.exists() and not path.is_symlink() and path.stat().st_uid == os.geteuid():
                path.chmod(path.stat().st_mode & 0o700)


def remember(stack: Stack) -> None:
    """Keep addresses and keys for the next start and for the scripts, for the owner's eyes alone."""
    names = ("S3_ENDPOINT_URL", "S3_ACCESS_KEY", "S3_SECRET_KEY", "REDIS_URL", "REDIS_PASSWORD", "MODEL_DIR")
    path = stack.folder / STACK_FILE
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text("".join(f"{name}='{stack.environment[name]}'\n" for name in names))


def lock(folder: Path) -> IO[str]:
    """Held as long as the file is open, by this process or by one that inherited it.

    Raises:
        StackRefused: another stack runs in this folder.
    """
    file = (folder / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StackRefused(f"a stack runs in {folder} already: stop it first, or set BUCKETSCRIBE_DATA") from error
    os.set_inheritable(file.fileno(), True)
    return file


def check_ports(stack: Stack) -> None:
    """
    Raises:
        StackRefused: naming the port that is taken and the variable that moves it.
    """
    store = range(stack.stack.s3_port, stack.stack.s3_port + STORE_PORTS)
    if store[-1] + GRPC_OFFSET > 65535:
        raise StackRefused(f"S3_PORT={stack.stack.s3_port}: the store also uses ports 10000 above, the limit is 55531")
    wanted = [
        ("API_PORT", stack.service.api_port),
        ("REDIS_PORT", stack.stack.redis_port),
        *(("S3_PORT", port + offset) for port in store for offset in (0, GRPC_OFFSET)),
    ]
    numbers = [port for _, port in wanted]
    for name, port in wanted:
        if numbers.count(port) > 1:
            raise StackRefused(
                f"port {port} is wanted twice: set {name} to another (the store takes S3_PORT to S3_PORT+4)"
            )
        if not is_free(port):
            raise StackRefused(f"port {port} is taken: stop what listens there, or set {name} (environment or .env)")
