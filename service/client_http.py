"""The API as a client speaks to it: what may be asked again is, what is answered with an error is raised."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from httpx_sse import EventSource, connect_sse

from service import __version__
from service.client_errors import Unreachable, refusal

#: An answer with these is worth another try.
_AGAIN = (429, 502, 503, 504)
_LONGEST_PAUSE_SECONDS = 10.0
_TIMEOUT = httpx.Timeout(60, connect=10)
#: A server of this machine is reached without the proxy of the environment, which would look for it on its own.
WITHOUT_PROXY: dict[str, httpx.BaseTransport | None] = dict.fromkeys(
    ("all://localhost", "all://127.0.0.1", "all://[::1]")
)


class ApiConnection:
    """Keeps its connections. A server that never answered is not waited for: its address is probably wrong.

    Raises:
        ValueError: the address does not begin with http:// or https://.
        Unreachable: it, or the key, cannot be sent.
    """

    def __init__(self, url: str, api_key: str | None, patience_seconds: float) -> None:
        if not url.lower().startswith(("http://", "https://")):
            raise ValueError(f"the server's address {url!r} does not begin with http:// or https://")
        headers = {"User-Agent": f"bucketscribe/{__version__}"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self.url = url.rstrip("/")
        self._patience_seconds = patience_seconds
        self._has_answered = False
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT, mounts=WITHOUT_PROXY)
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise Unreachable("server_unreachable", f"{url!r} with its key cannot be used: {error}") from error

    def call(self, method: str, path: str, *, again: bool = True, **request: Any) -> httpx.Response:
        """`again`: asking twice does no harm, so a broken connection or a busy server is met with patience.

        Raises:
            Unreachable, RequestRefused.
        """
        ends = time.monotonic() + self._patience_seconds
        pause = 0.25
        while True:
            try:
                response = self._http.request(method, f"/api/v1{path}", **request)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                if not (again and self._has_answered and time.monotonic() + pause < ends):
                    raise self.unreachable(error) from error
            else:
                self._has_answered = True
                if response.is_success:
                    return response
                pause = max(pause, _retry_after(response))
                if not (again and response.status_code in _AGAIN and time.monotonic() + pause < ends):
                    raise refusal(response)
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    @contextmanager
    def events(self, path: str, last_event_id: str, read_seconds: float) -> Iterator[EventSource]:
        """A stream that is silent for `read_seconds` counts as broken.

        Raises:
            RequestRefused: it is not there.
            httpx.TransportError: it broke off.
        """
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        timeout = httpx.Timeout(read_seconds, connect=10)
        with connect_sse(self._http, "GET", f"/api/v1{path}", headers=headers, timeout=timeout) as source:
            if not source.response.is_success:
                source.response.read()
                raise refusal(source.response)
            self._has_answered = True
            yield source

    def unreachable(self, error: Exception) -> Unreachable:
        return Unreachable("server_unreachable", f"{self.url} does not answer: {error or type(error).__name__}")

    def close(self) -> None:
        self._http.close()


def _retry_after(response: httpx.Response) -> float:
    """Seconds; 0 where the answer does not say, or says it as a date."""
    told = response.headers.get("retry-after", "")
    return float(told) if told.isdecimal() else 0.0
