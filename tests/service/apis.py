"""The API as tests start it: `python -m service`, a real server on a random port."""

import sys
from pathlib import Path

import httpx
import msgspec

from deploy.embedded.parts import HOST, Part, free_port
from deploy.embedded.running import Running, http_answers
from storage.settings import StorageSettings
from tests.processes import environment


class Api(msgspec.Struct, frozen=True, kw_only=True):
    running: Running
    url: str
    settings: StorageSettings
    #: Keeps connections; raises nothing for an error status.
    client: httpx.Client

    def log(self) -> str:
        return self.running.log_path.read_text()


def new_api(folder: Path, settings: StorageSettings, **more: str) -> Api:
    """Not started. `more` are environment variables."""
    port = free_port()
    part = Part(
        name="api",
        argv=[sys.executable, "-m", "service"],
        env=environment(settings, API_HOST=HOST, API_PORT=str(port), **more),
        directory=folder,
    )
    url = f"http://{HOST}:{port}"
    client = httpx.Client(base_url=url, timeout=120)
    return Api(running=Running(part, lambda: http_answers(port)), url=url, settings=settings, client=client)
