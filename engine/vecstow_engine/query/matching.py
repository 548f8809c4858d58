"""The points that match a filter: their labels, found before anything else of a query is done.

Columns of the payload indexes say for each slot whether its point matches, may match, or does not. The
payloads of points that may match are read, as many as a caller needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from vecstow_engine.model.filters import Filter
from vecstow_engine.model.payloads import decode_payload
from vecstow_engine.model.points import slots_of
from vecstow_engine.query.candidates import Candidates, Labels, Mask
from vecstow_engine.query.source import ATTEMPTS_MAX, Source
from vecstow_engine.storage.view import View

RESOLVED_AT_ONCE: Final = 1024
"""The number of points whose payloads are read at a time: at most 64 MiB."""
SCAN_SHARE: Final = 1 / 4
"""The share of the points from which a scan of all payloads costs less than reads of some."""


def find_candidates(source: Source, filter: Filter | None) -> Candidates:
    """Return the candidates of a filter; without payload indexes every served point may match."""
    view, columns = source.view, source.columns
    if filter is not None and (cached := cached_candidates(source, filter)) is not None:
        return cached
    for _ in range(ATTEMPTS_MAX):
        # Live slots come first: the columns have the values of each slot that was live before they are read.
        position, epochs = view.position(), view.served_epochs()
        live = epochs != 0
        if filter is None:
            return Candidates(epochs, live, live)
        if columns is None:
            break
        ids = _IdSlots(view, len(epochs))
        found = columns.match(filter, epochs, ids.mask)
        # The slots of ids are those of the same moment only when nothing was written meanwhile.
        is_of_moment = view.position() == position
        if is_of_moment or not ids.were_read:
            candidates = Candidates(epochs, found.sure, found.possible)
            if is_of_moment:
                source.candidates.put(filter, (position, columns), candidates)
            return candidates
    return Candidates(epochs, np.zeros(len(epochs), np.bool_), live)


def cached_candidates(source: Source, filter: Filter) -> Candidates | None:
    """Return the candidates of a filter if they are known since the last write."""
    if source.columns is None:
        return None
    return source.candidates.get(filter, (source.view.position(), source.columns))


class _IdSlots:
    """The slots of the ids that a filter names."""

    def __init__(self, view: View, size: int) -> None:
        self._view = view
        self._size = size
        self.were_read = False

    def mask(self, ids: Sequence[Any]) -> Mask:
        """Return which of the slots have one of these ids, shape (slots,)."""
        self.were_read = True
        slots = np.array(self._view.slots_of([each for each in ids if isinstance(each, str)]), np.int64)
        mask = np.zeros(self._size, np.bool_)
        mask[slots[slots < self._size]] = True
        return mask


def matching_labels(source: Source, filter: Filter | None) -> Labels:
    """Return the labels of the served points that match, shape (n,), in no particular order.

    A point that is written meanwhile counts with its old or its new payload. Without a filter every point
    matches.
    """
    if filter is None:
        return source.view.labels()
    for _ in range(ATTEMPTS_MAX):
        candidates = find_candidates(source, filter)
        sure, doubtful = candidates.labels(candidates.sure), candidates.doubtful
        if not len(doubtful):
            return sure
        if len(doubtful) > SCAN_SHARE * candidates.live_count:
            break
        found = keep_matching(source.view, doubtful, filter)
        if found is not None:
            return np.concatenate([sure, found])
    return _scan(source.view, filter)


def _scan(view: View, filter: Filter) -> Labels:
    """Return the labels of the points that match, by the payloads of all points."""
    found = [label for label, point_id, payload in view.scan() if matches(filter, point_id, payload)]
    return np.array(found, np.uint64)


def keep_matching(view: View, labels: Labels, filter: Filter) -> Labels | None:
    """Return the labels whose points match, by their payloads; None when a point is gone by now."""
    kept = np.zeros(len(labels), np.bool_)
    for start in range(0, len(labels), RESOLVED_AT_ONCE):
        for at, point in enumerate(view.resolve(labels[start : start + RESOLVED_AT_ONCE]), start):
            if point is None:
                return None
            kept[at] = matches(filter, *point)
    return labels[kept]


def by_slot(labels: Labels) -> Labels:
    """Return labels ascending by slot."""
    return labels[np.argsort(slots_of(labels), kind="stable")]


def matches(filter: Filter, point_id: str, payload: bytes | None) -> bool:
    """Whether a point matches, by its id and its stored payload."""
    return filter.matches(None if payload is None else decode_payload(payload), point_id)
