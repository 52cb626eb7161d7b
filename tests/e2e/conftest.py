"""The stack that the README's first command starts, on the ports that the README names."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded.parts import free_port
from tests.conftest import ROOT
from tests.deploy.test_up import Up


@pytest.fixture(scope="session")
def page_port() -> int:
    return free_port()


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory, weights_dir: Path, page_port: int) -> Iterator[Up]:
    """The stack on its default ports. Webhooks and urls may lead to this machine, as the README says where they do."""
    folder = tmp_path_factory.mktemp("readme") / "data"
    running = Up(
        folder,
        API_PORT="8000",
        CORS_ORIGINS=f"http://127.0.0.1:{page_port}",
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
