"""The real store, Redis and moto as tests start them: on random ports, in folders of their own, dead when pytest is."""

import secrets
import shutil
import ssl
import sys
from pathlib import Path

import httpx
import msgspec

from deploy.embedded.parts import HOST, STORE_PORTS, Part, free_port, redis_part, store_part
from deploy.embedded.running import Running, http_answers, redis_answers, store_answers


class StoreServer(msgspec.Struct, frozen=True, kw_only=True):
    """A running SeaweedFS or moto; `running` kills, stops, pauses and restarts it."""

    running: Running
    url: str
    access_key: str
    secret_key: str


class RedisServer(msgspec.Struct, frozen=True, kw_only=True):
    """A running Valkey; `url` carries its password and no database number."""

    running: Running
    url: str


def new_store(folder: Path) -> StoreServer:
    """SeaweedFS with random keys, not started."""
    port = free_port(STORE_PORTS)
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(16)
    part = store_part(folder, port, access_key, secret_key)
    # Each bucket takes a volume, and SeaweedFS has one for each free GiB of the disk: too few for the tests' buckets.
    part = msgspec.structs.replace(part, argv=[*part.argv, "-volume.max=1000"])
    running = Running(part, lambda: store_answers(port))
    return StoreServer(running=running, url=f"http://{HOST}:{port}", access_key=access_key, secret_key=secret_key)


def lose_content(server: StoreServer, bucket: str) -> None:
    """Its master drops what all objects of a bucket hold, and leaves bucket and objects in every list."""
    conf = server.running.part.directory / "conf"
    tls = ssl.create_default_context(cafile=str(conf / "ca.pem"))
    tls.load_cert_chain(conf / "cert.pem", conf / "key.pem")
    address = f"https://{HOST}:{int(server.url.rpartition(':')[2]) + 1}/col/delete"
    httpx.get(address, params={"collection": bucket}, verify=tls, trust_env=False).raise_for_status()


def new_redis(folder: Path) -> RedisServer:
    """Valkey with a random password, not started."""
    port = free_port()
    password = secrets.token_hex(16)
    running = Running(redis_part(folder, port, password), lambda: redis_answers(port, password))
    return RedisServer(running=running, url=f"redis://:{password}@{HOST}:{port}")


def new_moto(folder: Path) -> StoreServer:
    """moto's server, not started. It accepts any key and any signature, and forgets everything when it ends."""
    port = free_port()
    program = shutil.which("moto_server", path=str(Path(sys.executable).parent)) or "moto_server"
    part = Part(name="moto", argv=[program, "-H", HOST, "-p", str(port)], env={}, directory=folder)
    running = Running(part, lambda: http_answers(port))
    return StoreServer(running=running, url=f"http://{HOST}:{port}", access_key="moto", secret_key="moto")


class Parts:
    """The parts of one test session: a shared store and Redis, and as many of their own as tests ask for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Running] = []
        self.store = self.start_store()
        self.redis = self.start_redis()

    def start_store(self) -> StoreServer:
        """Another SeaweedFS, empty; it lives until the session ends unless it is stopped."""
        server = new_store(self._own_folder("store"))
        self._start(server.running)
        return server

    def start_redis(self) -> RedisServer:
        """Another Valkey, empty; it lives until the session ends unless it is stopped."""
        server = new_redis(self._own_folder("redis"))
        self._start(server.running)
        return server

    def start_moto(self) -> StoreServer:
        server = new_moto(self._own_folder("moto"))
        self._start(server.running)
        return server

    def close(self) -> None:
        # What they hold is thrown away, so nothing is gained by letting them end in peace.
        for running in self._started:
            running.kill()

    def _start(self, running: Running) -> None:
        self._started.append(running)
        running.start()

    def _own_folder(self, name: str) -> Path:
        return self._folder / f"{name}-{len(self._started)}"
