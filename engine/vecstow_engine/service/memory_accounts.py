"""The account of memory: the bytes of the plan that the collections take, and the room for more.

The charge of a collection includes its graph at full size, with the rows that wait for the log. An admitted
write can therefore always be indexed. Sums over all collections follow each change, so a write reads only
sums.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from vecstow_engine.index.graph import graph_bytes
from vecstow_engine.index.places import row_bytes
from vecstow_engine.index.vector_index import FLAT_ROWS_MAX
from vecstow_engine.model.errors import OutOfMemory, TooLarge, refused
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.memory_plan import HeldOut, MemoryPlan, anonymous_bytes

COLLECTION_BYTES: Final = 50 * 1024
"""Bytes of a collection without its points: objects, open files (measured over 1,000 collections)."""
DELETE_SHARE: Final = 1 / 16
"""Share of the memory for changes that only deletes may use: deletes go on when writers wait."""
ROOMY_BYTES: Final = 8 << 20
"""Room that must remain after a write that is charged without new figures.

Three times the least size of a graph, so that a graph may begin.
"""
GRAPH_FACTOR: Final = 2
"""Bytes of a graph that are charged for each byte of changes, until the next figures."""
RESIDENT_SHARE_MAX: Final = 0.95
"""Share of the limit at which writers wait in any case: kernel and account count memory differently."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The memory of one collection, by part; bytes."""

    overlay: int = 0
    tail: int = 0
    """Rows on their way into the graph, and writes that wait for the log."""
    graph: int = 0
    growth: int = 0
    """Bytes that the graph will still take; 0 while held out. Negative while rows of a slice count twice."""
    rebuild: int = 0
    """A second graph at its full size, while one is built."""
    tables: int = 0
    payload_indexes: int = 0

    @property
    def changes(self) -> int:
        """Return the bytes that checkpoints and the indexer give back."""
        return self.overlay + self.tail

    @property
    def lasting(self) -> int:
        """Return the bytes that stay as long as the points exist."""
        return self.graph + self.growth + self.tables + self.payload_indexes

    @property
    def data(self) -> int:
        """Return the bytes that count as data in the plan."""
        return self.lasting + self.rebuild


NOTHING: Final = Figures()


