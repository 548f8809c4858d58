"""uvicorn's HTTP/1.1 protocol with bounds on what a connection may hold: uvicorn itself sets none of these.

Extends `HttpToolsProtocol` at its parser callbacks, which the locked version of uvicorn fixes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from vecstow_engine.api.envelope import Answer, failure
from vecstow_engine.api.errors import Malformed
from vecstow_engine.api.media import Media
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.model.errors import Busy, VecstowError

_BAD_REQUEST: Final = Malformed("not a valid HTTP/1.1 request, or one whose headers are too large")


class _TooManyPipelined(Exception):
    """Raised inside the parser, which then refuses the request."""


def bounded_protocol(
    settings: HttpSettings, is_draining: Callable[[], bool] = lambda: False
) -> type[asyncio.Protocol]:
    """A protocol class whose connections share `settings` and one account of who is idle.

    While `is_draining`, a request is the last one of its connection.
    """
    idle: OrderedDict[BoundedProtocol, None] = OrderedDict()
    shared = {"settings": settings, "idle": idle, "is_draining": staticmethod(is_draining)}
    return type("BoundProtocol", (BoundedProtocol,), shared)


class BoundedProtocol(HttpToolsProtocol):
    """One connection. It is idle when no request of it is being read past its headers or answered."""

    settings: HttpSettings
    idle: OrderedDict[BoundedProtocol, None]
    is_draining: Callable[[], bool]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection; over the limit, the one that is idle for longest makes room."""
        super().connection_made(transport)
        self._reading_headers = True
        self._header_bytes = 0
        self._header_clock: asyncio.TimerHandle | None = None
        self._stall_clock: asyncio.TimerHandle | None = None
        if len(self.connections) > self.settings.connections_max and not self._make_room():
            self._refuse(Busy(f"{self.settings.connections_max} connections are open, the limit"))
            return
        self.idle[self] = None
        self._start_header_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection and its clocks."""
        self.idle.pop(self, None)
        _cancel(self._header_clock)
        _cancel(self._stall_clock)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what arrives outside of bodies: the parser keeps an unfinished header, however long."""
        if self._reading_headers:
            self._header_bytes += len(data)
            if self._header_clock is None:
                self._start_header_clock()
            if self._header_bytes - len(data) > self.settings.header_bytes_max:
                self._refuse(_BAD_REQUEST)
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """From here on the request, not the connection, has the limits."""
        self._reading_headers = False
        self._header_bytes = 0
        _cancel(self._header_clock)
        self._header_clock = None
        if len(self.pipeline) >= self.settings.pipelined_max:
            raise _TooManyPipelined
        self.idle.pop(self, None)
        super().on_headers_complete()
        if self.is_draining():
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The next bytes are another request's headers."""
        self._reading_headers = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The connection is idle again unless more requests wait in it."""
        super().on_response_complete()
        if self.pipeline or not self.cycle.response_complete:
            self.flow.pause_reading()
        elif not self.transport.is_closing():
            self.idle[self] = None

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refused, in the envelope."""
        self._refuse(_BAD_REQUEST)

    def pause_writing(self) -> None:
        """The client reads slower than it is written to: watch that it reads at all."""
        super().pause_writing()
        self._watch_progress(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client caught up."""
        _cancel(self._stall_clock)
        super().resume_writing()

    def _start_header_clock(self) -> None:
        self._header_clock = self.loop.call_later(self.settings.header_seconds_max, self._headers_late)

    def _headers_late(self) -> None:
        if self not in self.idle:
            # An earlier request is still being answered: that takes the time that it takes.
            self._start_header_clock()
        elif not self.transport.is_closing():
            self.transport.close()

    def _watch_progress(self, unread_bytes: int) -> None:
        self._stall_clock = self.loop.call_later(
            self.settings.write_stall_seconds_max, self._check_progress, unread_bytes
        )

    def _check_progress(self, unread_bytes: int) -> None:
        now_unread_bytes = self.transport.get_write_buffer_size()
        if now_unread_bytes >= unread_bytes:
            self.transport.abort()
        else:
            self._watch_progress(now_unread_bytes)

    def _make_room(self) -> bool:
        if not self.idle:
            return False
        oldest, _ = self.idle.popitem(last=False)
        oldest.transport.close()
        return True

    def _refuse(self, error: VecstowError) -> None:
        self.transport.write(_wire(failure(error, Media.JSON)))
        self.transport.close()


def _cancel(clock: asyncio.TimerHandle | None) -> None:
    if clock is not None:
        clock.cancel()


def _wire(answer: Answer) -> bytes:
    headers = [
        (b"content-type", answer.media),
        (b"content-length", b"%d" % len(answer.body)),
        (b"connection", b"close"),
        *answer.headers,
    ]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return STATUS_LINE[answer.status] + lines + b"\r\n" + answer.body
