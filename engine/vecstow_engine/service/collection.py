"""One collection at work: its manifest, its state, its store and its index.

State and reader's contract:

    recovering    no answers yet: 503 with Retry-After
    ready         reads and writes
    degraded      reads and writes; the points that fail their checks are withheld and listed
    read_only     reads; no writes until the next start, because a sync failed
    quarantined   nothing: damage was found that cannot be told apart point by point, or the files are gone
    foreign       nothing: the data files are another program's
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.errors import NotFound, Quarantined, ReadOnly, Recovering, Unavailable
from vecstow_engine.model.manifest import Manifest, manifest_document
from vecstow_engine.model.vectors import decode_rows
from vecstow_engine.storage.layers import Applied
from vecstow_engine.storage.presence import DataFiles
from vecstow_engine.storage.records import Effect
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


class Collection:
    """What the engine keeps of one collection. `store` is None until it holds data."""

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
        self.failure: str | None = None
        """Why it takes no writes though no store says so: a sync of its first files or its drop failed."""
        self.dropping = False
        self.open_again_at: float | None = None
        """time.monotonic at which an opening that was postponed is tried again."""
        self.opens_anew = False
        """It is quarantined for what lies on the volume: a change of its manifest is reason to look again."""
        self.awaited: DataFiles | None = None
        """What it lost; that these very files are back is reason, too."""
        self.made_whole = False
        """It was made by this process with all its points in its files: that it has no log is no loss."""
        self._withheld_told = 0
        self.upkeep = threading.Lock()
        """Held by whoever changes its files: one checkpoint, snapshot, backup or drop at a time."""
        self._fixed: State | None = State.RECOVERING
        self._error: Unavailable | None = None

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.manifest.name

    @property
    def state(self) -> State:
        """What it can do now."""
        if self._fixed is not None:
            return self._fixed
        if self.broken is not None:
            return State.READ_ONLY
        if self.store is not None and (self.store.layers.withheld or self.store.layers.damage):
            return State.DEGRADED
        return State.READY

    def serves(self) -> bool:
        """Whether it answers reads; another thread may end that at any moment."""
        return self._fixed is None and not self.dropping

    @property
    def is_lost(self) -> bool:
        """Whether it was closed because its files are gone, and another one must stand for it."""
        return self._fixed is State.QUARANTINED and self.store is not None

    @property
    def is_being_opened(self) -> bool:
        """Whether somebody works on its files, so that it can serve; not while that is postponed."""
        return self._fixed is State.RECOVERING and self.open_again_at is None

    @property
    def error(self) -> Unavailable | None:
        """What readers and writers get, while it is closed for a reason."""
        return self._error

    @property
    def reason(self) -> str | None:
        """Why it is not ready; also what recovery remarked."""
        if self._error is not None:
            return self._error.message
        if self.broken is not None:
            return self.broken
        remarks = list(self.warnings)
        if self.store is not None:
            remarks += [told for told in (self.store.layers.damage, self.store.remark) if told is not None]
        if self.store is not None and (withheld := self.store.layers.withheld):
            remarks.insert(0, f"{_points(len(withheld))} withheld: {next(iter(withheld.values()))}")
        return "; ".join(remarks) or None

    @property
    def broken(self) -> str | None:
        """Why no more writes are taken in this process; None while they are."""
        return self.failure or (self.store.broken if self.store is not None else None)

    @property
    def count(self) -> int:
        """Live points."""
        return self.store.count if self.store is not None else 0

    def opened(self, store: Store | None, index: VectorIndex | None, warnings: tuple[str, ...] = ()) -> None:
        """Recovery is done: serve."""
        self.store, self.index, self.warnings = store, index, warnings
        self.progress = self.open_again_at = None
        self._error = self._fixed = None

    def closed(self, state: State, error: Unavailable, *, opens_anew: bool = False) -> None:
        """Serve nothing; readers and writers get `error`."""
        self.progress = self.open_again_at = None
        self.opens_anew = opens_anew
        self._error, self._fixed = error, state

    def opening(self, manifest: Manifest) -> None:
        """It is opened anew, as this manifest says: what was found before counts no more."""
        self.manifest, self.warnings = manifest, ()
        self.opens_anew, self.awaited = False, None
        self._error, self._fixed = None, State.RECOVERING

    def postponed(self, reason: str) -> None:
        """It could not be opened now, though nothing is known to be wrong with it: somebody tries again."""
        error = Recovering(
            f"collection {self.name!r} waits to be opened: {reason}", collection=self.name,
            retry_after_seconds=int(OPEN_AGAIN_SECONDS),
        )  # fmt: skip
        self.closed(State.RECOVERING, error)
        self.open_again_at = time.monotonic() + OPEN_AGAIN_SECONDS

    def readable(self) -> None:
        """Raise Recovering, Quarantined or Foreign unless the collection answers reads."""
        if self.dropping:
            raise NotFound(f"collection {self.name!r} does not exist", collection=self.name)
        if self._fixed is None:
            return
        if self._error is not None:
            raise self._error
        raise Recovering(
            f"collection {self.name!r} is recovering", collection=self.name, retry_after_seconds=1,
            details={"progress": self.progress},
        )  # fmt: skip

    def writable(self) -> None:
        """Raise unless the collection takes writes."""
        broken = self.broken  # first: whoever ends the writes of one that goes away ends its reads before
        self.readable()
        if broken is not None:
            raise ReadOnly(
                f"collection {self.name!r} takes no writes: {broken}", collection=self.name,
                hint="restart the engine: it replays the log in a new process",
            )  # fmt: skip

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
        """Let the index know rows that are about to replace others, or to come."""
        assert self.index is not None
        if len(labels):
            self.index.add(decode_rows(rows, self.manifest.vector_type), labels)

    def forget(self, change: Applied) -> None:
        """Let the index forget the rows that were replaced or deleted."""
        assert self.index is not None
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

    def waiting_bytes(self) -> tuple[int, int]:
        """Memory that waits for checkpoints, and for the graph."""
        if self.store is None or self.index is None:
            return 0, 0
        return self.store.overlay_bytes, self.index.tail_bytes if self.index.pending else 0

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
        return {"task": "index", "done": done, "total": total} if self.index.pending else None


def _points(count: int) -> str:
    return "1 point is" if count == 1 else f"{count:,} points are"


def quarantined(
    name: str, message: str, details: dict[str, object] | None = None, hint: str | None = None
) -> Quarantined:
    """The error that a damaged collection answers with."""
    return Quarantined(
        f"collection {name!r} is quarantined: {message}", collection=name, details=details,
        hint=hint or f"vecstow check {name}",
    )  # fmt: skip
