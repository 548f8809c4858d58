"""Points: their batches, the stored bytes of their vectors, and their labels.

Batches, and the vectors of searches, are checked once against a collection's manifest; later code computes
without checks. Every error names the place (`vectors[3].data`), the value and the limit. Distances are those
of the stored values, so every search uses vectors decoded from stored bytes.

Shapes: n points of dimension d. A label is the index's name of a point, `epoch << 32 | slot`. A
slot that is used again has a higher epoch, so no two points share a label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecstow_engine.model.conditions import Condition, Stamp, requires_point
from vecstow_engine.model.errors import InvalidInput, TooLarge, refused
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import MAGNITUDE_MAX, MAGNITUDE_MIN, DistanceMetric, VectorType
from vecstow_engine.model.names import are_plain_point_ids, check_point_id, new_point_id
from vecstow_engine.model.payloads import encode_payload

BATCH_POINTS_MAX: Final = 10_000
WEIGHED_BYTES: Final = 1024 * 1024
"""The bytes of payloads that are encoded before they are weighed."""
FLOAT16_MAX: Final = 65_504.0
FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
_INT8_LEVELS: Final = 127
_SCALE_MAX: Final = np.nextafter(np.float32(FLOAT32_MAX) / np.float32(_INT8_LEVELS), np.float32(0))
"""The largest scale of an Int8 row: 127 times this value is finite."""
_TINY: Final = np.finfo(np.float32).tiny
_LEAST: Final = float(np.finfo(np.float32).smallest_subnormal)
_SLOT_BITS: Final = 32
_SLOT_MAX: Final = (1 << _SLOT_BITS) - 1


@dataclass(frozen=True, slots=True, eq=False)
class PointBatch:
    """Points ready for the log: ids made, rows encoded, payloads serialised."""

    manifest: Manifest
    """The manifest that the points were checked against."""
    ids: list[str]
    rows: NDArray[np.uint8]
    """Stored bytes, shape (n, stride)."""
    payloads: list[bytes | None]
    """JSON objects in UTF-8; None for a point without payload."""
    all_new: bool
    """Whether every id was made here, so that none can exist yet."""
    condition: Condition | None = None
    """The condition on each point; a point that does not meet it is not written."""

    @classmethod
    def build(
        cls,
        manifest: Manifest,
        ids: Sequence[str | None] | None,
        vectors: NDArray[np.float32],
        payloads: Sequence[Mapping[str, Any] | None] | None,
        place: str = "vectors[{}].",
        weigh: Callable[[int], None] | None = None,
        condition: Condition | None = None,
    ) -> PointBatch:
        """Check and encode `vectors` of shape (n, d); raise InvalidInput, WrongShape or TooLarge.

        `place` precedes the names of a point's fields in messages, with {} for its position. `weigh` gets the
        bytes of payloads as they are encoded, and raises to refuse them. Every point needs an id when
        `condition` requires that it exists.
        """
        count = len(vectors)
        if count > BATCH_POINTS_MAX:
            raise TooLarge(
                f"the batch has {count} points; at most {BATCH_POINTS_MAX} are allowed",
                details=refused("vectors", count, BATCH_POINTS_MAX),
            )
        for name, column in (("ids", ids), ("metadata", payloads)):
            if column is not None and len(column) != count:
                raise wrong_entries(name, len(column), count)
        if requires_point(condition):
            _refuse_missing_ids([None] * count if ids is None else ids, place + "id")
        rows = check_vectors(manifest, vectors, place + "data")
        all_new = ids is None or not any(ids)
        checked = [new_point_id() for _ in range(count)] if ids is None else check_ids(ids, place + "id")
        encoded: list[bytes | None] = [None] * count
        if payloads is not None:
            encoded = _encode_payloads(payloads, place, weigh)
        return cls(manifest, checked, rows, encoded, all_new, condition)


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One stored point, as reads return it."""

    id: str
    vector: NDArray[np.float32]
    """Decoded from the stored bytes, shape (d,)."""
    payload: bytes | None
    stamp: Stamp

    @property
    def version(self) -> str:
        """Return the version, which another write of the point changes."""
        return self.stamp.version(self.payload)


