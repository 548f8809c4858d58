"""Labels, the index's names of points: `generation << 32 | slot`, new whenever a slot is used again."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

SLOT_BITS: Final = 32
SLOT_MAX: Final = (1 << SLOT_BITS) - 1


def make_labels(slots: ArrayLike, generations: ArrayLike) -> NDArray[np.uint64]:
    """Return labels, shape (n,), of slots (below 2**32) and their generations (below 2**32 - 1)."""
    high = np.asarray(generations, np.uint64) << np.uint64(SLOT_BITS)
    return np.atleast_1d(high | np.asarray(slots, np.uint64))


def slots_of(labels: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the slots of labels, shape (n,)."""
    return (labels & np.uint64(SLOT_MAX)).astype(np.int64)


def generations_of(labels: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Return the generations of labels, shape (n,)."""
    return (labels >> np.uint64(SLOT_BITS)).astype(np.uint32)
