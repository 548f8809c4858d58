"""Ports of programs that tests start: nobody else has them, now or while the program is down."""

from pathlib import Path

import pytest

from tests import ports


def test_ports_are_different_and_no_outgoing_connection_takes_them():
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = [ports.free_port() for _ in range(20)]
    assert len(set(found)) == 20
    assert set(found) <= set(ports.own_ports())
    assert max(ports.ALONE) < lowest


def test_processes_side_by_side_share_no_port(monkeypatch):
    shares = []
    for worker in (None, "gw0", "gw1", "gw9"):
        monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
        if worker:
            monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        shares.append(set(ports.own_ports()))
    assert len(set.union(*shares)) == sum(map(len, shares))


def test_ports_come_round_again_when_all_were_given(monkeypatch):
    monkeypatch.setattr(ports, "own_ports", lambda: range(19_990, 19_993))
    monkeypatch.setattr(ports, "is_free", lambda _address, _port: True)
    assert len({ports.free_port() for _ in range(3)}) == 3
    assert ports.free_port() in range(19_990, 19_993)


def test_no_free_port_is_told(monkeypatch):
    monkeypatch.setattr(ports, "is_free", lambda _address, _port: False)
    with pytest.raises(ports.NoFreePort):
        ports.free_port()
