"""`vectors.bin`: one header page, then rows of fixed stride. The slot is the number of the row.

Reads and writes go by position, never through mmap. `points.db` holds the live slots and their checksums.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from vecstow_engine.storage import files
from vecstow_engine.storage.identity import HEADER_BYTES
from vecstow_engine.storage.points.records import Slots

_READ_GAP_ROWS: Final = 8
"""Up to this many rows between two wanted ones, reading them is cheaper than skipping them."""
_RUN_ROWS_MAX: Final = 1024
FREE_SLOT_BYTES: Final = 40
"""Memory of a free slot: an integer and its place in the queue."""


class RowsFile:
    """An open rows file."""

    def __init__(self, path: Path, stride: int, *, read_only: bool = False) -> None:
        self.path = path
        self.stride = stride
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if read_only else files.open_existing(path)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    def offset(self, slot: int) -> int:
        """Return the byte offset of the row of `slot`."""
        return HEADER_BYTES + slot * self.stride

    def read(self, slots: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return the stored bytes of `slots`, shape (n, stride), in their order; zeros beyond the end."""
        rows = np.zeros((len(slots), self.stride), np.uint8)
        order = np.argsort(slots, kind="stable")
        wanted = np.asarray(slots, np.int64)[order]
        for begin, end in _runs(wanted, _READ_GAP_ROWS):
            first = int(wanted[begin])
            count = int(wanted[end - 1]) - first + 1
            block = np.zeros((count, self.stride), np.uint8)
            _read_full(self._fd, block, self.offset(first))
            rows[order[begin:end]] = block[wanted[begin:end] - first]
        return rows

    def write(self, slots: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """Write each row at its slot; the rows are durable only after `sync`."""
        order = np.argsort(slots, kind="stable")
        wanted = slots[order]
        for begin, end in _runs(wanted, 0):
            block = np.ascontiguousarray(rows[order[begin:end]])
            files.write_at(self._fd, self.offset(int(wanted[begin])), [block.data])

    def truncate(self, rows: int) -> None:
        """Cut the file after its first `rows` rows, durably; never extend the file."""
        if os.fstat(self._fd).st_size > self.offset(rows):
            files.truncate(self._fd, self.offset(rows))
            files.sync(self._fd)

    def sync(self) -> None:
        """Make all writes durable; raise files.SyncFailed, after which the file must not be trusted."""
        files.sync(self._fd)


class SlotTable:
    """Arrays by slot, and the queue of free slots. Not thread-safe: the store guards it."""

    def __init__(self, found: Slots | None = None) -> None:
        self._high_water = 0
        self._epochs = np.zeros(0, np.uint32)
        self._row_checksums = np.zeros(0, np.uint32)
        self._free: deque[int] = deque()
        self.live_count = 0
        if found is not None and len(found.slots):
            self._high_water = int(found.slots[-1]) + 1
            self._grow(self._high_water)
            self.occupy(found.slots, found.epochs, found.row_checksums)
            self._free.extend(np.flatnonzero(self._epochs[: self._high_water] == 0).tolist())

    def allocate(self, count: int) -> NDArray[np.int64]:
        """Return slots that no live row and no unfinished checkpoint uses, shape (count,)."""
        reused = [self._free.popleft() for _ in range(min(count, len(self._free)))]
        fresh = count - len(reused)
        slots = np.array([*reused, *range(self._high_water, self._high_water + fresh)], np.int64)
        self._high_water += fresh
        self._grow(self._high_water)
        return slots

    def occupy(
        self, slots: NDArray[np.int64], epoch: int | NDArray[np.uint32], checksums: NDArray[np.uint32]
    ) -> None:
        """Make allocated slots live, with their epoch, and the CRC32C of their rows, shape (n,)."""
        self._epochs[slots] = epoch
        self._row_checksums[slots] = checksums
        self.live_count += len(slots)

    def vacate(self, slot: int) -> int:
        """Mark a slot as not live, and return its former label; the slot is free only after `release`."""
        label = self.label(slot)
        self._epochs[slot] = 0
        self.live_count -= 1
        return label

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
        return self._epochs.nbytes + self._row_checksums.nbytes + FREE_SLOT_BYTES * len(self._free)

    def highest_live(self, count: int) -> NDArray[np.int64]:
        """Return the `count` highest live slots, ascending, or all when there are fewer."""
        live = np.flatnonzero(self._epochs[: self._high_water])
        return live[max(0, len(live) - count) :]

    def epochs(self, slots: NDArray[np.integer]) -> NDArray[np.uint32]:
        """Return the epoch of each slot, shape (n,); 0 for a slot that is not live."""
        found = np.zeros(len(slots), np.uint32)
        known = slots < self._high_water
        found[known] = self._epochs[slots[known]]
        return found

    def epoch(self, slot: int) -> int:
        """Return the epoch of a slot; 0 when it is not live."""
        return int(self._epochs[slot]) if slot < self._high_water else 0

    def label(self, slot: int) -> int:
        """Return the label of the point at a live slot."""
        return self.epoch(slot) << 32 | slot

    def row_checksums(self, slots: NDArray[np.integer]) -> NDArray[np.uint32]:
        """Return the CRC32C that the row of each live slot must have, shape (n,)."""
        return np.asarray(self._row_checksums[slots], np.uint32)

    def all_epochs(self) -> NDArray[np.uint32]:
        """Return a copy of the epochs of all slots, shape (slots,); 0 for a slot that is not live."""
        return self._epochs[: self._high_water].copy()

    def live(self) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """Return the live slots, ascending, and their epochs."""
        slots = np.flatnonzero(self._epochs[: self._high_water])
        return slots, self._epochs[slots]

    def _grow(self, size: int) -> None:
        if size > len(self._epochs):
            added = max(size - len(self._epochs), len(self._epochs) // 2)
            self._epochs = np.pad(self._epochs, (0, added))
            self._row_checksums = np.pad(self._row_checksums, (0, added))


def row_checksums(rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the CRC32C of each stored row, shape (n,)."""
    return np.fromiter((crc32c(row) for row in np.ascontiguousarray(rows)), np.uint32, len(rows))


def _runs(sorted_slots: NDArray[np.int64], gap: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of runs of at most 1,024 slots, in which at most `gap` rows separate neighbours."""
    if not len(sorted_slots):
        return
    breaks = np.flatnonzero(np.diff(sorted_slots) > gap + 1) + 1
    edges = [0, *breaks.tolist(), len(sorted_slots)]
    for begin, end in pairwise(edges):
        for start in range(begin, end, _RUN_ROWS_MAX):
            yield start, min(start + _RUN_ROWS_MAX, end)


def _read_full(fd: int, block: NDArray[np.uint8], offset: int) -> None:
    view = block.reshape(-1).data
    while len(view):
        count = os.preadv(fd, [view], offset)
        if count == 0:
            return
        view = view[count:]
        offset += count
