"""The queue of searches: searches that wait while a call runs share the next call.

Each collection has one call at a time, in a fixed number of threads.
Searches with a filter run alone, in threads of their own, because they may read every payload.

The threads are shared: no collection and no API key takes the last one, or all room to wait in. Waiting calls
have a queue for each collection and key, and the queues are served in turn.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from vecstow_engine.model.errors import Busy, Unavailable
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.points import Point
from vecstow_engine.model.searches import Hit, SearchQuery
from vecstow_engine.query.filtered import answer_filtered
from vecstow_engine.query.search import Result, answer_queries
from vecstow_engine.service.collection import Collection

THREADS: Final = 3
FILTER_THREADS: Final = 2
GROUP_QUERIES_MAX: Final = 64
GROUP_HITS_MAX: Final = 6400
"""The most hits that the searches of one call ask for together, unless a single search asks for more."""
TENANT: Final[ContextVar[str | None]] = ContextVar("tenant", default=None)
"""The name of the request's API key; None without keys."""

Done = Callable[["asyncio.Future[Any]"], None]
_Answer = TypeVar("_Answer")
_Owners = tuple[Hashable, ...]


class _Batch:
    """The waiting searches of one collection, and whether a call is under way."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.waiting: list[tuple[SearchQuery, asyncio.Future[list[Hit]]]] = []
        self.running = False


class Searcher:
    """The searches and reads of all collections; used from one event loop."""

    def __init__(self, queue_max: int) -> None:
        self._queue_max = queue_max
        self._batches: dict[Collection, _Batch] = {}
        self._plain = FairPool(THREADS, "search")
        self._filtered = FairPool(FILTER_THREADS, "filtered search", queue_max // 8)

    def stop(self) -> None:
        """Start no more searches, and wait for those under way."""
        self._plain.shutdown(wait=True)
        self._filtered.shutdown(wait=True)

    async def search(self, collection: Collection, query: SearchQuery) -> list[Hit]:
        """Return the nearest live points, nearest first; raise Busy when too many searches wait."""
        if query.filter is not None:
            return await self._filtered.run(collection, search_filtered, collection, query, query.filter)
        batch = self._batches.setdefault(collection, _Batch())
        if len(batch.waiting) >= self._queue_max:
            message = f"{len(batch.waiting)} searches wait in collection {collection.name!r}, the limit"
            raise Busy(message, collection=collection.name, retry_after_seconds=1)
        future: asyncio.Future[list[Hit]] = asyncio.get_running_loop().create_future()
        batch.waiting.append((query, future))
        if not batch.running:
            self._start(collection, batch)
        return await future

    def _start(self, collection: Collection, batch: _Batch) -> None:
        size = _group_size(batch.waiting)
        group, batch.waiting = batch.waiting[:size], batch.waiting[size:]
        batch.running = True
        queries = [query for query, _ in group]
        self._plain.submit(
            collection, search_many, (collection, queries), partial(self._finish, collection, batch, group)
        )

    def _finish(
        self,
        collection: Collection,
        batch: _Batch,
        group: Sequence[tuple[SearchQuery, asyncio.Future[list[Hit]]]],
        done: asyncio.Future[list[Result]],
    ) -> None:
        if batch.waiting:
            self._start(collection, batch)
        else:
            batch.running = False
            self._batches.pop(collection, None)
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        results = [error] * len(group) if error is not None else done.result()
        for (_, future), result in zip(group, results, strict=True):
            if future.cancelled():
                continue
            if isinstance(result, list):
                future.set_result(result)
            elif isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.cancel()

    async def run(self, call: Callable[..., _Answer], collection: Collection, *values: object) -> _Answer:
        """Run a read of a collection in the threads of searches without a filter; return its result."""
        return await self._plain.run(collection, call, collection, *values)


def _group_size(waiting: Sequence[tuple[SearchQuery, object]]) -> int:
    """Return the number of searches of the next call: few enough that no client waits long for the call."""
    wanted = 0
    for size, (query, _) in enumerate(waiting[:GROUP_QUERIES_MAX]):
        wanted += query.limit
        if size and wanted > GROUP_HITS_MAX:
            return size
    return min(len(waiting), GROUP_QUERIES_MAX)


def get_many(collection: Collection, ids: Sequence[str]) -> list[Point | None]:
    """Return the points of these ids, None for an unknown id. Raises the errors of `Collection.readable`."""
    collection.readable()
    return [None] * len(ids) if collection.store is None else collection.store.view.get(ids)


def search_many(collection: Collection, queries: Sequence[SearchQuery]) -> list[Result]:
    """Return the result of each query without a filter. Raises the errors of `Collection.readable`."""
    source = collection.source()
    return [[] for _ in queries] if source is None else answer_queries(source, queries)


def search_filtered(collection: Collection, query: SearchQuery, filter: Filter) -> list[Hit]:
    """Return the nearest points whose payload matches. Raises the errors of `Collection.readable`."""
    source = collection.source()
    return [] if source is None else answer_filtered(source, query, filter)


@dataclass(slots=True)
class _Job:
    """One call, and the callback for its end."""

    call: Callable[..., Any]
    values: tuple[object, ...]
    done: Done
    is_wanted: Callable[[], bool]


class FairPool:
    """A pool of threads, used from one event loop. An owner (a collection, a key) gets all but one at most.

    `waiting_max`: the limit of waiting calls. One owner gets half. Beyond a limit `run` and `submit`
    raise Busy.
    """

    def __init__(self, threads: int, name: str, waiting_max: int | None = None) -> None:
        self._threads = threads
        self._running_max = max(1, threads - 1)
        self._waiting_max = waiting_max
        self._what = name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._running: dict[Hashable, int] = {}
        self._running_total = 0
        self._queues: OrderedDict[_Owners, deque[_Job]] = OrderedDict()
        self._waiting: Counter[Hashable] = Counter()
        self._waiting_total = 0

    async def run(self, collection: Hashable, call: Callable[..., _Answer], *values: object) -> _Answer:
        """Run a call in a thread, and return its result. `collection` is None for a call without one."""
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self.submit(collection, call, values, partial(_pass_on, future), lambda: not future.cancelled())
        return await future

    def submit(
        self,
        collection: Hashable,
        call: Callable[..., Any],
        values: tuple[object, ...],
        done: Done,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Run a call like `run`, without waiting: the event loop calls `done` with the finished future."""
        tenant = TENANT.get()
        owners: _Owners = (collection,) if collection is not None else ()
        if tenant is not None:
            owners += (("key", tenant),)
        job = _Job(call, values, done, is_wanted)
        if self._may_run(owners):
            self._start(owners, job)
        else:
            self._refuse_beyond_limit(owners)
            self._queues.setdefault(owners, deque()).append(job)
            self._waiting.update(owners)
            self._waiting_total += 1

    def shutdown(self, *, wait: bool) -> None:
        """Start no more calls; with `wait`, return after the running calls ended."""
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def _may_run(self, owners: _Owners) -> bool:
        return self._running_total < self._threads and all(
            self._running.get(owner, 0) < self._running_max for owner in owners
        )

    def _refuse_beyond_limit(self, owners: _Owners) -> None:
        limit = self._waiting_max
        if limit is None:
            return
        if self._waiting_total >= limit:
            raise Busy(f"{self._waiting_total} {self._what} calls wait, the limit", retry_after_seconds=1)
        share = max(1, limit // 2)
        if any(self._waiting[owner] >= share for owner in owners):
            raise Busy(
                f"{share} {self._what} calls of this collection or key wait, the limit", retry_after_seconds=1
            )

    def _start(self, owners: _Owners, job: _Job) -> None:
        for owner in owners:
            self._running[owner] = self._running.get(owner, 0) + 1
        self._running_total += 1
        loop = asyncio.get_running_loop()
        try:
            running = loop.run_in_executor(self._pool, job.call, *job.values)
        except RuntimeError:
            running = loop.create_future()
            running.set_exception(Unavailable("the engine is stopping"))
        running.add_done_callback(partial(self._finish, owners, job.done))

    def _finish(self, owners: _Owners, done: Done, running: asyncio.Future[Any]) -> None:
        _discount(self._running, owners)
        self._running_total -= 1
        if self._queues:
            self._start_waiting()
        done(running)

    def _start_waiting(self) -> None:
        """Start the waiting calls that may run, one of each queue in turn."""
        while (owners := next(filter(self._may_run, self._queues), None)) is not None:
            queue = self._queues.pop(owners)
            job = queue.popleft()
            _discount(self._waiting, owners)
            self._waiting_total -= 1
            if queue:
                self._queues[owners] = queue  # behind the others
            if job.is_wanted():
                self._start(owners, job)


def _discount(counts: dict[Hashable, int], owners: _Owners) -> None:
    """Count one call less for each owner. Forget an owner without calls: a collection may hold a graph."""
    for owner in owners:
        left = counts.pop(owner) - 1
        if left:
            counts[owner] = left


def _pass_on(future: asyncio.Future[Any], finished: asyncio.Future[Any]) -> None:
    if future.cancelled():
        return
    error = asyncio.CancelledError() if finished.cancelled() else finished.exception()
    if error is None:
        future.set_result(finished.result())
    elif isinstance(error, Exception):
        future.set_exception(error)
    else:
        future.cancel()
