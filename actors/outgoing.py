"""Connections to servers that clients named: each is made anew to an address that the guard has just checked.

The name stays what the server is asked for (Host) and what its certificate must be for (SNI). There are no proxies: the
environment is not read. Only workers connect; the API checks (actors/guard.py) and goes without this module's library.
"""

import time
from collections.abc import Callable, Iterable
from ssl import SSLContext
from typing import Any

import httpcore

from actors.guard import Guard, parse

#: How often a read that waits looks whether it is still wanted.
_LOOK_SECONDS = 0.5


def open_pool(guard: Guard, still_wanted: Callable[[], None] = lambda: None) -> httpcore.ConnectionPool:
    """For a few requests, closed after them; each has its time-outs: `extensions={"timeout": {"connect": 10, ...}}`.

    `still_wanted` is called before each read and while one waits, twice a second: what it raises ends the request, so
    that a deadline or a lost lease takes effect however slowly a server answers. Certificates are verified against
    certifi's authorities and the machine's own (SSL_CERT_FILE). Redirects are not followed.

    Requests raise UrlNotAllowed and UrlUnreachable beside httpcore's errors.
    """
    return httpcore.ConnectionPool(
        network_backend=GuardedBackend(guard, still_wanted), max_connections=2, max_keepalive_connections=0
    )


def to_httpcore(url: str) -> httpcore.URL:
    """The url as the guard reads it, so that no second reader finds another host in it. Raises UrlNotAllowed."""
    target = parse(url)
    host = f"[{target.host}]" if ":" in target.host else target.host
    return httpcore.URL(scheme=target.scheme, host=host, port=target.port, target=target.path)


class GuardedBackend(httpcore.NetworkBackend):
    """Resolves, checks, and connects to what was checked, in one step."""

    def __init__(self, guard: Guard, still_wanted: Callable[[], None]) -> None:
        self._guard = guard
        self._still_wanted = still_wanted
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """`timeout` is for all addresses together and what comes after on the way to a connection: TLS.

        The look-up of the name counts, but cannot be broken off. Raises what the guard raises, and httpcore's errors.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in self._guard.addresses(host.strip("[]"), port):
            self._still_wanted()
            left = None if ends is None else max(0.1, ends - time.monotonic())
            try:
                stream = self._backend.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _WatchedStream(stream, self._still_wanted, ends)
        raise failure or httpcore.ConnectError(f"{host} has no address")

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        raise httpcore.UnsupportedProtocol("no sockets of this machine")


class _WatchedStream(httpcore.NetworkStream):
    def __init__(
        self, stream: httpcore.NetworkStream, still_wanted: Callable[[], None], connect_ends: float | None
    ) -> None:
        """`connect_ends`: when the connection must be ready, TLS too, by the monotonic clock; None: whenever."""
        self._stream = stream
        self._still_wanted = still_wanted
        self._connect_ends = connect_ends

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            self._still_wanted()
            left = _LOOK_SECONDS if ends is None else min(_LOOK_SECONDS, ends - time.monotonic())
            try:
                return self._stream.read(max_bytes, max(0.001, left))
            except httpcore.ReadTimeout:
                if ends is not None and time.monotonic() >= ends:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._still_wanted()
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        self._still_wanted()
        if self._connect_ends is not None:
            left = max(0.1, self._connect_ends - time.monotonic())
            timeout = left if timeout is None else min(left, timeout)
        secured = self._stream.start_tls(ssl_context, server_hostname, timeout)
        return _WatchedStream(secured, self._still_wanted, self._connect_ends)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
