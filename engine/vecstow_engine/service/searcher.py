"""The queue of searches: searches that wait while a call runs share the next call.

Each collection has one call at a time, in a fixed number of threads.
Searches that may read many points run alone, in threads of their own: those with `diversity`, with groups, by
words, by the best score of many examples, and with a filter unless it was answered since the last write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from vecstow_engine.model.errors import Busy
from vecstow_engine.model.groups import Group, GroupSearch
from vecstow_engine.model.points import Point
from vecstow_engine.model.queries import Query, Search
from vecstow_engine.model.searches import Hit, SearchQuery
from vecstow_engine.query.answering import answer_alone, answer_together, shares_calls
from vecstow_engine.query.groups import answer_groups
from vecstow_engine.query.search import Result
from vecstow_engine.query.targets import aim
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.fair_pool import FairPool

THREADS: Final = 3
ALONE_THREADS: Final = 2
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
        self._alone = FairPool(ALONE_THREADS, "long search", queue_max // 8)

    def stop(self) -> None:
        """Start no more searches, and wait for those under way."""
        self._plain.shutdown(wait=True)
        self._alone.shutdown(wait=True)

    async def search(self, collection: Collection, search: Search) -> list[Hit]:
        """Return the nearest live points, nearest first; raise Busy when too many searches wait."""
        [query] = await self._aim(collection, [search])
        if shares_calls(query, collection.source()):
            [future] = self._join(collection, [query])
            return await future
        return await self._alone.run(collection, search_alone, collection, query)

    async def search_batch(self, collection: Collection, searches: Sequence[Search]) -> list[list[Hit]]:
        """Return the hits of each search; raise the error of the first search that fails.

        Searches that share calls of the index do so with each other. The others run one after the other, so
        that a batch takes one place among the waiting calls.
        """
        queries = await self._aim(collection, searches)
        source = collection.source()
        sharing = {at: query for at, query in enumerate(queries) if shares_calls(query, source)}
        futures = dict(zip(sharing, self._join(collection, list(sharing.values())), strict=True))
        try:
            return [
                await (futures.get(at) or self._alone.run(collection, search_alone, collection, query))
                for at, query in enumerate(queries)
            ]
        finally:
            _abandon(futures.values())

    async def search_groups(self, collection: Collection, search: GroupSearch) -> list[Group]:
        """Return the groups, the nearest first; raise Busy when too many searches wait."""
        [query] = await self._aim(collection, [search.search])
        return await self._alone.run(collection, group_alone, collection, query, search)

    async def _aim(self, collection: Collection, searches: Sequence[Search]) -> list[Query]:
        """Return the searches with the vectors of the stored points that they name.

        Raises Conflict for a search that was checked against another incarnation, and the errors of
        `Collection.readable`.
        """
        for search in searches:
            collection.refuse_misfit(search.manifest)
        collection.readable()
        queries = [search for search in searches if isinstance(search, SearchQuery)]
        if len(queries) == len(searches):
            return list(queries)
        return await self.run(aim_at_stored, collection, searches)

    def _join(
        self, collection: Collection, queries: Sequence[SearchQuery]
    ) -> list[asyncio.Future[list[Hit]]]:
        """Let the queries wait for the next call of the collection, and start one unless one is running."""
        if not queries:
            return []
        batch = self._batches.setdefault(collection, _Batch())
        waiting = len(batch.waiting)
        if waiting and waiting + len(queries) > self._queue_max:
            message = f"{waiting} searches wait in collection {collection.name!r}, the limit"
            raise Busy(message, collection=collection.name, retry_after_seconds=1)
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[list[Hit]]] = [loop.create_future() for _ in queries]
        batch.waiting += zip(queries, futures, strict=True)
        if not batch.running:
            self._start(collection, batch)
        return futures

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

    async def run_alone(
        self, call: Callable[..., _Answer], collection: Collection, *values: object
    ) -> _Answer:
        """Run a read that may look at every point, in the threads of long searches.

        Raises Busy when too many calls wait.
        """
        return await self._alone.run(collection, call, collection, *values)


def _group_size(waiting: Sequence[tuple[SearchQuery, object]]) -> int:
    """Return the number of searches of the next call: few enough that no client waits long for the call."""
    wanted = 0
    for size, (query, _) in enumerate(waiting[:GROUP_QUERIES_MAX]):
        wanted += query.hits_read
        if size and wanted > GROUP_HITS_MAX:
            return size
    return min(len(waiting), GROUP_QUERIES_MAX)


def get_many(collection: Collection, ids: Sequence[str]) -> list[Point | None]:
    """Return the points of these ids, None for an unknown id. Raises the errors of `Collection.readable`."""
    collection.readable()
    return [None] * len(ids) if collection.store is None else collection.store.view.get(ids)


def aim_at_stored(collection: Collection, searches: Sequence[Search]) -> list[Query]:
    """Return the searches with the vectors that they name. Raises the errors of `aim` and `readable`."""
    source = collection.source()
    return aim(None if source is None else source.view, searches)


def search_many(collection: Collection, queries: Sequence[SearchQuery]) -> list[Result]:
    """Return the result of each query without a filter. Raises the errors of `Collection.readable`."""
    source = collection.source()
    return [[] for _ in queries] if source is None else answer_together(source, queries)


def search_alone(collection: Collection, query: Query) -> list[Hit]:
    """Return the hits of a query of any kind. Raises the errors of `Collection.readable`."""
    source = collection.source()
    return [] if source is None else answer_alone(source, query)


def group_alone(collection: Collection, query: SearchQuery, search: GroupSearch) -> list[Group]:
    """Return the groups of a search, whose vector `query` has. Raises the errors of `Collection.readable`."""
    source = collection.source()
    return [] if source is None else answer_groups(source, query, search)


def _abandon(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel futures that are not done; mark the errors of the others as seen, so that none is logged."""
    for future in futures:
        if not future.cancel() and not future.cancelled():
            future.exception()
