"""The thread that moves rows from tails and backlogs into graphs, slice by slice, and the start of rebuilds.

The collection whose slices have taken the least time comes next. Rows of many dimensions or a large
ef_construction therefore cost their own collection its turns, and no other one. A rebuild takes the memory of
a second graph, and waits until there is room.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final
from weakref import WeakKeyDictionary

import structlog

from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.service.attempts import Attempts, Work
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.memory_accounts import Accounts

TURN_SECONDS_MIN: Final = 0.001
"""The least time that a slice counts: a coarse clock must not give one collection every turn."""
GATHER_SECONDS: Final = 0.02
"""Pause after a slice that leaves fewer rows than it moved: even a short slice has a fixed cost.

Searches find the rows meanwhile, by exact comparison.
"""

log = structlog.stdlib.get_logger(__name__)


class IndexingQueue:
    """The queue of collections: the one whose slices have taken the least time comes next."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Collection]] = []
        self._waiting: set[Collection] = set()
        self._postponed: deque[tuple[float, Collection]] = deque()
        """Pairs of a collection and the time.monotonic at which its wait for a turn begins."""
        self._spent: WeakKeyDictionary[Collection, float] = WeakKeyDictionary()
        self._now = 0.0
        """The seconds that the last collection had spent. Newcomers begin there: idle time is no credit."""
        self._number = count()

    def add(self, collection: Collection) -> bool:
        """Add a collection to the queue; return False when it waits already or is postponed."""
        if collection in self._waiting:
            return False
        self._waiting.add(collection)
        self._push(collection)
        return True

    def postpone(self, collection: Collection, until: float) -> None:
        """Add a collection to the queue at `until` (time.monotonic), which never decreases between calls."""
        self._waiting.add(collection)
        self._postponed.append((until, collection))

    @property
    def resumes_at(self) -> float | None:
        """Return the time.monotonic at which the first postponed collection joins the queue; None without."""
        return self._postponed[0][0] if self._postponed else None

    def take(self, now: float) -> Collection | None:
        """Remove and return the next collection; None when none waits."""
        while self._postponed and self._postponed[0][0] <= now:
            self._push(self._postponed.popleft()[1])
        if not self._heap:
            return None
        self._now, _, collection = heapq.heappop(self._heap)
        self._waiting.discard(collection)
        return collection

    def _push(self, collection: Collection) -> None:
        spent = max(self._now, self._spent.get(collection, 0.0))
        self._spent[collection] = spent
        heapq.heappush(self._heap, (spent, next(self._number), collection))

    def charge(self, collection: Collection, seconds: float) -> None:
        """Count the seconds of a turn. Call before the collection is added again."""
        self._spent[collection] = self._spent.get(collection, self._now) + max(seconds, TURN_SECONDS_MIN)


