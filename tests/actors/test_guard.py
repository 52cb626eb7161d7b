"""Which urls the service may go to; and that it goes to the very address that was checked."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpcore
import pytest

from actors.errors import UrlNotAllowed, UrlUnreachable
from actors.guard import Guard, Target, parse
from actors.outgoing import open_pool, to_httpcore
from storage.settings import SettingsError


class Origin:
    """A server on 127.0.0.1 that answers with the Host it was asked for, after what it was told to send slowly."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        seen = self.hosts

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(self.headers["Host"])
                if self.path == "/silent":
                    self.rfile.read(1)  # Until the client goes away.
                    return
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def origin() -> Iterator[Origin]:
    started = Origin()
    yield started
    started.close()


@pytest.mark.parametrize(
    "host",
    [
        "8.8.8.8",
        "8.8.8.8:8443",
        "[2001:4860:4860::8888]",
        "[::ffff:8.8.8.8]",  # IPv4 in IPv6's clothes
        "[64:ff9b::8.8.8.8]",  # through NAT64
        "134744072",  # 8.8.8.8 as one number
    ],
)
def test_public_addresses_are_allowed(host: str) -> None:
    Guard().check(f"https://{host}/talk.mp3")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "１２７.0.0.1",
        "localhost",
        "0.0.0.0",
        "10.1.2.3",
        "172.31.255.255",
        "192.168.0.1",
        "100.64.0.1",  # carriers' own
        "100.100.100.200",  # in it, Alibaba's metadata
        "169.254.169.254",  # clouds' metadata
        "168.63.129.16",  # Azure's
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.0.8",  # of the IETF's protocols
        "192.0.0.192",  # Oracle's metadata, formerly
        "192.88.99.1",  # of 6to4's relays
        "198.18.0.1",  # for benchmarks
        "198.19.255.255",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::10.0.0.1]",
        "[64:ff9b::192.0.0.192]",
        "[64:ff9b:1::8.8.8.8]",
        "[2002:7f00:1::]",
        "[2002:808:808::1]",  # through 6to4
        "[2001:0:808:808::]",  # Teredo
        "[2001:20::1]",  # of the IETF's protocols
        "[3fff::1]",  # for documents
        "[5f00::1]",  # segments' own
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[fe80::1%1]",
        "[fec0::1]",
        "[ff02::1]",
        "[2001:db8::1]",
    ],
)
def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    with pytest.raises(UrlNotAllowed) as refused:
        Guard().check(f"http://{host}/")

    assert refused.value.code == "url_not_allowed"
    assert "is not public" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/talk.mp3",
        "//8.8.8.8/talk.mp3",
        "8.8.8.8/talk.mp3",
        "ftp://8.8.8.8/talk.mp3",
        "file:///etc/passwd",
        "gopher://8.8.8.8/",
        "http://",
        "http:///talk.mp3",
        "http://user:password@8.8.8.8/",
        "http://user@8.8.8.8/",
        "http://@8.8.8.8/",
        "http://8.8.8.8:0/",
        "http://8.8.8.8:65536/",
        "http://8.8.8.8:http/",
        "http://8.8.8.8\\@127.0.0.1/",
        "http://8.8.8.8/a b",
        "http://8.8.8.8/a\r\nHost: 127.0.0.1",
        "http://8.8.8.8/\t",
        "http://[8.8.8.8]/",
        "http://[::1/",
        "http://a..b/",
        f"http://{'a' * 64}.example/",
        f"http://8.8.8.8/{'a' * 4096}",
    ],
)
def test_what_is_no_plain_url_of_http_is_refused(url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        Guard().check(url)


def test_a_refusal_does_not_tell_the_address_behind_a_name() -> None:
    guard = Guard(resolve=lambda host, port: ["10.20.30.40"])

    with pytest.raises(UrlNotAllowed) as refused:
        guard.check("http://intranet.example/")

    assert str(refused.value) == "'intranet.example' leads to an address that is not public"


@pytest.mark.parametrize("addresses", [["8.8.8.8", "127.0.0.1"], ["2001:4860:4860::8888", "fd00::1"]])
def test_one_private_address_of_several_refuses_the_name(addresses: list[str]) -> None:
    guard = Guard(resolve=lambda host, port: addresses)

    with pytest.raises(UrlNotAllowed):
        guard.check("http://both.example/")


def test_allowed_networks_are_allowed_and_no_others() -> None:
    guard = Guard(" 127.0.0.0/8,10.1.0.0/16, fd00::/8 ,192.168.1.7")

    for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "10.1.2.3", "[fd00::1]", "192.168.1.7", "8.8.8.8"):
        guard.check(f"http://{host}/")
    for host in ("10.2.0.1", "192.168.1.8", "[fe80::1]", "169.254.169.254"):
        with pytest.raises(UrlNotAllowed):
            guard.check(f"http://{host}/")


