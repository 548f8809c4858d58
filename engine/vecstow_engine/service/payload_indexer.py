"""The thread that completes payload indexes: it reads the payloads that columns lack, a slice at a time.

Writers put new points into the columns themselves. What the thread reads is a collection's points at its
opening, after a change of the declared fields, or after an error.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog

from vecstow_engine.index.exact import Labels
from vecstow_engine.index.payload.columns_file import load_columns
from vecstow_engine.index.payload.payload_columns import PayloadColumns
from vecstow_engine.model.errors import OutOfMemory
from vecstow_engine.service.attempts import Attempts, Work
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.memory_accounts import Accounts
from vecstow_engine.storage.layout import COLUMNS
from vecstow_engine.storage.snapshots import valid_snapshot
from vecstow_engine.storage.store import Store

SLICE_POINTS: Final = 256
"""Points whose payloads are read at a time: at most 16 MiB."""

log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class _Build:
    """The work on one collection: the columns, the labels that they lacked, and how many of them are done."""

    columns: PayloadColumns
    labels: Labels
    done: int = 0


class PayloadIndexer:
    """The owner of the thread; `notify` wakes it. Collections take turns of one slice."""

    def __init__(self, attempts: Attempts, accounts: Accounts) -> None:
        self._attempts = attempts
        self._accounts = accounts
        self._builds: OrderedDict[Collection, _Build | None] = OrderedDict()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="payload indexer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread after the current slice."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def notify(self, collection: Collection) -> None:
        """Queue a collection if its payload indexes lack points, and no pause after an error is under way."""
        is_due = collection.payload_indexes.unfinished is not None and collection.serves()
        if is_due and self._attempts.may_begin(Work.PAYLOAD_INDEXES, collection):
            with self._lock:
                self._builds.setdefault(collection, None)
            self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait()
            self._wake.clear()
            while (taken := self._take()) is not None:
                collection, build = taken
                with self._attempts.at(Work.PAYLOAD_INDEXES, collection):
                    build = self._advance(collection, build)
                    if build is not None:
                        with self._lock:
                            self._builds[collection] = build

    def _take(self) -> tuple[Collection, _Build | None] | None:
        with self._lock:
            return self._builds.popitem(last=False) if self._builds and not self._stopping.is_set() else None

    def _advance(self, collection: Collection, build: _Build | None) -> _Build | None:
        """Read one slice; return the rest of the work, None when nothing is left or nothing may be done."""
        store, columns = collection.store, collection.payload_indexes.unfinished
        if columns is None or not collection.serves():
            return None
        if build is None or build.columns is not columns or build.done == len(build.labels):
            labels = columns.missing(store.view.labels()) if store is not None else np.zeros(0, np.uint64)
            if not len(labels):
                self._finish(collection, columns)
                return None
            self._refuse_without_room(collection, columns, len(labels))
            build = _Build(columns, labels)
        assert store is not None
        part = build.labels[build.done : build.done + SLICE_POINTS]
        points = store.view.resolve(part)
        there = [line for line, point in enumerate(points) if point is not None]
        payloads = [point[1] for point in points if point is not None]
        collection.payload_indexes.fill(columns, part[there], payloads)
        build.done += len(part)
        self._accounts.update(collection)
        return build

    def _finish(self, collection: Collection, columns: PayloadColumns) -> None:
        collection.payload_indexes.finish(columns)
        if collection.store is not None:
            # Points can have become visible since the labels were read.
            collection.payload_indexes.confirm(collection.store.view.labels())
        self._accounts.update(collection)
        fields = len(columns.declared)
        log.info(
            "payload indexes complete", collection=collection.name, fields=fields, bytes=columns.memory_bytes
        )

    def _refuse_without_room(self, collection: Collection, columns: PayloadColumns, points: int) -> None:
        """Raise OutOfMemory when there is no memory for so many more points in the columns."""
        size = columns.slot_bytes * points
        if not self._accounts.may_index(collection, size):
            room = max(0, self._accounts.plan.data_bytes - self._accounts.data_bytes)
            message = (
                f"payload indexes of {points} points need {size} bytes, and {room} are left of the limit "
                f"{self._accounts.plan.limit_bytes} (--memory-limit); filters read payloads meanwhile"
            )
            hint = "declare fewer payload indexes, or raise --memory-limit (docs/sizing.md)"
            raise OutOfMemory(message, collection=collection.name, hint=hint)


def adopt_saved(collection: Collection, store: Store, accounts: Accounts) -> None:
    """Take the columns of a valid payload.bin. Without one, they are built from the payloads."""
    indexes, folder = collection.payload_indexes, store.layers.folder
    if indexes.unfinished is None or not (folder / COLUMNS).exists():
        return
    try:
        with store.layers.table() as table:
            entry, remark = valid_snapshot(folder, table, store.meta.applied, COLUMNS)
        if entry is not None and not accounts.may_index(collection, entry.bytes):
            remark = f"{COLUMNS} does not fit into memory"
        elif entry is not None:
            declared = collection.manifest.payload_indexes
            columns = load_columns(folder / COLUMNS, declared, indexes.may_take)
            labels = store.view.labels()
            columns.remove_others(labels)
            indexes.adopt(columns)
            if not len(columns.missing(labels)):
                indexes.finish(columns)
            return
    except Exception as error:  # noqa: BLE001  # payload.bin is a cache: any error means a new build.
        remark = str(error) or repr(error)
    log.warning("payload indexes are built again", collection=collection.name, reason=remark)
