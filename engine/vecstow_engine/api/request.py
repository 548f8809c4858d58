"""One request: its head, its body within the limits of bytes and time, and the state of its answer.

The HTTP parser has already found the end of the message (RFC 9112, 6.3): one Content-Length, or chunks. This
module checks the other headers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from vecstow_engine.api.answers import Answer, Media, media_of_answer, media_of_body
from vecstow_engine.api.errors import Malformed, SlowBody, UnknownExpectation, UnsupportedEncoding
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.model.errors import TooLarge, refused
from vecstow_engine.service.request_memory import FREE_BYTES, Lease, Part

if TYPE_CHECKING:
    from vecstow_engine.api.access import Key
    from vecstow_engine.api.point_routes import Match

T = TypeVar("T")
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

UNKNOWN_ROUTE: Final = "unknown"
ABORT_IN_SCOPE: Final = "vecstow.abort"
"""A function that closes the connection at once, and drops unsent bytes."""
ARRIVED_IN_SCOPE: Final = "vecstow.arrived"
"""A function that returns whether the whole body has arrived; such a body is read without a time limit."""
PIECE_BYTES: Final = 262_144
"""Bytes of an answer that are passed to the connection at a time."""
INLINE_BYTES_MAX: Final = 65_536
"""Bytes that are decoded or encoded in a few milliseconds at most, for any content."""
CODING_THREADS: Final = 2

_CONDITIONS: Final = (b"if-match", b"if-none-match")
_HOST: Final = re.compile(rb"[^\s/?#@\\\x00-\x1f\x7f]*")
_coding_threads: Final = ThreadPoolExecutor(CODING_THREADS, thread_name_prefix="coding")


class Disconnected(Exception):
    """Raised when the client disconnected before the exchange was complete: no answer can be sent."""


async def run_coding(size: int, call: Callable[..., T], *args: object) -> T:
    """Call `call`, which decodes or encodes `size` bytes, and return its result; use a thread for many."""
    if size <= INLINE_BYTES_MAX:
        return call(*args)
    return await asyncio.get_running_loop().run_in_executor(_coding_threads, call, *args)


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """The largest size of a body in bytes, and a hint for the client of a larger one."""

    bytes_max: int
    hint: str | None = None

    def check(self, size: int) -> None:
        """Raise TooLarge for a body of at least `size` bytes when `size` is beyond the limit."""
        if size > self.bytes_max:
            raise TooLarge(
                f"the body has {size} bytes or more; the limit is {self.bytes_max}",
                hint=self.hint,
                details=refused("body", size, self.bytes_max),
            )

    def within(self, bytes_max: int) -> BodyLimit:
        """Return this limit, lowered to `bytes_max` when it is above."""
        return replace(self, bytes_max=min(self.bytes_max, bytes_max))


@dataclass(slots=True, eq=False)
class Request:
    """The two ends of an ASGI request, its parts once they are read, and the status that was sent."""

    scope: Any
    receive: Receive
    send_message: Send
    lease: Lease
    settings: HttpSettings
    began: float = field(default_factory=perf_counter)
    method: str = ""
    path: str = ""
    """The path as the client sent it."""
    query: bytes = b""
    content_type: bytes | None = None
    content_encoding: bytes = b""
    if_match: bytes | None = None
    if_none_match: bytes | None = None
    declared_bytes: int | None = None
    has_body: bool = False
    body: bytes | bytearray = b""
    """Empty until it is read."""
    body_read: bool = False
    answer_media: Media = Media.JSON
    route: str = UNKNOWN_ROUTE
    match: Match | None = None
    collection: str = ""
    """The collection that the name in the path leads to; empty without a name."""
    key: Key | None = None
    started: bool = False
    """Whether the answer has begun."""
    status: int = 500

    def read_head(self) -> None:
        """Read the path and the headers; raise Malformed or UnknownExpectation."""
        scope = self.scope
        try:
            self.path = scope["raw_path"].decode("ascii")
        except UnicodeDecodeError as broken:
            raise Malformed(
                "the path has bytes that are not ASCII",
                hint="percent-encode them",
                details={"field": "path"},
            ) from broken
        # HEAD runs as GET: the server leaves out the body of the answer.
        self.method = "GET" if scope["method"] == "HEAD" else scope["method"]
        self.query = scope["query_string"]
        accept = host = None
        for name, value in scope["headers"]:
            if name == b"host":
                host = _check_host(value, host)
            elif name == b"content-length":
                self.declared_bytes = int(value)
                self.has_body = self.declared_bytes > 0
            elif name == b"content-type":
                self.content_type = _check_type(value, self.content_type)
            elif name == b"accept":
                accept = value
            elif name == b"transfer-encoding":
                self.has_body = True
                _check_transfer(value)
            elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                self.content_encoding = value
            elif name == b"expect":
                _check_expectation(value)
            elif name in _CONDITIONS:
                self._add_condition(name, value)
        if host is None and scope["http_version"] != "1.0":
            raise Malformed("the request has no header Host, which HTTP/1.1 requires")
        self.answer_media = media_of_answer(accept)
        self.body_read = not self.has_body

    def _add_condition(self, name: bytes, value: bytes) -> None:
        """Take one line of a header whose value is a list, which may come in several lines."""
        if name == b"if-match":
            self.if_match = value if self.if_match is None else self.if_match + b"," + value
        else:
            self.if_none_match = value if self.if_none_match is None else self.if_none_match + b"," + value

    async def read_body(self, limit: BodyLimit) -> None:
        """Read the whole body, whose memory the lease holds.

        Raises TooLarge as soon as more bytes than the limit are declared or received, SlowBody, Busy when the
        lease gets no more memory, Malformed for another length than the declared one, and Disconnected. After
        an error no part of the body is held.
        """
        arrived: Callable[[], bool] | None = self.scope.get(ARRIVED_IN_SCOPE)
        if arrived is not None and arrived():
            self.body = self._take_whole(await self._next(), limit)
        else:
            self.body = await self._read_slowly(limit)
        self.body_read = True
        if self.declared_bytes not in (None, len(self.body)):
            raise Malformed(f"{self.declared_bytes} bytes of body are declared, others came")

    def _take_whole(self, message: Any, limit: BodyLimit) -> bytes:
        body: bytes = message.get("body", b"")
        limit.check(len(body))
        self.lease.grow(Part.BODIES, len(body))
        return body

    async def _read_slowly(self, limit: BodyLimit) -> bytes | bytearray:
        if self.declared_bytes is not None:
            limit.check(self.declared_bytes)
        try:
            async with asyncio.timeout(self.settings.body_seconds_max) as clock:
                message = await self._next()
                if message.get("more_body", False):
                    return await self._read_pieces(message, limit, clock)
                return self._take_whole(message, limit)
        except TimeoutError as late:
            rate = self.settings.body_bytes_per_second_min
            raise SlowBody(f"the body did not arrive in time; at least {rate} bytes/s are needed") from late

    async def _read_pieces(self, message: Any, limit: BodyLimit, clock: asyncio.Timeout) -> bytearray:
        body = bytearray()
        size = 0
        started = clock.when() or 0.0
        loop = asyncio.get_running_loop()
        try:
            while True:
                chunk = message.get("body", b"")
                size += len(chunk)
                limit.check(size)
                self.lease.take(Part.BODIES, len(chunk))
                body += chunk
                if not message.get("more_body", False):
                    return body
                # A client that stops, or sends very slowly, must not hold the memory of its body for long.
                in_all = started + size / self.settings.body_bytes_per_second_min
                clock.reschedule(min(in_all, loop.time() + self.settings.body_seconds_max))
                message = await self._next()
        except BaseException:
            # The error's traceback keeps this frame, and the body with it, until the refusal is sent.
            body.clear()
            self.lease.hold(Part.BODIES, 0)
            raise

    async def _next(self) -> Any:
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        return message

    async def decode(self, read: Callable[..., T], *args: object) -> T:
        """Return the result of `read` for body, media, lease and `args`; give back the body's memory."""
        size = len(self.body)
        try:
            return await run_coding(size, read, self.body, self.body_media, self.lease, *args)
        finally:
            if size > FREE_BYTES:
                self.lease.hold(Part.BODIES, 0)
            self.body = b""

    @property
    def body_media(self) -> Media:
        """Return the format of the body; raise UnsupportedMedia."""
        return media_of_body(self.content_type)

    def check_encoding(self) -> None:
        """Raise UnsupportedEncoding when the body is compressed or otherwise coded."""
        if self.content_encoding:
            raise UnsupportedEncoding(
                f"content encoding {_shown(self.content_encoding)} is not read here",
                hint="send the body uncompressed, without the header Content-Encoding",
            )

    async def send(self, message: Any) -> None:
        """Send an ASGI message, and record the status; raise Disconnected for a client that is too slow."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            await self.send_message(message)
        else:
            await self._send_body(message.get("body", b""), last=not message.get("more_body", False))

    async def answer(self, answer: Answer, *, last: bool = True) -> None:
        """Send a whole answer. With `last` False the caller must send the final, empty message."""
        self.started = True
        self.status = answer.status
        await self.send_message(
            {"type": "http.response.start", "status": answer.status, "headers": answer.all_headers}
        )
        await self._send_body(answer.body, last=last)

    async def _send_body(self, body: bytes | bytearray, *, last: bool) -> None:
        if len(body) > FREE_BYTES:
            await self._send_large(body, last=last)
        else:
            await self.send_message({"type": "http.response.body", "body": body, "more_body": not last})

    async def _send_large(self, body: bytes | bytearray, *, last: bool) -> None:
        """Send in pieces, each after the client took the one before it; the lease holds the body.

        The required rate is that of the whole body, so a client that reads slowly gains no time. Raises
        Disconnected, and aborts the connection, after the time limit.
        """
        self.lease.hold(Part.ANSWERS, len(body))
        seconds = self.settings.write_stall_seconds_max
        seconds += len(body) / self.settings.answer_bytes_per_second_min
        try:
            async with asyncio.timeout(seconds):
                for start in range(0, len(body), PIECE_BYTES):
                    piece = memoryview(body)[start : start + PIECE_BYTES]
                    await self.send_message({"type": "http.response.body", "body": piece, "more_body": True})
                # The server waits for the client before it takes this message.
                await self.send_message({"type": "http.response.body", "body": b"", "more_body": not last})
        except TimeoutError:
            abort: Callable[[], None] | None = self.scope.get(ABORT_IN_SCOPE)
            if abort is not None:
                abort()
            raise Disconnected from None


def _check_host(value: bytes, before: bytes | None) -> bytes:
    if before is not None or _HOST.fullmatch(value) is None:
        raise Malformed("the request has more than one header Host, or one that is no host")
    return value


def _check_type(value: bytes, before: bytes | None) -> bytes:
    if before is not None:
        raise Malformed("the request has more than one header Content-Type")
    return value


def _check_transfer(value: bytes) -> None:
    if value.strip().lower() != b"chunked":
        raise Malformed(f"transfer encoding {_shown(value)} is not read here; only chunked is")


def _check_expectation(value: bytes) -> None:
    if value.strip().lower() != b"100-continue":
        raise UnknownExpectation(f"expectation {_shown(value)} is not known; only 100-continue is")


def _shown(value: bytes) -> str:
    return repr(value.decode("latin-1")[:80])