def check_vectors(manifest: Manifest, vectors: NDArray[np.float32], place: str) -> NDArray[np.uint8]:
    """Return the stored bytes (n, stride) of vectors (n, d); raise InvalidInput, which names the place."""
    _check_shape(manifest, vectors, place)
    largest = _largest(manifest.distance_metric)
    if manifest.vector_type is VectorType.FLOAT16:
        largest = min(largest, FLOAT16_MAX)
    _check_values(vectors, place, manifest.distance_metric, largest)
    rows = encode_rows(vectors, manifest.vector_type)
    if manifest.distance_metric is DistanceMetric.COSINE:
        stored = (
            vectors if manifest.vector_type is VectorType.FLOAT32 else decode_rows(rows, manifest.vector_type)
        )
        zeros = np.flatnonzero(~stored.any(axis=1))
        if len(zeros):
            field = place.format(zeros[0])
            raise InvalidInput(
                f"{field} is all zeros as {manifest.vector_type}: no Cosine distance",
                details=refused(field, 0),
            )
    return rows


def _encode_payloads(
    payloads: Sequence[Mapping[str, Any] | None], place: str, weigh: Callable[[int], None] | None
) -> list[bytes | None]:
    encoded: list[bytes | None] = []
    unweighed_bytes = 0
    for position, payload in enumerate(payloads):
        raw = encode_payload(payload, f"{place.format(position)}metadata") if payload else None
        encoded.append(raw)
        unweighed_bytes += len(raw) if raw is not None else 0
        if weigh is not None and unweighed_bytes >= WEIGHED_BYTES:
            weigh(unweighed_bytes)
            unweighed_bytes = 0
    return encoded


def check_ids(ids: Sequence[str | None], place: str) -> list[str]:
    """Return legal, distinct ids, with a new one for each None; `place` has {} for the position.

    Raises WrongShape or InvalidInput, which names the place, or both places of a repeated id.
    """
    given = [point_id for point_id in ids if point_id is not None]
    if are_plain_point_ids(given) and len(set(given)) == len(given):
        return given if len(given) == len(ids) else [point_id or new_point_id() for point_id in ids]
    checked = []
    places: dict[str, int] = {}
    for index, point_id in enumerate(ids):
        if point_id is None:
            checked.append(new_point_id())
            continue
        check_point_id(point_id, place.format(index))
        first = places.setdefault(point_id, index)
        if first != index:
            both = " and ".join(place.format(at).removesuffix(".id") for at in (first, index))
            raise InvalidInput(
                f"id {point_id!r} stands twice: {both}", details=refused(place.format(index), point_id)
            )
        checked.append(point_id)
    return checked


def _refuse_missing_ids(ids: Sequence[str | None], place: str) -> None:
    for index, point_id in enumerate(ids):
        if point_id is None:
            field = place.format(index)
            raise InvalidInput(
                f"{field} is missing; the condition of the write requires that the point exists",
                details=refused(field, None, "an id"),
            )


def _check_shape(manifest: Manifest, vectors: NDArray[np.float32], place: str) -> None:
    if vectors.ndim != 2 or vectors.shape[1] != manifest.dimension:
        raise wrong_length(vectors.shape[-1], manifest, place.format(0))


def _check_values(vectors: NDArray[np.float32], place: str, metric: DistanceMetric, largest: float) -> None:
    """Raise InvalidInput unless all distances between vectors (n, d) like these are finite and distinct."""
    # One pass over all values: each numpy call on many values releases the GIL and waits for it again.
    peaks = np.abs(vectors).max(axis=1, initial=0)
    if not peaks.max(initial=0) <= largest:  # NaN fails this comparison
        line, column = np.argwhere(~(np.abs(vectors) <= largest))[0]
        raise beyond_limit(f"{place.format(line)}[{column}]", float(vectors[line, column]), metric, largest)
    if metric is DistanceMetric.COSINE:
        return
    vanishing = (peaks > 0) & (peaks < MAGNITUDE_MIN)
    if vanishing.any():
        line = int(np.flatnonzero(vanishing)[0])
        field = place.format(line)
        raise InvalidInput(
            f"the largest magnitude in {field} is {peaks[line]}; under {metric} it must be "
            f"0 or at least {MAGNITUDE_MIN:g}, so that distances do not vanish",
            details=refused(field, float(peaks[line]), MAGNITUDE_MIN),
        )


def check_query_vector(manifest: Manifest, vector: NDArray[np.float32], place: str) -> None:
    """Raise InvalidInput, which names `place`, unless distances to a vector (d,) are defined and finite."""
    _check_shape(manifest, vector[None], place)
    _check_values(vector[None], place, manifest.distance_metric, _largest(manifest.distance_metric))
    if manifest.distance_metric is DistanceMetric.COSINE and not vector.any():
        raise InvalidInput(
            f"{place} is all zeros, for which Cosine is not defined", details=refused(place, 0)
        )


