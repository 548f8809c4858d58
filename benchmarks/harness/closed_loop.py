"""A client process that sends a request on each of its connections as soon as the last one is answered.

    python -m benchmarks.harness.closed_loop PORT REQUESTS CONNECTIONS RESULT

It stops when its input ends, and writes when each request was sent (seconds since 1970) and how long its
answer took to RESULT (.npz). It watches latency while something else goes on, and stands in for wrk.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.figures import BenchmarkFailed
from benchmarks.harness.wire import Answer, Connection, read_requests

_RECEIVE_BYTES: Final = 1 << 18
_READY: Final = b"ready\n"


class Probe:
    """Such a process, as its parent sees it."""

    def __init__(self, port: int, requests: Path, result: Path, connections: int = 1) -> None:
        self._result = result.with_suffix(".npz")
        command = [
            sys.executable,
            "-m",
            __name__,
            str(port),
            str(requests),
            str(connections),
            str(self._result),
        ]
        self._command = command

    def __enter__(self) -> Probe:
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != _READY:
            self._close()
            raise BenchmarkFailed("the client process did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def stop(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """When each request was sent (seconds since 1970), and its latency in ms."""
        if self._close() != 0:
            raise BenchmarkFailed("the client process failed; its message is above")
        with np.load(self._result) as arrays:
            return arrays["sent_at"], arrays["seconds"] * 1000

    def _close(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        return self._process.wait(60)


class _Loop:
    """All connections of this process, served by one thread."""

    def __init__(self, port: int, requests: list[bytes], connections: int) -> None:
        self._requests = requests
        self._number = 0
        self._selector = selectors.DefaultSelector()
        self.sent_at: list[float] = []
        self.seconds: list[float] = []
        for _ in range(connections):
            connection = Connection(port).socket
            self._send(connection)
        self._selector.register(sys.stdin, selectors.EVENT_READ)

    def run(self) -> None:
        """Until the input ends."""
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                self._receive(key.fileobj, key.data)

    def _send(self, connection: socket.socket) -> None:
        request = self._requests[self._number % len(self._requests)]
        self._number += 1
        state = (Answer(), time.time(), time.perf_counter())
        connection.sendall(request)
        if connection in self._selector.get_map():
            self._selector.modify(connection, selectors.EVENT_READ, state)
        else:
            self._selector.register(connection, selectors.EVENT_READ, state)

    def _receive(self, connection: Any, state: tuple[Answer, float, float]) -> None:
        answer, sent_at, started = state
        data = connection.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        if not answer.take(data):
            return
        if answer.status != 200:
            raise BenchmarkFailed(f"a search was answered {answer.status}: {answer.body[:500]!r}")
        self.sent_at.append(sent_at)
        self.seconds.append(time.perf_counter() - started)
        self._send(connection)


def _main(port: str, requests: str, connections: str, result: str) -> None:
    loop = _Loop(int(port), read_requests(Path(requests)), int(connections))
    sys.stdout.buffer.write(_READY)
    sys.stdout.flush()
    loop.run()
    np.savez(result, sent_at=np.array(loop.sent_at), seconds=np.array(loop.seconds))


if __name__ == "__main__":
    _main(*sys.argv[1:])
