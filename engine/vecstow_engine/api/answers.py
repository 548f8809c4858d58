"""The answers in their format, JSON (RFC 8259) or MessagePack, and in their envelope.

The envelope is {"success", "data", "error"}. A success has exactly these keys: d-vecDB's client refuses any
other. An error also has `message` and `details`.

Payloads are inserted as the stored JSON. A list of points or hits grows in one buffer, which the request's
lease accounts for, so that a too large answer is refused early.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType
from numpy.typing import NDArray

from vecstow_engine.api.errors import UnsupportedMedia, error_document, error_headers, status_of
from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.groups import Group
from vecstow_engine.model.payloads import pack_payload, portable
from vecstow_engine.model.points import Point
from vecstow_engine.model.searches import Hit, SearchOptions
from vecstow_engine.service.request_memory import Lease, Part

HITS_PER_STEP: Final = 128
"""Hits that are rendered between two checks of the lease: 8 MiB of payloads."""
VALUES_PER_STEP: Final = 65_536
"""Numbers of vectors that are rendered at a time: in JSON they take many times the memory of vectors."""
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

_JSON_HEAD: Final = b'{"success":true,"data":'
_JSON_TAIL: Final = b',"error":null}'
_PACKED_HEAD: Final = b"\x83\xa7success\xc3\xa4data"
_PACKED_TAIL: Final = b"\xa5error\xc0"
PAYLOADS: Final[dict[Media, tuple[Raw, Callable[[bytes], Raw]]]] = {
    Media.JSON: (Raw(b"null"), Raw),
    Media.MSGPACK: (Raw(b"\xc0"), lambda payload: Raw(pack_payload(payload))),
}
"""For each format the missing payload, and the function that renders a stored one."""


class _Hit(msgspec.Struct):
    id: str
    distance: float
    metadata: Raw | UnsetType
    data: list[float] | bytes | UnsetType = UNSET
    """A list of numbers in JSON, a bin of little-endian float32 in MessagePack."""


class _Point(msgspec.Struct):
    id: str
    data: list[float] | bytes
    """A list of numbers in JSON, a bin of little-endian float32 in MessagePack, as in requests."""
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


def hits_answer(hits: list[Hit], options: SearchOptions, media: Media, lease: Lease) -> Answer:
    """Return the answer `[{id, distance, metadata?, data?}]`; empty the list `hits` meanwhile.

    Raises TooLarge or Busy for too much payload, or too many vectors.
    """
    growing = GrowingAnswer(media, len(hits), lease)
    _add_hits(growing, hits, options)
    return growing.answer()


def batch_answer(
    lists: Sequence[list[Hit]], options: Sequence[SearchOptions], media: Media, lease: Lease
) -> Answer:
    """Return the answer `[[hit, …], …]`, one list for each search; empty the lists meanwhile."""
    growing = GrowingAnswer(media, len(lists), lease)
    for hits, each in zip(lists, options, strict=True):
        growing.open(len(hits))
        _add_hits(growing, hits, each)
        growing.close()
    return growing.answer()


def groups_answer(groups: list[Group], options: SearchOptions, media: Media, lease: Lease) -> Answer:
    """Return the answer `{groups: [{value, hits}]}`; empty the list of groups meanwhile."""
    growing = GrowingAnswer(media, len(groups), lease, member="groups")
    groups.reverse()
    while groups:
        group = groups.pop()
        growing.open(len(group.hits), {"value": group.value}, "hits")
        _add_hits(growing, group.hits, options)
        growing.close()
    return growing.answer()


def _add_hits(growing: GrowingAnswer, hits: list[Hit], options: SearchOptions) -> None:
    none, render = PAYLOADS[growing.media]
    step = HITS_PER_STEP
    if options.with_vectors:
        step = max(1, min(step, VALUES_PER_STEP // options.manifest.dimension))
    has_payloads = not options.payload.is_empty
    while hits:
        growing.add(
            [
                _Hit(
                    hit.id,
                    hit.distance,
                    (none if hit.payload is None else render(hit.payload)) if has_payloads else UNSET,
                    UNSET if hit.vector is None else vector_values(hit.vector, growing.media),
                )
                for hit in hits[:step]
            ]
        )
        del hits[:step]


def point_answer(point: Point, media: Media) -> Answer:
    """Return the answer `{id, data, metadata}`; its ETag is the version of the point."""
    answer = success(_point(point, media), media)
    answer.headers = [(b"etag", b'"%b"' % point.version.encode())]
    return answer


class GrowingAnswer:
    """An answer whose data are a list, or an object with a list, rendered in steps. Lists may be nested."""

    def __init__(
        self,
        media: Media,
        count: int,
        lease: Lease,
        fields: Mapping[str, Any] | None = None,
        member: str | None = None,
    ) -> None:
        """Begin the data as `open` begins a value."""
        self.media = media
        self._lease = lease
        self._body = bytearray(_JSON_HEAD if media is Media.JSON else _PACKED_HEAD)
        self._separator = b""
        self._ends: list[bytes] = []
        self.open(count, fields, member)

    def open(self, count: int, fields: Mapping[str, Any] | None = None, member: str | None = None) -> None:
        """Begin a list of `count` values; with `member`, as this member of an object with `fields` too."""
        before = {} if fields is None else fields
        if self.media is Media.JSON:
            names = [b"%b:%b," % (_to_json.encode(name), _to_json.encode(before[name])) for name in before]
            start = b"" if member is None else b"{%b%b:" % (b"".join(names), _to_json.encode(member))
            self._body += self._separator + start + b"["
            self._separator = b""
            self._ends.append(b"]" if member is None else b"]}")
        else:
            if member is not None:
                packed = [encode(each, self.media) for pair in before.items() for each in pair]
                self._body += (
                    _packed_map_head(len(before) + 1) + b"".join(packed) + _to_msgpack.encode(member)
                )
            self._body += _packed_array_head(count)
            self._ends.append(b"")

    def close(self) -> None:
        """End the list that began last, and its object."""
        self._body += self._ends.pop()
        self._separator = b"," if self.media is Media.JSON else b""

    def add(self, values: Sequence[Any]) -> None:
        """Render more values, and hold the buffer's size in the lease; raise TooLarge or Busy."""
        if self.media is Media.JSON:
            self._body += self._separator
            self._body += memoryview(_to_json.encode(values))[1:-1]
            self._separator = b","
        else:
            self._body += memoryview(_to_msgpack.encode(values))[len(_packed_array_head(len(values))) :]
        self._lease.grow(Part.ANSWERS, len(self._body))

    def add_points(self, points: Sequence[Point | None]) -> None:
        """Render points, and null for None."""
        self.add([point and _point(point, self.media) for point in points])

    def answer(self) -> Answer:
        """Return the whole answer."""
        while self._ends:
            self.close()
        self._body += _JSON_TAIL if self.media is Media.JSON else _PACKED_TAIL
        return Answer(200, self._body, self.media.value)


def _point(point: Point, media: Media) -> _Point:
    none, render = PAYLOADS[media]
    payload = none if point.payload is None else render(point.payload)
    return _Point(point.id, vector_values(point.vector, media), payload)


def vector_values(vector: NDArray[np.float32], media: Media) -> list[float] | bytes:
    """Return a vector (d,) as a list of numbers in JSON, a bin of little-endian float32 in MessagePack."""
    if media is Media.JSON:
        numbers: list[float] = vector.tolist()
        return numbers
    return np.ascontiguousarray(vector, "<f4").tobytes()


def _packed_array_head(count: int) -> bytes:
    """Return the head of a MessagePack array (https://github.com/msgpack/msgpack/blob/master/spec.md)."""
    if count < 16:
        return bytes([0x90 | count])
    return b"\xdc" + count.to_bytes(2, "big") if count < 65_536 else b"\xdd" + count.to_bytes(4, "big")


def _packed_map_head(count: int) -> bytes:
    """Return the head of a MessagePack map of fewer than 16 members."""
    return bytes([0x80 | count])
