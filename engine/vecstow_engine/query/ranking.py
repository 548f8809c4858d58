"""The choice of hits among the candidates of a search: pure.

    plan         how many candidates a search needs, and what of their payloads
    admitted     the candidates that may be hits
    diverse      maximal marginal relevance (MMR): hits that are near the vector, and far from each other

MMR (Carbonell and Goldstein, The use of MMR, SIGIR 1998) takes one hit at a time. The relevance of a
candidate is -d(vector, candidate), and its similarity to the hits taken so far -d(candidate, nearest hit).
The next hit has the largest (1 - diversity) * relevance - diversity * similarity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from vecstow_engine.index import exact
from vecstow_engine.index.exact import Rows
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.model.searches import NO_PAYLOAD, VECTOR_VALUES_MAX, Hit, SearchQuery
from vecstow_engine.query.nearest import enough


def is_deferred(query: SearchQuery) -> bool:
    """Whether payloads are read after the choice of the hits, because the search drops candidates."""
    return query.offset > 0 or query.diversity > 0


def plan(query: SearchQuery) -> SearchQuery:
    """Return the search for the candidates of `query`; `query` itself when these are its hits."""
    deferred = is_deferred(query)
    if not deferred and not query.excluded:
        return query
    payload = NO_PAYLOAD if deferred else query.payload
    return replace(query, limit=candidates_wanted(query), payload=payload)


def candidates_wanted(query: SearchQuery) -> int:
    """Return the number of candidates among which the hits are chosen."""
    wanted = query.hits_read
    if query.diversity:
        most = max(wanted, VECTOR_VALUES_MAX // query.manifest.dimension)
        wanted = min(enough(wanted), most)
    return wanted + len(query.excluded)


def admitted(hits: Sequence[Hit], excluded: frozenset[str], max_distance: float | None) -> list[Hit]:
    """Return the hits that are not excluded and not beyond the distance."""
    return [
        hit
        for hit in hits
        if hit.id not in excluded and (max_distance is None or hit.distance <= max_distance)
    ]


def diverse(
    metric: DistanceMetric, rows: Rows, relevance: NDArray[np.float64], count: int, diversity: float
) -> list[int]:
    """Return the positions of `count` candidates, in the order of their choice; fewer when there are fewer.

    `rows` are prepared for the metric, shape (n, d); `relevance` has shape (n,). Of equal candidates the
    first is taken.
    """
    chosen: list[int] = []
    apart = np.full(len(rows), np.inf)
    scores = relevance.copy()
    for _ in range(min(count, len(rows))):
        taken = int(np.argmax(scores))
        chosen.append(taken)
        distances = exact.distances(metric, rows[taken : taken + 1], rows)[0]
        apart = np.minimum(apart, distances)
        scores = (1 - diversity) * relevance + diversity * apart
        scores[chosen] = -np.inf
    return chosen
