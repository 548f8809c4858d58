"""The threads behind the requests: one moves rows into graphs, one looks after the files.

Both go round the collections; their number does not depend on how many there are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary, WeakSet

import structlog

from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.errors import DiskFull, VecstowError
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.gate import Gate
from vecstow_engine.service.losing import refuse_if_gone
from vecstow_engine.service.settings import Settings
from vecstow_engine.service.snapshotter import take_snapshot
from vecstow_engine.storage.store import Store
from vecstow_engine.storage.volume import Volume

UPKEEP_SECONDS: Final = 0.25
ERROR_PAUSE_SECONDS: Final = 5.0
ERROR_PAUSE_SECONDS_MAX: Final = 300.0
RELOCATE_ROWS: Final = 4096
SNAPSHOT_ROWS_MIN: Final = 5_000
"""New rows below this number are not worth a snapshot while the engine runs."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Pause:
    """After an error a collection is left alone until then (time.monotonic), longer each time."""

    seconds: float
    until: float

    def is_over(self) -> bool:
        """Whether it may be tried again."""
        return time.monotonic() >= self.until


def _longer(pause: _Pause | None) -> _Pause:
    seconds = min(2 * pause.seconds, ERROR_PAUSE_SECONDS_MAX) if pause is not None else ERROR_PAUSE_SECONDS
    return _Pause(seconds, time.monotonic() + seconds)


class _Pauses:
    """Of the collections that something failed for; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: WeakKeyDictionary[Collection, _Pause] = WeakKeyDictionary()

    def lasts(self, collection: Collection) -> bool:
        """Whether it is to be left alone now."""
        with self._lock:
            pause = self._known.get(collection)
        return pause is not None and not pause.is_over()

    def over(self) -> list[Collection]:
        """Those that may be tried again."""
        with self._lock:
            return [collection for collection, pause in self._known.items() if pause.is_over()]

    def begin(self, collection: Collection) -> None:
        """It failed: leave it alone, for longer than the last time."""
        with self._lock:
            self._known[collection] = _longer(self._known.get(collection))

    def end(self, collection: Collection) -> None:
        """It did not fail, or there is nothing to try."""
        with self._lock:
            self._known.pop(collection, None)


class Indexer:
    """Moves rows from the tails and backlogs into the graphs, slice by slice."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._dirty: dict[Collection, None] = {}
        self._pauses = _Pauses()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread is."""
        return self._thread.is_alive()

    def notify(self, collection: Collection) -> None:
        """This collection may have rows to move."""
        with self._lock:
            self._dirty[collection] = None
        self._wake.set()

    def try_again(self) -> None:
        """Wake it for each collection whose pause is over: no write may come that would."""
        for collection in self._pauses.over():
            self.notify(collection)

    def stop(self) -> None:
        """Finish the slice at hand."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            while dirty := self._take_dirty():
                for collection in dirty:
                    self._advance(collection)

    def _take_dirty(self) -> list[Collection]:
        with self._lock:
            return [] if self._stopping.is_set() else list(self._dirty)

    def _advance(self, collection: Collection) -> None:
        index = collection.index
        with self._lock:
            self._dirty.pop(collection, None)
        if self._pauses.lasts(collection) or self._stopping.is_set():
            return
        if index is None or not collection.serves():
            self._pauses.end(collection)
            return
        try:
            more = index.advance(threads=self._threads)
        except Exception as error:  # The thread must live, for the other collections; the error must show.
            if not collection.serves():
                return
            is_foreseen = isinstance(error, VecstowError | OSError)
            log.error(
                "rows could not be moved to the graph",
                collection=collection.name, reason=str(error), exc_info=None if is_foreseen else error,
            )  # fmt: skip
            self._pauses.begin(collection)
            return
        self._pauses.end(collection)
        if more:
            with self._lock:
                self._dirty[collection] = None


