"""Searches without a filter, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from vecstow_engine.model.batch import SearchQuery
from vecstow_engine.model.filters import Filter
from vecstow_engine.query.resolve import Result, resolve
from vecstow_engine.query.source import Source

ATTEMPTS_MAX: Final = 5
AHEAD_FACTOR: Final = 8
"""The number of extra labels to search for per label that is gone: damage affects whole pages."""


def answer_queries(source: Source, queries: Sequence[SearchQuery]) -> list[Result]:
    """Answer unfiltered queries, those of the same limit and ef in one call of the index."""
    answers: list[Result] = [[] for _ in queries]
    groups: dict[tuple[int, int], list[int]] = {}
    for number, query in enumerate(queries):
        ef = query.ef_search or source.manifest.index_config.ef_search
        groups.setdefault((query.limit, ef), []).append(number)
    for (limit, ef), numbers in groups.items():
        group = [queries[number] for number in numbers]
        for number, result in zip(numbers, answer_group(source, group, limit, ef), strict=True):
            answers[number] = result
    return answers


def answer_group(
    source: Source, queries: Sequence[SearchQuery], k: int, ef: int, filter: Filter | None = None
) -> list[Result]:
    """Return the result of each query: those of its `k` nearest points that match the filter.

    The search is repeated when points were replaced during the search, or fail their checks.
    """
    vectors = np.stack([query.vector for query in queries])
    wanted = k
    for _ in range(ATTEMPTS_MAX):
        found = resolve(source.view, source.index.search(vectors, wanted, ef), queries, filter)
        gone = max(gathered.gone for gathered in found)
        if gone == 0:
            break
        source.hide_withheld()
        wanted = k + AHEAD_FACTOR * gone
    return [gathered.result for gathered in found]
