"""The rules of the house: style, types, who imports whom, locks, and one truth about each setting."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
from dotenv import dotenv_values
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from actors.settings import ActorSettings
from deploy.embedded.stack import plan
from deploy.settings import StackSettings
from service.settings import ServiceSettings
from storage.settings import StorageSettings

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {
    "api": [],
    "worker": ["worker"],
    "cuda": ["worker", "cuda"],
    "embedded": ["worker", "client", "embedded"],
    "dev": ["worker", "client", "embedded", "dev"],
}
#: docker compose's own.
NOT_OURS = {"COMPOSE_PROFILES"}
#: Empty in the example, which counts as not set: scripts/up then derives them from BUCKETSCRIBE_DATA, wherever that is.
DERIVED = {"MODEL_DIR"}


def test_style_types_and_imports_are_clean() -> None:
    done = subprocess.run(
        [ROOT / "scripts/check"],
        env={**os.environ, "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_api_does_not_load_the_engine() -> None:
    program = "import sys, service.app; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    modules = set(loaded.stdout.split())
    assert "litestar" in modules
    assert not modules & {"faster_whisper", "ctranslate2", "av", "onnxruntime", "numpy"}


def test_no_part_writes_temporary_files() -> None:
    pattern = re.compile(r"\btempfile\b|mkstemp|TemporaryFile|SpooledTemporary|\bUploadFile\b|/tmp\b")

    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for package in ("service", "actors", "storage")
        for path in sorted((ROOT / package).rglob("*.py"))
        for match in pattern.finditer(path.read_text())
    ]

    assert found == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_what_the_project_asks_for(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in LOCKS[name]:
        wanted += project["optional-dependencies"][extra]

    pins, text = read_lock(name), (ROOT / f"deploy/locks/{name}.txt").read_text()

    for requirement in map(Requirement, wanted):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in the lock: run scripts/lock"
        assert requirement.specifier.contains(version), f"{requirement} is locked as {version}: run scripts/lock"
        # Another version for newer Pythons would be one that no test runs.
        assert text.count(f"\n{canonicalize_name(requirement.name)}==") == 1, f"{requirement} is locked more than once"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_hashes_and_no_address(name: str) -> None:
    text = (ROOT / f"deploy/locks/{name}.txt").read_text()

    requirements = re.split(r"\n(?=[a-z0-9])", text, flags=re.IGNORECASE)[1:]

    assert not re.search(r"https?://|--index|--extra-index|--find-links|file:", text)
    assert all("--hash=sha256:" in requirement for requirement in requirements)


@pytest.mark.parametrize("name", [name for name in LOCKS if name not in ("dev", "cuda")])
def test_what_is_shipped_is_what_is_tested(name: str) -> None:
    tested = read_lock("dev")

    shipped = read_lock(name)

    assert shipped.items() <= tested.items()


def test_the_api_lock_holds_no_engine() -> None:
    assert not read_lock("api").keys() & {"faster-whisper", "ctranslate2", "av", "onnxruntime", "numpy"}


def test_the_example_environment_holds_every_setting_with_its_default() -> None:
    example = {name: value or "" for name, value in dotenv_values(ROOT / ".env.example", interpolate=False).items()}

    defaults = settings_with_defaults() | dict.fromkeys(DERIVED, "")

    assert {name: value for name, value in example.items() if name in defaults} == defaults
    assert example.keys() - defaults.keys() == compose_variables() - defaults.keys() | NOT_OURS


def test_the_example_environment_leaves_the_folders_where_the_data_are(tmp_path: Path) -> None:
    example = {name: value or "" for name, value in dotenv_values(ROOT / ".env.example", interpolate=False).items()}

    stack = plan(example | {"BUCKETSCRIBE_DATA": str(tmp_path)})

    assert stack.storage.model_dir == str(tmp_path / "models")
    assert stack.environment["MODEL_DIR"] == str(tmp_path / "models")


def test_the_readme_lists_every_setting_with_its_default() -> None:
    text = (ROOT / "README.md").read_text()

    rows = dict(re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \| (.*?) \| .+\|$", text, flags=re.MULTILINE))

    listed = {name: "" if cell in ("", "required", "empty") else cell.strip("`") for name, cell in rows.items()}
    assert {
        name: value for name, value in listed.items() if name in settings_with_defaults()
    } == settings_with_defaults()


def test_every_setting_is_read_by_the_code() -> None:
    sources = [
        path.read_text()
        for package in ("service", "actors", "storage", "deploy")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "settings.py"
    ]

    unread = [name for name in settings_with_defaults() if not any(f".{name.lower()}" in text for text in sources)]

    assert unread == []


def read_lock(name: str) -> dict[str, str]:
    """Package → pinned version."""
    text = (ROOT / f"deploy/locks/{name}.txt").read_text()
    return {
        canonicalize_name(package): version
        for package, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", text, re.MULTILINE)
    }


def settings_with_defaults() -> dict[str, str]:
    """Variable → its default as it would be written into .env; a required one is empty."""
    found: dict[str, str] = {}
    for kind in (StorageSettings, ActorSettings, ServiceSettings, StackSettings):
        for field in msgspec.structs.fields(kind):
            default = "" if field.required else field.default
            found[field.name.upper()] = str(default).lower() if isinstance(default, bool) else str(default)
    return found


def compose_variables() -> set[str]:
    return set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", (ROOT / "compose.yaml").read_text()))
