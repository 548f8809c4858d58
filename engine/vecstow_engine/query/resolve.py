"""The step from labels to hits: ids and payloads are read and verified, and payload bytes are limited."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from vecstow_engine.index.hits import NO_LABEL, Hits
from vecstow_engine.model.batch import Hit, SearchQuery
from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.payloads import decode_payload
from vecstow_engine.storage.view import View

RESOLVED_POINTS: Final = 128
"""The number of points whose payloads are read before they are weighed: at most 8 MiB."""

Result: TypeAlias = list[Hit] | VecstowError
"""The hits of a query, or the error that this query alone gets."""


def resolve(
    view: View, found: Hits, queries: Sequence[SearchQuery], filter: Filter | None = None
) -> list[Resolved]:
    """Return hits with ids and payloads. Once a query is refused or complete, no more of it is read."""
    valid = found.labels != NO_LABEL
    labels, distances = found.labels[valid], found.distances[valid].tolist()
    owners = np.nonzero(valid)[0].tolist()
    gathered = [Resolved(query, filter) for query in queries]
    start = 0
    while start < len(labels):
        stop = min(start + RESOLVED_POINTS, len(labels))
        points = view.resolve(labels[start:stop])
        read_to = start
        while read_to < stop:
            owner = owners[read_to]
            end = bisect_right(owners, owner, read_to, stop)
            gathered[owner].add(points[read_to - start : end - start], distances[read_to:end])
            read_to = end
        start = stop
        if start < len(labels) and gathered[owners[start]].is_complete:
            start = bisect_right(owners, owners[start])
    return gathered


class Resolved:
    """The result for one query: its hits, and the number of its labels that are gone."""

    def __init__(self, query: SearchQuery, filter: Filter | None) -> None:
        self._query = query
        self._filter = filter
        self._room = query.limit
        self._payload_bytes = 0
        self.hits: list[Hit] = []
        self.gone = 0
        self.error: VecstowError | None = None

    @property
    def result(self) -> Result:
        """The hits, or the error in their place."""
        return self.error or self.hits

    @property
    def is_complete(self) -> bool:
        """Whether the query needs no further labels."""
        return not self._room

    def add(self, points: Sequence[tuple[str, bytes | None] | None], distances: Sequence[float]) -> None:
        """Add the points of the next labels, None for one that is gone, and weigh the payloads so far."""
        for point, distance in zip(points, distances, strict=True):
            if point is None:
                self.gone += 1
            elif self._room and (self._filter is None or self._filter.matches(decoded(point[1]))):
                self._room -= 1
                self.hits.append(Hit(point[0], distance, point[1]))
                self._payload_bytes += len(point[1] or b"")
        if self._query.weigh is not None and self.error is None:
            try:
                self._query.weigh(self._payload_bytes)
            except VecstowError as error:
                # A traceback would keep this frame, and with it the payloads of the refused query.
                self.error = error.with_traceback(None)
                self.hits = []
                self._room = 0


def required(result: Result) -> list[Hit]:
    """Return the hits; raise the error in their place."""
    if isinstance(result, VecstowError):
        raise result
    return result


def decoded(payload: bytes | None) -> dict[str, object] | None:
    """Return the payload in the form that a filter reads."""
    return None if payload is None else decode_payload(payload)
