"""Distance metrics and stored vector types, by the names that d-vecDB gives them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

MAGNITUDE_MAX: Final = 1e16
"""Under Euclidean, DotProduct and Manhattan: sums of squares over 65,536 dimensions stay within float32."""
MAGNITUDE_MIN: Final = 1e-15
"""The least of a vector's largest magnitude there, unless all is 0: squares of a thousandth stay normal."""


class DistanceMetric(StrEnum):
    """How far two vectors are apart; smaller is nearer for each of them."""

    COSINE = "Cosine"
    """1 - cos(a, b), in [0, 2]; undefined for the zero vector."""
    EUCLIDEAN = "Euclidean"
    """The L2 norm of a - b."""
    DOT_PRODUCT = "DotProduct"
    """1 - a·b: negative when the product exceeds one, which d-vecDB's client refuses."""
    MANHATTAN = "Manhattan"
    """The L1 norm of a - b."""

    @property
    def code(self) -> int:
        """The byte that stands for it in files."""
        return _METRIC_CODES[self]


class VectorType(StrEnum):
    """How a vector's values are stored; distances are those of the stored values."""

    FLOAT32 = "Float32"
    FLOAT16 = "Float16"
    INT8 = "Int8"
    """Symmetric scalar quantisation: one float32 scale per row, values -127 to 127."""

    @property
    def code(self) -> int:
        """The byte that stands for it in files."""
        return _TYPE_CODES[self]

    def row_bytes(self, dimension: int) -> int:
        """Bytes of one stored row: values, and for Int8 the scale in front."""
        return {"Float32": 4 * dimension, "Float16": 2 * dimension, "Int8": 4 + dimension}[self.value]


_METRIC_CODES = {metric: code for code, metric in enumerate(DistanceMetric)}
_TYPE_CODES = {vector_type: code for code, vector_type in enumerate(VectorType)}
