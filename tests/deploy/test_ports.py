"""Ports for parts: several test runs on one machine must not take each other's."""

import socket
import subprocess
import sys

import pytest

from deploy.embedded.parts import GRPC_OFFSET, HOST, PortsTaken, free_port
from tests.conftest import ROOT

ASK = "import sys; from deploy.embedded.parts import free_port; free_port(1, range(*map(int, sys.argv[1:])))"


def draw_elsewhere(among: range) -> subprocess.CompletedProcess[str]:
    """Another process asks for one of these ports."""
    command = [sys.executable, "-c", ASK, str(among.start), str(among.stop)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_ports_that_one_process_was_given_are_given_to_no_other() -> None:
    first = free_port(3)

    other = draw_elsewhere(range(first, first + 3))

    assert "PortsTaken" in other.stderr
    with pytest.raises(PortsTaken):
        free_port(1, range(first, first + 3))


def test_a_server_can_listen_on_a_port_that_was_given() -> None:
    first = free_port(2)

    for port in (first, first + 1):
        with socket.create_server((HOST, port)):
            pass


@pytest.mark.parametrize("above", [0, GRPC_OFFSET])
def test_a_port_that_somebody_listens_on_is_not_given(above: int) -> None:
    with socket.create_server((HOST, 0)) as server:
        wanted = server.getsockname()[1] - above

        with pytest.raises(PortsTaken):
            free_port(1, range(wanted, wanted + 1))
