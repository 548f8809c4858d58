"""Ports for programs that a test starts, and starts again."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

PORTS = range(10_000, 30_000)
"""Below the kernel's ports for outgoing connections: one of those may have the port of a program that is down
for a moment, and a client that retries it may even be given that very port and connect to itself. Below the
ports of Services, too.
"""
RESERVATIONS = Path(tempfile.gettempdir()) / "vecstow-test-ports.lock"
"""A process locks the byte at the number of each port that it was given, until it ends."""
_chance = random.SystemRandom()
"""Not the global one: property tests seed it, in several processes at once."""
_given: set[int] = set()
_reservations: list[int] = []


class NoFreePort(Exception):
    """Raised when no port is left."""


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port on which no program listens, and which no other process was given.

    A process is given a port for the second time only when it was given all others.
    """
    for _ in range(2):
        left = [port for port in PORTS if port not in _given]
        for port in _chance.sample(left, len(left)):
            if is_free(address, port) and reserve(port):
                _given.add(port)
                return port
        _given.clear()
    raise NoFreePort(f"{address}, {PORTS}")


def reserve(port: int) -> bool:
    """Whether the port is this process's until it ends.

    A program may need seconds until it listens: without a reservation another process is given the same port,
    and its client talks to the wrong program.
    """
    if not _reservations:
        _reservations.append(os.open(RESERVATIONS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
    try:
        fcntl.lockf(_reservations[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def is_free(address: str, port: int) -> bool:
    """Whether no program listens there now."""
    try:
        socket.create_server((address, port)).close()
    except OSError:
        return False
    return True
