"""Grouped searches: the nearest points of each of the nearest values of a payload field.

1. The candidates are the nearest points, more of them until the groups are complete. With a payload index of
   the field, they need only contain all groups.
2. When 10,000 candidates do not suffice, all matching points are compared exactly: those of the incomplete
   groups, or all that have the field while groups are missing. Their payloads are read in the order of their
   distances, until the groups are complete.

Candidates keep only the field of their payloads, and hits of groups keep none. The contents of the hits are
read at the end. The values of groups are weighed like payloads.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

import numpy as np
from msgspec.structs import replace

from vecstow_engine.index import exact
from vecstow_engine.index.exact import Labels, Rows
from vecstow_engine.model.filters import And, Condition, Filter, Node, Or
from vecstow_engine.model.groups import Group, GroupSearch, Key, Value, group_key, group_values
from vecstow_engine.model.payloads import PayloadChoice, decode_payload, field_reader
from vecstow_engine.model.searches import LIMIT_MAX, Hit, SearchQuery
from vecstow_engine.query.contents import read_vectors, weigh, with_contents
from vecstow_engine.query.matching import matching_labels
from vecstow_engine.query.nearest import enough, growing, nearest_hits
from vecstow_engine.query.search import RESOLVED_POINTS
from vecstow_engine.query.source import Source

COMPARED_VALUES: Final = 1_000_000
"""The number of values of vectors that are compared at a time."""
NAMED_VALUES_MAX: Final = 100
"""The largest number of incomplete groups whose points a filter finds by their values."""


def answer_groups(source: Source, query: SearchQuery, search: GroupSearch) -> list[Group]:
    """Return the groups, those with the nearest hits first; `query` is the search with its vector.

    The search is repeated when points among the hits are gone.
    """
    for undisturbed in source.attempts():
        groups: list[Group] = []  # Those of an attempt before are not kept.
        with undisturbed:
            groups, gone = _answer_once(source, query, search)
        if not gone:
            break
    return [group for group in groups if group.hits]


def _answer_once(source: Source, query: SearchQuery, search: GroupSearch) -> tuple[list[Group], int]:
    """Return the groups of one attempt, and the number of points that were gone."""
    attempt = _Attempt(source, query, search)
    members = attempt.members()
    groups = members.nearest_first()[query.offset :]
    hits = [hit for group in groups for hit in group.hits]
    beyond = _weighed_beyond(query, members.held_bytes)
    contents = with_contents(source, hits, beyond, with_payloads=True)
    read = iter(contents)
    filled = [
        Group(group.value, [hit for hit in islice(read, len(group.hits)) if hit is not None])
        for group in groups
    ]
    return filled, attempt.gone + contents.count(None)


def _weighed_beyond(query: SearchQuery, held_bytes: int) -> SearchQuery:
    """Return the query, which weighs its hits together with bytes that are held already."""
    given = query.weigh
    return query if given is None else replace(query, weigh=lambda found: given(held_bytes + found))


class _Members:
    """The nearest hits of each group, without payloads. Hits are added nearest first."""

    def __init__(
        self, query: SearchQuery, wanted: int, size: int, only: Collection[Key] | None = None
    ) -> None:
        """Collect `wanted` groups of `size` hits; with `only`, those of these keys. `query` weighs values."""
        self._query = query
        self.held_bytes = 0
        """The bytes of the values."""
        self.other_bytes = 0
        """The bytes that are held meanwhile, apart from the values."""
        self._wanted = wanted
        self._size = size
        self._only = only
        self._full = 0
        self.groups: dict[Key, Group] = {}

    def add(self, hit: Hit, values: Iterable[Value]) -> None:
        """Add a hit to the groups of its values that have room, and begin groups while any are wanted.

        Raises the errors of `query.weigh`.
        """
        for value in values:
            key = group_key(value)
            if key not in self.groups:
                if len(self.groups) == self._wanted or (self._only is not None and key not in self._only):
                    continue
                self.held_bytes += sys.getsizeof(value)
                weigh(self._query, self.other_bytes + self.held_bytes)
                self.groups[key] = Group(value, [])
            hits = self.groups[key].hits
            if len(hits) < self._size:
                hits.append(replace(hit, payload=None))
                self._full += len(hits) == self._size

    @property
    def is_complete(self) -> bool:
        """Whether no further hit is wanted."""
        return self._full == self._wanted

    @property
    def has_all_groups(self) -> bool:
        """Whether no further group is wanted."""
        return len(self.groups) == self._wanted

    def unfilled(self) -> dict[Key, Value]:
        """Return the values of the groups that want further hits."""
        return {key: group.value for key, group in self.groups.items() if len(group.hits) < self._size}

    def complete(self, found: _Members) -> None:
        """Take the groups of `found` in place of those of the same keys."""
        self.groups.update(found.groups)
        self.held_bytes += found.held_bytes

    def nearest_first(self) -> list[Group]:
        """Return the groups, the nearest first."""
        return sorted(self.groups.values(), key=lambda group: group.hits[0].distance)


class _Attempt:
    """One attempt at a grouped search."""

    def __init__(self, source: Source, query: SearchQuery, search: GroupSearch) -> None:
        self._source = source
        self._query = query
        self._search = search
        self._field = PayloadChoice((search.group_by,))
        self._read = field_reader(search.group_by)
        self.gone = 0
        """The number of points that were replaced or failed their checks during the attempt."""

    def members(self) -> _Members:
        """Return the groups, those of `offset` included."""
        wanted, size = self._query.hits_read, self._search.group_size
        for number in growing(enough(wanted * size), LIMIT_MAX):
            members = _Members(self._query, wanted, size)
            if self._gather_candidates(members, number):
                return members
            if members.has_all_groups and self._is_indexed:
                break
        if members.has_all_groups:
            self._complete(members)
        else:
            members = _Members(self._query, wanted, size)
            self._gather(members, self._by_distance(self._filter(None)))
        return members

    def _gather_candidates(self, members: _Members, number: int) -> bool:
        """Gather the groups among so many candidates; return whether no other point can change them."""
        limit = number + len(self._query.excluded)
        found = nearest_hits(self._source, replace(self._query, limit=limit, payload=self._field))
        members.other_bytes = sum(len(hit.payload or b"") for hit in found)
        self._gather(members, found)
        return members.is_complete or len(found) < limit or self._is_beyond(found[-1])

    @property
    def _is_indexed(self) -> bool:
        """Whether the points of a group are found without a scan of all payloads."""
        columns = self._source.columns
        return columns is not None and self._search.group_by in columns.columns

    def _complete(self, members: _Members) -> None:
        """Replace the incomplete groups by those among all matching points."""
        only = members.unfilled()
        found = _Members(self._query, len(only), self._search.group_size, only)
        found.other_bytes = members.held_bytes
        self._gather(found, self._by_distance(self._filter(only)))
        members.complete(found)

    def _gather(self, members: _Members, hits: Iterable[Hit]) -> None:
        for hit in hits:
            if members.is_complete or self._is_beyond(hit):
                break
            if hit.id not in self._query.excluded:
                payload = {} if hit.payload is None else decode_payload(hit.payload)
                members.add(hit, group_values(self._read(payload)))

    def _is_beyond(self, hit: Hit) -> bool:
        return self._query.max_distance is not None and hit.distance > self._query.max_distance

    def _filter(self, only: Mapping[Key, Value] | None) -> Filter:
        """Return the filter of the points that may be in a group, or in one of the groups of `only`."""
        field = self._search.group_by
        in_group: Node = Condition(field, "$exists", True)
        if only is not None and len(only) <= NAMED_VALUES_MAX:
            contains = (Condition(field, "$contains", value) for value in only.values())
            in_group = Or((Condition(field, "$in", tuple(only.values())), *contains))
        given = self._query.filter
        return Filter(in_group if given is None else And((given.root, in_group)))

    def _by_distance(self, filter: Filter) -> Iterator[Hit]:
        """Yield all points that match, nearest first, compared exactly; count the points that are gone."""
        labels = matching_labels(self._source, filter)
        distances = self._distances(labels)
        order = np.lexsort((labels, distances))
        order = order[np.isfinite(distances[order])]
        self.gone += len(labels) - len(order)
        for start in range(0, len(order), RESOLVED_POINTS):
            part = order[start : start + RESOLVED_POINTS]
            points = self._source.view.resolve(labels[part])
            for at, point in zip(part.tolist(), points, strict=True):
                if point is None:
                    self.gone += 1
                else:
                    yield Hit(point[0], float(distances[at]), self._field.apply(point[1]), int(labels[at]))

    def _distances(self, labels: Labels) -> Rows:
        """Return the distance of each label (n,), infinite for a label that is gone."""
        metric = self._query.manifest.distance_metric
        vector = exact.prepare(metric, self._query.vector)
        distances = np.full(len(labels), np.inf, np.float32)
        size = max(1, COMPARED_VALUES // self._query.manifest.dimension)
        for start in range(0, len(labels), size):
            rows, present = read_vectors(self._source.view, labels[start : start + size])
            rows = exact.prepare(metric, rows[present])
            queries = np.broadcast_to(vector, rows.shape)
            distances[start + np.flatnonzero(present)] = exact.distances_of_pairs(metric, queries, rows)
        return distances
