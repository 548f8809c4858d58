"""The payloads of the points that match a filter, each point once, while writes go on.

Columns of the payload indexes say which points may match. A scan of all payloads takes their place where most
points may match.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.model.filters import Filter
from vecstow_engine.model.payloads import decode_payload
from vecstow_engine.query.candidates import Candidates
from vecstow_engine.query.matching import SCAN_SHARE, find_candidates
from vecstow_engine.query.search import RESOLVED_POINTS
from vecstow_engine.query.source import ATTEMPTS_MAX, Source
from vecstow_engine.storage.scan import MetIds

Narrow: TypeAlias = Callable[[Candidates], Candidates]
"""A function that leaves candidates out."""


class Matching(NamedTuple):
    """One point that matches."""

    label: int
    id: str
    fields: dict[str, Any]
    """The decoded payload; empty for a point without one."""


def matching_points(
    source: Source, filter: Filter | None, narrow: Narrow | None = None
) -> Iterator[Matching]:
    """Yield each served point that matches, once, in no particular order.

    A point that is written meanwhile counts with its old or its new payload. `narrow` leaves candidates out
    that the caller does not need.
    """
    if filter is not None or narrow is not None:
        candidates = _narrowed(source, filter, narrow)
        if candidates.possible_count <= SCAN_SHARE * candidates.live_count:
            yield from _candidates(source, filter, candidates, narrow)
            return
    for label, point_id, payload in source.view.scan_once():
        fields = _decoded(payload)
        if filter is None or filter.matches(fields, point_id):
            yield Matching(label, point_id, fields)


def matching_count(source: Source, filter: Filter | None) -> int:
    """Return the number of served points that match; payloads are read only where columns leave a doubt."""
    if filter is None:
        return source.view.count
    candidates = find_candidates(source, filter)
    if candidates.sure_count == candidates.possible_count:
        return candidates.sure_count
    return sum(1 for _ in matching_points(source, filter))


def _narrowed(source: Source, filter: Filter | None, narrow: Narrow | None) -> Candidates:
    candidates = find_candidates(source, filter)
    return candidates if narrow is None else narrow(candidates)


def _candidates(
    source: Source, filter: Filter | None, candidates: Candidates, narrow: Narrow | None
) -> Iterator[Matching]:
    """Yield the points that match among candidates. Those that are gone are looked for again."""
    met = MetIds()
    read = np.zeros(0, np.uint64)
    for number, attempt in enumerate(source.attempts(), 1):
        if number < ATTEMPTS_MAX:
            gone = yield from _read_candidates(source, filter, candidates, read, met)
        else:  # with writes paused, and few points left: none of them may wait for the consumer
            with attempt:
                candidates = _narrowed(source, filter, narrow)
                rest = list(_read_candidates(source, filter, candidates, read, met))
            yield from rest
            return
        if not gone:
            return
        read = np.union1d(read, candidates.labels(candidates.possible))
        candidates = _narrowed(source, filter, narrow)


def _read_candidates(
    source: Source, filter: Filter | None, candidates: Candidates, read: NDArray[np.uint64], met: MetIds
) -> Generator[Matching, None, int]:
    """Yield the points that match among candidates that are not `read`; return how many of these are gone."""
    labels = candidates.labels(candidates.possible)
    labels = labels[~np.isin(labels, read)]
    gone = 0
    for start in range(0, len(labels), RESOLVED_POINTS):
        part = labels[start : start + RESOLVED_POINTS]
        for label, point in zip(part.tolist(), source.view.resolve(part), strict=True):
            if point is None:
                gone += 1
                continue
            fields = _decoded(point[1])
            is_match = filter is None or filter.matches(fields, point[0])
            if is_match and met.is_new(point[0], is_distinct=not len(read)):
                yield Matching(label, point[0], fields)
    return gone


def _decoded(payload: bytes | None) -> dict[str, Any]:
    return {} if payload is None else decode_payload(payload)
