"""The opening of the volume once its lock is free, of its collections in threads, of postponed ones later."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from vecstow_engine.model.errors import VolumeHeld
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.hold_gate import Gate
from vecstow_engine.service.lifecycle import Opening
from vecstow_engine.service.loader import Loader
from vecstow_engine.service.registry import Registry
from vecstow_engine.service.settings import StorageSettings
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.volume import Volume

THREADS: Final = 2
LOCK_PAUSE_SECONDS: Final = 0.1

log = structlog.stdlib.get_logger(__name__)


def open_volume(layout: Layout, settings: StorageSettings, is_leaving: Callable[[], bool]) -> Volume | None:
    """Open the volume as soon as its lock is free; return None when this process is to end before.

    Raises VolumeRefused, and its subclass VolumeHeld when another process keeps the lock for
    `settings.lock_wait_seconds`.
    """
    until = time.monotonic() + settings.lock_wait_seconds
    is_told = False
    while True:
        try:
            return Volume(layout, settings.reserve_bytes, allow_network=settings.allow_network_file_system)
        except VolumeHeld as held:
            if is_leaving():
                return None
            if time.monotonic() >= until:
                raise
            if not is_told:
                log.warning("waiting for the volume", reason=held.message)
            is_told = True
        time.sleep(LOCK_PAUSE_SECONDS)


class Opener:
    """The opener of the discovered collections; its threads end after the last collection."""

    def __init__(
        self, registry: Registry, loader: Loader, gate: Gate, opened: Callable[[Collection], None]
    ) -> None:
        self._registry = registry
        self._loader = loader
        self._gate = gate
        self._opened = opened
        self._waiting = 0
        """Collections that wait to be opened; `_lock` guards it."""
        self._lock = threading.Lock()

    def begin(self, collections: Sequence[Collection]) -> None:
        """Open these collections in the background."""
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="load")
        self._waiting = len(collections)
        if not collections:
            self._registry.log_counts()
        for collection in collections:
            self._pool.submit(self._open, collection)

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
        """Open a collection, unless its upkeep lock is taken, it is dropped, or there is a hold."""
        if not collection.upkeep.acquire(blocking=False):
            return
        try:
            with self._gate.passing() as free:
                if free and not collection.dropping:
                    collection.move_to(Opening())  # a drop or a hold must wait again
                    self._load(collection, with_graph=False)
                    self._opened(collection)
        finally:
            collection.upkeep.release()

    def _open(self, collection: Collection) -> None:
        self._load(collection)
        with self._lock:
            self._waiting -= 1
            if self._waiting:
                return
        self._registry.log_counts()
        for opened in self._registry.collections():
            self._opened(opened)
        self._pool.shutdown(wait=False)

    def _load(self, collection: Collection, *, with_graph: bool = True) -> None:
        self._loader.load(collection, lambda: self._registry.is_rival(collection), with_graph=with_graph)
