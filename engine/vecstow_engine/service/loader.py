"""The opening of the volume, and of its collections: recovery, then the index from index.bin, log and rows.

At the start the loader has threads of its own. An opening whose error passes is repeated later.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.hnsw import HNSWLIB_VERSION, SPACES
from vecstow_engine.index.payload.payload_indexes import PayloadIndexes
from vecstow_engine.index.vector_index import FLAT_ROWS_MAX, VectorIndex
from vecstow_engine.model.errors import (
    Busy,
    DamagedFile,
    DiskFull,
    Foreign,
    NewerFormat,
    StorageError,
    VecstowError,
    VolumeHeld,
    is_no_room,
)
from vecstow_engine.query.candidates import CandidateCache
from vecstow_engine.service import lifecycle
from vecstow_engine.service.attempts import Attempts, Work
from vecstow_engine.service.collection import Collection, quarantined
from vecstow_engine.service.hold import Gate
from vecstow_engine.service.indexer import Indexer
from vecstow_engine.service.memory_accounts import Accounts
from vecstow_engine.service.payload_indexer import adopt_saved
from vecstow_engine.service.registry import Registry
from vecstow_engine.service.settings import Settings, StorageSettings
from vecstow_engine.storage.files import SyncFailed
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layout import INDEX, Layout
from vecstow_engine.storage.recovery import Opened, open_store
from vecstow_engine.storage.snapshots import valid_snapshot
from vecstow_engine.storage.store import Store
from vecstow_engine.storage.volume import Volume

THREADS: Final = 2
LOCK_PAUSE_SECONDS: Final = 0.1
PROGRESS_SECONDS: Final = 5.0
"""Interval at which long work logs its progress."""

_PASSING: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)

log = structlog.stdlib.get_logger(__name__)


def open_volume(layout: Layout, settings: StorageSettings, is_leaving: Callable[[], bool]) -> Volume | None:
    """Open the volume as soon as its lock is free; return None when this process is to end before.

    Raises VolumeRefused, and its subclass VolumeHeld when another process keeps the lock for
    `settings.lock_wait_seconds`.
    """
    until = time.monotonic() + settings.lock_wait_seconds
    is_logged = False
    while True:
        try:
            return Volume(layout, settings.reserve_bytes, allow_network=settings.allow_network_file_system)
        except VolumeHeld as held:
            if is_leaving():
                return None
            if time.monotonic() >= until:
                raise
            if not is_logged:
                log.warning("waiting for the volume", reason=held.message)
            is_logged = True
        time.sleep(LOCK_PAUSE_SECONDS)


@dataclass(eq=False)
class Loader:
    """The opener of collections.

    `begin` opens all collections at the start, in threads of its own. `load` opens one collection in the
    caller's thread, any thread. `open_again` and `open_postponed` load collections whose opening failed.
    """

    _layout: Layout
    _settings: Settings
    _registry: Registry
    _gate: Gate
    _handles: HandleCache
    _attempts: Attempts
    _accounts: Accounts
    _indexer: Indexer
    _make_room: Callable[[], bool]
    _graph_load: threading.Lock = field(default_factory=threading.Lock, init=False)
    _waiting: int = field(default=0, init=False)
    """Collections that wait to be opened at the start; `_lock` guards it."""
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def begin(self, collections: Sequence[Collection]) -> None:
        """Open these collections in the background; the threads end after the last collection."""
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="load")
        self._waiting = len(collections)
        if not collections:
            self._registry.log_counts()
        for collection in collections:
            self._pool.submit(self._load_at_start, collection)

    def stop(self) -> None:
        """Finish the openings under way, and begin no other."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def open_postponed(self, now: float | None = None) -> None:
        """Open the collections whose retry is due at `now` (time.monotonic)."""
        now = time.monotonic() if now is None else now
        for collection in self._registry.collections():
            if collection.retry_at is not None and now > collection.retry_at:
                self.open_again(collection)

    def open_again(self, collection: Collection) -> None:
        """Open a collection again, unless its upkeep lock is taken, it is dropped, or the volume is held."""
        if not collection.upkeep_lock.acquire(blocking=False):
            return
        try:
            with self._gate.passing() as free:
                if free and not collection.dropping:
                    collection.move_to(lifecycle.Opening())  # a drop or a hold must wait again
                    self.load(collection)
        finally:
            collection.upkeep_lock.release()

    def _load_at_start(self, collection: Collection) -> None:
        self._load(collection, with_graph=True)
        with self._lock:
            self._waiting -= 1
            if self._waiting:
                return
        self._registry.log_counts()
        for opened in self._registry.collections():
            self._indexer.notify(opened)
        self._pool.shutdown(wait=False)

    def load(self, collection: Collection, is_rival: Callable[[], bool] | None = None) -> None:
        """Open `collection`, and move it to Serving or to the state that holds the error. Raises nothing.

        `is_rival` tells whether another folder claims the same uid; by default `Registry.is_rival` does.
        index.bin is not loaded, because the interpreter is blocked meanwhile: only the start does so.
        """
        self._load(collection, is_rival, with_graph=False)
        self._indexer.notify(collection)

    def _load(
        self, collection: Collection, is_rival: Callable[[], bool] | None = None, *, with_graph: bool
    ) -> None:
        """Do the work of `load`; `with_graph`: whether to load index.bin."""
        name = collection.name
        try:
            rival = is_rival() if is_rival is not None else self._registry.is_rival(collection)
            opened = self._open_with_room(collection, is_rival=rival, with_graph=with_graph)
        except Foreign as error:
            log.warning("collection is foreign", collection=name, reason=error.message, next=error.hint)
            collection.move_to(lifecycle.ForeignData(error))
        except (VecstowError, OSError) as error:
            self._forget_half_opened(collection)
            if _passes(error):
                collection.postponed(str(error))
                log.warning("collection waits to be opened", collection=name, reason=str(error))
            else:
                self._quarantine(collection, error)
        except Exception as error:  # noqa: BLE001  # Not even a bug may leave the collection in recovery.
            trouble = self._attempts.fail(Work.OPENING, collection, error)
            self._forget_half_opened(collection)
            if isinstance(error, MemoryError):
                collection.postponed(trouble.reason, trouble.until)
            else:
                wrapped = StorageError(f"it could not be opened: {trouble.reason}")
                self._quarantine(collection, wrapped, retry_at=trouble.until)
        else:
            self._attempts.succeed(Work.OPENING, collection)
            for warning in collection.warnings:
                log.warning("collection loaded with a remark", collection=name, remark=warning)
            shape = {"dimension": opened.manifest.dimension, "metric": opened.manifest.distance_metric.value}
            counts = {"vectors": collection.count, "replayed": opened.replayed}
            log.info("collection loaded", collection=name, **shape, **counts)

    def new_index(self, collection: Collection) -> VectorIndex:
        """Return an empty vector index for a collection, whose caches and payload indexes are limited by the
        memory account from now on.

        The index fetches rows from the collection's store.
        """
        manifest, settings = collection.manifest, self._settings.index
        collection.candidates = CandidateCache(self._accounts.may_cache)
        collection.payload_indexes.may_take = partial(self._accounts.may_index, collection)
        return VectorIndex(
            manifest.distance_metric,
            manifest.dimension,
            manifest.index_config,
            collection.fetch,
            threads=settings.index_threads,
            slice_seconds=settings.slice_seconds,
            may_cache=self._accounts.may_cache,
        )

    def _open_with_room(self, collection: Collection, *, is_rival: bool, with_graph: bool) -> Opened:
        """Open; on a full disk give up the reserve and open again, since recovery itself needs room."""
        try:
            return self._open(collection, is_rival=is_rival, with_graph=with_graph)
        except (DiskFull, OSError) as error:
            if not (isinstance(error, DiskFull) or is_no_room(error)) or not self._make_room():
                raise
        return self._open(collection, is_rival=is_rival, with_graph=with_graph)

    def _open(self, collection: Collection, *, is_rival: bool, with_graph: bool) -> Opened:
        """Recover the files, fill the index, and move to Serving. Raises the errors of `open_store`."""
        opened = open_store(
            self._layout,
            collection.manifest,
            self._handles,
            is_rival=is_rival,
            replay_bytes_max=self._settings.storage.overlay_bytes_max,
            progress=self._progress(collection),
        )
        collection.manifest = opened.manifest
        if opened.store is None:
            collection.opened(None, None, opened.warnings)
            return opened
        collection.store = opened.store
        # An earlier attempt may have filled columns for other labels.
        collection.payload_indexes = PayloadIndexes(collection.manifest.payload_indexes)
        collection.index = self.new_index(collection)
        if self._accounts.admit(collection, opened.store.count):
            for change in opened.changes:
                collection.index_rows(change.rows, change.added)
                collection.unindex(change)
        else:
            with_graph = False
        remark = self._load_graph(collection, opened.store, collection.index) if with_graph else ""
        bring = collection.index.reconcile if collection.index.graph_rows else collection.index.add_backlog
        bring(opened.store.view.labels())
        adopt_saved(collection, opened.store, self._accounts)
        # `Catalog.open_new` sets made_whole: a restore, an import or a repair has left no log.
        warnings = opened.warnings if collection.made_whole else opened.remarks
        collection.opened(opened.store, collection.index, warnings)
        if remark:
            log.warning("index is rebuilt from its rows", collection=collection.name, reason=remark)
        return opened

    def _load_graph(self, collection: Collection, store: Store, index: VectorIndex) -> str:
        """Adopt a valid index.bin; return why not, empty when there is nothing to remark."""
        folder = store.layers.folder
        if not (folder / INDEX).exists():
            return f"{INDEX} is missing" if store.meta.points > FLAT_ROWS_MAX else ""
        try:
            with store.layers.table() as table:
                entry, remark = valid_snapshot(folder, table, store.meta.applied)
        except StorageError as error:
            return f"what is recorded of {INDEX} cannot be read: {error}"
        if entry is None:
            return remark
        manifest = collection.manifest
        if (entry.space, entry.library) != (SPACES[manifest.distance_metric], HNSWLIB_VERSION):
            return f"{INDEX} was written for {entry.space} by {entry.library}"
        with self._graph_load:
            self._refuse_if_leaving()
            try:
                config, path = manifest.index_config, str(folder / INDEX)
                graph = HnswGraph.load(
                    path, manifest.distance_metric, manifest.dimension, config, store.count
                )
            except Exception as error:  # noqa: BLE001  # index.bin is a cache: any error means a rebuild.
                return str(error) or repr(error)
        index.adopt(graph)
        collection.snapshot_sequence, collection.snapshot_rows = entry.sequence, graph.row_count
        if graph.is_outdated or not graph.hnsw.built_with(manifest.index_config):
            self._indexer.rebuild(collection, manifest.index_config)
            collection.forget_snapshot()
        return ""

    def _progress(self, collection: Collection) -> Callable[[int, int], None]:
        logged_at = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal logged_at
            self._refuse_if_leaving()
            collection.progress = {"task": "replay", "done": done, "total": total}
            if time.monotonic() - logged_at > PROGRESS_SECONDS:
                logged_at = time.monotonic()
                log.info("replaying the log", collection=collection.name, done=done, total=total)

        return report

    def _refuse_if_leaving(self) -> None:
        """Raise Busy when the engine stops: the next engine opens the same files."""
        if self._gate.is_ending:
            raise Busy("the engine is shutting down")

    def _forget_half_opened(self, collection: Collection) -> None:
        """Close the store, and give back the memory that was admitted for the graph."""
        store, collection.store, collection.index = collection.store, None, None
        if store is not None:
            store.close()
        self._accounts.update(collection)

    def _quarantine(
        self, collection: Collection, error: VecstowError | OSError, retry_at: float | None = None
    ) -> None:
        message = error.message if isinstance(error, VecstowError) else str(error)
        details = error.details if isinstance(error, VecstowError) else {}
        log.error("collection failed to load", collection=collection.name, kind=_kind(error), reason=message)
        # Any other error may be a failed sync, so the files are not opened again in this process.
        is_found = isinstance(error, (DamagedFile, NewerFormat))
        error = quarantined(collection.name, message, details)
        collection.move_to(lifecycle.InQuarantine(error, reopens=is_found, retry_at=retry_at))


def _kind(error: VecstowError | OSError) -> str:
    if isinstance(error, DamagedFile):
        return "damage"
    return "newer format" if isinstance(error, NewerFormat) else "error"


def _passes(error: VecstowError | OSError) -> bool:
    """Whether an error of an opening may pass soon, and is no sign of damage."""
    if isinstance(error, DiskFull | Busy):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING and not isinstance(error, SyncFailed)
