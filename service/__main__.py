"""The API process: `python -m service`."""

import asyncio
import resource
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
import uvicorn
from litestar import Litestar

from service.app import create_app
from service.protocol import ConnectionLimits, LimitedProtocol
from service.settings import ServiceSettings
from storage import logs
from storage.settings import SettingsError, read_settings

log = structlog.get_logger()


#: Connections besides event streams: other requests, and clients that keep theirs open.
_OTHER_CONNECTIONS = 1024
#: Open files besides those connections: Redis and the store.
_OTHER_FILES = 512

#: What an event stream has to be read to its end, when the server stops.
_LAST_READ_SECONDS = 3


class _Server(uvicorn.Server):
    """Event streams would hold it up when it is to stop: they are ended first, and their clients come back."""

    def __init__(self, config: uvicorn.Config, app: Litestar) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.listeners.end()
        letting_go = asyncio.create_task(self._let_go())
        await super().shutdown(sockets)
        letting_go.cancel()

    async def _let_go(self) -> None:
        """Break off the streams that nobody reads, as soon as nothing else is waited for."""
        await asyncio.sleep(_LAST_READ_SECONDS)
        connections = self.server_state.connections
        while len(connections) > len(self._app.state.listeners.open):  # noqa: ASYNC110 As uvicorn itself waits for them.
            await asyncio.sleep(0.1)
        for connection in list(connections):
            connection.transport.abort()


def _limited_protocol(settings: ServiceSettings, connections: int) -> Any:
    """A protocol class for uvicorn, with its limits."""
    limits = ConnectionLimits(settings.header_seconds, settings.max_header_bytes, connections)
    return partial(LimitedProtocol, limits=limits)


def _allow_files(wanted: int) -> int:
    """Each connection is an open file, and the limit that a shell sets is often 1024. Returns how many there may be."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)


def main() -> int:
    """Serve until SIGTERM or SIGINT; requests under way get half a minute to end, event streams end at once."""
    logs.configure()
    try:
        settings = read_settings(ServiceSettings)
        app = create_app()
    except SettingsError as error:
        log.error("API cannot start", reason=str(error))
        return 1
    files = _allow_files(settings.max_listeners + _OTHER_CONNECTIONS + _OTHER_FILES)
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        http=_limited_protocol(settings, max(1, files - _OTHER_FILES)),
        # No route speaks it, and uvicorn would hand the connection to another protocol.
        ws="none",
        loop="uvloop",
        # Without trusted proxies the header is a client's word and counts for nothing.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        server_header=False,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=30,
    )
    server = _Server(config, app)
    with suppress(KeyboardInterrupt):
        server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
