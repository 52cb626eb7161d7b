"""Refuses requests of foreign web pages, which a browser sends from inside its network, with keys that it keeps.

A page of another site may post forms and text anywhere without being asked. Browsers say where such a request comes
from (`Origin`, `Sec-Fetch-Site`): it changes nothing here unless CORS_ORIGINS names that origin. A page whose host name
is pointed at this server later (DNS rebinding) has the API's own origin, but its host name is not one of ours. That
matters where no key protects the API. Clients that are no browsers send neither header and are not affected.
"""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from litestar.config.cors import CORSConfig
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from service.errors import ApiError
from service.settings import ServiceSettings
from storage.errors import quoted
from storage.settings import StorageSettings

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def read_hosts(settings: ServiceSettings, storage_settings: StorageSettings) -> frozenset[str]:
    """Names of this server, in small letters: ALLOWED_HOSTS, and where the store is reached from outside."""
    named = [host.strip().lower() for host in settings.allowed_hosts.split(",")]
    return frozenset({*named, urlsplit(storage_settings.s3_public_endpoint_url).hostname or ""} - {""})


def require_known_host(hosts: frozenset[str]) -> Guard:
    """A guard: the Host header is an address, a loopback name or one of `hosts`, at any port."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        for host in connection.headers.getall("host", []):
            if "*" not in hosts and not _is_known(host.lower(), hosts):
                detail = f"the API is not served as {quoted(host)}; if it is, name it in ALLOWED_HOSTS"
                raise ApiError("host_not_allowed", detail)

    return guard


def require_own_origin(hosts: frozenset[str], cors: CORSConfig | None) -> Guard:
    """A guard: requests that change state do not come from another origin, unless CORS_ORIGINS allows it."""

    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if connection.scope.get("method") in _SAFE_METHODS:
            return
        origin = connection.headers.get("origin")
        if origin is None:
            allowed = connection.headers.get("sec-fetch-site", "none").lower() in ("none", "same-origin")
        else:
            own = {_without_default_port(connection.headers.get("host", "").lower(), origin), *hosts}
            allowed = _authority(origin) in own or (cors is not None and cors.is_origin_allowed(origin))
        if not allowed:
            sender = f"a page of {quoted(origin)}" if origin else "a page of another site"
            raise ApiError("origin_not_allowed", f"{sender} may not change anything; CORS_ORIGINS may allow it")

    return guard


def _is_known(host: str, hosts: frozenset[str]) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    return name in hosts or host in hosts or name == "localhost" or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    """Only a name can be pointed at another server."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _authority(origin: str) -> str | None:
    """Host and port of an origin, without the scheme's own port; None: it has none, as `null`."""
    _, separator, authority = origin.lower().partition("://")
    return _without_default_port(authority, origin) if separator and authority else None


def _without_default_port(authority: str, origin: str) -> str:
    return authority.removesuffix({"http": ":80", "https": ":443"}.get(origin.lower().partition("://")[0], ":"))
