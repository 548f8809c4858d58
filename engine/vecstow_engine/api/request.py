"""One request as routes get it: parsed headers, the raw path, the whole body.

The HTTP parser has already found the end of the message (RFC 9112, 6.3): one Content-Length, or chunks. This
module checks the other headers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from vecstow_engine.api.coding import run_coding
from vecstow_engine.api.errors import Malformed, UnknownExpectation, UnsupportedEncoding
from vecstow_engine.api.media import Media, media_of_answer, media_of_body
from vecstow_engine.service.request_memory import FREE_BYTES, Lease, Part

T = TypeVar("T")

BODILESS_METHODS: Final = frozenset({"GET", "DELETE", "OPTIONS"})
_HOST: Final = re.compile(rb"[^\s/?#@\\\x00-\x1f\x7f]*")


class Request:
    """The parts of a request that a route needs; `body` is empty until it is read."""

    __slots__ = (
        "answer_media",
        "body",
        "content_encoding",
        "content_type",
        "declared_bytes",
        "has_body",
        "lease",
        "method",
        "path",
        "query",
    )

    def __init__(self, scope: Any, path: str, lease: Lease) -> None:
        """Read the headers; raise Malformed or UnknownExpectation."""
        self.lease = lease
        # HEAD runs as GET: the server leaves out the body of the answer.
        self.method: str = "GET" if scope["method"] == "HEAD" else scope["method"]
        self.path = path
        self.query: bytes = scope["query_string"]
        self.body: bytes | bytearray = b""
        self.content_type: bytes | None = None
        self.content_encoding = b""
        self.declared_bytes: int | None = None
        self.has_body = False
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
        if host is None and scope["http_version"] != "1.0":
            raise Malformed("the request has no header Host, which HTTP/1.1 requires")
        self.answer_media = media_of_answer(accept)

    async def decode(self, read: Callable[..., T], *args: object) -> T:
        """Return the result of `read` for body, media, lease and `args`; give back the body's memory."""
        try:
            size = len(self.body)
            return await run_coding(size, read, self.body, self.body_media, self.lease, *args)
        finally:
            self.drop_body()

    def drop_body(self) -> None:
        """Drop the body; give back its memory now if it has more than FREE_BYTES."""
        if len(self.body) > FREE_BYTES:
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