class Indexer:
    """The owner of the thread that moves rows; `notify` wakes it. Methods may be called from any thread."""

    def __init__(self, threads: int, attempts: Attempts, accounts: Accounts) -> None:
        self._threads = threads
        self._attempts = attempts
        self._accounts = accounts
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._queue = IndexingQueue()
        self._at_work: Collection | None = None
        self._notified_at_work = False
        self._passed_over: Collection | None = None
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def notify(self, collection: Collection) -> None:
        """Queue a collection that may have rows to move."""
        with self._lock:
            if collection is self._at_work:
                self._notified_at_work = True
                return
            if not self._queue.add(collection):
                return
        self._wake.set()

    @contextmanager
    def passing_over(self, collection: Collection) -> Iterator[None]:
        """Move no rows of this collection during the with block."""
        self._passed_over = collection
        try:
            yield
        finally:
            self._passed_over = None
            self.notify(collection)

    def try_again(self, collection: Collection) -> None:
        """Queue a collection whose pause after an error is over, since no write may come that does so."""
        if Work.INDEXING in collection.troubles and self._attempts.may_begin(Work.INDEXING, collection):
            self.notify(collection)

    def rebuild_fits(self, collection: Collection) -> bool:
        """Whether there is memory for a second graph; without it, record the rebuild as postponed."""
        index = collection.index
        assert index is not None
        size = 0 if index.rebuilding else index.rebuild_bytes
        if self._accounts.fits(size):
            return True
        plan = self._accounts.plan
        room = max(0, plan.data_bytes - self._accounts.data_bytes)
        is_news = collection.postponed_rebuild is None
        collection.postponed_rebuild = reason = (
            f"its graph is not rebuilt: a second one needs {size} bytes, and {room} are left of the limit "
            f"{plan.limit_bytes} (--memory-limit)"
        )
        if is_news:
            command = f"vecstow compact {collection.name}"
            log.warning("rebuild is postponed", collection=collection.name, reason=reason, next=command)
        return False

    def rebuild(self, collection: Collection, config: IndexConfig) -> bool:
        """Build a second graph with these settings while the first one serves; return False without room."""
        fits = self.rebuild_fits(collection)
        if fits:
            assert collection.index is not None
            collection.index.start_rebuild(config)
            self._account_for_rebuild(collection)
        return fits

    def rebuild_in_place(self, collection: Collection, config: IndexConfig) -> None:
        """Begin a rebuild; if two graphs do not fit, drop the first: searches are exact meanwhile."""
        if not self.rebuild(collection, config):
            assert collection.index is not None
            collection.index.start_over(config)
            log.info("graph is rebuilt in the place of the old one", collection=collection.name)
            self._account_for_rebuild(collection)

    def _account_for_rebuild(self, collection: Collection) -> None:
        collection.postponed_rebuild = None
        self._accounts.update(collection)
        self.notify(collection)

    def stop(self) -> None:
        """Stop the thread after the current slice."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._pause_seconds())
            self._wake.clear()
            while (collection := self._take()) is not None:
                started = time.perf_counter()
                moved = self._advance(collection)
                self._give_back(collection, time.perf_counter() - started, moved)

    def _pause_seconds(self) -> float | None:
        with self._lock:
            resumes_at = self._queue.resumes_at
        return None if resumes_at is None else max(0.0, resumes_at - time.monotonic())

    def _take(self) -> Collection | None:
        with self._lock:
            self._at_work = None if self._stopping.is_set() else self._queue.take(time.monotonic())
            self._notified_at_work = False
            return self._at_work

    def _give_back(self, collection: Collection, seconds: float, moved: int) -> None:
        gathers = moved > 0 and moved > _rows_left(collection)
        with self._lock:
            self._queue.charge(collection, seconds)
            self._at_work = None
            if gathers:
                self._queue.postpone(collection, time.monotonic() + GATHER_SECONDS)
            elif moved or self._notified_at_work:
                self._queue.add(collection)

    def _advance(self, collection: Collection) -> int:
        """Move one slice; return the number of labels handled, 0 when no row waits or none may move."""
        index = collection.index
        if index is None or not collection.serves() or collection.held_out:
            self._attempts.succeed(Work.INDEXING, collection)
            return 0
        if collection is self._passed_over:
            return 0
        moved = 0
        if self._attempts.may_begin(Work.INDEXING, collection):
            with self._attempts.at(Work.INDEXING, collection):
                moved = self._move(collection, index)
        return moved

    def _move(self, collection: Collection, index: VectorIndex) -> int:
        """Move one slice; ignore an error when the collection was dropped or closed meanwhile."""
        try:
            moved = index.advance(threads=self._threads)
        except Exception:
            if collection.serves():
                raise
            return 0
        self._accounts.update(collection)
        return moved


def _rows_left(collection: Collection) -> int:
    """Return the number of rows outside the graph; while the index is flat, of rows outside memory."""
    index = collection.index
    return 0 if index is None else index.count - index.indexed
