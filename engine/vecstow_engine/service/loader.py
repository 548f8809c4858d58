"""The opening of one collection: recovery, then its index from index.bin, the log and the rows."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.hnsw import HNSWLIB_VERSION, SPACES
from vecstow_engine.index.vector_index import FLAT_ROWS_MAX, VectorIndex
from vecstow_engine.model.errors import (
    Busy,
    DamagedFile,
    DiskFull,
    Foreign,
    NewerFormat,
    StorageError,
    VecstowError,
    is_no_room,
)
from vecstow_engine.service import lifecycle
from vecstow_engine.service.attempts import Attempts, Work
from vecstow_engine.service.collection import Collection, quarantined
from vecstow_engine.service.memory_accounts import Accounts
from vecstow_engine.service.rebuilds import Rebuilds
from vecstow_engine.service.settings import IndexSettings
from vecstow_engine.storage.files import SyncFailed
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layout import INDEX, Layout
from vecstow_engine.storage.recovery import Opened, open_store
from vecstow_engine.storage.snapshots import valid_snapshot
from vecstow_engine.storage.store import Store

PROGRESS_SECONDS: Final = 5.0
"""Interval at which long work logs its progress."""

_PASSING: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)

log = structlog.stdlib.get_logger(__name__)


class Loader:
    """The opener of single collections: one instance for the engine, any number of threads."""

    def __init__(
        self, layout: Layout, handles: HandleCache, settings: IndexSettings, make_room: Callable[[], bool],
        attempts: Attempts, is_leaving: Callable[[], bool], replay_bytes_max: int,
        accounts: Accounts, rebuilds: Rebuilds,
    ) -> None:  # fmt: skip
        self._layout = layout
        self._make_room = make_room
        self._is_leaving = is_leaving
        self._handles = handles
        self._settings = settings
        self._attempts = attempts
        self._replay_bytes_max = replay_bytes_max
        """Bytes of memory that the changes of one recovery may take."""
        self._accounts = accounts
        self._rebuilds = rebuilds
        self._graph_load = threading.Lock()

    def load(self, collection: Collection, is_rival: Callable[[], bool], *, with_graph: bool = True) -> None:
        """Open `collection`, and move it to Serving or to the state that holds the error. Raises nothing.

        `is_rival`: whether another folder claims the same uid. `with_graph`: load index.bin. Only a start
        loads it, because the interpreter is blocked meanwhile.
        """
        name = collection.name
        try:
            opened = self._open_with_room(collection, is_rival=is_rival(), with_graph=with_graph)
        except Foreign as error:
            log.warning("collection is foreign", collection=name, reason=error.message, next=error.hint)
            collection.move_to(lifecycle.Foreign(error))
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
            log.info(
                "collection loaded", collection=name, dimension=opened.manifest.dimension,
                metric=opened.manifest.distance_metric.value,
                vectors=collection.count, replayed=opened.replayed,
            )  # fmt: skip

    def new_index(self, collection: Collection) -> VectorIndex:
        """Return an empty index for a collection; the index fetches rows from the collection's store."""
        manifest = collection.manifest
        return VectorIndex(
            manifest.distance_metric, manifest.dimension, manifest.index_config, collection.fetch,
            threads=self._settings.index_threads, slice_seconds=self._settings.slice_seconds,
        )  # fmt: skip

    def _open_with_room(self, collection: Collection, *, is_rival: bool, with_graph: bool) -> Opened:
        """Open; on a full disk give up the reserve and open again, since recovery itself needs room."""
        try:
            return self._open(collection, is_rival=is_rival, with_graph=with_graph)
        except (DiskFull, OSError) as error:
            if not (isinstance(error, DiskFull) or is_no_room(error)) or not self._make_room():
                raise
        return self._open(collection, is_rival=is_rival, with_graph=with_graph)

    def _open(self, collection: Collection, *, is_rival: bool, with_graph: bool) -> Opened:
        opened = open_store(
            self._layout, collection.manifest, self._handles,
            is_rival=is_rival, replay_bytes_max=self._replay_bytes_max, progress=self._progress(collection),
        )  # fmt: skip
        collection.manifest = opened.manifest
        if opened.store is None:
            collection.opened(None, None, opened.warnings)
            return opened
        collection.store = opened.store
        collection.index = self.new_index(collection)
        if self._accounts.admit(collection, opened.store.count):
            for change in opened.changes:
                collection.announce(change.rows, change.added)
                collection.forget(change)
        else:
            with_graph = False
        remark = self._load_graph(collection, opened.store, collection.index) if with_graph else ""
        bring = collection.index.reconcile if collection.index.graph_rows else collection.index.add_backlog
        bring(opened.store.view.labels())
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
                graph = HnswGraph.load(
                    str(folder / INDEX),
                    manifest.distance_metric,
                    manifest.dimension,
                    manifest.index_config,
                    store.count,
                )
            except Exception as error:  # noqa: BLE001  # index.bin is a cache: any error means a rebuild.
                return str(error) or repr(error)
        index.adopt(graph)
        collection.snapshot_sequence, collection.snapshot_rows = entry.sequence, graph.row_count
        if graph.is_outdated or not graph.hnsw.built_with(manifest.index_config):
            self._rebuilds.begin(collection, manifest.index_config)
            collection.forget_snapshot()
        return ""

    def _progress(self, collection: Collection) -> Callable[[int, int], None]:
        told_at = time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal told_at
            self._refuse_if_leaving()
            collection.progress = {"task": "replay", "done": done, "total": total}
            if time.monotonic() - told_at > PROGRESS_SECONDS:
                told_at = time.monotonic()
                log.info("replaying the log", collection=collection.name, done=done, total=total)

        return report

    def _refuse_if_leaving(self) -> None:
        """Raise Busy when the engine stops: the next engine opens the same files."""
        if self._is_leaving():
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
        reason = "newer format" if isinstance(error, NewerFormat) else "damage"
        log.error("collection failed to load", collection=collection.name, kind=reason, reason=message)
        is_found = isinstance(error, (DamagedFile, NewerFormat))  # any other error may be a failed sync
        error = quarantined(collection.name, message, details)
        collection.move_to(lifecycle.Quarantined(error, reopens=is_found, retry_at=retry_at))


def _passes(error: VecstowError | OSError) -> bool:
    """Whether an error of an opening may pass soon, and is no sign of damage."""
    if isinstance(error, DiskFull | Busy):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING and not isinstance(error, SyncFailed)
