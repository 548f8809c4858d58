"""Reciprocal rank fusion of ranked lists (Cormack, Clarke and Büttcher, SIGIR 2009). Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

_Key = TypeVar("_Key", bound=Hashable)


def fuse(rankings: Sequence[Sequence[_Key]], weights: Sequence[float], k: float) -> list[tuple[_Key, float]]:
    """Return all keys with their scores, best first: the sum of weight / (k + rank), ranks from 1.

    Each list has a weight; a list of weight 0 counts as empty. Equal scores keep the order of the first list
    that has one of the keys.
    """
    scores: dict[_Key, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        if weight:
            for rank, key in enumerate(ranking, 1):
                scores[key] = scores.get(key, 0.0) + weight / (k + rank)
    return sorted(scores.items(), key=lambda scored: -scored[1])
