"""The arrays of one column: the elements of all slots, one after another, and how many each slot has.

One thread writes at a time. Readers take no lock: what they read is replaced as a whole, or grows behind
what they read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.payload.coders import Codes

ELEMENTS_MIN: Final = 1024
"""The number of elements from which a majority of dead ones is removed, and the least room for elements."""
NO_OWNER: Final = (1 << 32) - 1

Slots = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of the arrays of all slots, in no order; replaced as a whole when it grows."""

    codes: Codes
    owners: NDArray[np.uint32]
    """The slot of each element; NO_OWNER for one whose slot was used again."""
    used: int
    """The number of entries in use; the rest is room."""

    def owners_of(self, found: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """Return the slots that have one of the elements in a mask, shape (used,)."""
        owners = self.owners[: self.used][found]
        return np.asarray(owners[owners != NO_OWNER])

    def owners_in(self, slots: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which elements, shape (used,), belong to the slots in a mask."""
        owners = self.owners[: self.used]
        inside = owners < len(slots)
        inside[inside] = slots[owners[inside]]
        return inside


class Arrays:
    """The arrays of one column. `dtype` is that of the codes."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.counts: NDArray[np.uint32] = np.zeros(0, np.uint32)
        """The number of elements of the array of a slot; without arrays so far, shape (0,)."""
        self.elements = Elements(np.zeros(0, dtype), np.zeros(0, np.uint32), 0)
        self._starts: NDArray[np.int64] = np.zeros(0, np.int64)
        """The first element of the array of a slot."""
        self._dead = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the arrays take."""
        elements = self.elements.codes.nbytes + self.elements.owners.nbytes
        return self.counts.nbytes + self._starts.nbytes + elements

    @property
    def slot_bytes(self) -> int:
        """Bytes of memory of one slot, apart from its elements; 0 without arrays so far."""
        return self.counts.itemsize + self._starts.itemsize if len(self.counts) else 0

    def growth_bytes(self, size: int, elements: int) -> int:
        """Return the bytes that so many more elements take, and with the first array `size` slots."""
        first = 0 if len(self.counts) else size * (self.counts.itemsize + self._starts.itemsize)
        codes, owners = self.elements.codes, self.elements.owners
        more = self._room_for(self.elements.used + elements) - len(codes)
        return first + more * (codes.itemsize + owners.itemsize)

    def grow(self, size: int) -> None:
        """Make room for slots below `size`; without arrays so far, do nothing."""
        if len(self.counts):
            self._starts, self.counts = grown(self._starts, size), grown(self.counts, size)

    def put(self, size: int, slots: Slots, counts: NDArray[np.int64], stored: Slots, codes: Codes) -> None:
        """Write the arrays of slots (n,) below `size`, which have none.

        `counts` (n,) are their elements; `stored` (n,) are those whose codes are in `codes`: all, or none.
        """
        self.grow(size)
        if not len(self.counts):
            self._starts, self.counts = np.zeros(size, np.int64), np.zeros(size, np.uint32)
        self._starts[slots] = self.elements.used + np.cumsum(stored) - stored
        self.counts[slots] = counts
        self._append(codes, np.repeat(slots, stored).astype(np.uint32))

    def forget(self, slots: Slots) -> None:
        """Remove the elements of slots, each with an array whose elements are stored.

        The others move together when most elements are dead.
        """
        owners = self.elements.owners
        for start, count in zip(self._starts[slots].tolist(), self.counts[slots].tolist(), strict=True):
            owners[start : start + count] = NO_OWNER
            self._dead += count
        if 2 * self._dead > self.elements.used > ELEMENTS_MIN:
            self._compact()

    def copied(self, slots: int) -> dict[str, NDArray[Any]]:
        """Return copies for a file, without dead elements, for the slots below `slots`."""
        elements = self.elements
        owners = elements.owners[: elements.used]
        kept = np.flatnonzero(owners < slots)
        return {
            "counts": self.counts[:slots].copy(),
            "elements": elements.codes[: elements.used][kept],
            "owners": owners[kept],
        }

    @classmethod
    def of_file(cls, counts: NDArray[np.uint32], elements: Codes, owners: NDArray[np.uint32]) -> Arrays:
        """Return the arrays that `copied` returned."""
        found = cls(elements.dtype)
        found.counts, found._starts = counts, np.zeros(len(counts), np.int64)
        found._set(elements, owners)
        return found

    def _append(self, codes: Codes, owners: NDArray[np.uint32]) -> None:
        old = self.elements
        used = old.used + len(codes)
        if used > len(old.codes):
            room = self._room_for(used)
            old = Elements(grown(old.codes, room), grown(old.owners, room), old.used)
        old.codes[old.used : used] = codes
        old.owners[old.used : used] = owners
        self.elements = Elements(old.codes, old.owners, used)

    def _room_for(self, used: int) -> int:
        return room_for(used, len(self.elements.codes), ELEMENTS_MIN)

    def _compact(self) -> None:
        elements = self.elements
        kept = np.flatnonzero(elements.owners[: elements.used] != NO_OWNER)
        self._set(elements.codes[kept], elements.owners[kept])
        self._dead = 0

    def _set(self, codes: Codes, owners: NDArray[np.uint32]) -> None:
        """Take elements without dead ones. Those of a slot stand together, in the order of its array."""
        first = np.flatnonzero(np.diff(owners, prepend=np.uint32(NO_OWNER)) != 0)
        self._starts[owners[first]] = first
        self.elements = Elements(codes, owners, len(owners))


def grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    """Return the array, or a copy with room for `size` entries when it has less."""
    if size <= len(array):
        return array
    # The kernel gives no memory to the rest before it is written.
    found = np.zeros(size, array.dtype)
    found[: len(array)] = array
    return found


def room_for(count: int, room: int, least: int) -> int:
    """Return the room to make for `count` entries where there is `room`: some more than that, or the same."""
    return room if count <= room else max(count, room * 5 // 4, least)
