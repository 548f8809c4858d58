"""The number of rows in a slice, chosen so that the slice holds the graph for its permitted time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_ROWS_AT_FIRST: Final = 64
_COST_AT_FIRST: Final = 1024 * 200
"""The number of values compared for one row, up to which the first slices have `_ROWS_AT_FIRST` rows."""
_STRETCH_MAX: Final = 10
"""The factor by which a slice may exceed its seconds where fewer rows would leave threads idle."""
_WEIGHT: Final = 0.3
"""The weight of the newest measurement; insertion slows down only as slowly as the graph grows."""


class SliceMeter:
    """An estimate of the seconds that one row takes."""

    def __init__(self, slice_seconds: float, row_cost: int = 0) -> None:
        """Start with an estimate from `row_cost`, dimension times ef_construction, for the first slices."""
        self._slice_seconds = slice_seconds
        self._row_seconds = slice_seconds / _ROWS_AT_FIRST * max(1.0, row_cost / _COST_AT_FIRST)

    def rows(self, threads: int) -> int:
        """Return the number of rows of the next slice.

        It is large enough that hnswlib uses all threads (above 4 rows a thread), unless that takes far too
        long.
        """
        fitting = int(self._slice_seconds / self._row_seconds)
        longest = int(_STRETCH_MAX * self._slice_seconds / self._row_seconds)
        return max(1, fitting, min(2 * threads * 4, longest))

    @contextmanager
    def measure(self, rows: int) -> Iterator[None]:
        """Measure the insertion of `rows` rows."""
        start = time.perf_counter()
        yield
        if rows:
            self.note(rows, time.perf_counter() - start)

    def note(self, rows: int, seconds: float) -> None:
        """Update the estimate from the insertion of `rows` rows."""
        row_seconds = max(seconds / rows, 1e-7)
        # A slice may at most double: the first rows of a graph are far faster than the next ones.
        self._row_seconds = max(
            (1 - _WEIGHT) * self._row_seconds + _WEIGHT * row_seconds, self._row_seconds / 2
        )
