"""One question to the server that a url names: redirects followed by hand, its answer in blocks, its failures named."""

import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urljoin

import httpcore

from actors.errors import (
    OriginBroke,
    OriginChanged,
    OriginError,
    OriginFailing,
    OriginMissing,
    OriginRefused,
    OriginTimeout,
    OriginUntrusted,
    UrlUnreachable,
)
from actors.guard import Guard, parse
from actors.names import disposition_name, media_type, url_name
from actors.outgoing import open_pool, to_httpcore
from storage.errors import quoted

_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
#: Beside 5xx: worth another try.
_FAILING = {408, 425, 429}

_CONNECT_SECONDS = 10
#: Bytes that must come in the time in which a server may send nothing: less is as good as nothing.
_LEAST_BYTES = 64 * 1024
#: The longest pause that a server may ask for, in seconds.
_MAX_RETRY_AFTER = 600

#: A number has 19 digits at most: Python refuses to read one of thousands.
_NUMBER = r"[0-9]{1,19}"
_CONTENT_RANGE = re.compile(rf"bytes ({_NUMBER})-{_NUMBER}/({_NUMBER}|\*)")


class Answer(NamedTuple):
    #: Offset in the recording of the first byte that comes.
    begin: int
    #: Bytes of the whole recording; None: the server does not say.
    total: int | None
    #: What the server knows these very bytes by, for If-Range; None: nothing that is sure enough.
    validator: str | None
    #: As the server names it; empty: it does not.
    filename: str
    content_type: str | None
    blocks: Iterator[bytes]


class Origin:
    def __init__(self, guard: Guard, idle_seconds: float) -> None:
        """`idle_seconds`: how long a server may send nothing, or next to nothing."""
        self._guard = guard
        self._idle_seconds = idle_seconds

    @contextmanager
    def ask(self, url: str, begin: int, validator: str | None, still_wanted: Callable[[], None]) -> Iterator[Answer]:
        """Ask for a recording from the byte `begin` on, if it is the one that `validator` is of.

        The answer may begin before that byte, if the server serves no ranges. `still_wanted` is called at least twice a
        second; what it raises ends the request.

        Raises:
            UrlNotAllowed, UrlUnreachable, OriginError: also while the blocks are read.
        """
        watch = _Watch(still_wanted, self._idle_seconds)
        with _named(watch), open_pool(self._guard, watch) as pool:
            for hops in range(_MAX_REDIRECTS + 1):
                watch.turn_to(parse(url).host)
                with pool.stream(
                    "GET",
                    to_httpcore(url),
                    headers=_headers(begin, validator),
                    extensions={"timeout": {"connect": _CONNECT_SECONDS, **self._timeouts()}},
                ) as response:
                    if response.status in _REDIRECTS:
                        url = _redirected(url, _Headers(response), watch.host)
                        continue
                    named = url_name(url) if hops else ""
                    yield _answer(response, begin, validator, named, watch)
                    return
            raise OriginRefused(f"{watch.host} is the end of more than {_MAX_REDIRECTS} redirects")

    def _timeouts(self) -> dict[str, float]:
        return dict.fromkeys(("read", "write", "pool"), self._idle_seconds)


