"""Searches: those that wait while one call runs are answered together by the next one.

One call at a time per collection, in a fixed number of threads. No collection takes the last thread. Searches
with a filter run alone, in their own threads: they may have to read every payload.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias, TypeVar

import numpy as np

from vecstow_engine.index import exact
from vecstow_engine.index.hits import NO_LABEL, Hits, merge
from vecstow_engine.model.batch import Hit, Point, SearchQuery
from vecstow_engine.model.errors import Busy, VecstowError
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.payloads import decode_payload
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.fair_pool import FairPool

THREADS: Final = 3
FILTER_THREADS: Final = 2
GROUP_QUERIES_MAX: Final = 64
GROUP_HITS_MAX: Final = 6400
"""Hits that the searches of one call may ask for together, unless one alone asks for more."""
ATTEMPTS_MAX: Final = 5
AHEAD_FACTOR: Final = 8
"""How many are searched for in the place of one that is gone: damage comes in pages."""
FILTER_CANDIDATES_MAX: Final = 1000
SCAN_BLOCK: Final = 2048
"""Matching rows that are compared at a time."""
RESOLVED_POINTS: Final = 128
"""Points whose payloads are read before these are weighed: at most 8 MiB."""


_Answer = TypeVar("_Answer")
_Result: TypeAlias = list[Hit] | VecstowError
"""The hits of a query, or why it alone is not answered."""


class _Batch:
    """The searches of one collection that wait, and whether a call is under way."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.waiting: list[tuple[SearchQuery, asyncio.Future[list[Hit]]]] = []
        self.running = False


