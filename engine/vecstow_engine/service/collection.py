"""One served collection: its manifest, its state, its store and its index.

The state in the API follows from `lifecycle` and the store:

    recovering    no answers yet: 503 with Retry-After
    ready         reads and writes
    degraded      reads and writes; the points that fail their checks are withheld and listed
    read_only     reads; no writes until the next start or a repair, because a sync failed
    quarantined   nothing: damage is not limited to single points, or the files are gone or cannot be opened
    foreign       nothing: another program wrote the data files
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from vecstow_engine.index.graph import graph_bytes
from vecstow_engine.index.places import row_bytes
from vecstow_engine.index.vector_index import FLAT_ROWS_MAX, VectorIndex
from vecstow_engine.model import errors
from vecstow_engine.model.errors import Conflict, NotFound, ReadOnly, Recovering, Unavailable
from vecstow_engine.model.manifest import Manifest, manifest_document
from vecstow_engine.model.points import decode_rows
from vecstow_engine.query.search import Source
from vecstow_engine.service.attempts import Trouble, Work
from vecstow_engine.service.lifecycle import (
    Dropping,
    Foreign,
    Lasting,
    Lifecycle,
    Opening,
    Postponed,
    Quarantined,
    Retired,
    Serving,
    dropped,
    failed,
    transition,
    without_drop,
)
from vecstow_engine.service.memory_plan import HeldOut
from vecstow_engine.storage.layers import Applied
from vecstow_engine.storage.log.segment import Effect
from vecstow_engine.storage.store import Store

WITHHELD_LISTED_MAX = 100
OPEN_AGAIN_SECONDS = 5.0

log = structlog.stdlib.get_logger(__name__)


class State(StrEnum):
    """The state of a collection, as the API names it."""

    RECOVERING = "recovering"
    READY = "ready"
    DEGRADED = "degraded"
    READ_ONLY = "read_only"
    QUARANTINED = "quarantined"
    FOREIGN = "foreign"


_NAMES: Final[dict[type[Lasting], State]] = {
    Opening: State.RECOVERING, Postponed: State.RECOVERING, Retired: State.RECOVERING,
    Quarantined: State.QUARANTINED, Foreign: State.FOREIGN,
}  # fmt: skip


class Collection:
    """One incarnation of a collection, as the engine serves it. `store` is None until it holds data.

    The shape never changes, and the uid never changes once it is set: another incarnation is another object.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.store: Store | None = None
        self.index: VectorIndex | None = None
        self.warnings: tuple[str, ...] = ()
        self.progress: dict[str, object] | None = None
        """The long work that is under way: `{"task", "done", "total"}`; None without any."""
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
        self.postponed_rebuild: str | None = None
        """Why a due rebuild of the graph has not begun; None without one."""
        self.queued_rows = self.queued_bytes = 0
        """The rows that wait for the log, and the bytes of memory that their changes take."""
        self._withheld_told = 0
        self._index_lacks_rows = False
        self.upkeep = threading.Lock()
        """The lock over the collection's files: one checkpoint, snapshot, backup or drop at a time."""
        self.lifecycle: Lifecycle = Opening()
        """The state; only `move_to`, `fail` and `drop` assign it, under `_moving`."""
        self._moving = threading.Lock()

    @property
    def name(self) -> str:
        """Return the collection's name."""
        return self.manifest.name

    @property
    def state(self) -> State:
        """Return the state that the API reports."""
        lasting = self._lasting
        if not isinstance(lasting, Serving):
            return _NAMES[type(lasting)]
        if self.broken is not None:
            return State.READ_ONLY
        if self.store is not None and (self.store.layers.withheld or self.store.layers.damage):
            return State.DEGRADED
        return State.READY

    @property
    def _lasting(self) -> Lasting:
        """Return the state; during a drop, the state before the drop."""
        now = self.lifecycle
        return now.before if isinstance(now, Dropping) else now

    def serves(self) -> bool:
        """Whether the collection answers reads; another thread may end that at any moment."""
        return isinstance(self.lifecycle, Serving)

    @property
    def dropping(self) -> bool:
        """Whether the collection is being dropped, or was replaced."""
        return isinstance(self.lifecycle, Dropping)

    @property
    def is_lost(self) -> bool:
        """Whether the collection was closed because its files are gone, and needs a stand-in.

        False until it is known whether a sync failed meanwhile: the stand-in takes that over.
        """
        lasting = self._lasting
        if not isinstance(lasting, Quarantined) or self.store is None:
            return False
        return lasting.reopens or self.lifecycle.failure is not None

    @property
    def is_being_opened(self) -> bool:
        """Whether the loader or a repair works on the files; False while the opening is postponed."""
        return isinstance(self._lasting, Opening | Retired)

    @property
    def reopens(self) -> bool:
        """Whether a change of the manifest is a reason to open the files again.

        After a failed sync only a new process sees which bytes the disk has.
        """
        lasting = self._lasting
        return isinstance(lasting, Quarantined) and lasting.reopens and self.lifecycle.failure is None

    @property
    def retry_at(self) -> float | None:
        """Return the time.monotonic of the next attempt to open the collection; None without one."""
        lasting = self._lasting
        return lasting.retry_at if isinstance(lasting, Postponed | Quarantined) else None

    @property
    def error(self) -> Unavailable | None:
        """Return the error that requests to a closed collection get; None while it opens or serves."""
        lasting = self._lasting
        return None if isinstance(lasting, Opening | Serving) else lasting.error

    @property
    def reason(self) -> str | None:
        """Return why the collection is not ready, and the remarks of recovery; None without any."""
        if self.error is not None:
            return self.error.message
        if self.broken is not None:
            return self.broken
        remarks = [*self.warnings, *map(str, filter(None, (self.held_out, self.postponed_rebuild)))]
        if self.index is not None and (unreached := self.index.unreached):
            remarks.append(
                f"searches may not find {unreached} points, to which the graph does not lead; larger "
                "max_connections or ef_construction make another graph"
            )
        if self.store is not None:
            remarks += [told for told in (self.store.layers.damage, self.store.remark) if told is not None]
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

    def move_to(self, state: Lifecycle) -> None:
        """Change the state; raise IllegalTransition when `state` cannot follow."""
        with self._moving:
            self.progress = None
            self.lifecycle = transition(self.lifecycle, state)

    def fail(self, reason: str) -> None:
        """Take no more writes until the process ends."""
        with self._moving:
            self.lifecycle = failed(self.lifecycle, reason)

    def drop(self) -> None:
        """Answer no more requests: the collection is being dropped, or was replaced."""
        with self._moving:
            self.lifecycle = dropped(self.lifecycle)

    def stop_dropping(self) -> None:
        """Return to the state before a drop; do nothing without one."""
        with self._moving:
            self.lifecycle = without_drop(self.lifecycle)

    def take_over(self, other: Collection) -> None:
        """Take the place of `other`: share its upkeep lock, and its failure after a failed sync."""
        self.upkeep = other.upkeep
        if other.lifecycle.failure is not None:
            self.fail(other.lifecycle.failure)

    def opened(self, store: Store | None, index: VectorIndex | None, warnings: tuple[str, ...] = ()) -> None:
        """Serve: recovery is done."""
        self.store, self.index, self.warnings = store, index, warnings
        self.move_to(Serving())

    def postponed(self, reason: str, retry_at: float | None = None) -> None:
        """Postpone the opening until `retry_at` (time.monotonic), or by OPEN_AGAIN_SECONDS."""
        error = Recovering(
            f"collection {self.name!r} waits to be opened: {reason}", collection=self.name,
            retry_after_seconds=int(OPEN_AGAIN_SECONDS),
        )  # fmt: skip
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
            raise Recovering(
                f"collection {self.name!r} is recovering", collection=self.name, retry_after_seconds=1,
                details={"progress": self.progress},
            )  # fmt: skip
        # Each raise would extend the shared error's traceback, which keeps the request's objects alive.
        raise now.error.with_traceback(None)

    def source(self) -> Source | None:
        """Return the source of queries; None without data. Raises the errors of `readable`."""
        self.readable()
        store, index = self.store, self.index
        if store is None or index is None:
            return None
        return Source(self.manifest, store.view, index, self.hide_withheld)

    def writable(self) -> None:
        """Raise ReadOnly, or an error of `readable`, unless the collection takes writes."""
        # Read before readable(): a drop or a repair ends the reads first, and its error must come first.
        broken = self.broken
        self.readable()
        if broken is not None:
            raise ReadOnly(
                f"collection {self.name!r} takes no writes: {broken}", collection=self.name,
                hint="restart the engine: it replays the log in a new process",
            )  # fmt: skip

    def refuse_misfit(self, checked_against: Manifest) -> None:
        """Raise Conflict for a request that was checked against the manifest of another incarnation."""
        mine = self.manifest
        if checked_against is mine:
            return
        if checked_against.shape != mine.shape or checked_against.collection_uid not in (
            None,
            mine.collection_uid,
        ):
            raise replaced(self.name)

    def commit(self, effects: Sequence[Effect]) -> list[Applied]:
        """Make effects durable, then visible: in the point table's layers and in the index."""
        assert self.store is not None and self.index is not None
        applied = self.store.commit(effects, self.announce)
        if self.changed_at is None:
            self.changed_at = time.monotonic()
        for change in applied:
            self.forget(change)
        return applied

    def announce(self, rows: NDArray[np.uint8], labels: NDArray[np.uint64]) -> None:
        """Add rows to the index, before the point table shows them.

        `rows` has shape (n, stride), `labels` shape (n,). The rows are logged already: when the index fails
        to take them, `forget` lets the index read them from the store.
        """
        assert self.index is not None
        if len(labels):
            try:
                self.index.add(decode_rows(rows, self.manifest.vector_type), labels)
            except Exception as error:
                self._index_lacks_rows = True
                log.error("rows are indexed later", collection=self.name, rows=len(labels), exc_info=error)

    def forget(self, change: Applied) -> None:
        """Remove replaced and deleted rows from the index; give it a backlog if it lacks rows."""
        assert self.index is not None
        if self._index_lacks_rows:
            self.index.add_backlog(change.added)
        if len(change.removed):
            self.index.remove(change.removed)

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

    def forget_snapshot(self) -> None:
        """Make a snapshot due: the graph in index.bin was built with other settings."""
        self.snapshot_sequence = self.snapshot_rows = 0

    def hide_withheld(self) -> None:
        """Remove the points that fail their checks from the index, so that searches find others."""
        assert self.store is not None and self.index is not None
        self.index.remove(self.store.view.withheld_labels())

    def tell_withheld(self) -> None:
        """Log a warning when more points are withheld than at the last call."""
        withheld = self.store.layers.withheld if self.store is not None else {}
        if len(withheld) > self._withheld_told:
            log.warning(
                "collection is degraded", collection=self.name, withheld=len(withheld),
                reason=next(iter(withheld.values())), next=f"vecstow check {self.name}",
            )  # fmt: skip
        self._withheld_told = len(withheld)

    def full_bytes(self, added: int) -> int:
        """Return the bytes that the graph takes when it holds all rows and `added` more."""
        index = self.index  # once: another thread may close the collection
        if index is not None:
            return index.full_bytes(added)
        manifest = self.manifest
        if added <= FLAT_ROWS_MAX:
            return added * row_bytes(manifest.dimension)
        return graph_bytes(added, manifest.dimension, manifest.index_config.max_connections)

    def queued(self, changed_bytes: int, rows: int) -> None:
        """Add to the rows and bytes that wait for the log; negative numbers subtract."""
        self.queued_bytes += changed_bytes
        self.queued_rows += rows

    def waiting_bytes(self) -> tuple[int, int]:
        """Return the bytes of memory that wait for a checkpoint, and those that wait for the graph."""
        store, index = self.store, self.index  # once: another thread may close the collection
        if store is None or index is None:
            return 0, 0
        return store.overlay_bytes, index.tail_bytes if index.pending else 0

    def describe(self) -> dict[str, Any]:
        """Return the body of `GET /collections/{c}`."""
        store, index = self.store, self.index
        withheld = list(store.layers.withheld.items())[:WITHHELD_LISTED_MAX] if store is not None else []
        return manifest_document(self.manifest) | {
            "vector_count": self.count,
            "indexed": index.indexed if index is not None else 0,
            "state": self.state.value,
            "reason": self.reason,
            "withheld": [{"slot": slot, "reason": reason} for slot, reason in withheld],
            "progress": self._progress(),
        }

    def _progress(self) -> dict[str, object] | None:
        if self.progress is not None or self.index is None:
            return self.progress
        done, total = self.index.progress
        if self.index.rebuilding:
            return {"task": "rebuild", "done": done, "total": total}
        is_growing = self.index.pending and self.held_out is None
        return {"task": "index", "done": done, "total": total} if is_growing else None


def replaced(name: str) -> Conflict:
    """Return the error of a request whose collection was replaced by another one of the same name."""
    return Conflict(
        f"collection {name!r} was replaced by another one during the request", collection=name,
        hint="send the request again, if it is meant for the new one",
    )  # fmt: skip


def quarantined(
    name: str, message: str, details: dict[str, object] | None = None, hint: str | None = None
) -> errors.Quarantined:
    """Return the error that requests to a damaged collection get."""
    return errors.Quarantined(
        f"collection {name!r} is quarantined: {message}", collection=name, details=details,
        hint=hint or f"vecstow check {name}",
    )  # fmt: skip
