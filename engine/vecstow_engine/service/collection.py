"""One collection at work: its manifest, its state, its store and its index.

The API's word for what it can do, which follows from `lifecycle` and the store:

    recovering    no answers yet: 503 with Retry-After
    ready         reads and writes
    degraded      reads and writes; the points that fail their checks are withheld and listed
    read_only     reads; no writes until the next start, because a sync failed
    quarantined   nothing: damage was found that cannot be told apart point by point, or the files are gone
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
from vecstow_engine.index.tail import row_bytes
from vecstow_engine.index.vector_index import FLAT_ROWS_MAX, VectorIndex
from vecstow_engine.model import errors
from vecstow_engine.model.errors import Conflict, NotFound, ReadOnly, Recovering, Unavailable
from vecstow_engine.model.manifest import Manifest, manifest_document
from vecstow_engine.model.vectors import decode_rows
from vecstow_engine.query.source import Source
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
    failed,
    transition,
)
from vecstow_engine.service.memory_plan import HeldOut
from vecstow_engine.storage.layers import Applied
from vecstow_engine.storage.log.effects import Effect
from vecstow_engine.storage.store import Store

WITHHELD_LISTED_MAX = 100
OPEN_AGAIN_SECONDS = 5.0

log = structlog.stdlib.get_logger(__name__)


class State(StrEnum):
    """What a collection can do now."""

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

    The shape never changes, nor does the uid once there is one: another incarnation gets another object.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.store: Store | None = None
        self.index: VectorIndex | None = None
        self.warnings: tuple[str, ...] = ()
        self.progress: dict[str, object] | None = None
        """What long work is under way: `{"task", "done", "total"}`."""
        self.changed_at: float | None = None
        """time.monotonic of the oldest change that no checkpoint has; None when there is none."""
        self.snapshot_sequence = 0
        self.snapshot_rows = 0
        """What the newest index.bin contains: up to which sequence, and how many rows, deleted ones too."""
        self.self_recall: float | None = None
        """The share of a sample that found itself when it was measured last; None before."""
        self.made_whole = False
        """It was made by this process with all its points in its files: that it has no log is no loss."""
        self.troubles: dict[Work, Trouble] = {}
        """Work of the engine for this collection whose last attempt failed; only `Attempts` changes it."""
        self.held_out: HeldOut | None = None
        """Why its graph does not grow: there is no memory for it."""
        self.postponed_rebuild: str | None = None
        """Why a rebuild of its graph that is due has not begun."""
        self.queued_rows = self.queued_bytes = 0
        """What waits for its log: rows, and the memory that their changes take."""
        self._withheld_told = 0
        self._index_lacks_rows = False
        self.upkeep = threading.Lock()
        """Held by whoever changes its files: one checkpoint, snapshot, backup or drop at a time."""
        self.lifecycle: Lifecycle = Opening()
        """Only `move_to`, `fail` and `take_over` change it."""
        self._moving = threading.Lock()

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.manifest.name

    @property
    def state(self) -> State:
        """What it can do now, as the API calls it."""
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
        """The state, apart from a drop that is under way."""
        now = self.lifecycle
        return now.before if isinstance(now, Dropping) else now

    def serves(self) -> bool:
        """Whether it answers reads; another thread may end that at any moment."""
        return isinstance(self.lifecycle, Serving)

    @property
    def dropping(self) -> bool:
        """Whether it is being dropped, or was replaced."""
        return isinstance(self.lifecycle, Dropping)

    @property
    def is_lost(self) -> bool:
        """Whether it was closed because its files are gone, and another one must stand for it."""
        return isinstance(self._lasting, Quarantined) and self.store is not None

    @property
    def is_being_opened(self) -> bool:
        """Whether somebody works on its files, so that it can serve; not while that is postponed."""
        return isinstance(self._lasting, Opening | Retired)

    @property
    def reopens(self) -> bool:
        """Whether a change of its manifest is a reason to look at its files again.

        After a failed sync only a new process can tell what the disk has of them.
        """
        lasting = self._lasting
        return isinstance(lasting, Quarantined) and lasting.reopens and self.lifecycle.failure is None

    @property
    def retry_at(self) -> float | None:
        """The time (time.monotonic) of the next attempt to open it; None when none is due by itself."""
        lasting = self._lasting
        return lasting.retry_at if isinstance(lasting, Postponed | Quarantined) else None

    @property
    def error(self) -> Unavailable | None:
        """What readers and writers get, while it is closed for a reason."""
        lasting = self._lasting
        return None if isinstance(lasting, Opening | Serving) else lasting.error

    @property
    def reason(self) -> str | None:
        """Why it is not ready; also what recovery remarked."""
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
        troubles = list(self.troubles.items())  # a copy: other threads change it
        remarks += [f"{work} fails, and is tried again: {trouble.reason}" for work, trouble in troubles]
        return "; ".join(dict.fromkeys(remarks)) or None

    @property
    def broken(self) -> str | None:
        """Why no more writes are taken in this process; None while they are."""
        return self.lifecycle.failure or (self.store.broken if self.store is not None else None)

    @property
    def count(self) -> int:
        """Live points."""
        return self.store.count if self.store is not None else 0

    def move_to(self, state: Lifecycle) -> None:
        """Change its state; raises IllegalTransition when `state` cannot follow."""
        with self._moving:
            self.progress = None
            self.lifecycle = transition(self.lifecycle, state)

    def fail(self, reason: str) -> None:
        """Take no more writes until the process ends."""
        with self._moving:
            self.lifecycle = failed(self.lifecycle, reason)

    def drop(self) -> None:
        """Answer nothing from now on: it is being dropped, or was replaced."""
        with self._moving:
            now = self.lifecycle
            before = now.before if isinstance(now, Dropping) else now
            self.lifecycle = transition(now, Dropping(before, failure=now.failure))

    def stop_dropping(self) -> None:
        """Go back to the state before a drop; nothing happens when there is none."""
        now = self.lifecycle
        if isinstance(now, Dropping):
            self.move_to(now.before)

    def take_over(self, other: Collection) -> None:
        """Stand for `other` from now on: with its lock, and without writes where a sync of it failed."""
        self.upkeep = other.upkeep
        if other.lifecycle.failure is not None:
            self.fail(other.lifecycle.failure)

    def opened(self, store: Store | None, index: VectorIndex | None, warnings: tuple[str, ...] = ()) -> None:
        """Recovery is done: serve."""
        self.store, self.index, self.warnings = store, index, warnings
        self.move_to(Serving())

    def postponed(self, reason: str, retry_at: float | None = None) -> None:
        """Wait to be opened, until `retry_at` (time.monotonic) or for OPEN_AGAIN_SECONDS."""
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
        # Each raise would add to its traceback, and keep what that request had.
        raise now.error.with_traceback(None)

    def source(self) -> Source | None:
        """What queries read; None without data. Raises as `readable`."""
        self.readable()
        store, index = self.store, self.index
        if store is None or index is None:
            return None
        return Source(self.manifest, store.view, index, self.hide_withheld)

    def writable(self) -> None:
        """Raise unless the collection takes writes."""
        broken = self.broken  # first: whoever ends the writes of one that goes away ends its reads before
        self.readable()
        if broken is not None:
            raise ReadOnly(
                f"collection {self.name!r} takes no writes: {broken}", collection=self.name,
                hint="restart the engine: it replays the log in a new process",
            )  # fmt: skip

    def refuse_misfit(self, checked_against: Manifest) -> None:
        """Raise Conflict for what was checked against the manifest of another incarnation."""
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
        """Let the index know rows that are about to replace others, or to come.

        They are logged by now: an index that fails to take them gets them from the store, by `forget`.
        """
        assert self.index is not None
        if len(labels):
            try:
                self.index.add(decode_rows(rows, self.manifest.vector_type), labels)
            except Exception as error:
                self._index_lacks_rows = True
                log.error("rows are indexed later", collection=self.name, rows=len(labels), exc_info=error)

    def forget(self, change: Applied) -> None:
        """Let the index forget the rows that were replaced or deleted; those that came are in the store."""
        assert self.index is not None
        if self._index_lacks_rows:
            self.index.add_backlog(change.added)
        if len(change.removed):
            self.index.remove(change.removed)

    def fetch(self, labels: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Rows for the index; a row that fails its checks leaves it at once."""
        assert self.store is not None and self.index is not None
        rows = self.store.view.vectors(labels)
        bad = np.isnan(rows[:, 0])
        if bad.any():
            self.index.remove(labels[bad])
            rows[bad] = 1.0  # never returned: their labels are removed
        return rows

    def forget_snapshot(self) -> None:
        """What index.bin contains was built with other settings: another one is due, whatever it contains."""
        self.snapshot_sequence = self.snapshot_rows = 0

    def hide_withheld(self) -> None:
        """Take the points that fail their checks out of the index: a search finds others in their place."""
        assert self.store is not None and self.index is not None
        self.index.remove(self.store.view.withheld_labels())

    def tell_withheld(self) -> None:
        """Say in the log that more points are withheld than when it was said last."""
        withheld = self.store.layers.withheld if self.store is not None else {}
        if len(withheld) > self._withheld_told:
            log.warning(
                "collection is degraded", collection=self.name, withheld=len(withheld),
                reason=next(iter(withheld.values())), next=f"vecstow check {self.name}",
            )  # fmt: skip
        self._withheld_told = len(withheld)

    def full_bytes(self, added: int) -> int:
        """Bytes that its graph takes once it holds all rows and `added` more."""
        index = self.index  # once: another thread may close the collection
        if index is not None:
            return index.full_bytes(added)
        manifest = self.manifest
        if added <= FLAT_ROWS_MAX:
            return added * row_bytes(manifest.dimension)
        return graph_bytes(added, manifest.dimension, manifest.index_config.max_connections)

    def queued(self, changed_bytes: int, rows: int) -> None:
        """Add what waits for its log from now on, or take away what waits no more."""
        self.queued_bytes += changed_bytes
        self.queued_rows += rows

    def waiting_bytes(self) -> tuple[int, int]:
        """Memory that waits for checkpoints, and for the graph."""
        store, index = self.store, self.index  # once: another thread may close the collection
        if store is None or index is None:
            return 0, 0
        return store.overlay_bytes, index.tail_bytes if index.pending else 0

    def describe(self) -> dict[str, Any]:
        """What `GET /collections/{c}` says."""
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
    """The error of a request that was made for a collection before this one of the same name."""
    return Conflict(
        f"collection {name!r} was replaced by another one during the request", collection=name,
        hint="send the request again, if it is meant for the new one",
    )  # fmt: skip


def quarantined(
    name: str, message: str, details: dict[str, object] | None = None, hint: str | None = None
) -> errors.Quarantined:
    """The error that a damaged collection answers with."""
    return errors.Quarantined(
        f"collection {name!r} is quarantined: {message}", collection=name, details=details,
        hint=hint or f"vecstow check {name}",
    )  # fmt: skip
