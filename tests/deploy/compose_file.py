"""compose.yaml as docker compose would read it: interpolated, merged, its health checks as commands."""

import re
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent.parent
_VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?:(?P<operator>:-|:\?)(?P<operand>(?:[^${}]|\$\{[^{}]*\})*))?\}")


class VariableMissing(Exception):
    """A variable that compose insists on is not set."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that the tests look at."""

    image: str
    command: list[str] = []
    entrypoint: list[str] = []
    environment: dict[str, str] = {}
    healthcheck: dict[str, Any]
    ports: list[str] = []
    volumes: list[str] = []
    profiles: list[str] = []
    build: dict[str, str] = {}
    user: str = ""
    read_only: bool = False
    cap_drop: list[str] = []
    cap_add: list[str] = []
    security_opt: list[str] = []
    privileged: bool = False
    tmpfs: list[str] = []
    container_name: str = ""
    env_file: str = ""
    restart: str = ""
    stop_grace_period: str = ""
    mem_limit: str = ""
    pids_limit: int = 0

    def argv(self) -> list[str]:
        """What is run: of our own images the Dockerfile's command."""
        if self.build:
            text = (ROOT / self.build["dockerfile"]).read_text()
            return msgspec.json.decode(text.rpartition("\nCMD ")[2], type=list[str])
        return [*self.entrypoint, *self.command]

    def health_argv(self) -> list[str]:
        kind, *words = self.healthcheck["test"]
        return ["sh", "-c", *words] if kind == "CMD-SHELL" else words


def read_compose(variables: dict[str, str]) -> dict[str, Service]:
    """
    Raises:
        VariableMissing: one without a default is not set.
    """
    document = msgspec.yaml.decode((ROOT / "compose.yaml").read_bytes())
    return msgspec.convert(interpolated(document["services"], variables), dict[str, Service])


def interpolated(value: Any, variables: dict[str, str]) -> Any:
    """https://docs.docker.com/reference/compose-file/interpolation/, as far as the file uses it."""
    if isinstance(value, dict):
        return {name: interpolated(item, variables) for name, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, operator, operand = match["name"], match["operator"], match["operand"]
        if name is None:
            return "$"
        if given := variables.get(name, ""):
            return given
        if operator == ":?":
            raise VariableMissing(f"{name}: {operand}")
        return str(interpolated(operand or "", variables))

    return _VARIABLE.sub(replace, value)
