"""The nearest points that match, which are the candidates for the hits of a search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from vecstow_engine.model.searches import Hit, SearchQuery
from vecstow_engine.query.filtered import answer_filtered, answer_planned, make_plan
from vecstow_engine.query.search import Result, answer_queries, required
from vecstow_engine.query.source import Source

GROWTH: Final = 4
CANDIDATES_MIN: Final = 64
"""The least number of candidates of a search that chooses among more than it answers."""


def enough(hits: int) -> int:
    """Return the number of candidates to begin with, for a search that answers so many hits."""
    return max(GROWTH * hits, CANDIDATES_MIN)


def growing(first: int, most: int) -> Iterator[int]:
    """Yield growing numbers of candidates: `first`, each four times the one before it, and `most`."""
    while first < most:
        yield first
        first *= GROWTH
    yield most


def nearest_hits(source: Source, query: SearchQuery) -> list[Hit]:
    """Return the `limit` nearest points that match, nearest first; fewer when no more match."""
    if query.filter is not None:
        return answer_filtered(source, query, query.filter)
    return required(answer_queries(source, [query])[0])


def hits_of_each(source: Source, queries: Sequence[SearchQuery]) -> list[list[Hit]]:
    """Return the nearest points of each query; queries of the same plan share a call of the index."""
    return [required(result) for result in results_of_each(source, queries)]


def results_of_each(source: Source, queries: Sequence[SearchQuery]) -> list[Result]:
    """Return the nearest points of each query, or the error that it gets, as `hits_of_each`."""
    planned = {
        at: make_plan(source, query, query.filter)
        for at, query in enumerate(queries)
        if query.filter is not None
    }
    plain = [query for query in queries if query.filter is None]
    of_planned = iter(answer_planned(source, list(planned.values())))
    of_plain = iter(answer_queries(source, plain))
    return [next(of_planned if at in planned else of_plain) for at in range(len(queries))]
