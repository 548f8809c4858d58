"""One served collection: its manifest, its state, its store and its index."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import structlog
from numpy.typing import NDArray

from vecstow_engine.index.payload.payload_indexes import PayloadIndexes
from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.errors import (
    READ_ONLY_HINT,
    Conflict,
    DamagedFile,
    NotFound,
    Quarantined,
    ReadOnly,
    Recovering,
    VecstowError,
)
from vecstow_engine.model.manifest import Manifest, PayloadIndex
from vecstow_engine.model.points import decode_rows
from vecstow_engine.query.candidates import CandidateCache
from vecstow_engine.query.source import Source
from vecstow_engine.service.attempts import Trouble, Work
from vecstow_engine.service.lifecycle import (
    Dropping,
    ForeignData,
    InQuarantine,
    Opening,
    Postponed,
    Serving,
    State,
    Stateful,
)
from vecstow_engine.service.memory_plan import HeldOut
from vecstow_engine.storage.layers import Applied
from vecstow_engine.storage.log.segment import Effect
from vecstow_engine.storage.store import Store

OPEN_AGAIN_SECONDS = 5.0

log = structlog.stdlib.get_logger(__name__)


class Collection(Stateful):
    """One incarnation of a collection, as the engine serves it. `store` is None until it holds data.

    The shape never changes, and the uid never changes once it is set: another incarnation is another object.
    """

    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        self.manifest = manifest
        self.store: Store | None = None
        self.index: VectorIndex | None = None
        self.payload_indexes = PayloadIndexes(manifest.payload_indexes)
        self.candidates = CandidateCache()
        self.warnings: tuple[str, ...] = ()
        self.changed_at: float | None = None
        """The time.monotonic of the oldest change that no checkpoint contains; None without one."""
        self.snapshot_sequence = 0
        self.snapshot_rows = 0
        """The contents of the newest index.bin: its last sequence, and its rows, deleted ones included."""
        self.self_recall: float | None = None
        """The self-recall that was measured last; None before the first measurement."""
        self.made_whole = False
        """Whether this process made the collection with all points in its files: a missing log is no loss."""
        self.troubles: dict[Work, Trouble] = {}
        """The work for this collection whose last attempt failed; only `Attempts` changes the dict."""
        self.held_out: HeldOut | None = None
        """Why the graph is held out; None while it may grow."""
        self.manifest_fault: str | None = None
        """Why the manifest on the volume is not followed; None while it is."""
        self.postponed_rebuild: str | None = None
        """Why a due rebuild of the graph has not begun; None without one."""
        self.queued_rows = self.queued_bytes = 0
        """The rows that wait for the log, and the bytes of memory that their changes take."""
        self._withheld_logged = 0
        self._index_lacks_rows = False
        self.upkeep_lock = threading.Lock()
        """The lock over the collection's files: its holder makes a checkpoint, snapshot, backup or drop, or
        opens the files. The incarnations of one name share it."""

    @property
    def name(self) -> str:
        """Return the collection's name."""
        return self.manifest.name

    @property
    def state(self) -> State:
        """Return the state that the API reports."""
        now = self.undropped
        if isinstance(now, InQuarantine):
            return State.QUARANTINED
        if isinstance(now, ForeignData):
            return State.FOREIGN
        if not isinstance(now, Serving):
            return State.RECOVERING
        if self.broken is not None:
            return State.READ_ONLY
        if self.store is not None and (self.store.layers.withheld or self.store.layers.damage):
            return State.DEGRADED
        return State.READY

    @property
    def is_lost(self) -> bool:
        """Whether the collection was closed because its files are gone, and a stand-in is to take its place.

        False until `refuse_if_gone` knows whether the sync of the last write failed: the stand-in takes over
        that failure. The stand-in has no store, so it is never lost itself.
        """
        now = self.undropped
        if not isinstance(now, InQuarantine) or self.store is None:
            return False
        return now.reopens or self.lifecycle.failure is not None

    @property
    def reason(self) -> str | None:
        """Return why the collection is not ready, and the remarks of recovery; None without any."""
        if self.error is not None:
            return self.error.message
        if self.broken is not None:
            return self.broken
        remarks = [*self.warnings, *map(str, filter(None, (self.held_out, self.postponed_rebuild)))]
        if self.manifest_fault is not None:
            remarks.append(f"the next start refuses the manifest: {self.manifest_fault}")
        if self.index is not None and (unreached := self.index.unreached):
            remarks.append(
                f"searches may not find {unreached} points, to which the graph does not lead; larger "
                "max_connections or ef_construction make another graph"
            )
        if self.store is not None:
            remarks += [each for each in (self.store.layers.damage, self.store.remark) if each is not None]
            remarks = [*self.store.layers.withheld_remarks(), *remarks]
        troubles = list(self.troubles.items())  # a copy: other threads change the dict
        remarks += [f"{work} fails, and is tried again: {trouble.reason}" for work, trouble in troubles]
        return "; ".join(dict.fromkeys(remarks)) or None

    @property
    def broken(self) -> str | None:
        """Return why this process takes no more writes; None while it does."""
        return self.lifecycle.failure or (self.store.broken if self.store is not None else None)

    @property
    def count(self) -> int:
        """Return the number of live points."""
        return self.store.count if self.store is not None else 0

    def take_over(self, other: Collection) -> None:
        """Take the place of `other`: share its upkeep lock, and its failure after a failed sync."""
        self.upkeep_lock = other.upkeep_lock
        if other.lifecycle.failure is not None:
            self.fail(other.lifecycle.failure)

    def opened(self, store: Store | None, index: VectorIndex | None, warnings: tuple[str, ...] = ()) -> None:
        """Serve: recovery is done."""
        self.store, self.index, self.warnings = store, index, warnings
        self._finish_empty_columns()
        self.move_to(Serving())

    def declare_payload_indexes(self, declared: tuple[PayloadIndex, ...]) -> None:
        """Follow a declaration of payload indexes; the caller holds the upkeep lock."""
        self.payload_indexes.declare(declared)
        self._finish_empty_columns()

    def _finish_empty_columns(self) -> None:
        columns = self.payload_indexes.unfinished
        if self.store is None and columns is not None:
            self.payload_indexes.finish(columns)

    def postponed(self, reason: str, retry_at: float | None = None) -> None:
        """Postpone the opening until `retry_at` (time.monotonic), or by OPEN_AGAIN_SECONDS."""
        message = f"collection {self.name!r} waits to be opened: {reason}"
        error = Recovering(message, collection=self.name, retry_after_seconds=int(OPEN_AGAIN_SECONDS))
        due = time.monotonic() + OPEN_AGAIN_SECONDS if retry_at is None else retry_at
        self.move_to(Postponed(error, due))

    def readable(self) -> None:
        """Raise NotFound, Recovering, Quarantined or Foreign unless the collection answers reads."""
        now = self.lifecycle
        if isinstance(now, Serving):
            return
        if isinstance(now, Dropping):
            raise NotFound(f"collection {self.name!r} does not exist", collection=self.name)
        if isinstance(now, Opening):
            message, progress = f"collection {self.name!r} is recovering", self.progress
            details: dict[str, object] = {"progress": progress}
            raise Recovering(message, collection=self.name, retry_after_seconds=1, details=details)
        # Each raise would extend the shared error's traceback, which keeps the request's objects alive.
        raise now.error.with_traceback(None)

    def source(self) -> Source | None:
        """Return the source of queries; None without data. Raises the errors of `readable`."""
        self.readable()
        store, index = self.store, self.index
        if store is None or index is None:
            return None
        columns = self.payload_indexes.complete
        return Source(
            self.manifest,
            store.view,
            index,
            columns,
            self.candidates,
            store.writes_paused,
            self.hide_withheld,
        )

    def writable(self) -> None:
        """Raise ReadOnly, or an error of `readable`, unless the collection takes writes."""
        # Read before readable(): a drop or a repair ends the reads first, and its error must come first.
        broken = self.broken
        self.readable()
        if broken is not None:
            message = f"collection {self.name!r} takes no writes: {broken}"
            raise ReadOnly(message, collection=self.name, hint=READ_ONLY_HINT)

    def refuse_misfit(self, checked_against: Manifest) -> None:
        """Raise Conflict for a request that was checked against the manifest of another incarnation."""
        mine = self.manifest
        if checked_against is not mine and (
            checked_against.shape != mine.shape
            or checked_against.collection_uid not in (None, mine.collection_uid)
        ):
            raise replaced(self.name)

    def commit(self, effects: Sequence[Effect]) -> list[Applied]:
        """Make effects durable, then visible: in the point table's layers and in the index."""
        assert self.store is not None and self.index is not None
        applied = self.store.commit(effects, self.announce)
        if self.changed_at is None:
            self.changed_at = time.monotonic()
        for change in applied:
            self.unindex(change)
        return applied

    def announce(
        self, rows: NDArray[np.uint8], labels: NDArray[np.uint64], payloads: Sequence[bytes | None]
    ) -> None:
        """Add new points to vector index and payload indexes, before the point table shows them.

        `rows` has shape (n, stride), `labels` shape (n,). The points are logged already: an index that fails
        to take them reads them from the store later.
        """
        self.index_rows(rows, labels)
        is_news = self.payload_indexes.complete is not None
        try:
            self.payload_indexes.put(labels, payloads)
        except Exception as error:
            if is_news:
                trace, reason = None if isinstance(error, VecstowError) else error, str(error)
                log.error("payloads are indexed later", collection=self.name, reason=reason, exc_info=trace)

    def index_rows(self, rows: NDArray[np.uint8], labels: NDArray[np.uint64]) -> None:
        """Add rows to the index, before the point table shows them.

        `rows` has shape (n, stride), `labels` shape (n,). The rows are logged already: when the index fails
        to take them, `unindex` lets the index read them from the store.
        """
        assert self.index is not None
        if len(labels):
            try:
                self.index.add(decode_rows(rows, self.manifest.vector_type), labels)
            except Exception as error:
                self._index_lacks_rows = True
                log.error("rows are indexed later", collection=self.name, rows=len(labels), exc_info=error)

    def unindex(self, change: Applied) -> None:
        """Remove replaced and deleted points from the indexes, once new points are visible.

        Give the vectors a backlog if rows lack; find out whether payload indexes lack points.
        """
        assert self.index is not None
        self.payload_indexes.confirm(change.added)
        if self._index_lacks_rows:
            self.index.add_backlog(change.added)
        if len(change.removed):
            self.index.remove(change.removed)
            self.payload_indexes.remove(change.removed)

    def fetch(self, labels: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Return the rows of `labels` (n,) for the index, shape (n, d).

        A row that fails its checks is removed from the index, and returned as ones.
        """
        assert self.store is not None and self.index is not None
        rows = self.store.view.vectors(labels)
        bad = np.isnan(rows[:, 0])
        if bad.any():
            self.index.remove(labels[bad])
            rows[bad] = 1.0  # no search returns these rows: their labels are removed
        return rows

    @property
    def cached_bytes(self) -> int:
        """Return the bytes of memory that cached rows and candidates take."""
        index = self.index
        return self.candidates.bytes + (index.cached_bytes if index is not None else 0)

    def drop_caches(self) -> None:
        """Free the memory of cached rows and candidates; searches make them again."""
        self.candidates.clear()
        if (index := self.index) is not None:
            index.drop_cached_rows()

    def forget_snapshot(self) -> None:
        """Make a snapshot due: the graph in index.bin was built with other settings."""
        self.snapshot_sequence = self.snapshot_rows = 0

    def hide_withheld(self) -> None:
        """Remove the points that fail their checks from the index, so that searches find others."""
        assert self.store is not None and self.index is not None
        self.index.remove(self.store.view.withheld_labels())

    def log_withheld(self) -> None:
        """Log a warning when more points are withheld than at the last call."""
        withheld = self.store.layers.withheld if self.store is not None else {}
        if len(withheld) > self._withheld_logged:
            first = {"reason": next(iter(withheld.values())), "next": f"vecstow check {self.name}"}
            log.warning("collection is degraded", collection=self.name, withheld=len(withheld), **first)
        self._withheld_logged = len(withheld)

    def refuse_if_gone(self) -> None:
        """Quarantine a served collection whose data files lost their names, and raise Quarantined.

        Another program moved the folder: the engine itself moves files of a served collection only with
        `upkeep_lock` and the registry's `changing` held, and the caller holds one of the two. Nothing more is
        written, least of all the log: the log and the files, wherever they are, hold all data.
        """
        store = self.store
        missing = store.data_files.missing() if store is not None and self.serves() else None
        if store is None or missing is None:
            return
        error = files_gone(self.name, missing)
        self.move_to(InQuarantine(error))
        # A commit under way may fail its sync first. Only then is it known whether the collection reopens.
        if (failure := store.retire("its data files are gone", error)) is not None:
            self.fail(failure)
        else:
            self.move_to(InQuarantine(error, reopens=True))
        raise error

    def count_queued(self, changed_bytes: int, rows: int) -> None:
        """Add to the rows and bytes that wait for the log; negative numbers subtract."""
        self.queued_bytes += changed_bytes
        self.queued_rows += rows

    def waiting_bytes(self) -> tuple[int, int]:
        """Return the bytes of memory that wait for a checkpoint, and those that wait for the graph."""
        store, index = self.store, self.index  # once: another thread may close the collection
        if store is None or index is None:
            return 0, 0
        return store.overlay_bytes, index.tail_bytes if index.pending else 0


def replaced(name: str) -> Conflict:
    """Return the error of a request whose collection was replaced by another one of the same name."""
    message = f"collection {name!r} was replaced by another one during the request"
    return Conflict(message, collection=name, hint="send the request again, if it is meant for the new one")


def quarantined(
    name: str, message: str, details: dict[str, object] | None = None, hint: str | None = None
) -> Quarantined:
    """Return the error that requests to a damaged collection get."""
    message = f"collection {name!r} is quarantined: {message}"
    return Quarantined(message, collection=name, details=details, hint=hint or f"vecstow check {name}")


def files_gone(name: str, missing: DamagedFile) -> Quarantined:
    """Return the error that requests to a collection without its files get, and log it."""
    hint = "put it back, or a copy, and touch metadata.json; the log below wal/ is kept as it is"
    log.error("files of a served collection are gone", collection=name, reason=missing.message, next=hint)
    return quarantined(name, missing.message, missing.details, hint)