class Accounts:
    """The account of all collections; the engine has one. Thread-safe."""

    def __init__(self, plan: MemoryPlan) -> None:
        self.plan = plan
        self.anonymous_bytes = anonymous_bytes()
        """The memory of this process, without file pages, at the last call of `count_all`."""
        self._lock = threading.Lock()
        self._known: dict[Collection, Figures] = {}
        self._overlays = 0
        self._changes = 0
        self._data = 0
        self._rebuilds = 0
        self._charged: dict[Collection, int] = {}
        """Bytes of the writes since the figures of a collection were taken; see `_charge_if_roomy`."""

    def update(self, collection: Collection) -> Figures:
        """Take and return the figures of one collection."""
        figures = figures_of(collection)
        self._put(collection, figures)
        return figures

    def count_all(self, collections: Iterable[Collection]) -> None:
        """Take the figures of all collections that serve; forget collections that are not listed."""
        listed = list(collections)
        for collection in listed:
            if collection.serves():
                self.update(collection)
        for gone in self._known.keys() - set(listed):
            self._put(gone, None)
        if self._data + self.cached_bytes() > self.plan.data_bytes:
            for collection in listed:
                collection.drop_caches()
        self.anonymous_bytes = anonymous_bytes()

    @property
    def data_bytes(self) -> int:
        """Return the bytes of all graphs at full size, of rebuilds, tables and payload indexes."""
        return self._data

    @property
    def presses(self) -> bool:
        """Whether overlays take over a quarter of the memory for changes; then checkpoints begin early.

        The largest overlays are written first.
        """
        return 4 * self._overlays > self.plan.change_bytes

    def document(self) -> dict[str, int]:
        """Return the field `memory` of `GET /state`: the limit, and the use and limit of changes and data."""
        return {
            "limit_bytes": self.plan.limit_bytes,
            "change_bytes": self._changes,
            "change_bytes_max": self.plan.change_bytes,
            "data_bytes": self._data,
            "data_bytes_max": self.plan.data_bytes,
        }

    def postponed(self) -> int:
        """Return the number of collections with a graph or a rebuild that waits for memory."""
        known = list(self._known)
        return sum(each.held_out is not None or each.postponed_rebuild is not None for each in known)

    def parts(self) -> dict[str, int]:
        """Return the bytes by part that the collections take; `growth` is what graphs will still take."""
        figures = list(self._known.values())
        charged = sum(list(self._charged.values()))
        return {
            "base": self.plan.base_bytes,
            "overlays": sum(each.overlay for each in figures),
            "tails": sum(each.tail for each in figures) + charged,
            "graphs": sum(each.graph for each in figures),
            "growth": sum(each.growth for each in figures) + GRAPH_FACTOR * charged,
            "rebuilds": sum(each.rebuild for each in figures),
            "tables": sum(each.tables for each in figures),
            "payload_indexes": sum(each.payload_indexes for each in figures),
            "caches": self.cached_bytes(),
        }

    def fits(self, size: int) -> bool:
        """Whether `size` more bytes of data fit."""
        return self._data + size <= self.plan.data_bytes

    def may_index(self, collection: Collection, size: int) -> bool:
        """Whether the payload indexes of a collection may take `size` more bytes than now."""
        counted = self._known.get(collection, NOTHING).payload_indexes
        return self.fits(collection.payload_indexes.memory_bytes - counted + size)

    def may_cache(self, size: int) -> bool:
        """Whether `size` more bytes of caches fit next to the data."""
        return self._data + self.cached_bytes() + size + ROOMY_BYTES <= self.plan.data_bytes

    def cached_bytes(self) -> int:
        """Return the bytes of cached rows and candidates of all collections; they give way to data."""
        return sum(collection.cached_bytes for collection in list(self._known))

    def admit(self, collection: Collection, rows: int = 0) -> bool:
        """Charge the graph of a collection at full size, with `rows` that its index lacks; return True.

        Return False, and hold the graph out, when there is no room.
        """
        full = full_bytes(collection, rows)
        with self._lock:
            known, charged = self._known.get(collection, NOTHING), self._charged.get(collection, 0)
            own = known.graph + known.growth + GRAPH_FACTOR * charged
            room = self.plan.data_bytes - (self._data - own)
            fits = full <= room
            collection.held_out = None if fits else HeldOut(full, max(0, room), self.plan.limit_bytes)
            growth = full - known.graph if fits else 0
            self._replace(collection, replace(known, tail=known.tail + charged, growth=growth))
        return fits

    def refuse_batch(self, collection: Collection, size: int) -> None:
        """Raise TooLarge for a write of `size` bytes that can never find room."""
        most = self._writers_bytes // 2
        if size > most:
            message = (
                f"the write takes {size} bytes of memory until a checkpoint; at most {most} of the memory "
                f"limit {self.plan.limit_bytes}"
            )
            hint, details = "send smaller batches, or raise --memory-limit", refused("body", size, most)
            raise TooLarge(message, collection=collection.name, operation="write", hint=hint, details=details)

    def lack(self, collection: Collection, size: int, rows: int) -> str | None:
        """Return why a write of `size` bytes and `rows` new rows must wait; None when there is room.

        Raises OutOfMemory when waiting does not help. A delete adds no rows.
        """
        if self._charge_if_roomy(collection, size):
            return None
        known = self.update(collection)
        if not rows:
            return self._delete_lack(size)
        return self._data_lack(collection, known, rows) or self._changes_lack(known.changes, size)

    def _charge_if_roomy(self, collection: Collection, size: int) -> bool:
        """Add a write to the sums if it takes little of the room that is left; return whether it does.

        The charge is the bytes of the changes, and GRAPH_FACTOR times as many for the graph. That is more
        than the write takes; the next figures replace the charge.
        """
        plan = self.plan
        with self._lock:
            is_roomy = (
                collection in self._known
                and collection.held_out is None
                and 4 * (self._changes + size) < plan.change_bytes
                and self._data + GRAPH_FACTOR * size + ROOMY_BYTES < plan.data_bytes
                and self.anonymous_bytes < RESIDENT_SHARE_MAX * plan.limit_bytes
            )
            if is_roomy:
                self._charged[collection] = self._charged.get(collection, 0) + size
                self._changes += size
                self._data += GRAPH_FACTOR * size
        return is_roomy

    def _data_lack(self, collection: Collection, known: Figures, rows: int) -> str | None:
        most = self.plan.data_bytes
        full = full_bytes(collection, collection.queued_rows + rows)
        data = self._data - known.graph - known.growth + full
        held_out = collection.held_out
        if held_out is not None:
            raise _no_room(collection, str(held_out), held_out.needed_bytes, held_out.room_bytes)
        if data <= most:
            return None
        if data - self._rebuilds <= most:
            return f"graphs take {data} bytes while one is rebuilt, the limit is {most}"
        reason = (
            f"graphs and tables with {rows} more points take {data} bytes; {most} are left for them of the "
            f"memory limit {self.plan.limit_bytes}"
        )
        raise _no_room(collection, reason, data, most)

    def _changes_lack(self, own: int, size: int) -> str | None:
        """Return why the changes of a write must wait: one collection may take as much as it leaves free.

        One collection takes half at most, two take a third each, so another one always finds room.
        """
        free = self._writers_bytes - self._changes - size
        if free < 0 or (own and own + size > free):
            return (
                f"changes of this collection take {own} bytes, of all collections {self._changes}; the limit "
                f"is {self._writers_bytes}, and one may take as much as it leaves to the others"
            )
        if self.anonymous_bytes > RESIDENT_SHARE_MAX * self.plan.limit_bytes:
            return f"the process takes {self.anonymous_bytes} bytes, the limit is {self.plan.limit_bytes}"
        return None

    def _delete_lack(self, size: int) -> str | None:
        if self._changes + size <= self.plan.change_bytes:
            return None
        return f"changes of all collections take {self._changes} bytes, the limit is {self.plan.change_bytes}"

    @property
    def _writers_bytes(self) -> int:
        return int(self.plan.change_bytes * (1 - DELETE_SHARE))

    def _put(self, collection: Collection, figures: Figures | None) -> None:
        with self._lock:
            self._replace(collection, figures)

    def _replace(self, collection: Collection, figures: Figures | None) -> None:
        old = self._known.pop(collection, NOTHING)
        if figures is not None:
            self._known[collection] = figures
        new = figures or NOTHING
        charged = self._charged.pop(collection, 0)
        self._overlays += new.overlay - old.overlay
        self._changes += new.changes - old.changes - charged
        self._data += new.data - old.data - GRAPH_FACTOR * charged
        self._rebuilds += new.rebuild - old.rebuild


