"""uvicorn's HTTP/1.1 protocol with limits on the resources of a connection, which uvicorn does not have.

Answers keep the order of their requests, and no byte of a body is read as a request.

The class overrides the parser callbacks of `HttpToolsProtocol`; the lock file fixes the version of uvicorn.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from functools import partial
from typing import ClassVar, Final

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from vecstow_engine.api.answers import Answer, Media, failure
from vecstow_engine.api.errors import Malformed
from vecstow_engine.api.request import ABORT_IN_SCOPE, ARRIVED_IN_SCOPE
from vecstow_engine.api.settings import HttpSettings
from vecstow_engine.model.errors import Busy, VecstowError
from vecstow_engine.service.request_memory import FREE_BYTES

_BAD_REQUEST: Final = Malformed("not a valid HTTP/1.1 request, or one whose headers are too large")
_VERSIONS: Final = ("1.0", "1.1")


class _Refused(Exception):
    """Raised in a callback to make the parser refuse the request."""


def bounded_protocol(settings: HttpSettings) -> type[BoundedProtocol]:
    """Return a protocol class whose connections share `settings` and one list of idle connections."""
    return type("BoundProtocol", (BoundedProtocol,), {"settings": settings, "idle": OrderedDict()})


class BoundedProtocol(HttpToolsProtocol):
    """One connection. It is idle while no request is being answered, or read beyond its headers."""

    settings: HttpSettings
    idle: OrderedDict[BoundedProtocol, None]
    is_draining: ClassVar = False
    """Whether each request is the last one of its connection: true when the server ends."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection; over the limit, close the connection that is idle for longest, or refuse."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(FREE_BYTES)
        self._reading_headers = True
        self._header_bytes = 0
        """Bytes that arrived since the last headers or the last piece of a body."""
        self._header_clock: asyncio.TimerHandle | None = None
        self._stall_clock: asyncio.TimerHandle | None = None
        self._is_upgrade_offered = False
        self._running: RequestResponseCycle | None = None
        """The request that is answered now, or was answered last."""
        self._refusal: VecstowError | None = None
        """Why nothing more is read from this connection."""
        if len(self.connections) > self.settings.connections_max and not self._make_room():
            self._refuse(Busy(f"{self.settings.connections_max} connections are open, the limit"))
            return
        self.idle[self] = None
        self._start_header_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, its clocks and the requests that wait in it."""
        self.idle.pop(self, None)
        _cancel(self._header_clock)
        _cancel(self._stall_clock)
        # uvicorn notifies only the request that was read last.
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes, and limit those outside of bodies: the parser keeps unfinished lines of any length."""
        if self._refusal is not None:
            return
        if self._reading_headers and self._header_clock is None:
            self._start_header_clock()
        self._header_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._refuse(_BAD_REQUEST)
            return
        if self._header_bytes > self.settings.header_bytes_max:
            self._refuse(_BAD_REQUEST)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open: a client that has closed its side may wait for answers."""
        if self._is_in_body() or not self._is_answering():
            return False
        self.cycle.keep_alive = False
        return True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header; drop a trailer, which is not a header (RFC 9110, 6.5.1): no route reads it."""
        if self._reading_headers:
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body, and restart the count of bytes outside of bodies."""
        self._header_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """End the limits of the headers, and start the request, unless it is refused."""
        if self.parser.get_http_version() not in _VERSIONS or self.parser.get_method() == b"CONNECT":
            raise _Refused
        self._is_upgrade_offered = self.parser.should_upgrade()
        if self._is_upgrade_offered:
            return
        if self._header_bytes > self.settings.header_bytes_max and self._has_large_headers():
            raise _Refused
        self._reading_headers = False
        self._header_bytes = 0
        _cancel(self._header_clock)
        self._header_clock = None
        if len(self.pipeline) >= self.settings.pipelined_max:
            raise _Refused
        self.idle.pop(self, None)
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            # RFC 9110, 10.1.1: a client of HTTP/1.0 does not know the interim answer.
            self.cycle.waiting_for_100_continue = False
        has_arrived = partial(_has_arrived, weakref.ref(self.cycle))
        extras = {ABORT_IN_SCOPE: self.transport.abort, ARRIVED_IN_SCOPE: has_arrived}
        self.scope.update(extras)  # type: ignore[typeddict-item]
        if self.is_draining:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Expect the headers of another request in the next bytes."""
        if self._is_upgrade_offered:
            return
        self._reading_headers = True
        self._header_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the next request; without one, write the refusal or mark the connection as idle."""
        super().on_response_complete()
        if self.pipeline or self._is_answering():
            self.flow.pause_reading()
        elif self._refusal is not None:
            self._write_refusal(self._refusal)
        elif not self.transport.is_closing():
            self.idle[self] = None

    def pause_writing(self) -> None:
        """Pause, and watch that the client, which reads slowly, makes progress."""
        super().pause_writing()
        self._watch_progress(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Resume, and stop the watch: the client has read the buffer."""
        _cancel(self._stall_clock)
        super().resume_writing()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _start_header_clock(self) -> None:
        self._header_clock = self.loop.call_later(self.settings.header_seconds_max, self._headers_late)

    def _headers_late(self) -> None:
        if self not in self.idle:
            # An earlier request is still being answered, which has no limit here.
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

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stopped:
                data = self._decline_upgrade() + data[stopped.args[0] :]

    def _decline_upgrade(self) -> bytes:
        """Return the head of the request without the offer of an upgrade, for a new parser.

        A server may ignore the offer (RFC 9110, 7.8), but the parser accepts it and drops the declared body.
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join([*lines, b"", b""])

    def _has_large_headers(self) -> bool:
        """Whether the headers are too large. The last read may also contain a body, so they are counted."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        return size > self.settings.header_bytes_max

    def _is_in_body(self) -> bool:
        """Whether a part of the last request's body is still missing."""
        return self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete

    def _is_answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _refuse(self, error: VecstowError) -> None:
        """Read no more, answer the complete requests, then refuse the bytes after them."""
        self._refusal = error
        if not self._is_in_body():
            if not self._is_answering():
                self._write_refusal(error)
        elif self.pipeline:
            self.pipeline.popleft()
        elif self.cycle.response_started:
            self.transport.close()
        else:
            self._write_refusal(error)

    def _write_refusal(self, error: VecstowError) -> None:
        self.transport.write(_wire(failure(error, Media.JSON)))
        self.transport.close()


def _has_arrived(cycle: weakref.ref[RequestResponseCycle]) -> bool:
    """Whether the whole body of a request has arrived.

    The reference is weak because the request's scope holds this function. A strong one would form a cycle,
    which only the garbage collector frees.
    """
    request = cycle()
    return request is not None and not request.more_body


def _cancel(clock: asyncio.TimerHandle | None) -> None:
    if clock is not None:
        clock.cancel()


def _wire(answer: Answer) -> bytes:
    kind, length, *others = answer.all_headers
    headers = [kind, length, (b"connection", b"close"), *others]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return STATUS_LINE[answer.status] + lines + b"\r\n" + answer.body
