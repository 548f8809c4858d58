"""The backlog: labels whose rows are only on disk, after a restart without a fresh snapshot of the graph."""

from __future__ import annotations

from collections import deque

import numpy as np

from vecstow_engine.index.hits import Labels


class Backlog:
    """A queue of labels. Removed labels stay in it, so readers look up each label. Not thread-safe."""

    def __init__(self) -> None:
        self._batches: deque[Labels] = deque()
        self.count = 0
        """The number of labels in the queue, removed ones included; any thread may read it."""

    def add(self, labels: Labels) -> None:
        """Append labels; the backlog keeps the array."""
        if len(labels):
            self._batches.append(labels)
            self.count += len(labels)

    def peek(self, count: int) -> Labels:
        """Return the first labels: at most `count`, all from one batch."""
        return self._batches[0][:count] if self._batches else np.empty(0, dtype=np.uint64)

    def skip(self, count: int) -> None:
        """Drop the first `count` labels, as `peek` returned them."""
        self.count -= count
        if count:
            rest = self._batches.popleft()[count:]
            if len(rest):
                self._batches.appendleft(rest)

    def snapshot(self) -> list[Labels]:
        """Return the present labels, batch by batch."""
        return list(self._batches)

    @property
    def bytes(self) -> int:
        """Bytes of memory."""
        return 8 * self.count

    def __bool__(self) -> bool:
        return bool(self._batches)
