"""Self-recall: the share of a sample of points that the search for their own vectors finds."""

from __future__ import annotations

from typing import Final

import numpy as np

from vecstow_engine.index import exact
from vecstow_engine.index.exact import Labels, Rows
from vecstow_engine.service.collection import Collection

SAMPLE_POINTS: Final = 1000
K: Final = 10
_QUERIES_AT_ONCE: Final = 32
"""Queries of one call: few enough that other searches run between two calls."""
_ROUNDING: Final = 1e-5
"""Relative tolerance of a distance: the graph and the exact search add in different orders."""


def self_recall(collection: Collection, sample_max: int = SAMPLE_POINTS) -> dict[str, object]:
    """Search for a sample of points by their own vectors, at the default ef.

    A point counts as found when it is among the first `k` hits, or when the `k` hits are as near. Returns
    `sample`, `found`, `share` (None for an empty sample), `k` and `ef`. Stores the share in
    `collection.self_recall` for the metrics.
    """
    ef = collection.manifest.index_config.ef_search
    labels, rows = _sample(collection, sample_max)
    found = 0
    for start in range(0, len(labels), _QUERIES_AT_ONCE):
        part = slice(start, start + _QUERIES_AT_ONCE)
        found += _found(collection, rows[part], labels[part], ef)
    share = found / len(labels) if len(labels) else None
    collection.self_recall = share
    return {"sample": len(labels), "found": found, "share": share, "k": K, "ef": ef}


def _sample(collection: Collection, sample_max: int) -> tuple[Labels, Rows]:
    if collection.store is None:
        return np.empty(0, np.uint64), np.empty((0, collection.manifest.dimension), np.float32)
    labels = collection.store.view.labels()
    labels = np.random.default_rng().permutation(labels)[:sample_max]
    rows = collection.store.view.vectors(labels)
    good = ~np.isnan(rows[:, 0])
    return labels[good], rows[good]


def _found(collection: Collection, rows: Rows, labels: Labels, ef: int) -> int:
    assert collection.index is not None
    metric = collection.manifest.distance_metric
    hits = collection.index.search(rows, K, ef)
    prepared = exact.prepare(metric, rows)
    own = exact.distances_of_pairs(metric, prepared, prepared)
    as_near = hits.distances[:, -1] <= own + _ROUNDING * np.maximum(1, np.abs(own))
    return int(np.count_nonzero((hits.labels == labels[:, None]).any(axis=1) | as_near))
