"""The command line as people and scripts run it: a process of its own, its memory in the test's folder."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pexpect

from tests.conftest import ROOT

COMMAND = [sys.executable, "-m", "service.cli"]


def variables(url: str, folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUCKETSCRIBE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder), "BUCKETSCRIBE_URL": url, **more}


def run(url: str, folder: Path, *arguments: str, stdin: bytes = b"", **more: str) -> "subprocess.CompletedProcess[str]":
    """In the folder, without a terminal; what it says as text."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=variables(url, folder, **more), input=stdin, capture_output=True,
        timeout=300, check=False,
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def start(url: str, folder: Path, *arguments: str, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, env=variables(url, folder), stdin=stdin,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def in_terminal(url: str, folder: Path, *arguments: str) -> "pexpect.spawn[Any]":
    """In a terminal of 100 columns."""
    return pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], *arguments], cwd=str(folder),
        env=variables(url, folder, TERM="xterm-256color"), encoding="utf-8", dimensions=(40, 100), timeout=120,
    )  # fmt: skip
