"""Points and queries, checked once against a collection's manifest: what passes here is only computed with.

Shapes: n points of dimension d. Every refusal names the place (`vectors[3].data`), the value and the limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecstow_engine.model.errors import InvalidInput, TooLarge
from vecstow_engine.model.fields import integer
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.manifest import INDEX_BOUNDS, Manifest
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.names import check_point_id, new_point_id
from vecstow_engine.model.vectors import decode_rows, encode_rows

PAYLOAD_BYTES_MAX: Final = 64 * 1024
BATCH_POINTS_MAX: Final = 10_000
LIMIT_MAX: Final = 10_000
EF_SEARCH_MAX: Final = INDEX_BOUNDS["ef_search"][1]
FLOAT16_MAX: Final = 65_504.0


@dataclass(frozen=True, slots=True, eq=False)
class PointBatch:
    """Points ready to be logged: ids made, rows encoded, payloads serialised."""

    ids: list[str]
    rows: NDArray[np.uint8]
    """Stored bytes, shape (n, stride)."""
    payloads: list[bytes | None]
    """JSON objects in UTF-8."""
    all_new: bool
    """Every id was made here, so none can exist yet."""

    @classmethod
    def build(
        cls,
        manifest: Manifest,
        ids: Sequence[str | None] | None,
        vectors: NDArray[np.float32],
        payloads: Sequence[Mapping[str, Any] | None] | None,
        place: str = "vectors[{}].",
    ) -> PointBatch:
        """Check and encode `vectors` of shape (n, d); raises InvalidInput, WrongShape or TooLarge.

        `place` is what stands before a point's fields in messages, with {} for its position.
        """
        count = len(vectors)
        if count > BATCH_POINTS_MAX:
            raise TooLarge(f"the batch has {count} points; at most {BATCH_POINTS_MAX} are allowed")
        for name, column in (("ids", ids), ("metadata", payloads)):
            if column is not None and len(column) != count:
                raise InvalidInput(f"{name} has {len(column)} entries for {count} vectors")
        rows = check_vectors(manifest, vectors, place + "data")
        all_new = ids is None or not any(ids)
        checked = [new_point_id() for _ in range(count)] if ids is None else _check_ids(ids, place)
        encoded: list[bytes | None] = (
            [None] * count
            if payloads is None
            else [_encode_payload(p, place.format(i)) for i, p in enumerate(payloads)]
        )
        return cls(checked, rows, encoded, all_new)


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One stored point as a reader sees it."""

    id: str
    vector: NDArray[np.float32]
    """Decoded from the stored bytes, shape (d,)."""
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search; smaller distances come first."""

    id: str
    distance: float
    payload: bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class SearchQuery:
    """One search, checked."""

    vector: NDArray[np.float32]
    """Shape (d,)."""
    limit: int = 10
    ef_search: int | None = None
    """None: the collection's."""
    filter: Filter | None = None

    @classmethod
    def build(
        cls,
        manifest: Manifest,
        vector: NDArray[np.float32],
        limit: int = 10,
        ef_search: int | None = None,
        filter: Filter | None = None,
    ) -> SearchQuery:
        """Check a query; raises InvalidInput or WrongShape."""
        integer(limit, "limit", 1, LIMIT_MAX)
        if ef_search is not None:
            integer(ef_search, "ef_search", 1, EF_SEARCH_MAX)
        _check_shape(manifest, vector[None], "vector")
        _check_finite(vector[None], "vector")
        if manifest.distance_metric is DistanceMetric.COSINE and not vector.any():
            raise InvalidInput("vector is all zeros, for which Cosine is not defined")
        return cls(vector, limit, ef_search, filter)


def check_vectors(manifest: Manifest, vectors: NDArray[np.float32], place: str) -> NDArray[np.uint8]:
    """Stored bytes, shape (n, stride), of vectors of shape (n, d); raises InvalidInput naming the place."""
    _check_shape(manifest, vectors, place)
    _check_finite(vectors, place)
    if manifest.vector_type is VectorType.FLOAT16:
        _check_float16(vectors, place)
    rows = encode_rows(vectors, manifest.vector_type)
    if manifest.distance_metric is DistanceMetric.COSINE:
        stored = (
            vectors if manifest.vector_type is VectorType.FLOAT32 else decode_rows(rows, manifest.vector_type)
        )
        zeros = np.flatnonzero(~stored.any(axis=1))
        if len(zeros):
            raise InvalidInput(
                f"{place.format(zeros[0])} is all zeros as {manifest.vector_type}: no Cosine distance"
            )
    return rows


def encode_payload(payload: Mapping[str, Any], place: str = "metadata") -> bytes:
    """A payload as compact JSON; raises InvalidInput or TooLarge."""
    try:
        raw = msgspec.json.encode(payload)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise InvalidInput(f"{place} cannot be stored as JSON: {error}") from error
    if len(raw) > PAYLOAD_BYTES_MAX:
        raise TooLarge(f"{place} has {len(raw)} bytes as JSON; at most {PAYLOAD_BYTES_MAX} are allowed")
    return raw


def _encode_payload(payload: Mapping[str, Any] | None, place: str) -> bytes | None:
    return encode_payload(payload, f"{place}metadata") if payload else None


def _check_ids(ids: Sequence[str | None], place: str) -> list[str]:
    checked = []
    places: dict[str, int] = {}
    for index, point_id in enumerate(ids):
        if point_id is None:
            checked.append(new_point_id())
            continue
        check_point_id(point_id, f"{place.format(index)}id")
        first = places.setdefault(point_id, index)
        if first != index:
            raise InvalidInput(
                f"id {point_id!r} stands twice in the batch: vectors[{first}] and vectors[{index}]"
            )
        checked.append(point_id)
    return checked


def _check_shape(manifest: Manifest, vectors: NDArray[np.float32], place: str) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != manifest.dimension:
        raise InvalidInput(
            f"{place.format(0)} has {vectors.shape[-1]} values; "
            f"collection {manifest.name!r} has dimension {manifest.dimension}"
        )


def _check_finite(vectors: NDArray[np.float32], place: str) -> None:
    finite = np.isfinite(vectors)
    if finite.all():
        return
    line, column = np.argwhere(~finite)[0]
    raise InvalidInput(
        f"{place.format(line)}[{column}] is {vectors[line, column]}; values must be finite float32 numbers"
    )


def _check_float16(vectors: NDArray[np.float32], place: str) -> None:
    large = np.abs(vectors) > FLOAT16_MAX
    if large.any():
        line, column = np.argwhere(large)[0]
        raise InvalidInput(
            f"{place.format(line)}[{column}] is {vectors[line, column]}; Float16 ends at {FLOAT16_MAX:g}"
        )
