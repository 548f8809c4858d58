"""Distance metrics and stored vector types, under d-vecDB's names."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

MAGNITUDE_MAX: Final = 1e16
"""The largest magnitude of a value under Euclidean, DotProduct and Manhattan: sums of squares over 65,536
dimensions stay within float32."""
MAGNITUDE_MIN: Final = 1e-15
"""The least permitted peak of a nonzero vector under these metrics: squares of a thousandth stay normal."""


class DistanceMetric(StrEnum):
    """A measure of the distance between two vectors; smaller is nearer under each metric."""

    COSINE = "Cosine"
    """1 - cos(a, b), in [0, 2]; undefined for the zero vector."""
    EUCLIDEAN = "Euclidean"
    """The L2 norm of a - b."""
    DOT_PRODUCT = "DotProduct"
    """1 - a·b: negative when the product exceeds one, which d-vecDB's client rejects."""
    MANHATTAN = "Manhattan"
    """The L1 norm of a - b."""

    @property
    def code(self) -> int:
        """The byte that represents the metric in files."""
        return _METRIC_CODES[self]


class VectorType(StrEnum):
    """The storage of a vector's values; distances are those of the stored values."""

    FLOAT32 = "Float32"
    FLOAT16 = "Float16"
    INT8 = "Int8"
    """Symmetric scalar quantisation: one float32 scale per row, values -127 to 127."""

    @property
    def code(self) -> int:
        """The byte that represents the type in files."""
        return _TYPE_CODES[self]

    def row_bytes(self, dimension: int) -> int:
        """Return the bytes of one stored row: the values, and for Int8 the scale in front."""
        return {"Float32": 4 * dimension, "Float16": 2 * dimension, "Int8": 4 + dimension}[self.value]


_METRIC_CODES = {metric: code for code, metric in enumerate(DistanceMetric)}
_TYPE_CODES = {vector_type: code for code, vector_type in enumerate(VectorType)}
