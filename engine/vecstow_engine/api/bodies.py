"""Request bodies, limited before they are parsed: in bytes of each, in bytes of all, and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from vecstow_engine.api.body_limits import BodyLimit
from vecstow_engine.api.errors import SlowBody
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.service.request_memory import Lease, Part

Receive = Callable[[], Awaitable[Any]]


class Disconnected(Exception):
    """Raised when the client disconnected before the exchange was complete: no answer can be sent."""


async def read_arrived(receive: Receive, limit: BodyLimit, lease: Lease) -> bytes:
    """Return a body that has arrived completely; raise TooLarge, Busy or Disconnected."""
    message = await _next(receive)
    body: bytes = message.get("body", b"")
    limit.check(len(body))
    lease.grow(Part.BODIES, len(body))
    return body


async def read_body(
    receive: Receive, declared_bytes: int | None, limit: BodyLimit, lease: Lease, settings: HttpSettings
) -> bytes | bytearray:
    """Return the whole body, whose memory `lease` holds.

    Raises TooLarge as soon as more bytes than the limit are declared or received, SlowBody, Busy when the
    lease gets no more memory, and Disconnected. After an error no part of the body is held.
    """
    if declared_bytes is not None:
        limit.check(declared_bytes)
    try:
        async with asyncio.timeout(settings.body_seconds_max) as clock:
            message = await _next(receive)
            body: bytes = message.get("body", b"")
            if message.get("more_body", False) or len(body) > limit.bytes_max:
                return await _read_on(receive, message, limit, lease, settings, clock)
            lease.grow(Part.BODIES, len(body))
            return body
    except TimeoutError as late:
        rate = settings.body_bytes_per_second_min
        raise SlowBody(f"the body did not arrive in time; at least {rate} bytes/s are needed") from late


async def _read_on(
    receive: Receive,
    message: Any,
    limit: BodyLimit,
    lease: Lease,
    settings: HttpSettings,
    clock: asyncio.Timeout,
) -> bytearray:
    body = bytearray()
    size = 0
    started = clock.when() or 0.0
    loop = asyncio.get_running_loop()
    try:
        while True:
            chunk = message.get("body", b"")
            size += len(chunk)
            limit.check(size)
            lease.take(Part.BODIES, len(chunk))
            body += chunk
            if not message.get("more_body", False):
                return body
            # A client that stops, or sends very slowly, must not hold the memory of its body for long.
            in_all = started + size / settings.body_bytes_per_second_min
            clock.reschedule(min(in_all, loop.time() + settings.body_seconds_max))
            message = await _next(receive)
    except BaseException:
        # The error's traceback keeps this frame, and the body with it, until the refusal is sent.
        body.clear()
        lease.hold(Part.BODIES, 0)
        raise


async def _next(receive: Receive) -> Any:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    return message
