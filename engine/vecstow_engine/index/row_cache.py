"""A cache of prepared rows by slot, for exact search over chosen points. It is never needed: disks have rows.

Rows are verified before they come here. The cache grows in blocks, as long as it may.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.exact import Labels, Rows
from vecstow_engine.model.points import epochs_of, slots_of

BLOCK_BYTES: Final = 4 << 20


_kept = threading.local()


def _scratch(values: int) -> NDArray[np.float32]:
    """Return memory of this thread, shape (values,); new memory costs as much as the copies into it."""
    buffer: NDArray[np.float32] | None = getattr(_kept, "buffer", None)
    if buffer is None or len(buffer) < values:
        buffer = _kept.buffer = np.empty(values, np.float32)
    return buffer[:values]


class _Block:
    """The rows of consecutive slots."""

    __slots__ = ("epochs", "rows")

    def __init__(self, slots: int, dimension: int) -> None:
        self.rows: Rows = np.empty((slots, dimension), np.float32)
        self.epochs: NDArray[np.uint32] = np.zeros(slots, np.uint32)
        """The epoch of the row of each slot; 0 without one."""


class RowCache:
    """Prepared rows of some points. Thread-safe.

    `may_grow` gets the bytes of another block, and returns whether there is memory for it.
    """

    def __init__(self, dimension: int, may_grow: Callable[[int], bool]) -> None:
        self._dimension = dimension
        self._may_grow = may_grow
        self._block_slots = max(64, BLOCK_BYTES // (4 * dimension))
        self._blocks: dict[int, _Block] = {}
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Bytes of memory that the cache takes."""
        return len(self._blocks) * self._block_bytes

    @property
    def _block_bytes(self) -> int:
        return 4 * self._block_slots * (self._dimension + 1)

    def clear(self) -> None:
        """Drop all rows."""
        with self._lock:
            self._blocks = {}

    def put(self, labels: Labels, rows: Rows) -> None:
        """Add rows (n, dimension) of labels (n,) where there is memory for them."""
        order = np.argsort(slots_of(labels), kind="stable")
        slots, epochs, rows = slots_of(labels)[order], epochs_of(labels)[order], rows[order]
        with self._lock:
            for number, part in self._parts(slots):
                block = self._block(number)
                if block is not None:
                    at = slots[part] - number * self._block_slots
                    # A reader that meets a row half written finds no epoch.
                    block.epochs[at] = 0
                    block.rows[at] = rows[part]
                    block.epochs[at] = epochs[part]

    def take(self, labels: Labels) -> tuple[Rows, NDArray[np.bool_]]:
        """Return rows (n, dimension), and which of the labels (n,) the cache has; other rows mean nothing.

        The labels ascend by slot. The rows are valid until the next call in this thread.
        """
        rows = _scratch(len(labels) * self._dimension).reshape(len(labels), self._dimension)
        found = np.zeros(len(labels), np.bool_)
        slots, epochs = slots_of(labels), epochs_of(labels)
        for number, part in self._parts(slots):
            block = self._blocks.get(number)
            if block is not None:
                at = slots[part] - number * self._block_slots
                before = block.epochs[at]
                np.take(block.rows, at, axis=0, out=rows[part], mode="clip")
                found[part] = (before == epochs[part]) & (block.epochs[at] == epochs[part])
        return rows, found

    def _parts(self, slots: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
        """Yield the number of each block that ascending slots lie in, and the range of these slots."""
        if not len(slots):
            return
        first, last = int(slots[0]) // self._block_slots, int(slots[-1]) // self._block_slots
        edges = np.searchsorted(slots, np.arange(first, last + 2) * self._block_slots).tolist()
        for number, (begin, end) in enumerate(pairwise(edges), first):
            if begin < end:
                yield number, slice(begin, end)

    def _block(self, number: int) -> _Block | None:
        block = self._blocks.get(number)
        if block is None and self._may_grow(self._block_bytes):
            block = self._blocks[number] = _Block(self._block_slots, self._dimension)
        return block
