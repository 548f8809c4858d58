"""How many rows make a slice that holds the graph for the time it may."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_ROWS_AT_FIRST: Final = 64
_WEIGHT: Final = 0.3
"""Of the newest measurement; inserting gets slower only as slowly as the graph grows."""


class SliceMeter:
    """Learns the seconds that one row takes."""

    def __init__(self, slice_seconds: float) -> None:
        self._slice_seconds = slice_seconds
        self._row_seconds = slice_seconds / _ROWS_AT_FIRST

    def rows(self, threads: int) -> int:
        """The length of the next slice; enough that hnswlib uses all threads (above 4 rows a thread)."""
        return max(2 * threads * 4, int(self._slice_seconds / self._row_seconds))

    @contextmanager
    def measure(self, rows: int) -> Iterator[None]:
        """Time the insertion of so many rows."""
        start = time.perf_counter()
        yield
        if rows:
            seconds = max((time.perf_counter() - start) / rows, 1e-7)
            # A slice may double at most: the first rows of a graph are far faster than the next.
            self._row_seconds = max(
                (1 - _WEIGHT) * self._row_seconds + _WEIGHT * seconds, self._row_seconds / 2
            )
