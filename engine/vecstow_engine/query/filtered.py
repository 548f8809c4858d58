"""Searches with a filter: among the nearest points if enough of them match, else among all points."""

from __future__ import annotations

from typing import Final

import numpy as np

from vecstow_engine.index import exact
from vecstow_engine.index.hits import Hits, merge
from vecstow_engine.model.batch import Hit, SearchQuery
from vecstow_engine.model.filters import Filter
from vecstow_engine.query.resolve import decoded, required, resolve
from vecstow_engine.query.source import Source
from vecstow_engine.query.unfiltered import ATTEMPTS_MAX, answer_group

CANDIDATES_MAX: Final = 1000
SCAN_BLOCK: Final = 2048
"""The number of matching rows that are compared at a time."""


def answer_filtered(source: Source, query: SearchQuery, filter: Filter) -> list[Hit]:
    """Return the nearest points whose payload matches.

    Search the nearest of all points first, and all points when too few of those match.
    """
    wanted = min(max(10 * query.limit, 100), CANDIDATES_MAX)
    if query.limit <= wanted:
        ef = max(query.ef_search or source.manifest.index_config.ef_search, wanted)
        near = required(answer_group(source, [query], wanted, ef, filter)[0])
        if len(near) >= query.limit:
            return near
    return _scan_all(source, query, filter)


def _scan_all(source: Source, query: SearchQuery, filter: Filter) -> list[Hit]:
    """Search all points that match, exactly; read the payload of every point.

    The search is repeated when points among the nearest were replaced meanwhile.
    """
    for _ in range(ATTEMPTS_MAX):
        [gathered] = resolve(source.view, _nearest_matching(source, query, filter), [query])
        if gathered.gone == 0:
            break
    return required(gathered.result)


def _nearest_matching(source: Source, query: SearchQuery, filter: Filter) -> Hits:
    view = source.view
    matching = [label for label, _, payload in view.scan() if filter.matches(decoded(payload))]
    metric = source.manifest.distance_metric
    queries = exact.prepare(metric, query.vector[None])
    hits = Hits.none(1, query.limit)
    for start in range(0, len(matching), SCAN_BLOCK):
        labels = np.array(matching[start : start + SCAN_BLOCK], np.uint64)
        rows = view.vectors(labels)
        good = ~np.isnan(rows[:, 0])
        block = exact.nearest(metric, queries, exact.prepare(metric, rows[good]), labels[good], query.limit)
        hits = merge(hits, block, query.limit)
    return hits
