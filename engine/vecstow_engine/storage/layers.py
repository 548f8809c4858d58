"""The layers of one collection: active overlay, frozen overlay, point table, rows. They locate each point.

The newest layer that contains an id decides. `lock` guards the structures in memory, and is never held
during I/O. Only the thread that commits changes which points are live, so its lookups stay valid meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.model.conditions import Stamp
from vecstow_engine.model.errors import DamagedFile, NotFound, Unavailable, VecstowError
from vecstow_engine.model.points import make_labels
from vecstow_engine.storage.handles import Closable, HandleCache
from vecstow_engine.storage.identity import HEADER_BYTES, Identity
from vecstow_engine.storage.layout import POINTS, ROWS
from vecstow_engine.storage.log.segment import Delete, Effect, Upsert
from vecstow_engine.storage.points.reader import IDS_PER_STATEMENT, PointTable
from vecstow_engine.storage.points.records import StoredPoint
from vecstow_engine.storage.rows import RowsFile, SlotTable, row_checksums

ENTRY_OVERHEAD_BYTES: Final = 412
"""Memory of an entry apart from row, id and payload: Python objects and two map entries (measured)."""
BLOCK_OVERHEAD_BYTES: Final = 144
"""Memory of the array that holds the rows of one batch, apart from the rows."""

_Handle = TypeVar("_Handle", bound=Closable)


@dataclass(frozen=True, slots=True)
class Applied:
    """The change of an effect to the set of live points, as the index needs it."""

    added: NDArray[np.uint64]
    """Labels of new rows, shape (n,)."""
    rows: NDArray[np.uint8]
    """The stored bytes of these rows, shape (n, stride)."""
    removed: NDArray[np.uint64]
    """Labels that are no longer live."""
    existed: list[bool]
    """For each id of the effect that was not rejected, whether the point existed before."""
    rejected: tuple[int, ...] = ()
    """The positions of the effect's ids whose guards failed; nothing changed there."""


Announce: TypeAlias = Callable[[NDArray[np.uint8], NDArray[np.uint64], Sequence[bytes | None]], None]
"""A callback that gets stored rows, shape (n, stride), their new labels, shape (n,), and their payloads."""


@dataclass(slots=True, eq=False)
class Entry:
    """One point that is not in `points.db` yet. Its row is one line of the block of its batch."""

    id: str
    sequence: int
    slot: int
    epoch: int
    row_checksum: int
    payload: bytes | None
    block: NDArray[np.uint8]
    line: int

    @property
    def row(self) -> NDArray[np.uint8]:
        """The stored bytes, shape (stride,)."""
        return np.asarray(self.block[self.line])

    @property
    def bytes(self) -> int:
        """Bytes of memory that the point takes until a checkpoint writes it."""
        content = len(self.row) + len(self.id) + len(self.payload or b"")
        return content + ENTRY_OVERHEAD_BYTES + BLOCK_OVERHEAD_BYTES // len(self.block)

    def stored(self) -> StoredPoint:
        """Return the row of the point table that a checkpoint writes for this point."""
        return StoredPoint(self.slot, self.id, self.sequence, self.epoch, self.row_checksum, self.payload)


def stamp_of(identity: Identity, point: Entry | StoredPoint) -> Stamp:
    """Return the stamp of a point of the collection with this identity."""
    return Stamp(identity.uid, point.sequence, point.row_checksum)


