"""The stack that the README's first command starts, on ports that are free."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.deploy.test_up import Up
from tests.e2e.readme import ports


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path) -> Iterator[Up]:
    """The stack. Webhooks and urls may lead to this machine, as the README says where they do."""
    folder = tmp_path_factory.mktemp("readme") / "data"
    running = Up(
        folder,
        API_PORT=str(ports()["8000"]),
        S3_PORT=str(ports()["8333"]),
        REDIS_PORT=str(ports()["REDIS_PORT"]),
        CORS_ORIGINS=f"http://127.0.0.1:{ports()['9000']}",
        MODEL_DIR=str(weights_dir),
        JANITOR_SECONDS="5",
        ALLOWED_NETWORKS="127.0.0.0/8",
    )
    running.wait_until_ready()
    yield running
    running.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the README's reader is: `talk.mp3` lies there."""
    shutil.copy(ROOT / "deploy/sample/sample.mp3", tmp_path / "talk.mp3")
    return tmp_path
