"""The answer to searches: labels from the index become hits, with ids and payloads of the view.

Queries without a filter are answered many at a time. `filtered` answers a query with a filter.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.exact import NO_LABEL, Hits
from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.explanation import Explanation
from vecstow_engine.model.searches import Hit, SearchOptions, SearchQuery
from vecstow_engine.query.matching import matches
from vecstow_engine.query.source import Source
from vecstow_engine.storage.view import View

AHEAD_FACTOR: Final = 8
"""The number of extra labels to search for per label that is gone: damage affects whole pages."""
RESOLVED_POINTS: Final = 128
"""The number of points whose payloads are read before they are weighed: at most 8 MiB."""

Result: TypeAlias = list[Hit] | VecstowError
"""The hits of a query, or the error that this query alone gets."""


def answer_queries(source: Source, queries: Sequence[SearchQuery]) -> list[Result]:
    """Answer unfiltered queries, those of the same limit and ef in one call of the index."""
    answers: list[Result] = [[] for _ in queries]
    groups: dict[tuple[int, int], list[int]] = {}
    for number, query in enumerate(queries):
        ef = query.ef_search or source.manifest.index_config.ef_search
        groups.setdefault((query.limit, ef), []).append(number)
    for (limit, ef), numbers in groups.items():
        group = [queries[number] for number in numbers]
        began = time.perf_counter()
        for number, result in zip(numbers, answer_group(source, group, limit, ef), strict=True):
            answers[number] = result
        for query in group:
            if query.explanation is not None:
                _explain(query.explanation, source, len(group), time.perf_counter() - began)
    return answers


def _explain(explanation: Explanation, source: Source, shared_by: int, seconds: float) -> None:
    explanation.plan, explanation.reason = "graph", "no filter"
    explanation.counts = {"points": source.index.count, "shared_by": shared_by}
    explanation.add("graph and payloads", seconds)


def answer_group(source: Source, queries: Sequence[SearchQuery], k: int, ef: int) -> list[Result]:
    """Return the result of each query, its `k` nearest points.

    The search is repeated when points were replaced during the search, or fail their checks.
    """
    vectors = np.stack([query.vector for query in queries])
    wanted = k
    for attempt in source.attempts():
        with attempt:
            found = resolve(source.view, source.index.search(vectors, wanted, ef), queries)
        gone = max(gathered.gone for gathered in found)
        if gone == 0:
            break
        source.hide_withheld()
        wanted = k + AHEAD_FACTOR * gone
    return [gathered.result for gathered in found]


def required(result: Result) -> list[Hit]:
    """Return the hits; raise the error in their place."""
    if isinstance(result, VecstowError):
        raise result
    return result


def resolve(view: View, found: Hits, queries: Sequence[SearchOptions]) -> list[_Resolved]:
    """Return the hits whose payloads match, with ids and payloads.

    Once a query is refused or complete, no more of it is read.
    """
    valid = found.labels != NO_LABEL
    labels, distances = found.labels[valid], found.distances[valid].tolist()
    owners = np.nonzero(valid)[0].tolist()
    gathered = [_Resolved(query) for query in queries]
    start = 0
    while start < len(labels):
        stop = min(start + RESOLVED_POINTS, len(labels))
        points = view.resolve(labels[start:stop])
        read_to = start
        while read_to < stop:
            owner = owners[read_to]
            end = bisect_right(owners, owner, read_to, stop)
            gathered[owner].add(
                points[read_to - start : end - start], labels[read_to:end], distances[read_to:end]
            )
            read_to = end
        start = stop
        if start < len(labels) and gathered[owners[start]].is_complete:
            start = bisect_right(owners, owners[start])
    return gathered


class _Resolved:
    """The result for one query: its hits, and the number of its labels that are gone."""

    def __init__(self, query: SearchOptions) -> None:
        self._query = query
        self._room = query.limit
        self._payload_bytes = 0
        self._hits: list[Hit] = []
        self._error: VecstowError | None = None
        self.gone = 0

    @property
    def result(self) -> Result:
        """The hits, or the error in their place."""
        return self._error or self._hits

    @property
    def is_complete(self) -> bool:
        """Whether the query needs no further labels."""
        return not self._room

    def add(
        self,
        points: Sequence[tuple[str, bytes | None] | None],
        labels: NDArray[np.uint64],
        distances: Sequence[float],
    ) -> None:
        """Add the points of the next labels, None for one that is gone, and weigh the payloads so far."""
        wanted = self._query.filter
        for point, label, distance in zip(points, labels.tolist(), distances, strict=True):
            if point is None:
                self.gone += 1
            elif self._room and (wanted is None or matches(wanted, *point)):
                self._room -= 1
                payload = self._query.payload.apply(point[1])
                self._hits.append(Hit(point[0], distance, payload, label))
                self._payload_bytes += len(payload or b"")
        if self._query.weigh is not None and self._error is None:
            try:
                self._query.weigh(self._payload_bytes)
            except VecstowError as error:
                # A traceback would keep this frame, and with it the payloads of the refused query.
                self._error = error.with_traceback(None)
                self._hits = []
                self._room = 0
