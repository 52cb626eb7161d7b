"""The README's code blocks, with free ports in place of those that they name: another stack may have those."""

import os
import re
import subprocess
from functools import cache
from pathlib import Path

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer

from deploy.embedded.parts import STORE_PORTS, free_port
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
SAID = (ROOT / "deploy/sample/sample.txt").read_text()
#: Of the API, the store, the page, the webhook receiver and the server of recordings.
NAMED_PORTS = ("8000", "8333", "9000", "9007", "9008")
normalize = EnglishTextNormalizer()


@cache
def ports() -> dict[str, int]:
    """Port in the README → the free one that takes its place in this process; REDIS_PORT → one for Redis."""
    others = [name for name in (*NAMED_PORTS, "REDIS_PORT") if name != "8333"]
    store = free_port(STORE_PORTS + len(others))
    return {"8333": store} | {name: store + STORE_PORTS + index for index, name in enumerate(others)}


def blocks(language: str) -> list[str]:
    """The README's code blocks of one language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    named = rf"\b({'|'.join(NAMED_PORTS)})\b"
    return [re.sub(named, lambda match: str(ports()[match[0]]), block) for block in found]


def commands(block: str) -> list[str]:
    """The commands of a shell block; one goes on while its lines end with a backslash."""
    return re.sub(r"\\\n\s*", "", block).strip().splitlines()


def shell(command: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def is_what_was_said(text: str) -> bool:
    return float(jiwer.wer(normalize(SAID), normalize(text))) < 0.2
