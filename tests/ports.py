"""Ports for programs that a test starts, and starts again."""

from __future__ import annotations

import os
import random
import socket

ALONE = range(20_000, 30_000)
SIDE_BY_SIDE = range(10_000, 20_000)
PER_WORKER = 1_000
"""Both below the kernel's ports for outgoing connections: one of those may have the port of a program that is
down for a moment, and a client that retries it may even be given that very port and connect to itself.
Below the ports of Services, too.
"""
_chance = random.SystemRandom()
"""Not the global one: property tests seed it, in several processes at once."""
_given: set[int] = set()


class NoFreePort(Exception):
    """Raised when nothing is left of this process's ports."""


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody listens on, that nobody in a process beside this one is given, and in this one
    nobody else before all were given.
    """
    for _ in range(2):
        left = [port for port in own_ports() if port not in _given]
        for port in _chance.sample(left, len(left)):
            if is_free(address, port):
                _given.add(port)
                return port
        _given.clear()
    raise NoFreePort(f"{address}, {own_ports()}")


def own_ports() -> range:
    """Processes that run tests side by side share none."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return ALONE
    first = SIDE_BY_SIDE.start + int(worker.removeprefix("gw")) * PER_WORKER
    return range(first, first + PER_WORKER)


def is_free(address: str, port: int) -> bool:
    """Nobody listens there now."""
    try:
        socket.create_server((address, port)).close()
    except OSError:
        return False
    return True