def test_a_network_that_is_none_is_told_with_its_setting() -> None:
    with pytest.raises(SettingsError, match=r"ALLOWED_NETWORKS='10\.0\.0\.0/33'"):
        Guard("127.0.0.0/8,10.0.0.0/33")


def test_a_name_that_is_not_there_is_unreachable_and_one_that_cannot_be_asked_for_passes() -> None:
    def away(host: str, port: int) -> list[str]:
        raise UrlUnreachable("the resolver does not answer", passing=True)

    Guard(resolve=away).check("http://talks.example/")
    with pytest.raises(UrlUnreachable, match=r"nosuch\.invalid"):
        Guard().check("http://nosuch.invalid/")


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("HTTP://Talks.Example", Target("http", "talks.example", 80, "/")),
        ("https://talks.example:8443/a%20b?c=%2F#d", Target("https", "talks.example", 8443, "/a%20b?c=%2F")),
        ("https://bücher.example/ä?ü", Target("https", "xn--bcher-kva.example", 443, "/%C3%A4?%C3%BC")),
        ("http://[2001:4860::1]/x", Target("http", "2001:4860::1", 80, "/x")),
    ],
)
def test_a_url_is_read_in_one_way(url: str, target: Target) -> None:
    read = parse(url)
    asked = to_httpcore(url)

    assert read == target
    assert (asked.scheme, asked.port, asked.target) == (target.scheme.encode(), target.port, target.path.encode())
    assert asked.host.strip(b"[]") == target.host.encode()


def test_the_address_that_was_checked_is_the_one_connected_to(origin: Origin) -> None:
    """The name changes its address between the check at request time and the connection, and again after that."""
    answers = iter([["8.8.8.8"], ["127.0.0.1"], ["127.0.0.2"]])
    guard = Guard("127.0.0.1/32", resolve=lambda host, port: next(answers))
    url = f"http://rebound.example:{origin.port}/"
    guard.check(url)

    with open_pool(guard) as pool:
        first = pool.request("GET", to_httpcore(url))
        with pytest.raises(UrlNotAllowed):
            pool.request("GET", to_httpcore(url))

    assert first.content == b"ok"
    assert origin.hosts == [f"rebound.example:{origin.port}"]


def test_an_address_that_does_not_answer_leaves_the_turn_to_the_next(origin: Origin) -> None:
    guard = Guard("127.0.0.0/8", resolve=lambda host, port: ["127.0.0.2", "127.0.0.1"])

    with open_pool(guard) as pool:
        answer = pool.request("GET", to_httpcore(f"http://two.example:{origin.port}/"))

    assert answer.status == 200


def test_proxies_of_the_environment_are_not_used(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    with open_pool(Guard("127.0.0.0/8")) as pool:
        answer = pool.request("GET", to_httpcore(f"http://127.0.0.1:{origin.port}/"))

    assert answer.content == b"ok"


def test_a_request_ends_when_it_is_not_wanted_any_more_though_the_server_is_silent(origin: Origin) -> None:
    class Unwanted(Exception):
        pass

    looks = 0

    def still_wanted() -> None:
        nonlocal looks
        looks += 1
        if looks > 2:
            raise Unwanted

    pool = open_pool(Guard("127.0.0.0/8"), still_wanted)
    with pool, pytest.raises(Unwanted):
        pool.request("GET", to_httpcore(f"http://127.0.0.1:{origin.port}/silent"))


def test_a_silent_server_is_waited_for_as_long_as_was_said(origin: Origin) -> None:
    url = to_httpcore(f"http://127.0.0.1:{origin.port}/silent")

    with open_pool(Guard("127.0.0.0/8")) as pool, pytest.raises(httpcore.ReadTimeout):
        pool.request("GET", url, extensions={"timeout": {"read": 0.7}})
