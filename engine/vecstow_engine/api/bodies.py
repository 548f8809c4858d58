"""Request bodies, bounded before they are parsed: in bytes each, in bytes altogether, and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from vecstow_engine.api.errors import SlowBody
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.model.errors import Busy, TooLarge

Receive = Callable[[], Awaitable[Any]]

FREE_BYTES: Final = 65_536
"""A body up to this size is not counted: searches go on while large uploads fill the budget."""


class Disconnected(Exception):
    """Raised when the client left before its body was complete: nobody is there to be answered."""


class Bodies:
    """Reads bodies and keeps the account of the memory they take."""

    def __init__(self, settings: HttpSettings) -> None:
        self._memory_bytes_max = settings.body_memory_bytes_max
        self._seconds_max = settings.body_seconds_max
        self._bytes_per_second_min = settings.body_bytes_per_second_min
        self.held_bytes = 0

    async def read(self, receive: Receive, declared_bytes: int | None, bytes_max: int) -> bytes | bytearray:
        """The whole body; `release` it when the request is done.

        Raises TooLarge as soon as more than `bytes_max` are declared or received, SlowBody, Busy when all
        bodies together take too much memory, and Disconnected. After an error nothing is held.
        """
        if declared_bytes is not None and declared_bytes > bytes_max:
            raise _too_large(declared_bytes, bytes_max)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(loop.time() + self._seconds_max) as clock:
                message = await _next(receive)
                body: bytes = message.get("body", b"")
                if not message.get("more_body", False) and len(body) <= min(FREE_BYTES, bytes_max):
                    return body
                return await self._read_on(receive, message, bytes_max, clock)
        except TimeoutError as late:
            raise SlowBody(
                f"the body did not arrive in time; at least {self._bytes_per_second_min} bytes/s are needed"
            ) from late

    def release(self, body: bytes | bytearray) -> None:
        """Give back what `body` held."""
        self._give(len(body))

    async def _read_on(
        self, receive: Receive, message: Any, bytes_max: int, clock: asyncio.Timeout
    ) -> bytearray:
        body = bytearray()
        size = 0
        started = clock.when() or 0.0
        loop = asyncio.get_running_loop()
        try:
            while True:
                chunk = message.get("body", b"")
                self._take(size, len(chunk))
                size += len(chunk)
                if size > bytes_max:
                    raise _too_large(size, bytes_max)
                body += chunk
                if not message.get("more_body", False):
                    return body
                # Neither a client that stops nor one that trickles holds what it sent for long.
                in_all = started + size / self._bytes_per_second_min
                clock.reschedule(min(in_all, loop.time() + self._seconds_max))
                message = await _next(receive)
        except BaseException:
            # The traceback keeps this frame alive for as long as the refusal takes.
            body.clear()
            self._give(size)
            raise

    def _take(self, size: int, more: int) -> None:
        grown = _counted(size + more) - _counted(size)
        if self.held_bytes + grown > self._memory_bytes_max:
            raise Busy(
                f"request bodies take {self.held_bytes} bytes; the limit is {self._memory_bytes_max}",
                retry_after_seconds=1,
                details={"limit": self._memory_bytes_max},
            )
        self.held_bytes += grown

    def _give(self, size: int) -> None:
        self.held_bytes -= _counted(size)


def _counted(size: int) -> int:
    return size if size > FREE_BYTES else 0


def _too_large(size: int, bytes_max: int) -> TooLarge:
    return TooLarge(
        f"the body has {size} bytes or more; the limit is {bytes_max}",
        hint="send smaller batches",
        details={"field": "body", "limit": bytes_max},
    )


async def _next(receive: Receive) -> Any:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    return message
