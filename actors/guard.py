"""Which addresses a url that a client gave may lead to: public ones, and those of ALLOWED_NETWORKS.

Whoever may name a url for the service to fetch, or to post to, could otherwise reach through it what only the service
reaches: Redis, the store, a cloud's metadata. So a name is resolved and every address of it checked; what is connected
to (actors/outgoing.py) is one of the addresses that were checked, not whatever the name means a moment later.
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from actors.errors import UrlNotAllowed, UrlUnreachable
from storage.errors import quoted
from storage.settings import SettingsError

Address = IPv4Address | IPv6Address

_PORTS = {"http": 80, "https": 443}
_MAX_URL_CHARACTERS = 4096

#: https://www.rfc-editor.org/rfc/rfc6052: IPv6-only networks reach IPv4 through it.
_NAT64 = IPv6Network("64:ff9b::/96")
#: Not public, though ipaddress of some Python versions says so.
_NOT_PUBLIC = tuple(
    ip_network(text)
    for text in (
        "168.63.129.16/32",  # Public, but at Azure's machines it is their host's own server.
        "192.0.0.0/24",  # The IETF's protocols (RFC 6890); clouds have had metadata there.
        "192.88.99.0/24",  # Relays of 6to4, given up (RFC 7526).
        "64:ff9b:1::/48",  # A network's own NAT64 (RFC 8215).
        "2001::/23",  # The IETF's protocols (RFC 2928), Teredo among them.
        "2002::/16",  # 6to4: an IPv4 address in IPv6's clothes, of whatever kind.
        "3fff::/20",  # For documents (RFC 9637).
        "fec0::/10",  # IPv6's former private addresses (RFC 3879).
    )
)
#: The resolver's words for a name that is not there; all its others may be different a moment later.
_NO_SUCH_NAME = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class Target(NamedTuple):
    """A url taken apart, the one reading of it that is both checked and connected to."""

    scheme: str
    #: ASCII: a name of other letters as IDNA writes it; an IPv6 address without brackets.
    host: str
    port: int
    #: Path and query, percent-encoded.
    path: str


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host in the system's order; blocks for as long as its resolver does.

    Raises:
        UrlNotAllowed: this can be no host's name.
        UrlUnreachable: there is no such name, or the resolver does not answer.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        reason = f"the name {quoted(host)} cannot be resolved: {error.strerror}"
        raise UrlUnreachable(reason, passing=error.errno not in _NO_SUCH_NAME) from error
    except UnicodeError as error:
        raise UrlNotAllowed(f"{quoted(host)} is no name of a host") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    def __init__(self, allowed_networks: str = "", resolve: Callable[[str, int], Sequence[str]] = resolve) -> None:
        """`allowed_networks`: as in the setting, `10.0.0.0/8, fd00::/8`.

        Raises:
            SettingsError: one of them is no network.
        """
        self._allowed = list(_networks(allowed_networks))
        self._resolve = resolve

    def check(self, url: str) -> None:
        """Ask whether the service may go there; blocks while the name is resolved.

        A resolver that does not answer is no reason to refuse: whoever connects asks it again.

        Raises:
            UrlNotAllowed: it is no url of http or https, carries a user, or leads to an address that is not public.
            UrlUnreachable: there is no such name.
        """
        target = parse(url)
        try:
            self.addresses(target.host, target.port)
        except UrlUnreachable as error:
            if not error.passing:
                raise

    def addresses(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host, in the resolver's order, all of them allowed: one private among them refuses all.

        Raises:
            UrlNotAllowed: one of them is not public and in none of the allowed networks.
            UrlUnreachable: the name cannot be resolved.
        """
        addresses = self._resolve(host, port)
        if not all(self._is_allowed(ip_address(address)) for address in addresses):
            # Not which: an answer that tells addresses would map the network for whoever asks.
            raise UrlNotAllowed(f"{quoted(host)} leads to an address that is not public")
        return addresses

    def _is_allowed(self, address: Address) -> bool:
        if isinstance(address, IPv6Address):
            # An IPv4 address in IPv6's clothes is connected to as the IPv4 address.
            address = address.ipv4_mapped or address
        return any(address in network for network in self._allowed) or _is_public(address)


def parse(url: str) -> Target:
    """
    Raises:
        UrlNotAllowed: it is no url of http or https that names a host, and nothing else, to be asked.
    """
    if len(url) > _MAX_URL_CHARACTERS:
        raise UrlNotAllowed(f"the url has {len(url)} characters, the limit is {_MAX_URL_CHARACTERS}")
    # Readers of urls differ in what they make of these: some drop them, some take a backslash for a slash.
    if "\\" in url or not url.isprintable() or " " in url:
        raise UrlNotAllowed("a url has no spaces, backslashes or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = _ascii(parts.hostname or "")
    except (ValueError, UnicodeError) as error:
        raise UrlNotAllowed("the url cannot be read") from error
    if parts.scheme not in _PORTS:
        raise UrlNotAllowed("a url begins with http:// or https://")
    if "@" in parts.netloc:
        raise UrlNotAllowed("a url with a user or a password is not taken")
    if not host or port == 0:
        raise UrlNotAllowed("the url names no host that could be asked")
    # What is percent-encoded stays so.
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], f"{path}?{query}" if query else path)


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _is_public(address: Address) -> bool:
    if address in _NAT64:
        return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return not any(address in network for network in _NOT_PUBLIC)


def _networks(text: str) -> Iterator[IPv4Network | IPv6Network]:
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            yield ip_network(part, strict=False)
        except ValueError as error:
            raise SettingsError(f"ALLOWED_NETWORKS={part!r} is no network; write 10.0.0.0/8") from error
