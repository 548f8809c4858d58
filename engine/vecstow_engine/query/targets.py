"""The vectors of a search by example: read from stored points, and averaged. Pure, apart from the read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from vecstow_engine.index import exact
from vecstow_engine.model.examples import (
    BestScoreQuery,
    Example,
    ExampleSearch,
    NearQuery,
    NearSearch,
    Strategy,
)
from vecstow_engine.model.queries import Query, Search
from vecstow_engine.model.searches import SearchQuery, no_such_point
from vecstow_engine.model.text_searches import TextSearch
from vecstow_engine.storage.view import View


def aim(view: View | None, searches: Sequence[Search]) -> list[Query]:
    """Return the searches with the vectors of their examples; `view` is None for a collection without data.

    Raises NotFound for an id without a point, Unavailable for a point that is withheld, and InvalidInput for
    examples whose average is no vector to search for.
    """
    nears = [search.near if isinstance(search, TextSearch) else search for search in searches]
    ids = {point_id for near in nears if isinstance(near, ExampleSearch) for point_id in near.ids}
    vectors: dict[str, NDArray[np.float32]] = {}
    if view is not None and ids:
        vectors = {point.id: point.vector for point in view.get(list(ids)) if point is not None}
    return [_aimed(search, vectors) for search in searches]


def _aimed(search: Search, vectors: Mapping[str, NDArray[np.float32]]) -> Query:
    if not isinstance(search, TextSearch):
        return _aimed_near(search, vectors)
    near = None if search.near is None else _aimed_near(search.near, vectors)
    assert not isinstance(near, BestScoreQuery)
    return search.query(near)


def _aimed_near(search: NearSearch, vectors: Mapping[str, NDArray[np.float32]]) -> NearQuery:
    if isinstance(search, SearchQuery):
        return search
    options = search.options
    for point_id in search.ids:
        if point_id not in vectors:
            raise no_such_point(search.manifest.name, point_id)
    positive, negative = (
        _stacked(examples, vectors, search.manifest.dimension)
        for examples in (search.positive, search.negative)
    )
    excluded = frozenset(search.ids)
    if search.strategy is Strategy.BEST_SCORE:
        return BestScoreQuery(*astuple(options), positive=positive, negative=negative, excluded=excluded)
    return options.query(_average(search, positive, negative), search.field, excluded)


def _stacked(
    examples: Sequence[Example], vectors: Mapping[str, NDArray[np.float32]], dimension: int
) -> NDArray[np.float32]:
    """Return the vectors of examples, shape (n, d)."""
    rows = [vectors[example] if isinstance(example, str) else example for example in examples]
    return np.array(rows, np.float32).reshape(-1, dimension)


def _average(
    search: ExampleSearch, positive: NDArray[np.float32], negative: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the mean of the positive examples, moved away from the mean of the negative ones, shape (d,).

    For Cosine, each example counts with its direction alone. A single example is returned as it is.
    """
    if len(positive) == 1 and not len(negative):
        return positive.reshape(-1)
    metric = search.manifest.distance_metric
    mean: NDArray[np.float64] = exact.prepare(metric, positive).mean(axis=0, dtype=np.float64)
    if len(negative):
        mean += mean - exact.prepare(metric, negative).mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)
