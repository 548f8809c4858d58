"""The overlay: the changes since the last checkpoint, in memory. Every read goes through it (rule 10)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.storage.points.records import StoredPoint

ENTRY_OVERHEAD_BYTES: Final = 412
"""Memory of an entry apart from row, id and payload: Python objects and two map entries (measured)."""
BLOCK_OVERHEAD_BYTES: Final = 144
"""Memory of the array that holds the rows of one batch, apart from the rows."""


class Entry:
    """One point that is not in `points.db` yet. Its row is one line of the block of its batch."""

    __slots__ = ("_block", "_line", "generation", "id", "payload", "row_checksum", "sequence", "slot")

    def __init__(
        self, point_id: str, sequence: int, slot: int, generation: int, row_checksum: int,
        payload: bytes | None, block: NDArray[np.uint8], line: int,
    ) -> None:  # fmt: skip
        self.id = point_id
        self.sequence = sequence
        self.slot = slot
        self.generation = generation
        self.row_checksum = row_checksum
        self.payload = payload
        self._block = block
        self._line = line

    @property
    def row(self) -> NDArray[np.uint8]:
        """The stored bytes, shape (stride,)."""
        return np.asarray(self._block[self._line])

    @property
    def bytes(self) -> int:
        """Bytes of memory that the point takes until a checkpoint writes it."""
        lines = len(self._block)
        content = len(self.row) + len(self.id) + len(self.payload or b"")
        return content + ENTRY_OVERHEAD_BYTES + BLOCK_OVERHEAD_BYTES // lines

    def stored(self) -> StoredPoint:
        """Return the row of the point table that a checkpoint writes for this point."""
        return StoredPoint(
            self.slot, self.id, self.sequence, self.generation, self.row_checksum, self.payload
        )


class Overlay:
    """The changes of one interval between checkpoints. Not thread-safe: the store guards it."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.by_id: dict[str, Entry | None] = {}
        """The entry of each changed id; None for a deleted point."""
        self.by_slot: dict[int, Entry] = {}
        self.freed: list[int] = []
        """Slots that this interval freed. They can be used again when its checkpoint is durable."""
        self.bytes = 0
        self.last_sequence = 0

    def __len__(self) -> int:
        return len(self.by_id)

    def put(self, entry: Entry) -> None:
        """Add or replace a point; the former slot of its id must be freed before."""
        self.by_id[entry.id] = entry
        self.by_slot[entry.slot] = entry
        self.bytes += entry.bytes

    def delete(self, point_id: str) -> None:
        """Hide a point that may be in an older layer."""
        self.by_id[point_id] = None
        self.bytes += len(point_id) + ENTRY_OVERHEAD_BYTES

    def give_up(self, slot: int) -> None:
        """Free a slot of this interval or of an older layer."""
        self.by_slot.pop(slot, None)
        self.freed.append(slot)

    def live(self) -> Iterator[Entry]:
        """Return the points that this interval added and that are still live."""
        return iter(self.by_slot.values())