class Searcher:
    """Used from one event loop."""

    def __init__(self, queue_max: int) -> None:
        self._queue_max = queue_max
        self._batches: dict[Collection, _Batch] = {}
        self._plain = FairPool(THREADS, "search")
        self._filtered = FairPool(FILTER_THREADS, "filtered search", queue_max // 8)

    def stop(self) -> None:
        """Start no more searches."""
        self._plain.shutdown(wait=True)
        self._filtered.shutdown(wait=True)

    async def search(self, collection: Collection, query: SearchQuery) -> list[Hit]:
        """The nearest live points, nearest first; raises Busy when too many searches wait."""
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
        done: asyncio.Future[list[_Result]],
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
        """Run a read of a collection in the threads of the searches."""
        return await self._plain.run(collection, call, collection, *values)


def _group_size(waiting: Sequence[tuple[SearchQuery, object]]) -> int:
    """How many of the first searches go together: few enough that nobody waits long for the whole call."""
    wanted = 0
    for size, (query, _) in enumerate(waiting[:GROUP_QUERIES_MAX]):
        wanted += query.limit
        if size and wanted > GROUP_HITS_MAX:
            return size
    return min(len(waiting), GROUP_QUERIES_MAX)


def get_many(collection: Collection, ids: Sequence[str]) -> list[Point | None]:
    """The points of these ids, None where there is none."""
    collection.readable()
    return [None] * len(ids) if collection.store is None else collection.store.view.get(ids)


def search_many(collection: Collection, queries: Sequence[SearchQuery]) -> list[_Result]:
    """Answer unfiltered queries, those of the same limit and ef in one call of the index."""
    collection.readable()
    answers: list[_Result] = [[] for _ in queries]
    if collection.index is None:
        return answers
    groups: dict[tuple[int, int], list[int]] = {}
    for number, query in enumerate(queries):
        ef = query.ef_search or collection.manifest.index_config.ef_search
        groups.setdefault((query.limit, ef), []).append(number)
    for (limit, ef), numbers in groups.items():
        group = [queries[number] for number in numbers]
        for number, result in zip(numbers, _search_group(collection, group, limit, ef), strict=True):
            answers[number] = result
    return answers


def search_filtered(collection: Collection, query: SearchQuery, filter: Filter) -> list[Hit]:
    """The nearest points whose payload matches: among the nearest of all if they suffice, else among all."""
    collection.readable()
    if collection.index is None:
        return []
    wanted = min(max(10 * query.limit, 100), FILTER_CANDIDATES_MAX)
    if query.limit <= wanted:
        ef = max(query.ef_search or collection.manifest.index_config.ef_search, wanted)
        near = _required(_search_group(collection, [query], wanted, ef, filter)[0])
        if len(near) >= query.limit:
            return near
    return _search_all(collection, query, filter)


class _Gathered:
    """What is found for one query: its hits, and how many of its labels are gone."""

    def __init__(self, query: SearchQuery, filter: Filter | None) -> None:
        self._query = query
        self._filter = filter
        self._room = query.limit
        self._payload_bytes = 0
        self.hits: list[Hit] = []
        self.gone = 0
        self.error: VecstowError | None = None

    @property
    def result(self) -> _Result:
        """The hits, or why they are not answered."""
        return self.error or self.hits

    @property
    def is_complete(self) -> bool:
        """Whether further labels are not looked at."""
        return not self._room

    def add(self, points: Sequence[tuple[str, bytes | None] | None], distances: Sequence[float]) -> None:
        """Add the points of the next labels, None for one that is gone, and weigh the payloads so far."""
        for point, distance in zip(points, distances, strict=True):
            if point is None:
                self.gone += 1
            elif self._room and (self._filter is None or self._filter.matches(_decode(point[1]))):
                self._room -= 1
                self.hits.append(Hit(point[0], distance, point[1]))
                self._payload_bytes += len(point[1] or b"")
        if self._query.weigh is not None and self.error is None:
            try:
                self._query.weigh(self._payload_bytes)
            except VecstowError as error:
                # A traceback would keep this frame, and with it the payloads that the query may not have.
                self.error = error.with_traceback(None)
                self.hits = []
                self._room = 0


def _search_group(
    collection: Collection, queries: Sequence[SearchQuery], k: int, ef: int, filter: Filter | None = None
) -> list[_Result]:
    """The result of each query, among the `k` nearest those that match the filter.

    Searched again when points were replaced while the graph was searched, or turn out to fail their checks.
    """
    assert collection.index is not None
    vectors = np.stack([query.vector for query in queries])
    wanted = k
    for _ in range(ATTEMPTS_MAX):
        found = _resolve(collection, collection.index.search(vectors, wanted, ef), queries, filter)
        gone = max(gathered.gone for gathered in found)
        if gone == 0:
            break
        collection.hide_withheld()
        wanted = k + AHEAD_FACTOR * gone
    return [gathered.result for gathered in found]


def _resolve(
    collection: Collection, found: Hits, queries: Sequence[SearchQuery], filter: Filter | None = None
) -> list[_Gathered]:
    """Hits with ids and payloads. What a query may not have is dropped before more of it is read."""
    assert collection.store is not None
    valid = found.labels != NO_LABEL
    labels, distances = found.labels[valid], found.distances[valid].tolist()
    owners = np.nonzero(valid)[0].tolist()
    gathered = [_Gathered(query, filter) for query in queries]
    start = 0
    while start < len(labels):
        stop = min(start + RESOLVED_POINTS, len(labels))
        points = collection.store.view.resolve(labels[start:stop])
        read_to = start
        while read_to < stop:
            owner = owners[read_to]
            end = bisect_right(owners, owner, read_to, stop)
            gathered[owner].add(points[read_to - start : end - start], distances[read_to:end])
            read_to = end
        start = stop
        if start < len(labels) and gathered[owners[start]].is_complete:
            start = bisect_right(owners, owners[start])
    return gathered


def _search_all(collection: Collection, query: SearchQuery, filter: Filter) -> list[Hit]:
    """Exact search among all points that match: every payload is looked at.

    Searched again when points among the nearest were replaced meanwhile.
    """
    for _ in range(ATTEMPTS_MAX):
        [gathered] = _resolve(collection, _nearest_matching(collection, query, filter), [query])
        if gathered.gone == 0:
            break
    return _required(gathered.result)


def _nearest_matching(collection: Collection, query: SearchQuery, filter: Filter) -> Hits:
    assert collection.store is not None
    view = collection.store.view
    matching = [label for label, _, payload in view.scan() if filter.matches(_decode(payload))]
    metric = collection.manifest.distance_metric
    queries = exact.prepare(metric, query.vector[None])
    hits = Hits.none(1, query.limit)
    for start in range(0, len(matching), SCAN_BLOCK):
        labels = np.array(matching[start : start + SCAN_BLOCK], np.uint64)
        rows = view.vectors(labels)
        good = ~np.isnan(rows[:, 0])
        block = exact.nearest(metric, queries, exact.prepare(metric, rows[good]), labels[good], query.limit)
        hits = merge(hits, block, query.limit)
    return hits


def _required(result: _Result) -> list[Hit]:
    if isinstance(result, VecstowError):
        raise result
    return result


def _decode(payload: bytes | None) -> dict[str, object] | None:
    return None if payload is None else decode_payload(payload)
