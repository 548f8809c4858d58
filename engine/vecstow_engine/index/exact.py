"""Distances, hits, and exact search by brute force: the oracle of each approximate index.

Queries and rows must be prepared (`prepare`) for the metric. Temporaries stay below about 32 MiB for any
number of rows. Results beyond the range of float32 are its greatest value, never infinite or NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from vecstow_engine.model.metrics import DistanceMetric

Rows: TypeAlias = npt.NDArray[np.float32]
"""Vectors as rows, C-contiguous, shape (n, dimension)."""
Labels: TypeAlias = npt.NDArray[np.uint64]
"""Names of rows, shape (n,), which hnswlib stores next to them. A label names one row for ever."""
_Positions: TypeAlias = npt.NDArray[np.intp]
_Doubles: TypeAlias = npt.NDArray[np.float64]
_Scale = TypeVar("_Scale", float, _Doubles)
_Floats = TypeVar("_Floats", Rows, _Doubles)

NO_LABEL: Final = np.uint64(2**64 - 1)
"""The padding where a query has fewer than k answers; greater than every label, so it sorts last."""
_SCORE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of the scores of one block (queries x rows)."""
_CACHE_BYTES: Final = 256 * 1024
"""Bytes of rows that are subtracted at a time, so that the difference fits into the processor's cache."""
_FLOAT32_MAX: Final = float(np.finfo(np.float32).max)
_FLOAT32_TINY: Final = float(np.finfo(np.float32).tiny)
_SQUARES_TRUSTED: Final = (1e-30, 1e37)
"""Sums of float32 squares outside this range may have lost terms to underflow or overflow."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The nearest labels of some queries, nearest first, padded with NO_LABEL and infinity."""

    labels: Labels
    """uint64, shape (queries, k)."""
    distances: Rows
    """float32, shape (queries, k)."""

    @classmethod
    def none(cls, queries: int, k: int) -> Hits:
        """Return padding only, shape (queries, k)."""
        return cls(np.full((queries, k), NO_LABEL), np.full((queries, k), np.inf, dtype=np.float32))

    @property
    def k(self) -> int:
        """The number of places of each query, padding included."""
        return int(self.labels.shape[1])


def merge(a: Hits, b: Hits, k: int) -> Hits:
    """Return the k nearest of both for each query; equal distances are ordered by label.

    `a` and `b` answer the same queries and share no label; each may have any number of places.
    """
    labels = np.concatenate((a.labels, b.labels), axis=1)
    distances = np.concatenate((a.distances, b.distances), axis=1)
    return ordered(Hits(labels, distances), k)


def ordered(hits: Hits, k: int) -> Hits:
    """Return the k nearest places of `hits`, which may be in any order, padded when there are fewer."""
    order = np.lexsort((hits.labels, hits.distances), axis=-1)[:, :k]
    labels = np.take_along_axis(hits.labels, order, axis=1)
    distances = np.take_along_axis(hits.distances, order, axis=1)
    return _padded(Hits(labels, distances), k)


def _padded(hits: Hits, k: int) -> Hits:
    """Return hits with k places; `hits` have at most as many."""
    if hits.k == k:
        return hits
    padding = Hits.none(len(hits.labels), k - hits.k)
    return Hits(
        np.concatenate((hits.labels, padding.labels), axis=1),
        np.concatenate((hits.distances, padding.distances), axis=1),
    )


def prepare(metric: DistanceMetric, rows: npt.ArrayLike) -> Rows:
    """Return rows (n, dimension) as the index holds them, float32: for Cosine at unit length, else unchanged.

    A zero row stays zero.
    """
    rows32 = np.ascontiguousarray(np.atleast_2d(rows), dtype=np.float32)
    if metric is not DistanceMetric.COSINE:
        return rows32
    squares = np.einsum("ij,ij->i", rows32, rows32, dtype=np.float64)
    norms = np.sqrt(squares)[:, None]
    unit = np.zeros_like(rows32)
    np.divide(rows32, norms, out=unit, where=norms > 0, casting="same_kind")
    return unit


