"""Searches: those that wait while one call runs are answered together by the next one.

One call at a time per collection, in a fixed number of threads. A search with a filter runs alone, in a
thread of its own: it may have to look at every payload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index import exact
from vecstow_engine.index.hits import NO_LABEL, Hits, merge
from vecstow_engine.model.batch import Hit, Point, SearchQuery
from vecstow_engine.model.errors import Busy
from vecstow_engine.model.filters import Filter
from vecstow_engine.service.collection import Collection

THREADS: Final = 2
GROUP_QUERIES_MAX: Final = 64
GROUP_HITS_MAX: Final = 6400
"""Hits that the searches of one call may ask for together, unless one alone asks for more."""
ATTEMPTS_MAX: Final = 5
AHEAD_FACTOR: Final = 8
"""How many are searched for in the place of one that is gone: damage comes in pages."""
FILTER_CANDIDATES_MAX: Final = 1000
SCAN_BLOCK: Final = 2048
"""Matching rows that are compared at a time."""


_Answer = TypeVar("_Answer")


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
        self._plain = ThreadPoolExecutor(THREADS, thread_name_prefix="search")
        self._filtered = ThreadPoolExecutor(1, thread_name_prefix="filter")
        self._filtered_waiting = 0

    def stop(self) -> None:
        """Start no more searches."""
        self._plain.shutdown(wait=True, cancel_futures=True)
        self._filtered.shutdown(wait=True, cancel_futures=True)

    async def search(self, collection: Collection, query: SearchQuery) -> list[Hit]:
        """The nearest live points, nearest first; raises Busy when too many searches wait."""
        if query.filter is not None:
            return await self._search_filtered(collection, query, query.filter)
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
        call = asyncio.get_running_loop().run_in_executor(
            self._plain, search_many, collection, [query for query, _ in group]
        )
        call.add_done_callback(lambda done: self._finish(collection, batch, group, done))

    def _finish(
        self,
        collection: Collection,
        batch: _Batch,
        group: Sequence[tuple[SearchQuery, asyncio.Future[list[Hit]]]],
        done: asyncio.Future[list[list[Hit]]],
    ) -> None:
        if batch.waiting:
            self._start(collection, batch)
        else:
            batch.running = False
            self._batches.pop(collection, None)
        error = asyncio.CancelledError() if done.cancelled() else done.exception()
        for number, (_, future) in enumerate(group):
            if future.cancelled():
                continue
            if error is None:
                future.set_result(done.result()[number])
            elif isinstance(error, Exception):
                future.set_exception(error)
            else:
                future.cancel()

    async def run(self, call: Callable[..., _Answer], *values: object) -> _Answer:
        """Run a read in the threads of the searches."""
        return await asyncio.get_running_loop().run_in_executor(self._plain, call, *values)

    async def _search_filtered(self, collection: Collection, query: SearchQuery, filter: Filter) -> list[Hit]:
        if self._filtered_waiting >= self._queue_max // 8:
            raise Busy(f"{self._filtered_waiting} filtered searches wait, the limit", retry_after_seconds=1)
        self._filtered_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._filtered, search_filtered, collection, query, filter
            )
        finally:
            self._filtered_waiting -= 1


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


def search_many(collection: Collection, queries: Sequence[SearchQuery]) -> list[list[Hit]]:
    """Answer unfiltered queries, those of the same limit and ef in one call of the index."""
    collection.readable()
    answers: list[list[Hit]] = [[] for _ in queries]
    if collection.index is None:
        return answers
    groups: dict[tuple[int, int], list[int]] = {}
    for number, query in enumerate(queries):
        ef = query.ef_search or collection.manifest.index_config.ef_search
        groups.setdefault((query.limit, ef), []).append(number)
    for (limit, ef), numbers in groups.items():
        vectors = np.stack([queries[number].vector for number in numbers])
        for number, hits in zip(numbers, _search_group(collection, vectors, limit, ef), strict=True):
            answers[number] = hits
    return answers


def search_filtered(collection: Collection, query: SearchQuery, filter: Filter) -> list[Hit]:
    """The nearest points whose payload matches: among the nearest of all if they suffice, else among all."""
    collection.readable()
    if collection.index is None:
        return []
    wanted = min(max(10 * query.limit, 100), FILTER_CANDIDATES_MAX)
    if query.limit <= wanted:
        ef = max(query.ef_search or collection.manifest.index_config.ef_search, wanted)
        near = _search_group(collection, query.vector[None], wanted, ef)[0]
        matching = [hit for hit in near if filter.matches(_decode(hit.payload))]
        if len(matching) >= query.limit:
            return matching[: query.limit]
    return _search_all(collection, query, filter)


def _search_group(
    collection: Collection, vectors: NDArray[np.float32], limit: int, ef: int
) -> list[list[Hit]]:
    """Hits of each vector.

    Searched again when points were replaced while the graph was searched, or turn out to fail their checks.
    """
    assert collection.index is not None
    k = limit
    for _ in range(ATTEMPTS_MAX):
        found = collection.index.search(vectors, k, ef)
        answers, gone = _resolve(collection, found)
        if gone == 0:
            break
        collection.hide_withheld()
        k = limit + AHEAD_FACTOR * gone
    return [hits[:limit] for hits in answers]


def _resolve(collection: Collection, found: Hits) -> tuple[list[list[Hit]], int]:
    """Hits with ids and payloads, and the most that one query lost because they are gone."""
    assert collection.store is not None
    valid = found.labels != NO_LABEL
    points = iter(collection.store.view.resolve(found.labels[valid]))
    distances = iter(found.distances[valid].tolist())
    answers = []
    gone_max = 0
    for count in valid.sum(axis=1).tolist():
        line = [(next(points), next(distances)) for _ in range(count)]
        hits = [Hit(point[0], distance, point[1]) for point, distance in line if point is not None]
        answers.append(hits)
        gone_max = max(gone_max, count - len(hits))
    return answers, gone_max


def _search_all(collection: Collection, query: SearchQuery, filter: Filter) -> list[Hit]:
    """Exact search among all points that match: every payload is looked at.

    Searched again when points among the nearest were replaced meanwhile.
    """
    for _ in range(ATTEMPTS_MAX):
        [answer], gone = _resolve(collection, _nearest_matching(collection, query, filter))
        if gone == 0:
            break
    return answer


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


def _decode(payload: bytes | None) -> dict[str, object] | None:
    return None if payload is None else msgspec.json.decode(payload, type=dict[str, object])
