"""For the Python scripts, before they import anything else: the packages, wherever `python3` itself may come from."""

import importlib.util
import os
import sys
from pathlib import Path

_ENVIRONMENT = Path(__file__).resolve().parent.parent / ".venv"
#: If these are there, so are those that come with them.
_NEEDED = ("boto3", "dotenv", "dramatiq", "msgspec", "redis", "structlog")


def require() -> None:
    """Return where the packages can be imported, else run the same command again in the environment of scripts/up."""
    if all(importlib.util.find_spec(name) for name in _NEEDED):
        return
    python = _ENVIRONMENT / "bin/python"
    if Path(sys.prefix) == _ENVIRONMENT or not python.exists():
        sys.exit("✗ the packages are not installed: run scripts/up once, which puts them into .venv")
    os.execv(python, [str(python), *sys.argv])
