"""Answers of a search, and the arrays of labels in them.

A label is `generation << 32 | slot` as uint64, which hnswlib stores next to a row. The slot generation rises
when the slot is used again, so a label names one row for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Rows: TypeAlias = npt.NDArray[np.float32]
"""Vectors as rows, C-contiguous, shape (n, dimension)."""
Labels: TypeAlias = npt.NDArray[np.uint64]

NO_LABEL: Final = np.uint64(2**64 - 1)
"""The padding where a query has fewer than k answers; greater than every label, so it sorts last."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest labels of some queries, nearest first, padded with NO_LABEL and infinity."""

    labels: Labels
    """uint64, shape (queries, k)."""
    distances: Rows
    """float32, shape (queries, k)."""

    @classmethod
    def none(cls, queries: int, k: int) -> Hits:
        """Return padding only, shape (queries, k)."""
        return cls(np.full((queries, k), NO_LABEL), np.full((queries, k), np.inf, dtype=np.float32))

    @property
    def k(self) -> int:
        """The number of places of each query, padding included."""
        return int(self.labels.shape[1])


def merge(a: Hits, b: Hits, k: int) -> Hits:
    """Return the k nearest of both for each query; equal distances are ordered by label.

    `a` and `b` answer the same queries and share no label; each may have any number of places.
    """
    labels = np.concatenate((a.labels, b.labels), axis=1)
    distances = np.concatenate((a.distances, b.distances), axis=1)
    return ordered(Hits(labels, distances), k)


def ordered(hits: Hits, k: int) -> Hits:
    """Return the k nearest places of `hits`, which may be in any order, padded when there are fewer."""
    order = np.lexsort((hits.labels, hits.distances), axis=-1)[:, :k]
    labels = np.take_along_axis(hits.labels, order, axis=1)
    distances = np.take_along_axis(hits.distances, order, axis=1)
    missing = k - order.shape[1]
    if missing <= 0:
        return Hits(labels, distances)
    padding = Hits.none(len(order), missing)
    return Hits(
        np.concatenate((labels, padding.labels), axis=1),
        np.concatenate((distances, padding.distances), axis=1),
    )