def beyond_limit(field: str, value: float, metric: DistanceMetric, largest: float) -> InvalidInput:
    """Return the error for a number in a vector that is not finite, or greater than `largest`."""
    limit = f"under {metric} magnitudes end at {largest:g}, so that distances stay finite"
    if not math.isfinite(value):
        limit = "values must be finite float32 numbers"
    elif largest == FLOAT32_MAX:
        limit = f"float32 ends at {FLOAT32_MAX:.9g}"
    elif largest == FLOAT16_MAX:
        limit = f"Float16 ends at {FLOAT16_MAX:g}"
    return InvalidInput(f"{field} is {value:.9g}; {limit}", details=refused(field, value, largest))


def wrong_length(values: int, manifest: Manifest, field: str) -> InvalidInput:
    """Return the error for a vector whose number of values differs from its collection's dimension."""
    return InvalidInput(
        f"{field} has {values} values; the dimension of collection {manifest.name!r} is {manifest.dimension}",
        collection=manifest.name,
        details=refused(field, values, manifest.dimension),
    )


def wrong_entries(field: str, entries: int, vectors: int) -> InvalidInput:
    """Return the error for a column whose number of entries differs from the number of vectors."""
    return InvalidInput(
        f"{field} has {entries} entries for {vectors} vectors", details=refused(field, entries, vectors)
    )


def _largest(metric: DistanceMetric) -> float:
    return FLOAT32_MAX if metric is DistanceMetric.COSINE else MAGNITUDE_MAX


def encode_rows(vectors: NDArray[np.float32], vector_type: VectorType) -> NDArray[np.uint8]:
    """Return the stored bytes, shape (n, stride), of finite float32 vectors of shape (n, d)."""
    if vector_type is VectorType.FLOAT32:
        return np.ascontiguousarray(vectors, "<f4").view(np.uint8).reshape(len(vectors), -1)
    if vector_type is VectorType.FLOAT16:
        return np.ascontiguousarray(vectors.astype("<f2")).view(np.uint8).reshape(len(vectors), -1)
    if vector_type is VectorType.INT8:
        return _encode_int8(vectors)
    assert_never(vector_type)


def decode_rows(rows: NDArray[np.uint8], vector_type: VectorType) -> NDArray[np.float32]:
    """Return float32 vectors, shape (n, d), from stored bytes of shape (n, stride)."""
    rows = np.ascontiguousarray(rows)
    if vector_type is VectorType.FLOAT32:
        return rows.view("<f4").astype(np.float32, copy=False)
    if vector_type is VectorType.FLOAT16:
        return rows.view("<f2").astype(np.float32)
    if vector_type is VectorType.INT8:
        return _decode_int8(rows)
    assert_never(vector_type)


def _encode_int8(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    peaks = np.abs(vectors).max(axis=1, initial=0.0, keepdims=True)
    scales = np.minimum(peaks / _INT8_LEVELS, _SCALE_MAX).astype("<f4")
    coarse = (peaks > 0) & (scales < _TINY)
    # A subnormal scale is rounded coarsely, so it is rounded up: 127 times the scale must reach the peak.
    scales[coarse] = np.ceil(peaks[coarse].astype(np.float64) / _INT8_LEVELS / _LEAST) * _LEAST
    divisors = np.where(scales > 0, scales, 1)
    levels = np.clip(np.rint(vectors / divisors), -_INT8_LEVELS, _INT8_LEVELS).astype(np.int8)
    return np.hstack([np.ascontiguousarray(scales).view(np.uint8), levels.view(np.uint8)])


def _decode_int8(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    scales = np.ascontiguousarray(rows[:, :4]).view("<f4")
    with np.errstate(invalid="ignore", over="ignore"):  # a damaged row is decoded before its check
        values = np.asarray(rows[:, 4:].view(np.int8) * scales, np.float32)
        if (scales > _SCALE_MAX).any():  # earlier releases rounded the scale of the greatest float32 up
            values = np.where(np.isfinite(scales), np.clip(values, -FLOAT32_MAX, FLOAT32_MAX), values)
        return values


def make_labels(slots: ArrayLike, epochs: ArrayLike) -> NDArray[np.uint64]:
    """Return labels, shape (n,), of slots (below 2**32) and their epochs (below 2**32 - 1)."""
    high = np.asarray(epochs, np.uint64) << np.uint64(_SLOT_BITS)
    return np.atleast_1d(high | np.asarray(slots, np.uint64))


def slots_of(labels: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the slots of labels, shape (n,)."""
    return (labels & np.uint64(_SLOT_MAX)).astype(np.int64)


def epochs_of(labels: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return the epochs of labels, shape (n,)."""
    return (labels >> np.uint64(_SLOT_BITS)).astype(np.uint32)
