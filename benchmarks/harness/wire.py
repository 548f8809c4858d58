"""HTTP/1.1 over plain sockets: requests are built beforehand, so a client costs next to nothing."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from benchmarks.harness.figures import BenchmarkFailed

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
_RECEIVE_BYTES: Final = 1 << 20
_LENGTH_BYTES: Final = 4


def build_request(method: str, path: str, body: bytes = b"", media: str = JSON) -> bytes:
    """A whole request as it goes over the wire; the answer comes in the same format."""
    head = f"{method} {path} HTTP/1.1\r\nHost: benchmark\r\nAccept: {media}\r\n"
    if body:
        head += f"Content-Type: {media}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class Answer:
    """Collects the bytes of one answer."""

    __slots__ = ("_body_at", "_end", "_received", "status")

    def __init__(self) -> None:
        self._received = bytearray()
        self._body_at = 0
        self._end = 0
        self.status = 0

    def take(self, data: bytes) -> bool:
        """Add what arrived; whether the answer is complete."""
        self._received += data
        if not self._end:
            head_end = self._received.find(b"\r\n\r\n")
            if head_end < 0:
                return False
            head = bytes(self._received[:head_end]).lower()
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self.status = int(head[9:12])
            self._body_at = head_end + 4
            self._end = self._body_at + int(length)
        return len(self._received) >= self._end

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a complete answer, by names in lower case."""
        lines = bytes(self._received[: self._body_at - 4]).decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(": ") for line in lines)
        return {name.lower(): value for name, _, value in pairs}

    @property
    def body(self) -> bytes:
        """The body of a complete answer."""
        return bytes(self._received[self._body_at : self._end])


class Connection:
    """One keep-alive connection; a request at a time."""

    def __init__(self, port: int, timeout_seconds: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def exchange(self, request: bytes) -> Answer:
        """Send a prebuilt request and wait for its answer, whatever the status."""
        self.socket.sendall(request)
        answer = Answer()
        while True:
            data = self.socket.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            if answer.take(data):
                return answer

    def call(self, method: str, path: str, document: object = None) -> Any:
        """The `data` of a JSON answer; raises BenchmarkFailed for an error."""
        body = b"" if document is None else json.dumps(document).encode()
        answer = self.exchange(build_request(method, path, body))
        envelope = json.loads(answer.body)
        if not envelope["success"]:
            raise BenchmarkFailed(f"{method} {path}: {answer.status}, {envelope['error']}")
        return envelope["data"]


def write_requests(path: Path, requests: Iterable[bytes]) -> None:
    """Requests for a load generator: each after its length, four bytes big-endian."""
    with path.open("wb") as stream:
        for request in requests:
            stream.write(len(request).to_bytes(_LENGTH_BYTES, "big") + request)


def read_requests(path: Path) -> list[bytes]:
    """Read what `write_requests` wrote."""
    raw = path.read_bytes()
    requests = []
    position = 0
    while position < len(raw):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(raw[position:start], "big")
        requests.append(raw[start:position])
    return requests
