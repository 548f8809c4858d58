"""The answers in their format, JSON (RFC 8259) or MessagePack, and in their envelope.

The envelope is {"success", "data", "error"}. A success has exactly these keys: d-vecDB's client refuses any
other. An error also has `message` and `details`.

Payloads are inserted as the stored JSON. A list of points or hits grows in one buffer, which the request's
lease accounts for, so that a too large answer is refused early.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Raw

from vecstow_engine.api.errors import UnsupportedMedia, error_document, error_headers, status_of
from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.payloads import pack_payload, portable
from vecstow_engine.model.points import Point
from vecstow_engine.model.searches import Hit
from vecstow_engine.service.request_memory import Lease, Part

HITS_PER_STEP: Final = 128
"""Hits that are rendered between two checks of the lease: 8 MiB of payloads."""
Headers = list[tuple[bytes, bytes]]


class Media(Enum):
    """The two formats of bodies and answers."""

    JSON = b"application/json"
    MSGPACK = b"application/msgpack"


_KNOWN: Final = {
    b"application/json": Media.JSON,
    b"application/msgpack": Media.MSGPACK,
    b"application/x-msgpack": Media.MSGPACK,
    b"application/vnd.msgpack": Media.MSGPACK,
}
_HINT: Final = "send the header Content-Type: application/json, or application/msgpack for the bulk form"

_to_json = msgspec.json.Encoder(enc_hook=str)
_to_msgpack = msgspec.msgpack.Encoder(enc_hook=str)

_JSON_HEAD: Final = b'{"success":true,"data":['
_JSON_TAIL: Final = b'],"error":null}'
_PACKED_HEAD: Final = b"\x83\xa7success\xc3\xa4data"
_PACKED_TAIL: Final = b"\xa5error\xc0"
_PAYLOADS: Final[dict[Media, tuple[Raw, Callable[[bytes], Raw]]]] = {
    Media.JSON: (Raw(b"null"), Raw),
    Media.MSGPACK: (Raw(b"\xc0"), lambda payload: Raw(pack_payload(payload))),
}
"""For each format the missing payload, and the function that renders a stored one."""


class _Hit(msgspec.Struct):
    id: str
    distance: float
    metadata: Raw


class _JsonPoint(msgspec.Struct):
    id: str
    data: list[float]
    metadata: Raw


class _PackedPoint(msgspec.Struct):
    id: str
    data: bytes
    """A bin of little-endian float32, as in requests."""
    metadata: Raw


def media_of_body(content_type: bytes | None) -> Media:
    """Return the format that a Content-Type names, JSON without one; raise UnsupportedMedia."""
    if content_type is None:
        return Media.JSON
    if (exact := _KNOWN.get(content_type)) is not None:
        return exact
    kind, _, parameters = content_type.lower().partition(b";")
    media = _KNOWN.get(kind.strip())
    shown = content_type.decode("latin-1")[:80]
    if media is None:
        raise UnsupportedMedia(f"content type {shown!r} is not read here", hint=_HINT)
    if b"charset" in parameters and b"utf-8" not in parameters:
        raise UnsupportedMedia(f"content type {shown!r}: the charset must be utf-8", hint=_HINT)
    return media


def media_of_answer(accept: bytes | None) -> Media:
    """Return MessagePack when the Accept header names it before JSON, else JSON."""
    if accept is None or b"msgpack" not in accept:
        return Media.JSON
    if (exact := _KNOWN.get(accept)) is not None:
        return exact
    kinds = (part.partition(b";")[0].strip().lower() for part in accept.split(b","))
    return next((_KNOWN[kind] for kind in kinds if kind in _KNOWN), Media.JSON)


def encode(value: Any, media: Media) -> bytes:
    """Return `value` in that format; a value of an unsupported type becomes its string."""
    if media is Media.JSON:
        return _to_json.encode(value)
    try:
        return _to_msgpack.encode(value)
    except OverflowError:
        return _to_msgpack.encode(portable(value))


@dataclass(slots=True)
class Answer:
    """A whole answer: status, body, content type, and the headers apart from type and length."""

    status: int
    body: bytes | bytearray
    media: bytes
    headers: Headers | tuple[()] = ()

    @property
    def all_headers(self) -> Headers:
        """Return the headers with type and length."""
        length = b"%d" % len(self.body)
        return [(b"content-type", self.media), (b"content-length", length), *self.headers]


def success(data: Any, media: Media) -> Answer:
    """Return an answer with `data` in the envelope."""
    return Answer(200, encode({"success": True, "data": data, "error": None}, media), media.value)


def failure(error: VecstowError, media: Media) -> Answer:
    """Return the answer for `error`: its status, document and headers."""
    return Answer(status_of(error), encode(error_document(error), media), media.value, error_headers(error))


def hits_answer(hits: list[Hit], media: Media, lease: Lease) -> Answer:
    """Return the answer `[{id, distance, metadata}]`, nearest first; empty the list `hits` meanwhile.

    Raises TooLarge or Busy for too much payload.
    """
    growing = GrowingAnswer(media, len(hits), lease)
    none, render = _PAYLOADS[media]
    while hits:
        growing.add(
            [
                _Hit(hit.id, hit.distance, none if hit.payload is None else render(hit.payload))
                for hit in hits[:HITS_PER_STEP]
            ]
        )
        del hits[:HITS_PER_STEP]
    return growing.answer()


def point_answer(point: Point, media: Media) -> Answer:
    """Return the answer `{id, data, metadata}`."""
    return success(_point(point, media), media)


class GrowingAnswer:
    """An answer whose data are a list of `count` values, rendered in steps."""

    def __init__(self, media: Media, count: int, lease: Lease) -> None:
        self._media = media
        self._lease = lease
        head = _JSON_HEAD if media is Media.JSON else _PACKED_HEAD + _packed_array_head(count)
        self._body = bytearray(head)
        self._separator = b""

    def add(self, values: Sequence[Any]) -> None:
        """Render more values, and hold the buffer's size in the lease; raise TooLarge or Busy."""
        if self._media is Media.JSON:
            self._body += self._separator
            self._body += memoryview(_to_json.encode(values))[1:-1]
            self._separator = b","
        else:
            self._body += memoryview(_to_msgpack.encode(values))[len(_packed_array_head(len(values))) :]
        self._lease.grow(Part.ANSWERS, len(self._body))

    def add_points(self, points: Sequence[Point | None]) -> None:
        """Render points, and null for None."""
        self.add([point and _point(point, self._media) for point in points])

    def answer(self) -> Answer:
        """Return the whole answer."""
        self._body += _JSON_TAIL if self._media is Media.JSON else _PACKED_TAIL
        return Answer(200, self._body, self._media.value)


def _point(point: Point, media: Media) -> _JsonPoint | _PackedPoint:
    none, render = _PAYLOADS[media]
    payload = none if point.payload is None else render(point.payload)
    if media is Media.JSON:
        return _JsonPoint(point.id, point.vector.tolist(), payload)
    return _PackedPoint(point.id, np.ascontiguousarray(point.vector, "<f4").tobytes(), payload)


def _packed_array_head(count: int) -> bytes:
    """Return the head of a MessagePack array (https://github.com/msgpack/msgpack/blob/master/spec.md)."""
    if count < 16:
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2, "big") if count < 65_536 else b"\xdd" + count.to_bytes(4, "big")
