"""Requests written byte by byte, for what no client library would send."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

BOUNDARY = "b7c1e0"


def part(name: str, content: bytes, filename: str | None = None, content_type: str | None = None) -> bytes:
    """One part of a form, with the boundary before it."""
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"'
    lines = [f"--{BOUNDARY}", disposition, *([f"Content-Type: {content_type}"] if content_type else []), "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


@contextmanager
def connection(url: str) -> Iterator[socket.socket]:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=120) as opened:
        yield opened


def head(path: str, **headers: str) -> bytes:
    """The first lines of a POST."""
    given = {"Host": "127.0.0.1", "Content-Type": FORM_TYPE, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return "\r\n".join([f"POST {path} HTTP/1.1", *(f"{k}: {v}" for k, v in given.items()), "", ""]).encode()


def first_line(opened: socket.socket) -> str:
    """The status line of the answer."""
    received = b""
    while b"\r\n" not in received and (block := opened.recv(4096)):
        received += block
    return received.split(b"\r\n")[0].decode()
