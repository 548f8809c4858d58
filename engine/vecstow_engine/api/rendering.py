"""From points and hits to answers: payloads are spliced in as the JSON that they are stored as."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Raw

from vecstow_engine.api.envelope import Answer, success, success_json
from vecstow_engine.api.media import Media
from vecstow_engine.model.batch import PAYLOAD_BYTES_MAX, Hit, Point
from vecstow_engine.model.errors import TooLarge

ANSWER_PAYLOAD_BYTES_MAX: Final = 64 * 1024 * 1024
UNWEIGHED_HITS_MAX: Final = ANSWER_PAYLOAD_BYTES_MAX // PAYLOAD_BYTES_MAX
"""Hits that cannot have more than that."""

_NULL: Final = Raw(b"null")
_json = msgspec.json.Encoder()


class _JsonHit(msgspec.Struct):
    id: str
    distance: float
    metadata: Raw


class _JsonPoint(msgspec.Struct):
    id: str
    data: list[float]
    metadata: Raw


def hits_answer(hits: Sequence[Hit], media: Media) -> Answer:
    """`[{id, distance, metadata}]`, nearest first; raises TooLarge for too much payload."""
    if len(hits) > UNWEIGHED_HITS_MAX:
        _weigh(hits)
    if media is Media.JSON:
        return success_json(_json.encode([_JsonHit(hit.id, hit.distance, _raw(hit.payload)) for hit in hits]))
    return success(
        [{"id": hit.id, "distance": hit.distance, "metadata": _decoded(hit.payload)} for hit in hits], media
    )


def point_answer(point: Point, media: Media) -> Answer:
    """`{id, data, metadata}`."""
    if media is Media.JSON:
        return success_json(_json.encode(_json_point(point)))
    return success(_packed_point(point), media)


async def points_answer(chunks: AsyncIterable[Sequence[Point | None]], media: Media) -> Answer:
    """A list of points in the order of the ids asked for, null where there is none.

    Each chunk is rendered as it comes: numbers in JSON take many times the room of the vectors.
    """
    if media is Media.JSON:
        texts = [
            _json.encode([point and _json_point(point) for point in chunk])[1:-1] async for chunk in chunks
        ]
        return success_json(b"[" + b",".join(texts) + b"]")
    return success([point and _packed_point(point) async for chunk in chunks for point in chunk], media)


def _json_point(point: Point) -> _JsonPoint:
    return _JsonPoint(point.id, point.vector.tolist(), _raw(point.payload))


def _packed_point(point: Point) -> dict[str, Any]:
    # The same form as a vector has on its way in: a bin of little-endian float32.
    data = np.ascontiguousarray(point.vector, "<f4").tobytes()
    return {"id": point.id, "data": data, "metadata": _decoded(point.payload)}


def _weigh(hits: Sequence[Hit]) -> None:
    payload_bytes = sum(len(hit.payload or b"") for hit in hits)
    if payload_bytes > ANSWER_PAYLOAD_BYTES_MAX:
        raise TooLarge(
            f"the payloads of {len(hits)} hits have {payload_bytes} bytes; "
            f"at most {ANSWER_PAYLOAD_BYTES_MAX} are answered",
            hint="ask with a lower limit",
            details={"field": "limit", "value": payload_bytes, "limit": ANSWER_PAYLOAD_BYTES_MAX},
        )


def _raw(payload: bytes | None) -> Raw:
    return _NULL if payload is None else Raw(payload)


def _decoded(payload: bytes | None) -> Any:
    return None if payload is None else msgspec.json.decode(payload)
