"""The live slots, each with its slot generation and row checksum: a few bytes per row, in memory."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.storage.points.records import Slots

FREE_SLOT_BYTES: Final = 40
"""Memory of a free slot: an integer and its place in the queue."""


class SlotTable:
    """Arrays by slot, and the queue of free slots. Not thread-safe: the store guards it."""

    def __init__(self, found: Slots | None = None) -> None:
        self._high_water = 0
        self._generations = np.zeros(0, np.uint32)
        self._row_checksums = np.zeros(0, np.uint32)
        self._free: deque[int] = deque()
        self.live_count = 0
        if found is not None and len(found.slots):
            self._load(found)

    def allocate(self, count: int) -> NDArray[np.int64]:
        """Return slots that no live row and no unfinished checkpoint uses, shape (count,)."""
        reused = [self._free.popleft() for _ in range(min(count, len(self._free)))]
        fresh = count - len(reused)
        slots = np.array([*reused, *range(self._high_water, self._high_water + fresh)], np.int64)
        self._high_water += fresh
        self._grow(self._high_water)
        return slots

    def occupy(self, slots: NDArray[np.int64], generation: int, row_checksums: NDArray[np.uint32]) -> None:
        """Make allocated slots live."""
        self._generations[slots] = generation
        self._row_checksums[slots] = row_checksums
        self.live_count += len(slots)

    def vacate(self, slot: int) -> None:
        """Mark a slot as not live; the slot is free only after `release`."""
        self._generations[slot] = 0
        self.live_count -= 1

    def release(self, slots: list[int]) -> None:
        """Make vacated slots free, once the checkpoint that freed them is durable."""
        self._free.extend(slots)

    def shrink(self) -> int:
        """Drop the free slots at the end, and sort the others; return how many slots remain."""
        free = sorted(self._free)
        while free and free[-1] == self._high_water - 1:
            self._high_water = free.pop()
        self._free = deque(free)
        return self._high_water

    @property
    def free_count(self) -> int:
        """The number of free slots. Using them does not extend the file."""
        return len(self._free)

    @property
    def bytes(self) -> int:
        """Bytes of memory that the table takes."""
        return self._generations.nbytes + self._row_checksums.nbytes + FREE_SLOT_BYTES * len(self._free)

    def highest_live(self, count: int) -> NDArray[np.int64]:
        """Return the `count` highest live slots, ascending, or all when there are fewer."""
        return (
            np.flatnonzero(self._generations[: self._high_water])[-count:] if count else np.zeros(0, np.int64)
        )

    def generations(self, slots: NDArray[np.integer]) -> NDArray[np.uint32]:
        """Return the generation of each slot, shape (n,); 0 for a slot that is not live."""
        known = slots < self._high_water
        return (
            np.where(known, self._generations[np.where(known, slots, 0)], 0)
            if self._high_water
            else np.zeros(len(slots), np.uint32)
        )

    def generation(self, slot: int) -> int:
        """Return the generation of a slot; 0 when it is not live."""
        return int(self._generations[slot]) if slot < self._high_water else 0

    def row_checksums(self, slots: NDArray[np.integer]) -> NDArray[np.uint32]:
        """Return the CRC32C that the row of each live slot must have, shape (n,)."""
        return np.asarray(self._row_checksums[slots], np.uint32)

    def live(self) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Return the live slots, ascending, and their generations."""
        slots = np.flatnonzero(self._generations[: self._high_water])
        return slots, self._generations[slots]

    def _load(self, found: Slots) -> None:
        self._high_water = int(found.slots[-1]) + 1
        self._grow(self._high_water)
        self._generations[found.slots] = found.generations
        self._row_checksums[found.slots] = found.row_checksums
        self.live_count = len(found.slots)
        self._free.extend(np.flatnonzero(self._generations[: self._high_water] == 0).tolist())

    def _grow(self, size: int) -> None:
        if size > len(self._generations):
            size = max(size, len(self._generations) * 3 // 2)
            self._generations = _grown(self._generations, size)
            self._row_checksums = _grown(self._row_checksums, size)


def _grown(array: NDArray[np.uint32], size: int) -> NDArray[np.uint32]:
    larger = np.zeros(size, np.uint32)
    larger[: len(array)] = array
    return larger
