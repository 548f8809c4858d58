"""What is newer than the last checkpoint, in memory: every read sees the point table through it (rule 10)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.storage.points.records import StoredPoint

ENTRY_OVERHEAD_BYTES: Final = 412
"""Besides row, id and payload: an entry's Python objects, and its places in two maps (measured)."""
BLOCK_OVERHEAD_BYTES: Final = 144
"""The array that the rows of a batch came in."""


class Entry:
    """One point that is not in `points.db` yet. Its row is one line of the block its batch came in."""

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
        """Bytes of memory that the point takes until a checkpoint has it."""
        lines = len(self._block)
        content = len(self.row) + len(self.id) + len(self.payload or b"")
        return content + ENTRY_OVERHEAD_BYTES + BLOCK_OVERHEAD_BYTES // lines

    def stored(self) -> StoredPoint:
        """The row that it becomes in the point table."""
        return StoredPoint(
            self.slot, self.id, self.sequence, self.generation, self.row_checksum, self.payload
        )


class Overlay:
    """The changes of one interval between checkpoints. Not thread-safe: the store guards it."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.by_id: dict[str, Entry | None] = {}
        """None: deleted."""
        self.by_slot: dict[int, Entry] = {}
        self.freed: list[int] = []
        """Slots that this interval gave up; free again when its checkpoint is durable."""
        self.bytes = 0
        self.last_sequence = 0

    def __len__(self) -> int:
        return len(self.by_id)

    def put(self, entry: Entry) -> None:
        """Add or replace a point; the slot it had before must have been given up."""
        self.by_id[entry.id] = entry
        self.by_slot[entry.slot] = entry
        self.bytes += entry.bytes

    def delete(self, point_id: str) -> None:
        """Hide a point that may be in an older layer."""
        self.by_id[point_id] = None
        self.bytes += len(point_id) + ENTRY_OVERHEAD_BYTES

    def give_up(self, slot: int) -> None:
        """Free a slot, of this interval or of an older layer."""
        self.by_slot.pop(slot, None)
        self.freed.append(slot)

    def live(self) -> Iterator[Entry]:
        """The points that this interval added."""
        return iter(self.by_slot.values())
