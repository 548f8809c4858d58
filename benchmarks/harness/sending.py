"""Sending prebuilt writes as fast as they are acknowledged: one process, a thread per connection.

A thread hands bytes to the kernel and waits, without the interpreter's lock; `client_cpu_seconds` shows that
the client is not what is measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from benchmarks.harness.figures import BenchmarkFailed
from benchmarks.harness.server import Server
from benchmarks.harness.wire import Connection

CONNECTIONS: Final = 4
_BUSY: Final = 429
_BUSY_SECONDS: Final = 0.05


@dataclass(slots=True)
class Sent:
    """How sending went."""

    seconds: float
    """From the first byte sent to the last acknowledgement."""
    client_cpu_seconds: float
    refusals: int
    """Answers 429, after which the same request was sent again."""


def send_all(server: Server, requests: Iterable[bytes], connections: int = CONNECTIONS) -> Sent:
    """Send every request over keep-alive connections; raises BenchmarkFailed for an answer not 200 or 429."""
    sender = _Sender(requests)
    opened = [server.connect() for _ in range(connections)]
    try:
        with ThreadPoolExecutor(connections) as pool:
            cpu, started = time.process_time(), time.perf_counter()
            for done in [pool.submit(sender.send, connection) for connection in opened]:
                done.result()
            seconds = time.perf_counter() - started
    finally:
        for connection in opened:
            connection.socket.close()
    return Sent(seconds, time.process_time() - cpu, sender.refusals)


class _Sender:
    def __init__(self, requests: Iterable[bytes]) -> None:
        self._requests = iter(requests)
        self._lock = threading.Lock()
        self.refusals = 0

    def send(self, connection: Connection) -> None:
        while (request := self._next()) is not None:
            while not self._is_taken(connection, request):
                time.sleep(_BUSY_SECONDS)

    def _next(self) -> bytes | None:
        with self._lock:
            return next(self._requests, None)

    def _is_taken(self, connection: Connection, request: bytes) -> bool:
        answer = connection.exchange(request)
        if answer.status == _BUSY:
            self.refusals += 1
            return False
        if answer.status != 200:
            raise BenchmarkFailed(f"a write was answered {answer.status}: {answer.body[:500]!r}")
        return True
