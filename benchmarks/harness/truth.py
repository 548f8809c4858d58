"""Exact search in numpy, and recall against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.dataset import Rows

_BLOCK_VALUES: Final = 16_000_000
_TOLERANCE: Final = 1e-5
"""A distance may differ by this: float32 sums in another order. Rows this close to the k-th are as near."""


class Truth:
    """The exact neighbours of `queries` (q, d) in `rows` (n, d) under a metric, spelt as REST spells it."""

    def __init__(self, rows: Rows, queries: Rows, k: int, metric: str) -> None:
        self._metric = metric
        self._rows = _unit(rows) if metric == "Cosine" else rows
        self._queries = _unit(queries) if metric == "Cosine" else queries
        self.k = min(k, len(rows))
        block = max(1, _BLOCK_VALUES // len(rows))
        self.nearest_distance: NDArray[np.float32] = np.concatenate(
            [self._sorted_distances(start, start + block) for start in range(0, len(queries), block)]
        )
        """Shape (q, k), rising."""

    def recall(self, found: Sequence[Sequence[int]]) -> float:
        """The share of the k nearest that was found; a row as near as the k-th counts, equal rows do too."""
        hits = 0
        for number, numbers in enumerate(found):
            chosen = self._rows[sorted(set(numbers))]
            distances = _distances(chosen, self._queries[number], self._metric)
            hits += int((distances <= self.nearest_distance[number, -1] + _TOLERANCE).sum())
        return hits / (len(found) * self.k)

    def _sorted_distances(self, start: int, end: int) -> NDArray[np.float32]:
        distances = _distances_of_many(self._rows, self._queries[start:end], self._metric)
        return np.sort(np.partition(distances, self.k - 1, axis=1)[:, : self.k], axis=1)


def _unit(rows: Rows) -> Rows:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _distances_of_many(rows: Rows, queries: Rows, metric: str) -> NDArray[np.float32]:
    if metric in ("Cosine", "DotProduct"):
        return 1 - queries @ rows.T
    if metric == "Euclidean":
        squares = (
            (rows * rows).sum(axis=1) - 2 * (queries @ rows.T) + (queries * queries).sum(axis=1)[:, None]
        )
        return np.sqrt(np.maximum(squares, 0))
    return np.stack([_distances(rows, query, metric) for query in queries])


def _distances(rows: Rows, query: Rows, metric: str) -> NDArray[np.float32]:
    if metric in ("Cosine", "DotProduct"):
        return 1 - rows @ query
    if metric == "Euclidean":
        return np.linalg.norm(rows - query, axis=1)
    return np.abs(rows - query).sum(axis=1)
