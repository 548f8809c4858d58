"""The upkeep thread: one thread for checkpoints, rebuilds and other chores of all collections."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Final
from weakref import WeakSet

import structlog

from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.errors import READ_ONLY_HINT, DiskFull
from vecstow_engine.service.attempts import Attempts, Work
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.hold import Gate
from vecstow_engine.service.indexer import Indexer
from vecstow_engine.service.memory_accounts import Accounts
from vecstow_engine.service.payload_indexer import PayloadIndexer
from vecstow_engine.service.settings import Settings
from vecstow_engine.service.snapshotter import save_columns, take_snapshot
from vecstow_engine.storage.files import check_interruption
from vecstow_engine.storage.store import Store
from vecstow_engine.storage.volume import Volume

UPKEEP_SECONDS: Final = 0.25
LEISURE_SECONDS: Final = 1.0
"""Time without a search of a collection until its graph is checked at leisure."""
BUSY_LOOKS: Final = 40
"""Rounds after which the graph of a searched collection is checked all the same: ten seconds."""
RELOCATE_ROWS: Final = 4096
SNAPSHOT_ROWS_MIN: Final = 5_000
"""The fewest new rows for which the running engine takes a snapshot."""

SNAPSHOTS: Final = frozenset({Work.SNAPSHOT, Work.PAYLOAD_SNAPSHOT})
UPKEEP_TASKS: Final = frozenset({Work.CHECKPOINT, Work.REBUILD}) | SNAPSHOTS

log = structlog.stdlib.get_logger(__name__)


class Upkeep:
    """The owner of the upkeep thread: checkpoints, snapshots, rebuilds, the reserve and chores of the engine.

    `also`: further chores, called without arguments in each round.
    """

    def __init__(
        self,
        settings: Settings,
        volume: Volume,
        gate: Gate,
        collections: Callable[[], Iterable[Collection]],
        indexer: Indexer,
        payload_indexer: PayloadIndexer,
        attempts: Attempts,
        accounts: Accounts,
        also: Iterable[Callable[[], object]],
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._gate = gate
        self._collections = collections
        self._indexer = indexer
        self._payload_indexer = payload_indexer
        self._attempts = attempts
        self._accounts = accounts
        self._chores = (self._count_memory, self._check_at_leisure, volume.fill_reserve, *also)
        self._stop = threading.Event()
        self._logged_broken: WeakSet[Collection] = WeakSet()
        self._looks = 0
        """Number of rounds in which a graph to check was searched for."""
        self._turns = {False: 0, True: 0}
        """Number of graphs that were checked at leisure (False), and of those checked all the same (True)."""
        self._snapshots = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        """The thread of snapshots: the write of a large graph does not delay other checkpoints."""
        self._snapshot_at_hand: Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop after the work under way. The caller's thread then makes the last checkpoints by `finish`."""
        self._stop.set()
        self._thread.join()
        self._snapshots.shutdown()

    def finish(self) -> None:
        """Checkpoint all collections, and snapshot the changed ones.

        During a hold do nothing: the logs hold all changes.
        """
        # Collections whose upkeep lock is taken, perhaps for an hour, come last.
        for collection in sorted(self._collections(), key=lambda found: found.upkeep_lock.locked()):
            self._log_broken(collection)
            with self._gate.passing() as free:
                if free:
                    self._attempt(collection, Work.CLOSING, partial(self._finish, collection), waits=True)

    def checkpoint(self, collection: Collection) -> bool:
        """Make one checkpoint; on a full disk give up the reserve and repeat. Return False if none was due.

        The caller holds the upkeep lock. Raises Quarantined, before anything is written, when the files are
        gone, and the errors of `Store.checkpoint`.
        """
        collection.refuse_if_gone()
        store = collection.store
        assert store is not None
        changed_at, collection.changed_at = collection.changed_at, None
        remark = store.remark
        started = time.monotonic()
        try:
            done = self._checkpoint_with_room(store)
        except BaseException:
            collection.changed_at = changed_at
            collection.refuse_if_gone()
            raise
        if done:
            seconds, made = round(time.monotonic() - started, 3), store.meta
            log.info(
                "checkpoint",
                collection=collection.name,
                applied=made.applied,
                points=made.points,
                seconds=seconds,
            )
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
        """Move rows into free slots, truncate the file, rebuild the graph; return bytes before and after.

        The caller holds the upkeep lock.
        """
        store, index = collection.store, collection.index
        assert store is not None and index is not None
        before = store.bytes_on_disk()
        self.checkpoint(collection)
        while (moved := store.relocate(RELOCATE_ROWS, collection.announce)) is not None:
            collection.unindex(moved)
            self.checkpoint(collection)
            check_interruption()
        collection.refuse_if_gone()
        after = store.truncate()
        if index.deleted_share > 0:
            self._indexer.rebuild_in_place(collection, collection.manifest.index_config)
        return before, after

    def _run(self) -> None:
        while not self._stop.wait(UPKEEP_SECONDS):
            for collection in self._in_order():
                if not self._stop.is_set() and self._attempts.may_begin(Work.UPKEEP, collection):
                    with self._attempts.at(Work.UPKEEP, collection):
                        self._look_after(collection)
            for chore in self._chores:
                try:
                    chore()
                except Exception as error:  # The thread must live, and do the other chores.
                    log.error("upkeep failed", reason=str(error), exc_info=error)

    def _check_at_leisure(self) -> None:
        """Let one collection search for a few points of its graph that were not checked yet.

        A collection with recent searches has a turn only every BUSY_LOOKS rounds: its clients wait meanwhile.
        """
        self._looks += 1
        for_all = self._looks % BUSY_LOOKS == 0
        before = math.inf if for_all else time.monotonic() - LEISURE_SECONDS
        waiting = [
            collection
            for collection in self._collections()
            if (index := collection.index) is not None
            and index.unchecked
            and not index.pending
            and index.searched_at < before
            and collection.serves()
        ]
        if waiting:
            self._turns[for_all] += 1
            self._indexer.notify(waiting[self._turns[for_all] % len(waiting)])

    def _count_memory(self) -> None:
        self._accounts.count_all(self._collections())

    def _in_order(self) -> list[Collection]:
        """Return the collections, the largest overlays first while overlays take much of their memory."""
        collections = list(self._collections())
        if self._accounts.presses:
            collections.sort(key=lambda collection: -collection.waiting_bytes()[0])
        return collections

    def _look_after(self, collection: Collection) -> None:
        collection.log_withheld()
        self._log_broken(collection)
        self._indexer.try_again(collection)
        self._payload_indexer.notify(collection)
        self._admit(collection)
        due = dict(self._due(collection))
        for work in UPKEEP_TASKS - due.keys():
            self._attempts.succeed(work, collection)  # another thread may have done the work
        for work in [work for work in due if self._attempts.may_begin(work, collection)][:1]:
            if work not in SNAPSHOTS:
                self._pass(collection, work, due[work])
            elif self._snapshot_at_hand is None or self._snapshot_at_hand.done():
                self._snapshot_at_hand = self._snapshots.submit(self._pass_alone, collection, work, due[work])

    def _pass(self, collection: Collection, work: Work, task: Callable[[], object]) -> None:
        """Make an attempt unless the volume is held."""
        with self._gate.passing() as free:
            if free:
                self._attempt(collection, work, task)

    def _pass_alone(self, collection: Collection, work: Work, task: Callable[[], object]) -> None:
        """Call `_pass` in the thread of snapshots; record an error of the pass itself as upkeep's."""
        with self._attempts.at(Work.UPKEEP, collection):
            self._pass(collection, work, task)

    def _admit(self, collection: Collection) -> None:
        """Let a graph that was held out grow, if there is memory for the graph now."""
        if collection.held_out and collection.serves() and self._accounts.admit(collection):
            log.info("graph is built now: there is memory for it", collection=collection.name)
            self._indexer.notify(collection)

    def _log_broken(self, collection: Collection) -> None:
        """Log once that a collection takes no more writes, whichever thread found the cause."""
        reason = collection.broken
        is_news = collection not in self._logged_broken and not collection.reopens
        if reason is not None and is_news and not collection.dropping:
            self._logged_broken.add(collection)
            log.error(
                "collection takes no writes", collection=collection.name, reason=reason, next=READ_ONLY_HINT
            )

    def _due(self, collection: Collection) -> Iterator[tuple[Work, Callable[[], object]]]:
        """Yield the due work of a collection, the most urgent first."""
        store, index = collection.store, collection.index
        if store is None or index is None or collection.broken is not None or collection.dropping:
            return
        settings = self._settings
        age = time.monotonic() - collection.changed_at if collection.changed_at is not None else 0.0
        active = store.layers.active
        changed = max(active.bytes, store.log.size) if active.last_sequence else 0
        full = changed >= settings.storage.checkpoint_bytes or (changed and self._accounts.presses)
        if store.layers.frozen is not None or full or age >= settings.storage.checkpoint_seconds:
            yield Work.CHECKPOINT, lambda: self.checkpoint(collection)
        if self._wants_rebuild(collection, index) and self._indexer.rebuild_fits(collection):
            yield Work.REBUILD, lambda: self._indexer.rebuild(collection, collection.manifest.index_config)
        if self._wants_snapshot(collection, SNAPSHOT_ROWS_MIN):
            yield Work.SNAPSHOT, lambda: self._snapshot(collection, index)
        if self._wants_columns_saved(collection):
            yield Work.PAYLOAD_SNAPSHOT, lambda: self._save_columns(collection)

    def _wants_rebuild(self, collection: Collection, index: VectorIndex) -> bool:
        if index.rebuilding:
            return False
        is_due = index.deleted_share > self._settings.index.rebuild_deleted_ratio
        return is_due or collection.postponed_rebuild is not None

    def _snapshot(self, collection: Collection, index: VectorIndex) -> None:
        """Take a snapshot; without room for a second copy of the graph, move no rows into it meanwhile.

        The kernel keeps two copies of each page that changes while the child saves.
        """
        roomy = self._accounts.fits(index.graph_bytes)
        with nullcontext() if roomy else self._indexer.passing_over(collection):
            take_snapshot(collection, lambda: self.checkpoint(collection))

    def _wants_snapshot(self, collection: Collection, rows_min: int) -> bool:
        index = collection.index
        if index is None or index.pending or index.rebuilding:
            return False
        grown = abs(index.graph_rows - collection.snapshot_rows)
        return grown >= max(
            rows_min, int(collection.snapshot_rows * self._settings.index.snapshot_growth_ratio)
        )

    def _wants_columns_saved(self, collection: Collection) -> bool:
        columns = collection.payload_indexes.complete
        share = self._settings.index.snapshot_growth_ratio
        return columns is not None and columns.changes >= max(SNAPSHOT_ROWS_MIN, share * collection.count)

    def _save_columns(self, collection: Collection) -> None:
        save_columns(collection, lambda: self.checkpoint(collection))

    def _finish(self, collection: Collection) -> None:
        store, index = collection.store, collection.index
        if store is None or index is None or collection.broken is not None:
            return
        self.checkpoint(collection)
        if collection.snapshot_sequence < store.last_sequence:
            self._snapshot(collection, index)
        columns = collection.payload_indexes.complete
        if columns is not None and columns.changes:
            self._save_columns(collection)

    def _attempt(
        self, collection: Collection, work: Work, task: Callable[[], object], *, waits: bool = False
    ) -> None:
        if not collection.upkeep_lock.acquire(blocking=waits):
            return  # another thread works on the files, perhaps for an hour: other collections come first
        try:
            if not collection.dropping and collection.broken is None:  # a repair may have retired it
                with self._attempts.at(work, collection):
                    task()
        finally:
            collection.upkeep_lock.release()
            self._accounts.update(collection)