def _no_room(collection: Collection, reason: str, size: int, most: int) -> OutOfMemory:
    message = f"collection {collection.name!r} takes no more points: {reason}"
    hint = "drop collections, delete points and compact, or raise --memory-limit (docs/sizing.md)"
    details = refused("memory_limit", size, most)
    return OutOfMemory(message, collection=collection.name, operation="write", hint=hint, details=details)


def figures_of(collection: Collection) -> Figures:
    """Return the memory that one collection takes now."""
    store, index = collection.store, collection.index
    if store is None or index is None:
        growth = full_bytes(collection, collection.queued_rows)
        return Figures(tail=collection.queued_bytes, growth=growth, tables=COLLECTION_BYTES)
    is_flat = index.is_flat
    rows = index.tail_bytes
    graph = rows if is_flat else index.graph_bytes
    full = graph if collection.held_out else full_bytes(collection, collection.queued_rows)
    return Figures(
        overlay=store.overlay_bytes,
        tail=collection.queued_bytes + (0 if is_flat else rows),
        graph=graph,
        growth=full - graph,
        rebuild=index.rebuild_bytes if index.rebuilding else 0,
        tables=COLLECTION_BYTES + store.layers.slots.bytes + index.table_bytes,
        payload_indexes=collection.payload_indexes.memory_bytes,
    )


def full_bytes(collection: Collection, added: int) -> int:
    """Return the bytes that the graph of a collection takes when it holds all rows and `added` more."""
    index = collection.index  # once: another thread may close the collection
    if index is not None:
        return index.full_bytes(added)
    manifest = collection.manifest
    if added <= FLAT_ROWS_MAX:
        return added * row_bytes(manifest.dimension)
    return graph_bytes(added, manifest.dimension, manifest.index_config.max_connections)
