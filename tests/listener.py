"""A port that counts who connects and closes the connection at once: a proxy that should not be used."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Variables that name a proxy to most programs.
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


class Listener:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.connections = 0

    @property
    def variables(self) -> dict[str, str]:
        """An environment in which it is the proxy of everything."""
        return {**dict.fromkeys(PROXY_VARIABLES, self.url), "NO_PROXY": "", "no_proxy": ""}


@contextmanager
def listening() -> Iterator[Listener]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            listener.connections += 1

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        listener = Listener(server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield listener
        server.shutdown()
