"""Searches by example with the strategy `best_score`: near any positive example, and near no negative one.

The candidates are the nearest points of each positive example. The score of a candidate is its distance to
the nearest positive example. A candidate that is nearer to a negative example than to any positive one comes
after all others, the farthest from the negative examples first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index import exact
from vecstow_engine.index.exact import Labels, Rows
from vecstow_engine.model.examples import BestScoreQuery
from vecstow_engine.model.searches import LIMIT_MAX, NO_PAYLOAD, Hit, SearchQuery
from vecstow_engine.query.contents import labels_of, read_vectors, with_contents
from vecstow_engine.query.nearest import enough, growing, hits_of_each
from vecstow_engine.query.ranking import admitted
from vecstow_engine.query.source import Source

SCORED_VALUES: Final = 1_000_000
"""The number of values of candidates' vectors that are read at a time."""


@dataclass(frozen=True, slots=True)
class _Scored:
    """Candidates in the order of their scores."""

    hits: list[Hit]
    preferred: int
    """The number of hits that are as near to a positive example as to any negative one; they come first."""
    gone: int
    """The number of candidates whose labels are gone."""


def answer_best_score(source: Source, query: BestScoreQuery) -> list[Hit]:
    """Return the hits in the order of their scores; search again when points among them are gone."""
    for attempt in source.attempts():
        with attempt:
            scored = _best(source, query)
            chosen = scored.hits[query.offset : query.hits_read]
            hits = with_contents(source, chosen, query, with_payloads=True)
        if not scored.gone and None not in hits:
            break
    return [hit for hit in hits if hit is not None]


def _best(source: Source, query: BestScoreQuery) -> _Scored:
    """Return scored candidates: more of them until enough are preferred, or there are no more."""
    for size in growing(enough(query.hits_read), LIMIT_MAX // len(query.positive)):
        lists = _near_each(source, query, size + len(query.excluded))
        scored = _score(source, query, lists)
        if scored.preferred >= query.hits_read or all(_is_all(query, size, found) for found in lists):
            break
    return scored


def _near_each(source: Source, query: BestScoreQuery, limit: int) -> list[list[Hit]]:
    return hits_of_each(
        source,
        [
            SearchQuery(
                query.manifest, limit, query.ef_search, query.filter, payload=NO_PAYLOAD, vector=vector
            )
            for vector in query.positive
        ],
    )


def _is_all(query: BestScoreQuery, size: int, found: Sequence[Hit]) -> bool:
    """Whether no further point near a positive example can be a hit."""
    if len(found) < size:
        return True
    return query.max_distance is not None and found[-1].distance > query.max_distance


def _score(source: Source, query: BestScoreQuery, lists: Sequence[Sequence[Hit]]) -> _Scored:
    distinct = {hit.id: hit for found in lists for hit in found}
    hits = admitted(list(distinct.values()), query.excluded, None)
    labels = labels_of(hits)
    near, far, present = _distances(source, query, labels)
    behind = far < near
    order = np.lexsort((labels, np.where(behind, -far, near), behind))
    if query.max_distance is not None:
        order = order[near[order] <= query.max_distance]
    order = order[present[order]]
    scored = [Hit(hits[at].id, float(near[at]), None, hits[at].label) for at in order.tolist()]
    return _Scored(scored, int(np.count_nonzero(~behind[order])), int(np.count_nonzero(~present)))


def _distances(source: Source, query: BestScoreQuery, labels: Labels) -> tuple[Rows, Rows, NDArray[np.bool_]]:
    """Return distances to the nearest positive and negative example, and which labels are left; each (n,)."""
    metric = query.manifest.distance_metric
    positive, negative = exact.prepare(metric, query.positive), exact.prepare(metric, query.negative)
    near, far = (np.full(len(labels), np.inf, np.float32) for _ in range(2))
    present = np.zeros(len(labels), np.bool_)
    size = max(1, SCORED_VALUES // query.manifest.dimension)
    for start in range(0, len(labels), size):
        rows, there = read_vectors(source.view, labels[start : start + size])
        places = start + np.flatnonzero(there)
        present[places] = True
        prepared = exact.prepare(metric, rows[there])
        near[places] = exact.distances(metric, positive, prepared).min(axis=0)
        if len(negative):
            far[places] = exact.distances(metric, negative, prepared).min(axis=0)
    return near, far, present