class Overlay:
    """The changes of one interval between checkpoints. Not thread-safe: the store guards it."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.by_id: dict[str, Entry | None] = {}
        """The entry of each changed id; None for a deleted point."""
        self.by_slot: dict[int, Entry] = {}
        self.freed: list[int] = []
        """Slots that this interval freed. They can be used again when its checkpoint is durable."""
        self.bytes = 0
        self.last_sequence = 0

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


class Layers:
    """The structures in memory and the files below them; `Store` writes through them, `View` reads them."""

    def __init__(
        self, folder: Path, identity: Identity, slots: SlotTable, handles: HandleCache, epoch: int
    ) -> None:
        self.folder = folder
        self.identity = identity
        self.slots = slots
        self.active = Overlay(epoch)
        self.frozen: Overlay | None = None
        self.withheld: dict[int, str] = {}
        """Slot to reason, for points that fail their checks. Bounded by the number of points."""
        self.damage: str | None = None
        """Damage of the point table, found by a reader, that single withheld points do not explain."""
        self.lock = threading.RLock()
        self._handles = handles
        self._closed: VecstowError | None = None
        """The error that later readers get; None while the layers are open."""

    @contextmanager
    def table(self) -> Iterator[PointTable]:
        """Open the point table for a with block, and record damage that is found in the block."""
        try:
            with self.borrow("points", lambda: PointTable(self.folder / POINTS)) as table:
                yield table
        except DamagedFile as error:
            self.damage = error.message
            raise

    def rows(self) -> AbstractContextManager[RowsFile]:
        """Open the rows file for a with block."""
        return self.borrow("rows", lambda: RowsFile(self.folder / ROWS, self.identity.stride))

    def borrow(self, name: str, opener: Callable[[], _Handle]) -> AbstractContextManager[_Handle]:
        """Open the handle of that name for a with block; raise the error of `close` after a close.

        The key is this object, not the uid. After a drop the folder's name is free, and a restore keeps the
        uid.
        """

        def open_unless_closed() -> _Handle:
            if self._closed is not None:
                raise self._closed.with_traceback(None)
            return opener()

        return self._handles.borrow((self, name), open_unless_closed)

    def close(self, error: VecstowError | None = None) -> None:
        """Close all handles and refuse to open any: another collection's files may have the same path by now.

        Readers get `error`, by default NotFound.
        """
        name = self.identity.name
        self._closed = error or NotFound(f"collection {name!r} does not exist", collection=name)
        for name in ("points", "rows", "log"):
            self._handles.discard((self, name))

    def overlays(self) -> list[Overlay]:
        """Return the overlays, newest first."""
        return [self.active] if self.frozen is None else [self.active, self.frozen]

    def entry_at(self, slot: int) -> Entry | None:
        """Return the overlays' entry at a slot, or None."""
        entry = self.active.by_slot.get(slot)
        if entry is None and self.frozen is not None:
            return self.frozen.by_slot.get(slot)
        return entry

    def find(
        self, ids: Sequence[str], *, in_table: bool = True
    ) -> tuple[dict[str, Entry | StoredPoint], dict[str, int]]:
        """Return the live points of `ids`, newest layer first, and the slots of those that are damaged.

        `in_table`: whether the table can contain some of the ids. Raises Unavailable when the slot of a
        damaged point is unknown.
        """
        found: dict[str, Entry | StoredPoint] = {}
        older = []
        with self.lock:
            overlays = self.overlays()
            for point_id in ids:
                for overlay in overlays:
                    if point_id in overlay.by_id:
                        if (entry := overlay.by_id[point_id]) is not None:
                            found[point_id] = entry
                        break
                else:
                    older.append(point_id)
        if not older or not in_table:
            return found, {}
        with self.table() as table:
            stored = table.by_ids(older)
            damaged = self.damaged_slots(table, [i for i, point in stored.items() if point is None])
        return found | {point_id: point for point_id, point in stored.items() if point is not None}, damaged

    def live_slots(self, ids: Sequence[str], *, in_table: bool = True) -> dict[str, int]:
        """Return the slots of the live ids, also of damaged points, which a write can replace or delete.

        `find` describes `in_table` and the errors.
        """
        slots: dict[str, int] = {}
        for start in range(0, len(ids), IDS_PER_STATEMENT):  # find() holds the payloads of its points
            found, damaged = self.find(ids[start : start + IDS_PER_STATEMENT], in_table=in_table)
            slots |= {point_id: point.slot for point_id, point in found.items()} | damaged
        return slots

    def apply(
        self, effect: Effect, sequence: int, live: dict[str, int], announce: Announce | None = None
    ) -> Applied:
        """Apply an effect to the active overlay, and update `live`, the slots of its ids.

        `sequence` is that of the effect's record, or 0 for an effect that has none. `announce` gets new rows
        before they replace old ones, so a search for a point by its row always finds the old or the new row.
        """
        if isinstance(effect, Delete):
            return self._apply_delete(effect, sequence, live)
        return self._apply_upsert(effect, sequence, live, announce)

    def withhold(self, slot: int, epoch: int, reason: str) -> None:
        """Stop serving the point at a slot, if the slot still has the epoch that failed its check."""
        with self.lock:
            if self.slots.epoch(slot) == epoch:
                self.withheld.setdefault(slot, reason)

    def withhold_row(self, slot: int, epoch: int) -> None:
        """Withhold a point whose stored row fails its checksum."""
        offset = HEADER_BYTES + slot * self.identity.stride
        self.withhold(slot, epoch, f"{ROWS}: the row at byte {offset} fails its checksum")

    def withhold_point(self, slot: int) -> None:
        """Withhold a point whose row in the table fails its checksum."""
        self.withhold(slot, self.slots.epoch(slot), f"{POINTS}: the point at slot {slot} fails its checksum")

    def withheld_remarks(self) -> tuple[str, ...]:
        """Return how many points are withheld, and the reason for the first; nothing when none is."""
        with self.lock:
            reasons = list(self.withheld.values())
        if not reasons:
            return ()
        count = "1 point is" if len(reasons) == 1 else f"{len(reasons):,} points are"
        return (f"{count} withheld: {reasons[0]}",)

    def withheld_error(self, point_id: str, slot: int | None) -> Unavailable:
        """Return the error that a read of a withheld point raises."""
        reason = self.withheld.get(slot) if slot is not None else None
        message = f"point {point_id!r} is withheld: {reason or f'{POINTS}: it fails its checksum'}"
        return Unavailable(message, collection=self.identity.name, hint=f"vecstow check {self.identity.name}")

    def damaged_slots(self, table: PointTable, ids: Sequence[str]) -> dict[str, int]:
        """Withhold the points of `ids`, whose table rows fail their checksums; return their slots.

        Raises Unavailable when the slot of one is unknown.
        """
        slots = table.listed_slots(ids) if ids else {}
        standing = table.by_slots(list(slots.values()))
        for point_id in ids:
            slot = slots.get(point_id)
            if slot is None or standing.get(slot) is not None or not self.slots.epoch(slot):
                raise self.withheld_error(point_id, slot)
            self.withhold_point(slot)
        return slots

    def _apply_upsert(
        self, effect: Upsert, sequence: int, live: dict[str, int], announce: Announce | None
    ) -> Applied:
        last_place = {point_id: line for line, point_id in enumerate(effect.ids)}
        lines = list(last_place.values())
        existed = [point_id in live for point_id in effect.ids]
        rows = effect.rows if len(lines) == len(effect.ids) else effect.rows[lines]
        with self.lock:
            slots = self.slots.allocate(len(lines))
        labels = make_labels(slots, self.active.epoch)
        checksums = row_checksums(rows)
        places = zip(last_place.items(), slots.tolist(), checksums.tolist(), strict=True)
        epoch, block = self.active.epoch, effect.rows
        entries = [
            Entry(i, sequence, slot, epoch, checksum, effect.payloads[line], block, line)
            for (i, line), slot, checksum in places
        ]
        try:
            if announce is not None:
                announce(rows, labels, [effect.payloads[line] for line in lines])
        finally:  # The effect is logged, so it counts even when `announce` fails.
            with self.lock:
                removed = [self._vacate(live[entry.id]) for entry in entries if entry.id in live]
                self.slots.occupy(slots, epoch, checksums)
                for entry in entries:
                    self.active.put(entry)
                    live[entry.id] = entry.slot
                self.active.last_sequence = max(self.active.last_sequence, sequence)
        return Applied(labels, rows, np.array(removed, np.uint64), existed)

    def _apply_delete(self, effect: Delete, sequence: int, live: dict[str, int]) -> Applied:
        existed = [point_id in live for point_id in effect.ids]
        removed = []
        with self.lock:
            for point_id in effect.ids:
                if (slot := live.pop(point_id, None)) is not None:
                    removed.append(self._vacate(slot))
                    self.active.delete(point_id)
            self.active.last_sequence = max(self.active.last_sequence, sequence)
        no_rows = np.zeros((0, self.identity.stride), np.uint8)
        return Applied(np.zeros(0, np.uint64), no_rows, np.array(removed, np.uint64), existed)

    def _vacate(self, slot: int) -> int:
        """Free a live slot; return its former label."""
        label = self.slots.vacate(slot)
        self.active.give_up(slot)
        self.withheld.pop(slot, None)
        return label