def distances(metric: DistanceMetric, queries: Rows, rows: Rows) -> Rows:
    """Return all distances, float32, shape (queries, rows)."""
    if metric is DistanceMetric.COSINE:
        cosine: Rows = np.maximum(1 - queries @ rows.T, 0)
        return cosine
    if metric is DistanceMetric.DOT_PRODUCT:
        return _dot_distances(queries, rows)
    result = np.empty((len(queries), len(rows)), dtype=np.float32)
    for part in _parts(len(rows), _CACHE_BYTES // (4 * rows.shape[1])):
        for query, line in zip(queries, result, strict=True):
            line[part] = _direct(metric, query[None], rows[part])
    return result


def distances_of_pairs(metric: DistanceMetric, queries: Rows, rows: Rows) -> Rows:
    """Return the distance (n,) of each query (n, dimension) to the row at the same position."""
    places = np.arange(len(rows))
    return _paired(metric, queries, places, rows, places)


def nearest(
    metric: DistanceMetric, queries: Rows, rows: Rows, labels: Labels, k: int, hits: Hits | None = None
) -> Hits:
    """Return the k nearest rows of each query, equal distances ordered by label, padded to k places.

    `hits` are hits among other rows, with k places; they are merged into the result.
    """
    no_bounds = np.full(len(queries), np.inf, np.float32)
    for part in _parts(len(rows), _SCORE_BYTES // (4 * max(1, len(queries)))):
        bounds = no_bounds if hits is None else hits.distances[:, -1]
        found = _nearest_in_block(metric, queries, rows[part], labels[part], k, bounds)
        if found is not None:
            hits = _padded(found, k) if hits is None else merge(hits, found, k)
    return Hits.none(len(queries), k) if hits is None else hits


def _nearest_in_block(
    metric: DistanceMetric, queries: Rows, rows: Rows, labels: Labels, k: int, bounds: Rows
) -> Hits | None:
    """Do the work of `nearest` for one block of rows; rows beyond each query's bound (q,) may be left out.

    Returns None when all rows are beyond the bounds.

    A matrix product selects a shortlist, and its pairs are then measured one by one. Equal rows therefore get
    equal distances at any place in the matrix, and the rounding of far rows does not hide near ones.
    """
    slacks: float | _Doubles = 0.0
    power = 1
    if metric is DistanceMetric.MANHATTAN:
        scores = distances(metric, queries, rows)
    elif metric is DistanceMetric.EUCLIDEAN:
        scores, slacks = _squares_by_product(queries, rows)
        power = 2
    else:
        scores, slacks = _dots_by_product(metric, queries, rows)
    # First compare two numbers: each search asks this for the few rows outside of its graph.
    if scores.min(initial=np.inf) > float(bounds.max(initial=-np.inf)) ** power + np.max(slacks, initial=0):
        return None
    of_query, of_row = _shortlist(scores, k, bounds.astype(np.float64) ** power + slacks, slacks)
    if metric is DistanceMetric.MANHATTAN:
        measured = scores[of_query, of_row]
    else:
        measured = _paired(metric, queries, of_query, rows, of_row)
    return _first_of_each(len(queries), k, of_query, labels[of_row], measured)


def _shortlist(
    scores: Rows, k: int, limits: _Doubles, slacks: float | _Doubles
) -> tuple[_Positions, _Positions]:
    """Return pairs of a query and a row, by query, that may be among the k least scores within its limit.

    Scores are wrong by at most half of the query's slack.
    """
    within = scores <= _rounded_up(limits)
    if scores.shape[1] > k and np.count_nonzero(within) > 4 * k * len(scores):
        kth = np.partition(scores, k - 1, axis=1)[:, k - 1]
        within &= scores <= _rounded_up(kth.astype(np.float64) + slacks)
    of_query, of_row = np.nonzero(within)
    return of_query, of_row


def _rounded_up(limits: _Doubles) -> Rows:
    """Return the limits as a column of float32, each at least as large as before."""
    with np.errstate(over="ignore"):
        return np.nextafter(limits.astype(np.float32), np.float32(np.inf))[:, None]


def _first_of_each(count: int, k: int, of_query: _Positions, labels: Labels, measured: Rows) -> Hits:
    """Return the k least distances for each of `count` queries, from triples in any order."""
    order = np.lexsort((labels, measured, of_query))
    of_query, labels, measured = of_query[order], labels[order], measured[order]
    rank = np.arange(len(order)) - np.searchsorted(of_query, np.arange(count))[of_query]
    first = rank < k
    hits = Hits.none(count, min(k, int(rank.max(initial=-1)) + 1))
    hits.labels[of_query[first], rank[first]] = labels[first]
    hits.distances[of_query[first], rank[first]] = measured[first]
    return hits


def _squares_by_product(queries: Rows, rows: Rows) -> tuple[Rows, _Doubles]:
    """Return |q|^2 - 2 q.r + |r|^2 (q, n), and for each query twice its error bound (q,)."""
    with np.errstate(all="ignore"):
        query_squares = np.einsum("ij,ij->i", queries, queries)
        row_squares = np.einsum("ij,ij->i", rows, rows)
        scores = query_squares[:, None] + row_squares - 2 * (queries @ rows.T)
        scale = (_roots(query_squares) + _roots(row_squares).max(initial=0)) ** 2
    return _without_overflow(scores, scale, queries.shape[1])


def _dots_by_product(metric: DistanceMetric, queries: Rows, rows: Rows) -> tuple[Rows, float | _Doubles]:
    """Return 1 - q.r (q, n), and twice its error bound, as one number or one per query (q,)."""
    if metric is DistanceMetric.COSINE:  # Rows of unit length cannot overflow.
        return 1 - queries @ rows.T, _slack(2.0, queries.shape[1])
    with np.errstate(all="ignore"):
        scores = 1 - queries @ rows.T
        longest = _roots(np.einsum("ij,ij->i", rows, rows)).max(initial=0)
        scale = 1 + longest * _roots(np.einsum("ij,ij->i", queries, queries))
    return _without_overflow(scores, scale, queries.shape[1])


def _without_overflow(scores: Rows, scale: _Doubles, terms: int) -> tuple[Rows, _Doubles]:
    """Return scores and slacks; after an overflow the slack is infinite, so that any score is accepted."""
    slacks = _slack(scale, terms)
    finite = np.isfinite(scores)
    if finite.all() and np.isfinite(slacks).all():
        return scores, slacks
    lost = ~finite
    slacks[lost.any(axis=1) | ~np.isfinite(slacks)] = np.inf
    scores[lost] = 0
    return scores, slacks


def _slack(scale: _Scale, terms: int) -> _Scale:
    """Return twice the error bound of a float32 dot product of n terms, whose norms multiply to `scale`.

    The error is at most n u |a| |b|, u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 3.1),
    apart from underflow.
    """
    return 2 * (terms + 8) * (2.0**-24 * scale + _FLOAT32_TINY)


def _roots(squares: Rows) -> _Doubles:
    roots: _Doubles = np.sqrt(squares.astype(np.float64))
    return roots


def _dot_distances(queries: Rows, rows: Rows) -> Rows:
    with np.errstate(all="ignore"):
        result: Rows = 1 - queries @ rows.T
    of_query, of_row = np.nonzero(~np.isfinite(result))
    result[of_query, of_row] = _paired(DistanceMetric.DOT_PRODUCT, queries, of_query, rows, of_row)
    return result


def _paired(
    metric: DistanceMetric, queries: Rows, of_query: _Positions, rows: Rows, of_row: _Positions
) -> Rows:
    """Return the distance of each pair (n,)."""
    result = np.empty(len(of_row), dtype=np.float32)
    for part in _parts(len(of_row), _CACHE_BYTES // (4 * rows.shape[1])):
        result[part] = _direct(metric, queries[of_query[part]], rows[of_row[part]])
    return result


def _direct(metric: DistanceMetric, queries: Rows, rows: Rows) -> Rows:
    """Return the distance (n,) of each row, by subtraction where possible, so that equal rows are exactly 0
    apart.

    Queries have shape (1, dimension), or (n, dimension) with one per row. The caller limits n to fit the
    cache.
    """
    with np.errstate(all="ignore"):
        sums = _sums(metric, queries, rows)
        low, high = _SQUARES_TRUSTED if metric is DistanceMetric.EUCLIDEAN else (-np.inf, np.inf)
        lost = np.flatnonzero(~((sums > low) & (sums < high)))
        measured = _from_sums(metric, sums)
        if len(lost):
            wide = np.broadcast_to(queries, rows.shape)[lost].astype(np.float64)
            exact = _from_sums(metric, _sums(metric, wide, rows[lost].astype(np.float64)))
            measured[lost] = np.clip(exact, -_FLOAT32_MAX, _FLOAT32_MAX)
    return measured


def _sums(metric: DistanceMetric, queries: _Floats, rows: _Floats) -> _Floats:
    """Return products, squared differences or absolute differences, summed over each row."""
    sums: _Floats
    if metric in (DistanceMetric.COSINE, DistanceMetric.DOT_PRODUCT):
        sums = np.einsum("ij,ij->i", np.broadcast_to(queries, rows.shape), rows)
        return sums
    difference = rows - queries
    if metric is DistanceMetric.EUCLIDEAN:
        sums = np.einsum("ij,ij->i", difference, difference)
        return sums
    # Twice as fast as a sum along rows, and the same for equal rows, unlike a matrix product.
    sums = np.einsum("ij,j->i", np.abs(difference, out=difference), np.ones(rows.shape[1], rows.dtype))
    return sums


def _from_sums(metric: DistanceMetric, sums: _Floats) -> _Floats:
    measured: _Floats = sums
    if metric is DistanceMetric.EUCLIDEAN:
        measured = np.sqrt(sums)
    elif metric is not DistanceMetric.MANHATTAN:
        measured = 1 - sums
    return np.maximum(measured, 0) if metric is DistanceMetric.COSINE else measured


def _parts(count: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
