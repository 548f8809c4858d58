"""Vectors as numbers and as stored bytes: the codec of each vector type.

Distances are those of the stored values, so every search uses vectors decoded from stored bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.model.metrics import VectorType

INT8_LEVELS = 127
FLOAT32_MAX = np.finfo(np.float32).max
SCALE_MAX = np.nextafter(FLOAT32_MAX / np.float32(INT8_LEVELS), np.float32(0))
"""The largest scale of an Int8 row: 127 times this value is finite."""
_TINY = np.finfo(np.float32).tiny
_LEAST = float(np.finfo(np.float32).smallest_subnormal)


def encode_rows(vectors: NDArray[np.float32], vector_type: VectorType) -> NDArray[np.uint8]:
    """Return the stored bytes, shape (n, stride), of finite float32 vectors of shape (n, d)."""
    if vector_type is VectorType.FLOAT32:
        return np.ascontiguousarray(vectors, "<f4").view(np.uint8).reshape(len(vectors), -1)
    if vector_type is VectorType.FLOAT16:
        return np.ascontiguousarray(vectors.astype("<f2")).view(np.uint8).reshape(len(vectors), -1)
    return _encode_int8(vectors)


def decode_rows(rows: NDArray[np.uint8], vector_type: VectorType) -> NDArray[np.float32]:
    """Return float32 vectors, shape (n, d), from stored bytes of shape (n, stride)."""
    rows = np.ascontiguousarray(rows)
    if vector_type is VectorType.FLOAT32:
        return rows.view("<f4").astype(np.float32, copy=False)
    if vector_type is VectorType.FLOAT16:
        return rows.view("<f2").astype(np.float32)
    scales = np.ascontiguousarray(rows[:, :4]).view("<f4")
    with np.errstate(invalid="ignore", over="ignore"):  # a damaged row is decoded before its check
        values = np.asarray(rows[:, 4:].view(np.int8) * scales, np.float32)
        if (scales > SCALE_MAX).any():  # earlier releases rounded the scale of the greatest float32 up
            values = np.where(np.isfinite(scales), np.clip(values, -FLOAT32_MAX, FLOAT32_MAX), values)
        return values


def _encode_int8(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    peaks = np.abs(vectors).max(axis=1, initial=0.0, keepdims=True)
    scales = np.minimum(peaks / INT8_LEVELS, SCALE_MAX).astype("<f4")
    coarse = (peaks > 0) & (scales < _TINY)
    # A subnormal scale is rounded coarsely, so it is rounded up: 127 times the scale must reach the peak.
    scales[coarse] = np.ceil(peaks[coarse].astype(np.float64) / INT8_LEVELS / _LEAST) * _LEAST
    divisors = np.where(scales > 0, scales, 1)
    levels = np.clip(np.rint(vectors / divisors), -INT8_LEVELS, INT8_LEVELS).astype(np.int8)
    return np.hstack([np.ascontiguousarray(scales).view(np.uint8), levels.view(np.uint8)])
