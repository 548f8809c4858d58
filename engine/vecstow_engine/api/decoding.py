"""From the bytes of a hot request to the service's values: PointBatch and SearchQuery.

Limits that can be checked before numbers are parsed are checked before: a vector of ten million floats for a
collection of 128 costs a scan of its bytes. Large batches are decoded in slices between which the event loop
answers others.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from vecstow_engine.api.media import Media
from vecstow_engine.api.shapes import (
    Body,
    Decoder,
    IdList,
    JsonBatch,
    JsonPoint,
    JsonSearch,
    PackedBatch,
    PackedPoint,
    PackedSearch,
    decode,
)
from vecstow_engine.model.batch import PointBatch, SearchQuery
from vecstow_engine.model.errors import InvalidInput, TooLarge
from vecstow_engine.model.filters import parse_filter
from vecstow_engine.model.manifest import Manifest

SLICE_BYTES: Final = 262_144
"""Bytes of JSON decoded before others get their turn: about 2 ms."""
INLINE_POINTS_MAX: Final = 500
"""Points whose checks, 4 us each, keep nobody waiting."""
LIMIT_DEFAULT: Final = 10

Rows = NDArray[np.float32]
PayloadDecoder = Decoder[dict[str, Any] | None]

_json_point: Decoder[JsonPoint] = msgspec.json.Decoder(JsonPoint)
_json_batch: Decoder[JsonBatch] = msgspec.json.Decoder(JsonBatch)
_json_search: Decoder[JsonSearch] = msgspec.json.Decoder(JsonSearch)
_json_ids: Decoder[IdList] = msgspec.json.Decoder(IdList)
_json_floats: Decoder[list[float]] = msgspec.json.Decoder(list[float])
_json_payload: PayloadDecoder = msgspec.json.Decoder(dict[str, Any] | None)
_packed_point: Decoder[PackedPoint] = msgspec.msgpack.Decoder(PackedPoint)
_packed_batch: Decoder[PackedBatch] = msgspec.msgpack.Decoder(PackedBatch)
_packed_search: Decoder[PackedSearch] = msgspec.msgpack.Decoder(PackedSearch)
_packed_ids: Decoder[IdList] = msgspec.msgpack.Decoder(IdList)
_packed_payload: PayloadDecoder = msgspec.msgpack.Decoder(dict[str, Any] | None)


class Payloads(Sequence["dict[str, Any] | None"]):
    """Payloads decoded one at a time, when asked for: objects take many times their bytes."""

    def __init__(self, raws: Sequence[Raw], decoder: PayloadDecoder, field: str) -> None:
        self._raws = raws
        self._decoder = decoder
        self._field = field

    def __len__(self) -> int:
        return len(self._raws)

    def __getitem__(self, position: Any) -> Any:
        return _payload(self._raws[position], self._decoder, self._field.format(position))


def read_point(body: Body, media: Media, manifest: Manifest, path_id: str | None = None) -> PointBatch:
    """A batch of the one point in `body`, whose id must be `path_id` where the path gives one.

    Raises InvalidInput, WrongShape, Malformed.
    """
    point: JsonPoint | PackedPoint
    if media is Media.JSON:
        point = decode(_json_point, body)
        rows = _json_row(point.data, manifest, "data").reshape(1, -1)
        payload = _payload(point.metadata, _json_payload, "metadata")
    else:
        point = decode(_packed_point, body)
        rows = _packed_rows(point.data, manifest, "data", 1)
        payload = _payload(point.metadata, _packed_payload, "metadata")
    if path_id is not None and point.id not in (None, path_id):
        raise InvalidInput(
            f"id is {point.id!r} in the body and {path_id!r} in the path; they must be equal",
            collection=manifest.name,
            details={"field": "id", "value": point.id},
        )
    return PointBatch.build(manifest, [path_id or point.id], rows, [payload], place="")


async def read_batch(body: Body, media: Media, manifest: Manifest, points_max: int) -> PointBatch:
    """The batch in `body`; raises TooLarge besides what `read_point` raises. Errors name the position."""
    if media is Media.JSON:
        return await _read_json_batch(body, manifest, points_max)
    packed = decode(_packed_batch, body)
    rows = _packed_rows(packed.vectors, manifest, "vectors")
    _check_count(len(rows), points_max)
    payloads = None
    if packed.metadata is not None:
        payloads = Payloads(packed.metadata, _packed_payload, "metadata[{}]")
    return await _build(manifest, packed.ids, rows, payloads)


def read_search(body: Body, media: Media, manifest: Manifest, query: dict[str, int | None]) -> SearchQuery:
    """The query in `body`, `query` (of the URL) giving what the body leaves out."""
    search: JsonSearch | PackedSearch
    if media is Media.JSON:
        search = decode(_json_search, body)
        vector = _json_row(search.vector, manifest, "vector")
    else:
        search = decode(_packed_search, body)
        vector = _packed_rows(search.vector, manifest, "vector", 1)[0]
    limit = search.limit if search.limit is not None else query.get("limit")
    ef_search = search.ef_search if search.ef_search is not None else query.get("ef_search")
    condition = None if search.filter is None else parse_filter(search.filter)
    return SearchQuery.build(
        manifest, vector, LIMIT_DEFAULT if limit is None else limit, ef_search, condition
    )


def read_ids(body: Body, media: Media, ids_max: int) -> list[str]:
    """The ids in `body`; raises TooLarge for more than `ids_max`."""
    ids = decode(_json_ids if media is Media.JSON else _packed_ids, body).ids
    if len(ids) > ids_max:
        raise TooLarge(
            f"ids has {len(ids)} entries; at most {ids_max}", details={"field": "ids", "limit": ids_max}
        )
    return ids


async def _read_json_batch(body: Body, manifest: Manifest, points_max: int) -> PointBatch:
    raws = decode(_json_batch, body).vectors
    _check_count(len(raws), points_max)
    ids: list[str | None] = []
    rows: list[Rows] = []
    payloads: list[Raw] = []
    undisturbed_bytes = 0
    for position, raw in enumerate(raws):
        point = decode(_json_point, raw, f"vectors[{position}]")
        ids.append(point.id)
        rows.append(_json_row(point.data, manifest, f"vectors[{position}].data"))
        payloads.append(point.metadata)
        undisturbed_bytes += len(memoryview(raw))
        if undisturbed_bytes >= SLICE_BYTES:
            undisturbed_bytes = 0
            await asyncio.sleep(0)
    lazy = Payloads(payloads, _json_payload, "vectors[{}].metadata")
    return await _build(manifest, ids, np.stack(rows), lazy)


async def _build(
    manifest: Manifest, ids: Sequence[str | None] | None, rows: Rows, payloads: Payloads | None
) -> PointBatch:
    """Check and encode; a large batch in a thread, so that the event loop has its turns meanwhile."""
    if len(rows) <= INLINE_POINTS_MAX:
        return PointBatch.build(manifest, ids, rows, payloads)
    return await asyncio.to_thread(PointBatch.build, manifest, ids, rows, payloads)


def _payload(raw: Raw, decoder: PayloadDecoder, field: str) -> dict[str, Any] | None:
    payload = decode(decoder, raw, field)
    if decoder is _packed_payload:
        try:
            _check_json(payload, field)
        except RecursionError:
            raise InvalidInput(f"{field} is nested too deeply", details={"field": field}) from None
    return payload


def _check_json(value: Any, field: str) -> None:
    """Raise InvalidInput for what MessagePack can carry and JSON cannot."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_json(inner, f"{field}.{key}")
            if not isinstance(key, str):
                raise InvalidInput(f"{field} has the key {key!r}; keys are strings", details={"field": field})
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _check_json(inner, f"{field}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"{field} is {value}; JSON has no such number", details={"field": field})
    elif value is not None and not isinstance(value, (str, int, float)):
        kind = type(value).__name__
        raise InvalidInput(f"{field} is of type {kind}, which JSON does not have", details={"field": field})


def _json_row(raw: Raw, manifest: Manifest, field: str) -> Rows:
    text = bytes(raw)
    if text[:1] == b"[":
        # Each value but the last is followed by a comma, so more commas mean too many values.
        commas = text.count(b",")
        if commas >= manifest.dimension:
            raise _wrong_length(commas + 1, manifest, field)
    values = decode(_json_floats, text, field)
    if len(values) != manifest.dimension:
        raise _wrong_length(len(values), manifest, field)
    with np.errstate(over="ignore"):
        return np.array(values, np.float32)


def _packed_rows(block: memoryview, manifest: Manifest, field: str, count: int | None = None) -> Rows:
    """float32 (n, d), copied: the body is not kept alive and the rows are aligned."""
    row_bytes = 4 * manifest.dimension
    if block.nbytes % row_bytes or count not in (None, block.nbytes // row_bytes):
        wanted = "a multiple of " if count is None else ""
        raise InvalidInput(
            f"{field} has {block.nbytes} bytes; it must have {wanted}{row_bytes} bytes: "
            f"{manifest.dimension} little-endian float32 a vector",
            collection=manifest.name,
            details={"field": field, "value": block.nbytes, "limit": row_bytes},
        )
    return np.frombuffer(block, "<f4").reshape(-1, manifest.dimension).astype(np.float32, copy=True)


def _wrong_length(values: int, manifest: Manifest, field: str) -> InvalidInput:
    return InvalidInput(
        f"{field} has {values} values; the dimension of collection {manifest.name!r} is {manifest.dimension}",
        collection=manifest.name,
        details={"field": field, "value": values, "limit": manifest.dimension},
    )


def _check_count(points: int, points_max: int) -> None:
    if points == 0:
        raise InvalidInput("vectors is empty; at least one is needed", details={"field": "vectors"})
    if points > points_max:
        raise TooLarge(
            f"vectors has {points} entries; at most {points_max} a batch",
            hint="send smaller batches",
            details={"field": "vectors", "value": points, "limit": points_max},
        )
