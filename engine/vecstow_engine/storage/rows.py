"""`vectors.bin`: one header page, then rows of fixed stride. The slot is the number of the row.

Reads and writes go by position, never through mmap. `points.db` holds the live slots and their checksums.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from vecstow_engine.storage import files
from vecstow_engine.storage.collection_identity import Identity
from vecstow_engine.storage.rows_header import HEADER_BYTES, encode_header

_READ_GAP_ROWS: Final = 8
"""Up to this many rows between two wanted ones, reading them is cheaper than skipping them."""


def create_rows(path: Path, identity: Identity) -> None:
    """Make an empty rows file, durably."""
    files.replace_file(path, [encode_header(identity)])


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


_RUN_ROWS_MAX: Final = 1024


def _read_full(fd: int, block: NDArray[np.uint8], offset: int) -> None:
    view = block.reshape(-1).data
    while len(view):
        count = os.preadv(fd, [view], offset)
        if count == 0:
            return
        view = view[count:]
        offset += count
