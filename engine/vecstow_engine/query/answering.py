"""The answer to a search, in steps: plan, candidates, choice, contents.

    plan         `query/ranking.py`: pure
    candidates   `query/search.py`: the nearest points, with or without a filter
    choice       `query/ranking.py`: pure, apart from the vectors that it compares
    contents     `query/contents.py`: vectors and payloads of the hits

When labels are gone before their contents are read, the search is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import numpy as np

from vecstow_engine.index import exact
from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.examples import BestScoreQuery
from vecstow_engine.model.queries import Query
from vecstow_engine.model.searches import Hit, SearchQuery
from vecstow_engine.model.text_searches import TextQuery
from vecstow_engine.query.best_score import answer_best_score
from vecstow_engine.query.contents import labels_of, read_vectors, with_contents
from vecstow_engine.query.filtered import is_quick
from vecstow_engine.query.nearest import nearest_hits, results_of_each
from vecstow_engine.query.ranking import admitted, diverse, is_deferred, plan
from vecstow_engine.query.search import Result
from vecstow_engine.query.source import Source
from vecstow_engine.query.text_search import answer_text


def shares_calls(query: Query, source: Source | None) -> TypeGuard[SearchQuery]:
    """Whether a search may share a call of the index with others, because it is about as fast as they are."""
    if not isinstance(query, SearchQuery) or query.diversity:
        return False
    return query.filter is None or (source is not None and is_quick(source, query, query.filter))


def answer_together(source: Source, queries: Sequence[SearchQuery]) -> list[Result]:
    """Return the result of each search; the searches share calls of the index."""
    found = results_of_each(source, [plan(query) for query in queries])
    return [_result(source, query, result) for query, result in zip(queries, found, strict=True)]


def answer_alone(source: Source, query: Query) -> list[Hit]:
    """Return the hits of one search of any kind, nearest first or in the order of its choice."""
    if isinstance(query, BestScoreQuery):
        return answer_best_score(source, query)
    if isinstance(query, TextQuery):
        return answer_text(source, query)
    return _complete(source, query, nearest_hits(source, plan(query)))


def _result(source: Source, query: SearchQuery, result: Result) -> Result:
    if isinstance(result, VecstowError):
        return result
    try:
        return _complete(source, query, result)
    except VecstowError as error:
        return error.with_traceback(None)


def _complete(source: Source, query: SearchQuery, found: list[Hit] | None) -> list[Hit]:
    """Return the hits among the candidates `found`; search again when points among these are gone."""
    for attempt in source.attempts():
        with attempt:
            if found is None:
                found = nearest_hits(source, plan(query))
            chosen, gone = _choose(source, query, found)
            hits = with_contents(source, chosen, query, with_payloads=is_deferred(query))
        if not gone and None not in hits:
            break
        found = None
    return [hit for hit in hits if hit is not None]


def _choose(source: Source, query: SearchQuery, found: list[Hit]) -> tuple[list[Hit], int]:
    """Return the hits among the candidates, and how many candidates are gone."""
    if query.excluded or query.max_distance is not None:
        found = admitted(found, query.excluded, query.max_distance)
    gone = 0
    if query.diversity and found:
        rows, present = read_vectors(source.view, labels_of(found))
        found = [hit for hit, is_present in zip(found, present.tolist(), strict=True) if is_present]
        gone = len(rows) - len(found)
        metric = query.manifest.distance_metric
        relevance = np.array([-hit.distance for hit in found], np.float64)
        prepared = exact.prepare(metric, rows[present])
        order = diverse(metric, prepared, relevance, query.hits_read, query.diversity)
        found = [found[at] for at in order]
    return found[query.offset : query.hits_read], gone