class Upkeep:
    """Checkpoints, snapshots, rebuilds, the reserve, and what else the engine wants done now and then."""

    def __init__(
        self,
        settings: Settings,
        volume: Volume,
        gate: Gate,
        collections: Callable[[], Iterable[Collection]],
        indexer: Indexer,
        also: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._gate = gate
        self._collections = collections
        self._indexer = indexer
        self._also = also
        self._stop = threading.Event()
        self._pauses = _Pauses()
        self._told_broken: WeakSet[Collection] = WeakSet()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread is."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Finish what is under way; then the caller's thread makes the last checkpoints."""
        self._stop.set()
        self._thread.join()

    def finish(self) -> None:
        """Checkpoint everything, and snapshot what has changed; during a hold nothing, the log has it all."""
        for collection in list(self._collections()):
            self._tell_broken(collection)
            with self._gate.passing() as free:
                if free:
                    self._attempt(collection, lambda c=collection: self._finish(c), waits=True)  # type: ignore[misc]

    def checkpoint(self, collection: Collection) -> bool:
        """One checkpoint; on a full disk the reserve is given up first. The caller holds the upkeep lock.

        Raises Quarantined, before anything is written, when the files are gone.
        """
        refuse_if_gone(collection)
        store = collection.store
        assert store is not None
        changed_at, collection.changed_at = collection.changed_at, None
        remark = store.remark
        started = time.monotonic()
        try:
            done = self._checkpoint_with_room(store)
        except BaseException:
            collection.changed_at = changed_at
            refuse_if_gone(collection)
            raise
        if done:
            log.info(
                "checkpoint", collection=collection.name,
                applied=store.meta.applied, points=store.meta.points,
                seconds=round(time.monotonic() - started, 3),
            )  # fmt: skip
        if store.remark is not remark:
            log.warning("checkpoint mended its table", collection=collection.name, remark=store.remark)
        return done

    def _checkpoint_with_room(self, store: Store) -> bool:
        try:
            return store.checkpoint()
        except DiskFull:
            if not self._volume.release_reserve():
                raise
        return store.checkpoint()

    def compact(self, collection: Collection) -> tuple[int, int]:
        """Move rows into free slots, cut what is free, rebuild the graph; returns bytes before and after.

        The caller holds the upkeep lock.
        """
        store, index = collection.store, collection.index
        assert store is not None and index is not None
        before = store.bytes_on_disk()
        self.checkpoint(collection)
        while (moved := store.relocate(RELOCATE_ROWS, collection.announce)) is not None:
            collection.forget(moved)
            self.checkpoint(collection)
        refuse_if_gone(collection)
        after = store.truncate()
        if index.deleted_share > 0:
            self._rebuild(collection, index)
        return before, after

    def _run(self) -> None:
        while not self._stop.wait(UPKEEP_SECONDS):
            try:
                for collection in list(self._collections()):
                    self._look_after(collection)
                self._indexer.try_again()
                self._volume.fill_reserve()
                self._also()
            except Exception as error:  # The thread must live; the error must show.
                log.error("upkeep failed", reason=str(error), exc_info=error)

    def _look_after(self, collection: Collection) -> None:
        collection.tell_withheld()
        self._tell_broken(collection)
        if self._stop.is_set() or self._pauses.lasts(collection):
            return
        task = self._due(collection)
        if task is None:
            return
        with self._gate.passing() as free:
            if free:
                self._attempt(collection, task)

    def _tell_broken(self, collection: Collection) -> None:
        """Say in the log, once, that a collection takes no more writes, wherever the sync failed."""
        reason = collection.broken
        is_news = collection not in self._told_broken and not collection.opens_anew
        if reason is not None and is_news and not collection.dropping:
            self._told_broken.add(collection)
            log.error(
                "collection takes no writes until the next start", collection=collection.name, reason=reason
            )

    def _due(self, collection: Collection) -> Callable[[], object] | None:
        """The most urgent thing to do for this collection."""
        store, index = collection.store, collection.index
        if store is None or index is None or collection.broken is not None or collection.dropping:
            return None
        settings = self._settings
        age = time.monotonic() - collection.changed_at if collection.changed_at is not None else 0.0
        full = store.layers.active.bytes >= settings.storage.checkpoint_bytes
        if store.layers.frozen is not None or full or age >= settings.storage.checkpoint_seconds:
            return lambda: self.checkpoint(collection)
        if index.deleted_share > settings.index.rebuild_deleted_ratio and not index.rebuilding:
            return lambda: self._rebuild(collection, index)
        if self._wants_snapshot(collection, SNAPSHOT_ROWS_MIN):
            return lambda: take_snapshot(collection, lambda: self.checkpoint(collection))
        return None

    def _rebuild(self, collection: Collection, index: VectorIndex) -> None:
        index.start_rebuild(collection.manifest.index_config)
        self._indexer.notify(collection)

    def _wants_snapshot(self, collection: Collection, rows_min: int) -> bool:
        index = collection.index
        if index is None or index.pending or index.rebuilding:
            return False
        grown = abs(index.graph_rows - collection.snapshot_rows)
        return grown >= max(
            rows_min, int(collection.snapshot_rows * self._settings.index.snapshot_growth_ratio)
        )

    def _finish(self, collection: Collection) -> None:
        store, index = collection.store, collection.index
        if store is None or index is None or collection.broken is not None:
            return
        self.checkpoint(collection)
        if collection.snapshot_sequence < store.last_sequence:
            take_snapshot(collection, lambda: self.checkpoint(collection))

    def _attempt(self, collection: Collection, task: Callable[[], object], *, waits: bool = False) -> None:
        if not collection.upkeep.acquire(blocking=waits):
            return  # somebody works on its files, perhaps for an hour: the others have their turn
        try:
            if not collection.dropping and collection.broken is None:  # a repair may have taken it out
                task()
        except (VecstowError, OSError) as error:
            self._pauses.begin(collection)
            log.error("upkeep of a collection failed", collection=collection.name, reason=str(error))
        else:
            self._pauses.end(collection)
        finally:
            collection.upkeep.release()
