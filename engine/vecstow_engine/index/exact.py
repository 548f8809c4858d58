"""Distances and exact search by brute force: the oracle of every approximate index.

Both queries and rows must be prepared (`prepare`) for the metric. Temporaries stay below about 32 MiB
whatever the number of rows. Results beyond float32's range are its greatest value, never infinite or NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from vecstow_engine.index.hits import Hits, Labels, Rows, merge, ordered
from vecstow_engine.model.metrics import DistanceMetric

_SCORE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of one block's scores (queries x rows)."""
_CACHE_BYTES: Final = 256 * 1024
"""Bytes of rows that are subtracted at a time, so that the difference stays in the processor's cache."""
_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
_SQUARES_TRUSTED: Final = (1e-30, 1e37)
"""Sums of float32 squares outside this range may have lost terms to underflow or overflow."""


def prepare(metric: DistanceMetric, rows: npt.ArrayLike) -> Rows:
    """Rows as the index holds them: of unit length for Cosine (a zero row stays zero), else as they are."""
    rows32 = np.ascontiguousarray(np.atleast_2d(rows), dtype=np.float32)
    if metric is not DistanceMetric.COSINE:
        return rows32
    squares = np.einsum("ij,ij->i", rows32, rows32, dtype=np.float64)
    norms = np.sqrt(squares)[:, None]
    unit = np.zeros_like(rows32)
    np.divide(rows32, norms, out=unit, where=norms > 0, casting="same_kind")
    return unit


def distances(metric: DistanceMetric, queries: Rows, rows: Rows) -> Rows:
    """All distances, float32, shape (queries, rows)."""
    if metric is DistanceMetric.COSINE:
        cosine: Rows = np.maximum(1 - queries @ rows.T, 0)
        return cosine
    if metric is DistanceMetric.DOT_PRODUCT:
        return _dot_distances(queries, rows)
    result = np.empty((len(queries), len(rows)), dtype=np.float32)
    for part in _parts(len(rows), _CACHE_BYTES // (4 * rows.shape[1])):
        for query, line in zip(queries, result, strict=True):
            line[part] = _direct(metric, query, rows[part])
    return result


def nearest(metric: DistanceMetric, queries: Rows, rows: Rows, labels: Labels, k: int) -> Hits:
    """The k nearest rows of each query, equal distances ordered by label; padded to k places."""
    hits = Hits.none(len(queries), k)
    for part in _parts(len(rows), _SCORE_BYTES // (4 * max(1, len(queries)))):
        hits = merge(hits, _nearest_in_block(metric, queries, rows[part], labels[part], k), k)
    return hits


def _nearest_in_block(metric: DistanceMetric, queries: Rows, rows: Rows, labels: Labels, k: int) -> Hits:
    """As `nearest`, for few enough rows. Euclidean distances are shortlisted by one matrix product."""
    euclidean = metric is DistanceMetric.EUCLIDEAN
    slack = np.zeros(len(queries))
    if euclidean:
        scores, slack = _squares_by_product(queries, rows)
    else:
        scores = distances(metric, queries, rows)
    found = Hits.none(len(queries), min(k, len(rows)))
    for i, query in enumerate(queries):
        chosen = _shortlist(scores[i], k, slack[i])
        exact = _direct(metric, query, rows[chosen]) if euclidean else scores[i, chosen]
        best = ordered(Hits(labels[None, chosen], exact[None]), found.k)
        found.labels[i], found.distances[i] = best.labels[0], best.distances[0]
    return found


def _shortlist(scores: Rows, k: int, slack: float) -> npt.NDArray[np.intp]:
    """Positions of every score that may belong to the k least when scores are off by half of `slack`."""
    if len(scores) <= k or not np.isfinite(slack):
        return np.arange(len(scores))
    bound = np.partition(scores, k - 1)[k - 1]
    return np.flatnonzero(scores <= bound + slack)


def _squares_by_product(queries: Rows, rows: Rows) -> tuple[Rows, npt.NDArray[np.float64]]:
    """|q|^2 - 2 q.r + |r|^2 (q, n), and per query twice the error bound of it.

    A float32 dot product of n terms errs by at most n u |a| |b|, u = 2^-24 (Higham, Accuracy and Stability of
    Numerical Algorithms, 3.1), besides underflow. The slack is infinite when a square overflows.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        query_squares = np.einsum("ij,ij->i", queries, queries)
        row_squares = np.einsum("ij,ij->i", rows, rows)
        scores = query_squares[:, None] + row_squares - 2 * (queries @ rows.T)
        norms = np.sqrt(query_squares.astype(np.float64)) + np.sqrt(np.float64(row_squares.max(initial=0)))
        terms = queries.shape[1] + 8
        slack = 2 * terms * (2.0**-24 * norms**2 + float(np.finfo(np.float32).tiny))
    slack[~np.isfinite(scores).all(axis=1)] = np.inf
    return scores, slack


def _dot_distances(queries: Rows, rows: Rows) -> Rows:
    with np.errstate(over="ignore", invalid="ignore"):
        result: Rows = 1 - queries @ rows.T
        for i in np.flatnonzero(~np.isfinite(result).all(axis=1)):
            lost = np.flatnonzero(~np.isfinite(result[i]))
            for part in _parts(len(lost), _CACHE_BYTES // (8 * rows.shape[1])):
                exact = 1 - rows[lost[part]].astype(np.float64) @ queries[i].astype(np.float64)
                result[i, lost[part]] = np.clip(exact, -_FLOAT32_MAX, _FLOAT32_MAX)
    return result


def _direct(metric: DistanceMetric, query: Rows, rows: Rows) -> Rows:
    """Euclidean or Manhattan distances (n,) by subtraction, so that equal vectors are exactly 0 apart."""
    result = np.empty(len(rows), dtype=np.float32)
    for part in _parts(len(rows), _CACHE_BYTES // (4 * rows.shape[1])):
        result[part] = _direct_in_cache(metric, query, rows[part])
    return result


def _direct_in_cache(metric: DistanceMetric, query: Rows, rows: Rows) -> Rows:
    sums: Rows
    with np.errstate(over="ignore", under="ignore"):
        difference = rows - query
        if metric is DistanceMetric.MANHATTAN:
            sums = np.abs(difference, out=difference).sum(axis=1)
            lost = np.flatnonzero(~np.isfinite(sums))
        else:
            sums = np.einsum("ij,ij->i", difference, difference)
            low, high = _SQUARES_TRUSTED
            lost = np.flatnonzero(~((sums > low) & (sums < high)))
            sums = np.sqrt(sums)
        if len(lost):
            sums[lost] = _direct_in_double(metric, query, rows[lost])
    return sums


def _direct_in_double(metric: DistanceMetric, query: Rows, rows: Rows) -> Rows:
    difference = rows.astype(np.float64) - query
    if metric is DistanceMetric.MANHATTAN:
        wide = np.abs(difference).sum(axis=1)
    else:
        wide = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    narrow: Rows = np.minimum(wide, _FLOAT32_MAX).astype(np.float32)
    return narrow


def _parts(count: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
