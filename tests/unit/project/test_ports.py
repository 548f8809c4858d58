"""Ports of programs that tests start: no other program has them, now or while the program is down."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ports

ROOT = Path(__file__).parents[3]
GIVEN = "from tests.ports import free_port; print(free_port(), flush=True); input()"


def test_ports_are_different_and_no_outgoing_connection_takes_them():
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = [ports.free_port() for _ in range(20)]
    assert len(set(found)) == 20
    assert set(found) <= set(ports.PORTS)
    assert max(ports.PORTS) < lowest


def test_no_port_is_given_to_two_processes(monkeypatch):
    """Nor while the program that it is for does not listen yet."""
    with subprocess.Popen(
        [sys.executable, "-c", GIVEN], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        port = int(other.stdout.readline())
        monkeypatch.setattr(ports, "PORTS", range(port, port + 1))
        assert ports.is_free("127.0.0.1", port)
        with pytest.raises(ports.NoFreePort):
            ports.free_port()
        other.communicate("\n")
    assert ports.free_port() == port


def test_ports_come_round_again_when_all_were_given(monkeypatch):
    monkeypatch.setattr(ports, "PORTS", range(29_990, 29_993))
    monkeypatch.setattr(ports, "is_free", lambda _address, _port: True)
    monkeypatch.setattr(ports, "reserve", lambda _port: True)  # another worker may have one of the three
    assert len({ports.free_port() for _ in range(3)}) == 3
    assert ports.free_port() in range(29_990, 29_993)


def test_no_free_port_is_an_error(monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda _address, _port: False)
    with pytest.raises(ports.NoFreePort):
        ports.free_port()
