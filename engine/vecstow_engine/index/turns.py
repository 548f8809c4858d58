"""The turn at the graph: a lock in the order of requests, and the number of rows of a slice that holds it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

_ROWS_AT_FIRST: Final = 64
_COST_AT_FIRST: Final = 1024 * 200
"""The number of values compared for one row, up to which the first slices have `_ROWS_AT_FIRST` rows."""
_STRETCH_MAX: Final = 10
"""The factor by which a slice may exceed its seconds where fewer rows would leave threads idle."""
_WEIGHT: Final = 0.3
"""The weight of the newest measurement; insertion slows down only as slowly as the graph grows."""


class FairLock:
    """A mutual exclusion lock, first come, first served; used in a with block. Not reentrant.

    With a plain `threading.Lock`, a thread that releases and requests again at once overtakes the waiting
    threads: the mover of slices would starve searches. With this lock, a search waits for at most one slice,
    and a slice waits for the searches that came before it.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        gate.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False


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
