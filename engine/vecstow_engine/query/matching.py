"""The points that match a filter: their labels, found before anything else of a query is done.

Columns of the payload indexes say for each slot whether its point matches, may match, or does not. The
payloads of points that may match are read, as many as a caller needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.exact import NO_LABEL
from vecstow_engine.index.payload.payload_columns import PayloadColumns
from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.payloads import decode_payload
from vecstow_engine.model.points import epochs_of, make_labels, slots_of
from vecstow_engine.storage.view import View

ATTEMPTS_MAX: Final = 5
RESOLVED_AT_ONCE: Final = 1024
"""The number of points whose payloads are read at a time: at most 64 MiB."""
SCAN_SHARE: Final = 1 / 4
"""The share of the points from which a scan of all payloads costs less than reads of some."""

Labels = NDArray[np.uint64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Source:
    """One incarnation of a collection that holds data."""

    manifest: Manifest
    view: View
    index: VectorIndex
    columns: PayloadColumns | None
    """The payload indexes; None without any, and until they are complete."""
    hide_withheld: Callable[[], None]
    """A callback that removes points that fail their checks from the index, so that a search finds others."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The points of one moment that match, or may match, a filter."""

    epochs: NDArray[np.uint32]
    """The epoch of each slot, shape (slots,); 0 for a slot without a served point."""
    sure: Mask
    """Whether the point of a slot matches for certain, shape (slots,)."""
    possible: Mask
    """Whether it matches or may match."""

    @property
    def live_count(self) -> int:
        """The number of served points."""
        return int(np.count_nonzero(self.epochs))

    @property
    def sure_count(self) -> int:
        """The number of points that match for certain."""
        return int(np.count_nonzero(self.sure))

    @property
    def possible_count(self) -> int:
        """The number of points that match or may match."""
        return int(np.count_nonzero(self.possible))

    @property
    def doubtful(self) -> Labels:
        """The labels of the points that may match, but not for certain."""
        return self.labels(self.possible & ~self.sure)

    def labels(self, mask: Mask) -> Labels:
        """Return the labels of the slots in a mask (slots,), ascending by slot."""
        slots = np.flatnonzero(mask)
        return make_labels(slots, self.epochs[slots])

    def may_contain(self, labels: Labels) -> Mask:
        """Return which labels are candidates, or are of points written later, shape (n,)."""
        slots, kept = slots_of(labels), np.asarray(labels != NO_LABEL)
        of_moment = slots < len(self.epochs)
        of_moment[of_moment] = self.epochs[slots[of_moment]] == epochs_of(labels[of_moment])
        kept[of_moment] = self.possible[slots[of_moment]]
        return kept

    def settled(self, matching: Labels) -> Candidates:
        """Return candidates without doubt: `matching` are those that were in doubt, and match."""
        mask = self.sure.copy()
        mask[slots_of(matching)] = True
        return Candidates(self.epochs, mask, mask)


def find_candidates(source: Source, filter: Filter | None) -> Candidates:
    """Return the candidates of a filter; without payload indexes every served point may match."""
    view, columns = source.view, source.columns
    for _ in range(ATTEMPTS_MAX):
        # Live slots come first: the columns have the values of each slot that was live before they are read.
        position, epochs = view.position(), view.served_epochs()
        live = epochs != 0
        if filter is None:
            return Candidates(epochs, live, live)
        if columns is None:
            break
        ids = _IdSlots(view, len(epochs))
        found = columns.match(filter, len(epochs), ids.mask)
        # The slots of ids are those of the same moment only when nothing was written meanwhile.
        if not ids.were_read or view.position() == position:
            return Candidates(epochs, found.sure & live, found.possible & live)
    return Candidates(epochs, np.zeros(len(epochs), np.bool_), live)


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


def count_matching(source: Source, filter: Filter | None) -> int:
    """Return the number of served points that match."""
    candidates = find_candidates(source, filter)
    if filter is None or candidates.sure_count == candidates.possible_count:
        return candidates.sure_count
    return len(matching_labels(source, filter))


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
