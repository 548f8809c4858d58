"""The rendering of points and hits to answers: payloads are inserted as the stored JSON.

An answer grows in one buffer, which the request's lease accounts for. A too large answer is refused early.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Raw

from vecstow_engine.api.coding import run_coding
from vecstow_engine.api.envelope import Answer, list_head, list_tail, packed_array_head, success
from vecstow_engine.api.media import Media
from vecstow_engine.model.payloads import pack_payload
from vecstow_engine.model.points import Hit, Point
from vecstow_engine.service.request_memory import Lease, Part

HITS_PER_STEP: Final = 128
"""Hits that are rendered between two checks of the lease: 8 MiB of payloads."""

_NULL: Final = Raw(b"null")
_NIL: Final = Raw(b"\xc0")
_json = msgspec.json.Encoder()
_packed = msgspec.msgpack.Encoder()


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


async def hits_answer(hits: list[Hit], media: Media, lease: Lease) -> Answer:
    """Return the answer `[{id, distance, metadata}]`, nearest first; empty the list `hits` meanwhile.

    Raises TooLarge or Busy for too much payload.
    """
    return await run_coding(lease.parts[Part.ANSWERS], _hits_answer, hits, media, lease)


def _hits_answer(hits: list[Hit], media: Media, lease: Lease) -> Answer:
    growing = _Growing(media, len(hits), lease)
    none, render = (_NULL, Raw) if media is Media.JSON else (_NIL, _packed_payload)
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


async def points_answer(
    chunks: AsyncIterable[Sequence[Point | None]], count: int, media: Media, lease: Lease
) -> Answer:
    """Return a list of `count` points in the order of `chunks`, null for an unknown id.

    Each chunk is rendered when it arrives, because numbers in JSON take many times the memory of vectors.
    Raises TooLarge or Busy when the answer takes too much memory.
    """
    growing = _Growing(media, count, lease)
    async for chunk in chunks:
        size = sum(4 * point.vector.nbytes + len(point.payload or b"") for point in chunk if point)
        await run_coding(size, _add_points, growing, chunk, media)
    return growing.answer()


def _add_points(growing: _Growing, points: Sequence[Point | None], media: Media) -> None:
    growing.add([point and _point(point, media) for point in points])


class _Growing:
    """An answer whose data are a list, rendered in steps."""

    def __init__(self, media: Media, count: int, lease: Lease) -> None:
        self._media = media
        self._lease = lease
        self._body = bytearray(list_head(count, media))
        self._separator = b""

    def add(self, values: Sequence[Any]) -> None:
        """Render more values, and hold the buffer's size in the lease; raise TooLarge or Busy."""
        if self._media is Media.JSON:
            self._body += self._separator
            self._body += memoryview(_json.encode(values))[1:-1]
            self._separator = b","
        else:
            self._body += memoryview(_packed.encode(values))[len(packed_array_head(len(values))) :]
        self._lease.grow(Part.ANSWERS, len(self._body))

    def answer(self) -> Answer:
        """Return the whole answer."""
        self._body += list_tail(self._media)
        return Answer(200, self._body, self._media.value)


def _point(point: Point, media: Media) -> _JsonPoint | _PackedPoint:
    if media is Media.JSON:
        return _JsonPoint(point.id, point.vector.tolist(), _json_payload(point.payload))
    data = np.ascontiguousarray(point.vector, "<f4").tobytes()
    return _PackedPoint(point.id, data, _packed_payload(point.payload))


def _json_payload(payload: bytes | None) -> Raw:
    return _NULL if payload is None else Raw(payload)


def _packed_payload(payload: bytes | None) -> Raw:
    return _NIL if payload is None else Raw(pack_payload(payload))
