"""The node that holds a row, found by the bytes of the row."""

from __future__ import annotations

import os
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vecstow_engine.index.hits import NO_LABEL, Labels, Rows

Hashes: TypeAlias = npt.NDArray[np.uint64]

_PLACES_MIN: Final = 256
_LOAD_MAX: Final = 0.75
_BUCKET_PLACES: Final = 8
"""The places of one bucket, which one numpy call compares."""
ROW_TABLE_BYTES: Final = 32
"""The mean bytes of a row in the table: 16 per place, and half of the places are free."""
_PLACED_AT_ONCE: Final = 16 * 1024
"""The number of rows whose buckets are copied at a time: 128 bytes each."""
_BLOCK_BYTES: Final = 256 * 1024


class RowTable:
    """A hash table of nodes by row, in buckets that fill from the left: 16 bytes a place. Not thread-safe.

    When a bucket is full, the next one takes the row.

    The hash is multilinear (Lemire and Kaser, arXiv:1202.4961). Its factors are random in each process, so
    that no client can choose rows that collide. Rows with one hash may still differ: the caller compares
    them.
    """

    def __init__(self, dimension: int) -> None:
        self._factors = np.frombuffer(os.urandom(8 * dimension), dtype=np.uint64) | np.uint64(1)
        self._count = 0
        self._allocate(_PLACES_MIN)

    def hashes(self, rows: Rows) -> Hashes:
        """Return hashes (n,) of rows (n, dimension); a negative zero counts as zero."""
        result = np.empty(len(rows), dtype=np.uint64)
        block = max(1, _BLOCK_BYTES // (8 * len(self._factors)))
        for start in range(0, len(rows), block):
            words = (rows[start : start + block] + np.float32(0)).view(np.uint32)
            result[start : start + block] = words.astype(np.uint64) @ self._factors
        return result ^ (result >> np.uint64(32))

    def find(self, hashes: Hashes) -> Labels:
        """Return the node of each hash (n,), NO_LABEL where there is none."""
        found = np.full(len(hashes), NO_LABEL)
        buckets = self._first_buckets(hashes)
        todo = np.arange(len(hashes))
        while len(todo):
            nodes = self._nodes[buckets]
            same = (self._hashes[buckets] == hashes[todo, None]) & (nodes != NO_LABEL)
            is_found = same.any(axis=1)
            found[todo[is_found]] = nodes[same]
            goes_on = ~is_found & (nodes[:, -1] != NO_LABEL)
            todo, buckets = todo[goes_on], (buckets[goes_on] + 1) % len(self._nodes)
        return found

    def put(self, hashes: Hashes, nodes: Labels) -> None:
        """Add distinct hashes that are not in the table, each with a node."""
        self._count += len(nodes)
        if self._count > _LOAD_MAX * self._nodes.size:
            taken = self._nodes != NO_LABEL
            held = self._hashes[taken], self._nodes[taken]
            self._allocate(2 ** int(np.ceil(np.log2(self._count / _LOAD_MAX)) + 1))
            self._place(*held)
        self._place(hashes, nodes)

    def _place(self, hashes: Hashes, nodes: Labels) -> None:
        for start in range(0, len(nodes), _PLACED_AT_ONCE):
            part = slice(start, start + _PLACED_AT_ONCE)
            self._place_part(hashes[part], nodes[part])

    def _place_part(self, hashes: Hashes, nodes: Labels) -> None:
        buckets = self._first_buckets(hashes)
        todo = np.arange(len(nodes))
        while len(todo):
            free = self._nodes[buckets] == NO_LABEL
            has_room = free[:, -1]
            chosen, at = todo[has_room], (buckets[has_room], free[has_room].argmax(axis=1))
            # When several rows want one place, the last one stays, in both arrays.
            self._nodes[at], self._hashes[at] = nodes[chosen], hashes[chosen]
            placed = np.zeros(len(todo), dtype=np.bool_)
            placed[has_room] = self._nodes[at] == nodes[chosen]
            todo, buckets = todo[~placed], (buckets + ~has_room)[~placed] % len(self._nodes)

    def _first_buckets(self, hashes: Hashes) -> npt.NDArray[np.int64]:
        return (hashes >> self._shift).astype(np.int64)

    def _allocate(self, places: int) -> None:
        """Allocate an empty table of `places`, a power of two."""
        buckets = places // _BUCKET_PLACES
        self._shift = np.uint64(64 - int(np.log2(buckets)))
        self._hashes = np.zeros((buckets, _BUCKET_PLACES), dtype=np.uint64)
        self._nodes = np.full((buckets, _BUCKET_PLACES), NO_LABEL)

    @property
    def bytes(self) -> int:
        """Bytes of memory."""
        return self._hashes.nbytes + self._nodes.nbytes
