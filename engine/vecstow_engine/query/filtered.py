"""The answer to searches with a filter: candidates, plan, execution.

Columns say which points may match. The plan compares all of these exactly, or searches the graph for more
points than are wanted and keeps those that may match. Each hit is checked by its payload in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vecstow_engine.index.exact import NO_LABEL, Hits, Labels, merge
from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.explanation import Explanation
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.searches import Hit, SearchQuery
from vecstow_engine.query.candidates import Candidates
from vecstow_engine.query.matching import (
    by_slot,
    cached_candidates,
    find_candidates,
    keep_matching,
    matching_labels,
)
from vecstow_engine.query.planning import Method, Plan, plan_search
from vecstow_engine.query.search import Result, required, resolve
from vecstow_engine.query.source import Source

DOUBTFUL_MAX: Final = 1_000
"""The most points in doubt whose payloads are read before the search."""
DOUBT_FACTOR: Final = 10
DOUBT_CANDIDATES: Final = 100
"""With more points in doubt, at least so many candidates, and so many times the limit, are checked."""
SPARE_HITS: Final = 2
"""The number of hits beyond the limit whose payloads are read, for hits that are gone."""
SPARE_LABELS: Final = 32
"""The number of labels beyond those that are wanted, in place of points that are gone."""
QUICK_MICROSECONDS: Final = 1_000
"""The cost of a plan that may share a thread with searches without a filter."""


FIELDS_SHOWN: Final = 5
FIELD_CHARACTERS_SHOWN: Final = 80
"""An explanation stands in a header, so it names few fields."""


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A search with a filter, its candidates and its plan."""

    query: SearchQuery
    filter: Filter
    candidates: Candidates
    plan: Plan
    note: Explanation

    @property
    def ef(self) -> int:
        """The size of the graph's candidate list."""
        own = self.query.ef_search or self.query.manifest.index_config.ef_search
        return max(own, self.plan.candidates)


def is_quick(source: Source, query: SearchQuery, filter: Filter) -> bool:
    """Whether the filter is answered already, without doubt, and the rest of the search costs little."""
    candidates = cached_candidates(source, filter)
    if candidates is None or candidates.has_doubts:
        return False
    return _plan(query, candidates).microseconds <= QUICK_MICROSECONDS


def answer_filtered(source: Source, query: SearchQuery, filter: Filter) -> list[Hit]:
    """Return the nearest points whose payload matches, nearest first.

    The answer is exact unless the graph was searched and led to enough points that match.
    """
    return required(answer_planned(source, [make_plan(source, query, filter)])[0])


def make_plan(source: Source, query: SearchQuery, filter: Filter) -> Planned:
    """Find the candidates of a search, and choose its plan."""
    note = query.explanation or Explanation()
    with note.step("filter"):
        candidates = without_few_doubts(source, filter, find_candidates(source, filter))
    plan = _plan(query, candidates)
    _describe(note, source, filter, candidates, plan)
    return Planned(query, filter, candidates, plan, note)


def answer_planned(source: Source, searches: Sequence[Planned]) -> list[Result]:
    """Return the result of each search; those with the same plan of the graph share a call of it."""
    answers: list[Result] = [[] for _ in searches]
    groups: dict[tuple[int, int], list[int]] = {}
    for number, search in enumerate(searches):
        if search.plan.method is Method.GRAPH:
            groups.setdefault((search.plan.candidates, search.ef), []).append(number)
        elif search.plan.method is Method.EXACT:
            answers[number] = _exact_result(source, search)
    for (count, ef), numbers in groups.items():
        found = _search_graph(source, [searches[number] for number in numbers], count, ef)
        for number, result in zip(numbers, found, strict=True):
            answers[number] = result
    return answers


def without_few_doubts(source: Source, filter: Filter, candidates: Candidates) -> Candidates:
    """Return candidates without doubt, when only a few payloads must be read for that."""
    if not candidates.has_doubts:
        return candidates
    doubtful = candidates.doubtful
    if len(doubtful) > DOUBTFUL_MAX:
        return candidates
    matching = keep_matching(source.view, doubtful, filter)
    return candidates if matching is None else candidates.settled(matching)


def _wanted(query: SearchQuery, candidates: Candidates) -> int:
    """Return the number of nearest candidates among which the hits are searched."""
    return max(DOUBT_FACTOR * query.limit, DOUBT_CANDIDATES) if candidates.has_doubts else query.limit


def _plan(query: SearchQuery, candidates: Candidates) -> Plan:
    return plan_search(
        wanted=_wanted(query, candidates),
        ef=query.ef_search or query.manifest.index_config.ef_search,
        live=candidates.live_count,
        matching=candidates.possible_count,
        dimension=query.manifest.dimension,
    )


def _describe(note: Explanation, source: Source, filter: Filter, candidates: Candidates, plan: Plan) -> None:
    describe_candidates(note, source, filter, candidates)
    note.plan, note.reason = plan.method.value, plan.reason
    note.counts["candidates"] = plan.candidates


