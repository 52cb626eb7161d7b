"""The environment of the scripts: the process's own, then `.env`, then what a running embedded stack left behind."""

import os
from pathlib import Path

from dotenv import dotenv_values

from deploy.settings import StackSettings
from storage.settings import read_settings

ROOT = Path(__file__).resolve().parent.parent
#: In the data folder: the addresses and keys of the embedded stack.
STACK_FILE = "stack.env"


def read_environment() -> dict[str, str]:
    """What is set earlier wins; a variable that is set but empty counts as not set."""
    environment = merged(dict(os.environ), read_file(ROOT / ".env"))
    return merged(environment, read_file(data_folder(environment) / STACK_FILE))


def data_folder(environment: dict[str, str]) -> Path:
    """Relative to the repository."""
    return ROOT / read_settings(StackSettings, environment).bucketscribe_data


def unreachable_hint(environment: dict[str, str], name: str) -> str:
    """What to add to "cannot be reached" where the address in the variable is an embedded stack's, else nothing."""
    embedded = read_file(data_folder(environment) / STACK_FILE).get(name)
    return "; is scripts/up running?" if embedded and embedded == environment.get(name) else ""


def read_file(path: Path) -> dict[str, str]:
    """The variables of an env file; none when it is not there."""
    return {name: value for name, value in dotenv_values(path).items() if value}


def merged(first: dict[str, str], second: dict[str, str]) -> dict[str, str]:
    return second | {name: value for name, value in first.items() if value or name not in second}
