"""The embedded store is used through S3 alone: its other ports and sockets refuse clients without its certificate."""

import os
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psutil
import pytest

from deploy.embedded.parts import GRPC_OFFSET, HOST, SocketTaken, store_part
from deploy.embedded.running import Running, store_answers
from storage.object_store import ObjectStore
from storage.settings import StorageSettings
from tests.stack import StoreServer, new_store

#: Of its master, volume server and filer: some change the store, some only tell.
ORDERS = (
    "/col/delete?collection={bucket}", "/vol/grow?count=1", "/dir/assign", "/dir/status", "/dir/lookup?volumeId=1",
    "/vol/vacuum", "/submit", "/status", "/cluster/status", "/stats/health", "/debug/vars", "/ui/index.html",
    "/buckets/{bucket}/kept?recursive=true", "/",
)  # fmt: skip


class Store(msgspec.Struct, frozen=True):
    server: StoreServer
    objects: ObjectStore
    bucket: str

    @property
    def port(self) -> int:
        return urlsplit(self.server.url).port or 0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One that nobody else uses, with an object in its bucket."""
    server = new_store(tmp_path_factory.mktemp("closed") / "store")
    server.running.start()
    objects = ObjectStore(settings_of(server))
    objects.prepare()
    objects.put("kept", b"words", "text/plain")
    yield Store(server, objects, settings_of(server).s3_bucket)
    server.running.kill()


def settings_of(server: StoreServer) -> StorageSettings:
    return StorageSettings(
        s3_endpoint_url=server.url,
        s3_access_key=server.access_key,
        s3_secret_key=server.secret_key,
        s3_bucket="bucketscribe",
        redis_url="redis://127.0.0.1:1",
    )


def test_every_port_but_s3_refuses_clients_without_a_certificate(store: Store) -> None:
    ports = listening(store.server.running.pid) - {store.port}

    answers = {
        (port, order, encrypted): ask((HOST, port), order.format(bucket=store.bucket), encrypted=encrypted)
        for port in ports
        for order in ORDERS
        for encrypted in (False, True)
    }

    # Master, volume server and filer, and the gRPC port of each, of S3 and of the admin server.
    assert len(ports) >= 8
    assert {key: answer for key, answer in answers.items() if not is_refusal(answer)} == {}
    assert store.objects.get("kept") == b"words"


def test_sockets_in_a_shared_folder_want_a_certificate_and_are_private(store: Store) -> None:
    connections = psutil.Process(store.server.running.pid).net_connections("unix")
    folder = store.server.running.part.directory
    paths = {folder / str(connection.laddr) for connection in connections if connection.laddr}
    own = {path for path in paths if path.is_relative_to(folder)}

    answers = [ask(str(path), "/", encrypted=encrypted) for path in paths - own for encrypted in (False, True)]

    assert [answer for answer in answers if not is_refusal(answer)] == []
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in paths} == {0}
    assert {path.parent for path in own} == {folder / "tmp"}


def test_weed_shell_shows_nothing_without_a_certificate(store: Store, tmp_path: Path) -> None:
    conf = store.server.running.part.directory / "conf"

    (tmp_path / "empty").mkdir()

    ours, strangers = shell(store, conf, tmp_path), shell(store, tmp_path / "empty", tmp_path, 8)

    assert "kept" in ours
    assert "kept" not in strangers
    assert store.objects.get("kept") == b"words"


def test_the_store_writes_private_files(store: Store) -> None:
    folder = store.server.running.part.directory

    # SeaweedFS sets the mode of .vif files itself; they describe a volume, and their folder is closed.
    paths = [path for path in (folder, *folder.rglob("*")) if path.suffix != ".vif"]
    open_to_others = [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]

    assert open_to_others == []


def test_a_killed_store_keeps_its_objects_under_a_new_certificate(tmp_path: Path) -> None:
    server = new_store(tmp_path / "store")
    server.running.start()
    objects = ObjectStore(settings_of(server))
    objects.prepare()
    objects.put("kept", b"words", "text/plain")
    certificate = (tmp_path / "store/conf/cert.pem").read_bytes()
    server.running.kill()

    port = urlsplit(server.url).port or 0
    part = store_part(tmp_path / "store", port, server.access_key, server.secret_key)
    again = Running(part, lambda: store_answers(port))
    again.start()
    kept = objects.get("kept")
    again.kill()

    assert kept == b"words"
    assert (tmp_path / "store/conf/cert.pem").read_bytes() != certificate


def test_data_of_a_store_without_certificates_is_kept(tmp_path: Path) -> None:
    server = new_store(tmp_path / "store")
    security = tmp_path / "store/conf/security.toml"
    with_certificates = security.read_text()
    # As an earlier version wrote it.
    security.write_text(with_certificates.partition("[grpc]")[0])
    server.running.start()
    objects = ObjectStore(settings_of(server))
    objects.prepare()
    for number in range(20):
        objects.put(f"kept/{number}", bytes([number]) * 100_000, "text/plain")
    server.running.stop()

    security.write_text(with_certificates)
    server.running.start()
    kept = [objects.get(f"kept/{number}") for number in range(20)]
    objects.put("new", b"words", "text/plain")
    ports = listening(server.running.pid) - {urlsplit(server.url).port}
    answers = [ask((HOST, port), "/dir/status", encrypted=False) for port in ports]
    server.running.kill()

    assert kept == [bytes([number]) * 100_000 for number in range(20)]
    assert all(is_refusal(answer) for answer in answers)


def test_a_socket_that_another_user_made_first_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = new_store(tmp_path / "store")
    port = urlsplit(server.url).port or 0
    path = f"/tmp/seaweedfs-s3-grpc-{port + GRPC_OFFSET}.sock"
    monkeypatch.setattr(os, "geteuid", lambda: Path(path).stat().st_uid + 1)

    with pytest.raises(SocketTaken, match=f"{path} belongs to another user: remove it, or set another S3_PORT"):
        store_part(tmp_path / "store", port, "a", "b")


def listening(pid: int) -> set[int]:
    connections = psutil.Process(pid).net_connections("tcp")
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


def ask(address: tuple[str, int] | str, path: str, *, encrypted: bool) -> bytes:
    """What a client without a certificate gets, b"" when it is not let in."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    answer = b""
    with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as connection:
        connection.settimeout(10)
        connection.connect(address)
        try:
            stream = context.wrap_socket(connection) if encrypted else connection
            stream.sendall(request)
            while block := stream.recv(65536):
                answer += block
        except (ssl.SSLError, ConnectionError):
            return answer
    return answer


def is_refusal(answer: bytes) -> bool:
    """Nothing at all, or what a server of HTTPS says to plain HTTP."""
    return answer == b"" or b"Client sent an HTTP request to an HTTPS server" in answer


def shell(store: Store, conf: Path, folder: Path, seconds: float = 60) -> str:
    """What `weed shell` says of the bucket, with the certificates in `conf`, if any; ended when it takes longer."""
    weed = store.server.running.part.argv[0]
    master, filer = store.port + 1, store.port + 3
    command = [weed, f"-config_dir={conf}", "shell", f"-master={HOST}:{master}", f"-filer={HOST}:{filer}"]
    orders = f"fs.ls /buckets/{store.bucket}\nvolume.list\nexit\n".encode()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, input=orders, capture_output=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode()
    return done.stdout.decode()