def describe_candidates(note: Explanation, source: Source, filter: Filter, candidates: Candidates) -> None:
    """Set the counts of an explanation, and warn of conditions that no index answers."""
    note.counts = {
        "points": candidates.live_count,
        "matching": candidates.sure_count,
        "in_doubt": candidates.possible_count - candidates.sure_count,
    }
    note.warnings.clear()
    if source.columns is None:
        note.warnings.append("no payload index answers this filter: payloads are read")
    elif unindexed := source.columns.unindexed(filter):
        fields = ", ".join(field[:FIELD_CHARACTERS_SHOWN] for field in unindexed[:FIELDS_SHOWN])
        more = len(unindexed) - FIELDS_SHOWN
        fields += f" and {more} more" if more > 0 else ""
        note.warnings.append(f"no payload index answers the conditions on {fields}: payloads are read")
    elif candidates.has_doubts:
        note.warnings.append(
            "payload indexes leave some points in doubt, whose payloads are read: values of another type "
            "than the index, or datetimes that are compared as text"
        )


def _search_graph(source: Source, searches: Sequence[Planned], count: int, ef: int) -> list[Result]:
    """Return the hits among the `count` nearest of all points that match; search exactly if these are few."""
    queries = [search.query for search in searches]
    note = searches[0].note
    with note.step("graph"):
        found = source.index.search(np.stack([query.vector for query in queries]), count, ef)
    labels = found.labels.copy()
    for line, search in enumerate(searches):
        kept = search.candidates.may_contain(labels[line])
        if not search.candidates.has_doubts:
            kept &= np.cumsum(kept) <= search.query.limit + SPARE_HITS
        labels[line, ~kept] = NO_LABEL
    with note.step("payloads"):
        gathered = resolve(source.view, Hits(labels, found.distances), queries)
    if any(each.gone for each in gathered):
        source.hide_withheld()
    results = []
    for search, each in zip(searches, gathered, strict=True):
        result = each.result
        wanted = min(search.query.limit, search.candidates.possible_count)
        if isinstance(result, list) and (each.gone or len(result) < wanted):
            search.note.plan = Method.EXACT.value
            search.note.reason = "the graph led to too few points that match and are still there"
            result = _exact_result(source, search)
        results.append(result)
    return results


def _exact_result(source: Source, search: Planned) -> Result:
    try:
        return _search_exactly(source, search)
    except VecstowError as error:
        # A traceback would keep this frame, and with it what the search has read.
        return error.with_traceback(None)


def _search_exactly(source: Source, search: Planned) -> list[Hit]:
    """Return the nearest of all points that match, by comparing each that may match.

    Points in doubt are ranked first, and then checked from the nearest on. If that leaves too few, every
    payload in doubt is read. Points that are written meanwhile are compared, too, until none is.
    """
    query, candidates = search.query, search.candidates
    k = _wanted(query, candidates) + SPARE_LABELS
    first, _ = _nearest(source, search, candidates.labels(candidates.possible), k)
    found: Hits | None = first
    is_all = first.k < k
    for attempt in source.attempts():
        with attempt:
            newer = find_candidates(source, search.filter)
            if found is None:
                labels = _matching_labels(source, search, newer)
                found, left_out = _nearest(source, search, labels, k)
                is_all = found.k < k
            else:
                found, left_out = _with_changes(source, search, found, candidates, newer)
            candidates = newer
            shown = found if candidates.has_doubts else _first(found, query.limit + SPARE_HITS)
            with search.note.step("payloads"):
                [gathered] = resolve(source.view, shown, [query])
            hits = required(gathered.result)
        is_short = len(hits) < query.limit
        if not gathered.gone and not left_out and (is_all or not is_short):
            break
        source.hide_withheld()
        if is_short and not is_all:
            found = None
    return hits


def _matching_labels(source: Source, search: Planned, candidates: Candidates) -> Labels:
    """Return the labels of all points that match, ascending by slot; read payloads where there are doubts."""
    if not candidates.has_doubts:
        return candidates.labels(candidates.possible)
    search.note.plan = Method.SCAN.value
    with search.note.step("payloads"):
        return by_slot(matching_labels(source, search.filter))


def _with_changes(
    source: Source, search: Planned, found: Hits, older: Candidates, newer: Candidates
) -> tuple[Hits, int]:
    """Return hits without those that are gone, and with candidates that are newer than `older`.

    Also returns how many of the newer candidates are gone again.
    """
    kept = newer.are_of_moment(found.labels[0])
    found = Hits(found.labels[:, kept], found.distances[:, kept])
    if newer is older:
        return found, 0
    added = newer.labels(newer.possible & newer.changed_since(older))
    added = added[~np.isin(added, found.labels)]
    if not len(added):
        return found, 0
    more, left_out = _nearest(source, search, added, len(added))
    return merge(found, more, found.k + more.k), left_out


def _nearest(source: Source, search: Planned, labels: Labels, k: int) -> tuple[Hits, int]:
    """Return the `k` nearest of these labels, or all when there are fewer, and how many are gone."""
    with search.note.step("compare"):
        hits, left_out = source.index.search_among(search.query.vector[None], labels, k)
    return _first(hits, int(np.count_nonzero(hits.labels != NO_LABEL))), left_out


def _first(hits: Hits, k: int) -> Hits:
    return Hits(hits.labels[:, :k], hits.distances[:, :k])