class _Watch:
    """Looks, while a server is waited for, whether that is still wanted and whether enough comes."""

    def __init__(self, still_wanted: Callable[[], None], idle_seconds: float) -> None:
        self.host = ""
        self._still_wanted = still_wanted
        self.idle_seconds = idle_seconds
        self._came = 0
        self._until = 0.0

    def __call__(self) -> None:
        self._still_wanted()
        if time.monotonic() < self._until:
            return
        if self._came < _LEAST_BYTES:
            raise OriginTimeout(f"{self.host} sent {self._came} bytes in {self.idle_seconds:g} s")
        self._begin()

    def turn_to(self, host: str) -> None:
        self.host = host
        self._begin()

    def watched(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The same blocks. The time that whoever takes them needs is not the server's."""
        for block in blocks:
            self._came += len(block)
            given = time.monotonic()
            yield block
            self._until += time.monotonic() - given

    def _begin(self) -> None:
        self._came, self._until = 0, time.monotonic() + self.idle_seconds


class _Headers:
    """An answer's headers by their names in small letters; of one sent twice, the first."""

    def __init__(self, response: httpcore.Response) -> None:
        self._fields = {name.lower(): value for name, value in reversed(response.headers)}

    def __getitem__(self, name: str) -> str:
        """Empty where it is missing."""
        value = self._fields.get(name.encode(), b"").strip()
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")


def _headers(begin: int, validator: str | None) -> dict[bytes | str, bytes | str]:
    # Compressed, a range would be one of other bytes, and a small answer could become a large recording.
    asked: dict[bytes | str, bytes | str] = {
        "User-Agent": "bucketscribe",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
    }
    if begin and validator:
        asked |= {"Range": f"bytes={begin}-", "If-Range": validator}
    return asked


def _redirected(url: str, headers: _Headers, host: str) -> str:
    if not headers["location"]:
        raise OriginRefused(f"{host} redirects to nowhere")
    return urljoin(url, headers["location"].replace(" ", "%20"))


def _answer(response: httpcore.Response, begin: int, validator: str | None, named: str, watch: _Watch) -> Answer:
    headers = _Headers(response)
    _refuse(response.status, headers, watch.host)
    current = _validator(headers)
    if response.status == 206:
        begin, total = _range(headers["content-range"], begin, watch.host)
        # A part need not repeat what the whole is known by; if it does, it is the same.
        changed = current is not None and current != validator
    else:
        changed = begin > 0 and (current is None or current != validator)
        begin, total = 0, _number(headers["content-length"])
    if changed:
        raise OriginChanged(f"the recording at {watch.host} changed while it was fetched")
    return Answer(
        begin=begin,
        total=total,
        validator=current,
        filename=disposition_name(headers["content-disposition"]) or named,
        content_type=media_type(headers["content-type"]),
        blocks=watch.watched(response.iter_stream()),
    )


def _refuse(status: int, headers: _Headers, host: str) -> None:
    """Raises what an answer means that is no recording."""
    if status in (200, 203, 206):
        encoding = headers["content-encoding"].lower()
        if encoding not in ("", "identity"):
            raise OriginRefused(f"{host} sends the recording as {quoted(encoding)}, which was not asked for")
        return
    known = {member.value: member.phrase for member in HTTPStatus}
    fact = f"{host} answered {status} {known.get(status, '')}".rstrip()
    if status in (404, 410):
        raise OriginMissing(fact)
    if status in (412, 416):
        raise OriginChanged(f"{fact}: the recording changed while it was fetched")
    if status in _FAILING or status >= 500:
        raise OriginFailing(fact, retry_after=min(_number(headers["retry-after"]) or 0, _MAX_RETRY_AFTER))
    raise OriginRefused(fact)


def _range(header: str, begin: int, host: str) -> tuple[int, int | None]:
    found = _CONTENT_RANGE.fullmatch(header)
    if found is None or int(found[1]) > begin:
        raise OriginRefused(f"{host} sent another part of the recording than was asked for")
    return int(found[1]), _number(found[2])


def _number(text: str) -> int | None:
    """None: it is none."""
    return int(text) if re.fullmatch(_NUMBER, text) else None


def _validator(headers: _Headers) -> str | None:
    """A strong one, as RFC 9110 (13.1.5) wants it: the same validator must mean the same bytes."""
    etag, modified = headers["etag"], headers["last-modified"]
    if etag:
        return None if etag.startswith("W/") else etag
    try:
        age = parsedate_to_datetime(headers["date"]) - parsedate_to_datetime(modified)
    except (TypeError, ValueError):
        return None  # One of them is missing, or no date.
    # What was modified in the second in which it was sent may be modified again in the same second.
    return modified if age.total_seconds() >= 1 else None


@contextmanager
def _named(watch: _Watch) -> Iterator[None]:
    """httpcore's errors leave by our names; their messages name the host and nothing else of the url."""
    try:
        yield
    except httpcore.ConnectTimeout as error:
        raise UrlUnreachable(f"{watch.host} did not take the connection within {_CONNECT_SECONDS} s") from error
    except httpcore.TimeoutException as error:
        raise OriginTimeout(f"{watch.host} sent nothing for {watch.idle_seconds:g} s") from error
    except httpcore.ConnectError as error:
        raise _unconnected(error, watch.host) from error
    except (httpcore.NetworkError, httpcore.ProtocolError) as error:
        reason = str(error) or type(error).__name__
        raise OriginBroke(f"the connection to {watch.host} broke: {reason[:200]}") from error


def _unconnected(error: httpcore.ConnectError, host: str) -> OriginError | UrlUnreachable:
    # httpcore's pool takes the cause off what it raises; where it came from stays.
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return OriginUntrusted(f"the certificate of {host} is not valid: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError):
        return OriginUntrusted(f"{host} and this service agree on no safe connection: {cause.reason}")
    return UrlUnreachable(f"{host} cannot be reached: {str(error) or 'no connection'}")
