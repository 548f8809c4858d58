"""Which points are nearest, by the metrics' definitions and in double precision: the oracle of a search.

It shares no code with the engine. Hits are compared by their distances, so that equal ones may come in any
order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.crash.rest import Stored
from vecstow_engine.model.searches import Hit

TOLERANCE = 2e-5
"""Tolerance of a distance computed in float32, for one and each unit of it."""


def distances(metric: str, query: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance of each row (n, d) to the query (d,); shape (n,)."""
    if metric == "Euclidean":
        euclidean: NDArray[np.float64] = np.linalg.norm(rows - query, axis=1)
        return euclidean
    if metric == "Manhattan":
        manhattan: NDArray[np.float64] = np.abs(rows - query).sum(axis=1)
        return manhattan
    products = rows @ query
    if metric == "Cosine":
        products = products / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))
    return 1 - products


def wrong_hits(
    metric: str, query: NDArray[np.float32], limit: int, hits: Sequence[Hit], points: Mapping[str, Stored]
) -> str | None:
    """Return what is wrong with a search's answer, or None: the hits must be the nearest of `points`."""
    told = wrong_distances(metric, query, hits, points)
    if told is not None:
        return told
    nearest = sorted(true_distances(metric, query, points).values())[:limit]
    found = [hit.distance for hit in hits]
    if len(found) != len(nearest):
        return f"{len(found)} hits of {len(nearest)}"
    for place, (distance, wanted) in enumerate(zip(found, nearest, strict=True)):
        if not _is_near(distance, wanted):
            return f"hit {place}, {hits[place].id}, is {distance:g} away; one is there at {wanted:g}"
    return None


def wrong_distances(
    metric: str, query: NDArray[np.float32], hits: Sequence[Hit], points: Mapping[str, Stored]
) -> str | None:
    """Return what is wrong with hits, the nearest or not: an id twice, a stranger, a distance, the order."""
    ids = [hit.id for hit in hits]
    if len(set(ids)) != len(ids):
        return f"a point is found twice: {ids}"
    if strangers := [point_id for point_id in ids if point_id not in points]:
        return f"{strangers[:3]} are found, and not there"
    true = true_distances(metric, query, {point_id: points[point_id] for point_id in ids})
    for hit in hits:
        if not _is_near(hit.distance, true[hit.id]):
            return f"{hit.id} is found at {hit.distance:g}, and is {true[hit.id]:g} away"
    if [hit.distance for hit in hits] != sorted(hit.distance for hit in hits):
        return f"the hits do not come nearest first: {hits}"
    return None


def true_distances(metric: str, query: NDArray[np.float32], points: Mapping[str, Stored]) -> dict[str, float]:
    """By id."""
    if not points:
        return {}
    rows = np.stack([np.frombuffer(data, "<f4") for data, _ in points.values()]).astype(np.float64)
    return dict(zip(points, distances(metric, query.astype(np.float64), rows).tolist(), strict=True))


def _is_near(found: float, wanted: float) -> bool:
    return abs(found - wanted) <= TOLERANCE * (1 + abs(wanted))
