"""Vectors as numbers and as stored bytes: the codec of each vector type.

Distances are those of the stored values, so whatever is searched was decoded from stored bytes first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.model.metrics import VectorType

INT8_LEVELS = 127


def encode_rows(vectors: NDArray[np.float32], vector_type: VectorType) -> NDArray[np.uint8]:
    """Stored bytes, shape (n, stride), of finite float32 vectors of shape (n, d)."""
    if vector_type is VectorType.FLOAT32:
        return np.ascontiguousarray(vectors, "<f4").view(np.uint8).reshape(len(vectors), -1)
    if vector_type is VectorType.FLOAT16:
        return np.ascontiguousarray(vectors.astype("<f2")).view(np.uint8).reshape(len(vectors), -1)
    return _encode_int8(vectors)


def decode_rows(rows: NDArray[np.uint8], vector_type: VectorType) -> NDArray[np.float32]:
    """float32 vectors, shape (n, d), of stored bytes of shape (n, stride)."""
    rows = np.ascontiguousarray(rows)
    if vector_type is VectorType.FLOAT32:
        return rows.view("<f4").astype(np.float32, copy=False)
    if vector_type is VectorType.FLOAT16:
        return rows.view("<f2").astype(np.float32)
    scales = np.ascontiguousarray(rows[:, :4]).view("<f4")
    with np.errstate(invalid="ignore", over="ignore"):  # a damaged row is decoded before its checksum tells
        return np.asarray(rows[:, 4:].view(np.int8) * scales, np.float32)


def _encode_int8(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    scales = (np.abs(vectors).max(axis=1, initial=0.0, keepdims=True) / INT8_LEVELS).astype("<f4")
    divisors = np.where(scales > 0, scales, 1)
    levels = np.clip(np.rint(vectors / divisors), -INT8_LEVELS, INT8_LEVELS).astype(np.int8)
    return np.hstack([np.ascontiguousarray(scales).view(np.uint8), levels.view(np.uint8)])
