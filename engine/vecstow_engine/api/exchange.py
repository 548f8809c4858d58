"""One request in the dispatcher, with the state of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final

from vecstow_engine.api.bodies import Disconnected, Receive
from vecstow_engine.api.envelope import Answer
from vecstow_engine.api.keys import Key
from vecstow_engine.api.point_routes import Match
from vecstow_engine.api.request import Request
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.service.request_memory import FREE_BYTES, Lease, Part

Send = Callable[[Any], Awaitable[None]]

UNKNOWN_ROUTE: Final = "unknown"
ABORT_IN_SCOPE: Final = "vecstow.abort"
"""A function that closes the connection at once, and drops unsent bytes."""
ARRIVED_IN_SCOPE: Final = "vecstow.arrived"
"""A function that returns whether the whole body has arrived; such a body is read without a time limit."""
JSON_IN_SCOPE: Final = "vecstow.json"
"""The decoded body of a request that FastAPI answers."""
PIECE_BYTES: Final = 262_144
"""Bytes of an answer that are passed to the connection at a time."""


class Exchange:
    """The two ends of an ASGI request, the parsed request, and the status that was sent."""

    __slots__ = (
        "_send",
        "_settings",
        "began",
        "body_read",
        "key",
        "lease",
        "match",
        "path",
        "receive",
        "request",
        "route",
        "scope",
        "started",
        "status",
    )

    def __init__(
        self, scope: Any, receive: Receive, send: Send, lease: Lease, settings: HttpSettings
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.lease = lease
        self._send = send
        self._settings = settings
        self.began = perf_counter()
        self.path = ""
        self.route = UNKNOWN_ROUTE
        self.request: Request | None = None
        self.match: Match | None = None
        self.key: Key | None = None
        self.body_read = False
        self.started = False
        self.status = 500

    async def send(self, message: Any) -> None:
        """Send an ASGI message, and record the status; raise Disconnected for a client that is too slow."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            await self._send(message)
        else:
            await self._send_body(message.get("body", b""), last=not message.get("more_body", False))

    async def answer(self, answer: Answer, *, last: bool = True) -> None:
        """Send a whole answer. With `last` False the caller must send the final, empty message."""
        self.started = True
        self.status = answer.status
        await self._send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [
                    (b"content-type", answer.media),
                    (b"content-length", b"%d" % len(answer.body)),
                    *answer.headers,
                ],
            }
        )
        await self._send_body(answer.body, last=last)

    async def _send_body(self, body: bytes | bytearray, *, last: bool) -> None:
        if len(body) > FREE_BYTES:
            await self._send_large(body, last=last)
        else:
            await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    async def _send_large(self, body: bytes | bytearray, *, last: bool) -> None:
        """Send in pieces, each after the client took the one before it; the lease holds the body.

        The required rate is that of the whole body, so a client that reads slowly gains no time. Raises
        Disconnected, and aborts the connection, after the time limit.
        """
        self.lease.hold(Part.ANSWERS, len(body))
        seconds = self._settings.write_stall_seconds_max
        seconds += len(body) / self._settings.answer_bytes_per_second_min
        try:
            async with asyncio.timeout(seconds):
                for start in range(0, len(body), PIECE_BYTES):
                    piece = memoryview(body)[start : start + PIECE_BYTES]
                    await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                # The server waits for the client before it takes this message.
                await self._send({"type": "http.response.body", "body": b"", "more_body": not last})
        except TimeoutError:
            self.scope.get(ABORT_IN_SCOPE, _nothing)()
            raise Disconnected from None

    @property
    def body_has_arrived(self) -> bool:
        """Whether the whole body has arrived, so that reading it does not wait."""
        has_arrived: Callable[[], bool] = self.scope.get(ARRIVED_IN_SCOPE, _never)
        return has_arrived()


def _never() -> bool:
    """Return False: the server does not report whether the body has arrived."""
    return False


def _nothing() -> None:
    """Do nothing: the server offers no way to abort."""


class Replay:
    """A `receive` for FastAPI once `scope[JSON_IN_SCOPE]` has the decoded body: `{}` stands for the body."""

    def __init__(self, has_body: bool, receive: Receive) -> None:
        self._body: bytes | None = b"{}" if has_body else b""
        self._receive = receive

    async def __call__(self) -> Any:
        """Return the next ASGI message."""
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
