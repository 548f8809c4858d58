"""The answer to a search with a filter: candidates, plan, execution.

Columns say which points may match. The plan compares all of these exactly, or searches the graph for more
points than are wanted and keeps those that may match. Each hit is checked by its payload in the end.
"""

from __future__ import annotations

from typing import Final

from vecstow_engine.index.exact import Hits, Labels
from vecstow_engine.model.explanation import Explanation
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.searches import Hit, SearchQuery
from vecstow_engine.query.candidates import Candidates
from vecstow_engine.query.matching import (
    ATTEMPTS_MAX,
    by_slot,
    find_candidates,
    keep_matching,
    matching_labels,
)
from vecstow_engine.query.planning import CANDIDATES_MAX, Method, Plan, plan_search
from vecstow_engine.query.search import required, resolve
from vecstow_engine.query.source import Source

DOUBTFUL_MAX: Final = 1_000
"""The most points in doubt whose payloads are read before the search."""
DOUBT_FACTOR: Final = 10
DOUBT_CANDIDATES: Final = 100
"""With more points in doubt, at least so many candidates, and so many times the limit, are checked."""


def answer_filtered(source: Source, query: SearchQuery, filter: Filter) -> list[Hit]:
    """Return the nearest points whose payload matches, nearest first.

    The answer is exact unless the graph was searched and led to enough points that match.
    """
    note = query.explanation or Explanation()
    with note.step("filter"):
        candidates = _without_few_doubts(source, filter, find_candidates(source, filter))
    plan = _plan(source, query, candidates)
    _describe(note, source, filter, candidates, plan)
    if plan.method is Method.NONE:
        return []
    if plan.method is Method.GRAPH:
        hits = _search_graph(source, query, filter, candidates, plan.candidates, note)
        if len(hits) >= min(query.limit, candidates.possible_count):
            return hits
        note.plan, note.reason = Method.EXACT.value, "the graph led to too few points that match"
    return _search_exactly(source, query, filter, candidates, note)


def _without_few_doubts(source: Source, filter: Filter, candidates: Candidates) -> Candidates:
    """Return candidates without doubt, when only a few payloads must be read for that."""
    doubtful = candidates.doubtful
    if not 0 < len(doubtful) <= DOUBTFUL_MAX:
        return candidates
    matching = keep_matching(source.view, doubtful, filter)
    return candidates if matching is None else candidates.settled(matching)


def _plan(source: Source, query: SearchQuery, candidates: Candidates) -> Plan:
    doubts = candidates.sure_count < candidates.possible_count
    wanted = max(DOUBT_FACTOR * query.limit, DOUBT_CANDIDATES) if doubts else query.limit
    return plan_search(
        wanted=wanted,
        ef=query.ef_search or source.manifest.index_config.ef_search,
        live=candidates.live_count,
        matching=candidates.possible_count,
        dimension=source.manifest.dimension,
    )


def _describe(note: Explanation, source: Source, filter: Filter, candidates: Candidates, plan: Plan) -> None:
    note.plan, note.reason = plan.method.value, plan.reason
    note.counts = {
        "points": candidates.live_count,
        "matching": candidates.sure_count,
        "in_doubt": candidates.possible_count - candidates.sure_count,
        "candidates": plan.candidates,
    }
    if source.columns is None:
        note.warnings.append("no payload index answers this filter: payloads are read")
    elif unindexed := source.columns.unindexed(filter):
        fields = ", ".join(unindexed)
        note.warnings.append(f"no payload index has {fields}: payloads are read for its conditions")


def _search_graph(
    source: Source, query: SearchQuery, filter: Filter, candidates: Candidates, count: int, note: Explanation
) -> list[Hit]:
    """Return those hits among the `count` nearest of all points that match."""
    ef = max(query.ef_search or source.manifest.index_config.ef_search, count)
    with note.step("graph"):
        found = source.index.search(query.vector[None], min(count, CANDIDATES_MAX), ef)
    labels, distances = found.labels[0], found.distances[0]
    kept = candidates.may_contain(labels)
    with note.step("payloads"):
        [gathered] = resolve(source.view, Hits(labels[kept][None], distances[kept][None]), [query], filter)
    if gathered.gone:
        source.hide_withheld()
    return required(gathered.result)


def _search_exactly(
    source: Source, query: SearchQuery, filter: Filter, candidates: Candidates, note: Explanation
) -> list[Hit]:
    """Return the nearest of all points that match, by comparing each that may match.

    Points in doubt are ranked first, and then checked from the nearest on. If that leaves too few, every
    payload in doubt is read. The search is repeated when points among the nearest were replaced meanwhile.
    """
    for _ in range(ATTEMPTS_MAX):
        doubts = candidates.possible_count - candidates.sure_count
        k = query.limit if not doubts else max(DOUBT_FACTOR * query.limit, DOUBT_CANDIDATES)
        labels = candidates.labels(candidates.possible)
        hits, gone = _nearest_hits(source, query, filter, labels, k, note)
        if len(hits) < query.limit and doubts and len(labels) > k and not gone:
            note.plan = Method.SCAN.value
            with note.step("payloads"):
                labels = by_slot(matching_labels(source, filter))
            hits, gone = _nearest_hits(source, query, filter, labels, query.limit, note)
        if not gone:
            break
        source.hide_withheld()
        candidates = find_candidates(source, filter)
    return hits


def _nearest_hits(
    source: Source, query: SearchQuery, filter: Filter, labels: Labels, k: int, note: Explanation
) -> tuple[list[Hit], int]:
    """Return the hits that match among the `k` nearest of these labels, and how many labels are gone."""
    with note.step("compare"):
        found = source.index.search_among(query.vector[None], labels, k)
    with note.step("payloads"):
        [gathered] = resolve(source.view, found, [query], filter)
    return required(gathered.result), gathered.gone
