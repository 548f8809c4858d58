"""One request on its way through the dispatcher, and what became of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final

from vecstow_engine.api.bodies import Receive
from vecstow_engine.api.envelope import Answer
from vecstow_engine.api.keys import Key
from vecstow_engine.api.point_routes import Match
from vecstow_engine.api.request import Request

Send = Callable[[Any], Awaitable[None]]

UNKNOWN_ROUTE: Final = "unknown"


class Exchange:
    """The two ends of an ASGI request, the parsed request, and the status that was sent."""

    __slots__ = (
        "_send",
        "began",
        "body_read",
        "key",
        "match",
        "path",
        "receive",
        "request",
        "route",
        "scope",
        "started",
        "status",
    )

    def __init__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self._send = send
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
        """Pass an ASGI message on, keeping the status."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
        await self._send(message)

    async def answer(self, answer: Answer, *, last: bool = True) -> None:
        """Send a whole answer; with `last` False the connection's fate stays open."""
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
        await self._send({"type": "http.response.body", "body": answer.body, "more_body": not last})


class Replay:
    """A `receive` that gives the body that was read already, then what the client does next."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Any:
        """The next ASGI message."""
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}
