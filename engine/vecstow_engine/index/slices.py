"""How many rows make a slice that holds the graph for the time it may."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_ROWS_AT_FIRST: Final = 64
_COST_AT_FIRST: Final = 1024 * 200
"""Values compared for one row, up to which a graph begins with so many rows."""
_STRETCH_MAX: Final = 10
"""Slices may take so many times their seconds where fewer rows would leave threads idle."""
_WEIGHT: Final = 0.3
"""Of the newest measurement; inserting gets slower only as slowly as the graph grows."""


class SliceMeter:
    """Learns the seconds that one row takes."""

    def __init__(self, slice_seconds: float, row_cost: int = 0) -> None:
        """`row_cost`: dimension times ef_construction, for the first slices, before anything was measured."""
        self._slice_seconds = slice_seconds
        self._row_seconds = slice_seconds / _ROWS_AT_FIRST * max(1.0, row_cost / _COST_AT_FIRST)

    def rows(self, threads: int) -> int:
        """The length of the next slice: enough that hnswlib uses all threads (above 4 rows a thread), unless
        that took far too long.
        """
        fitting = int(self._slice_seconds / self._row_seconds)
        longest = int(_STRETCH_MAX * self._slice_seconds / self._row_seconds)
        return max(1, fitting, min(2 * threads * 4, longest))

    @contextmanager
    def measure(self, rows: int) -> Iterator[None]:
        """Time the insertion of so many rows."""
        start = time.perf_counter()
        yield
        if rows:
            self.note(rows, time.perf_counter() - start)

    def note(self, rows: int, seconds: float) -> None:
        """Learn from the insertion of so many rows."""
        row_seconds = max(seconds / rows, 1e-7)
        # A slice may double at most: the first rows of a graph are far faster than the next.
        self._row_seconds = max(
            (1 - _WEIGHT) * self._row_seconds + _WEIGHT * row_seconds, self._row_seconds / 2
        )
