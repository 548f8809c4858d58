"""The queue of searches: searches that wait while a call runs share the next call.

Each collection has one call at a time, in a fixed number of threads. No collection takes the last thread.
Searches with a filter run alone, in threads of their own, because they may read every payload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeVar

from vecstow_engine.model.errors import Busy
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.points import Hit, Point, SearchQuery
from vecstow_engine.query.search import Result, answer_filtered, answer_queries
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.fair_pool import FairPool

THREADS: Final = 3
FILTER_THREADS: Final = 2
GROUP_QUERIES_MAX: Final = 64
GROUP_HITS_MAX: Final = 6400
"""The most hits that the searches of one call ask for together, unless a single search asks for more."""
_Answer = TypeVar("_Answer")


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
            raise Busy(
                f"{len(batch.waiting)} searches wait in collection {collection.name!r}, the limit",
                collection=collection.name, retry_after_seconds=1,
            )  # fmt: skip
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
