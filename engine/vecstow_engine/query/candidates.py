"""The candidates of a filter, by slot, and a cache of those of the latest filters."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.exact import NO_LABEL
from vecstow_engine.index.payload.payload_columns import PayloadColumns
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.points import epochs_of, make_labels, slots_of

CACHED_FILTERS_MAX: Final = 8
_SLOT_BYTES: Final = 6
"""Bytes of a slot in cached candidates: an epoch and two masks."""

Labels: TypeAlias = NDArray[np.uint64]
Mask: TypeAlias = NDArray[np.bool_]
Moment: TypeAlias = tuple[tuple[int, ...], PayloadColumns]
"""A position of the view, and the columns in use."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The points of one moment that match, or may match, a filter."""

    epochs: NDArray[np.uint32]
    """The epoch of each slot, shape (slots,); 0 for a slot without a served point."""
    sure: Mask
    """Whether the point of a slot matches for certain, shape (slots,)."""
    possible: Mask
    """Whether it matches or may match."""

    live_count: int = field(init=False)
    """The number of served points."""
    sure_count: int = field(init=False)
    """The number of points that match for certain."""
    possible_count: int = field(init=False)
    """The number of points that match or may match."""

    def __post_init__(self) -> None:
        counted = {"live_count": self.epochs, "sure_count": self.sure, "possible_count": self.possible}
        for name, array in counted.items():
            object.__setattr__(self, name, int(np.count_nonzero(array)))

    @property
    def has_doubts(self) -> bool:
        """Whether some points may match, but not for certain."""
        return self.sure_count < self.possible_count

    @property
    def doubtful(self) -> Labels:
        """The labels of the points that may match, but not for certain."""
        return self.labels(self.possible & ~self.sure)

    def labels(self, mask: Mask) -> Labels:
        """Return the labels of the slots in a mask (slots,), ascending by slot."""
        slots = np.flatnonzero(mask)
        return make_labels(slots, self.epochs[slots])

    def are_of_moment(self, labels: Labels) -> Mask:
        """Return which labels were served at the moment of the candidates, shape (n,)."""
        slots = slots_of(labels)
        found = slots < len(self.epochs)
        found[found] = self.epochs[slots[found]] == epochs_of(labels[found])
        return found

    def may_contain(self, labels: Labels) -> Mask:
        """Return which labels are candidates, or are of points written later, shape (n,)."""
        kept = np.asarray(labels != NO_LABEL)
        of_moment = self.are_of_moment(labels)
        kept[of_moment] = self.possible[slots_of(labels[of_moment])]
        return kept

    def changed_since(self, older: Candidates) -> Mask:
        """Return which slots have another point than in `older`, shape (slots,)."""
        changed = np.ones(len(self.epochs), np.bool_)
        size = min(len(self.epochs), len(older.epochs))
        changed[:size] = self.epochs[:size] != older.epochs[:size]
        return changed

    def among(self, slots: Mask) -> Candidates:
        """Return the candidates in a mask (slots,)."""
        return Candidates(self.epochs, self.sure & slots, self.possible & slots)

    def settled(self, matching: Labels) -> Candidates:
        """Return candidates without doubt: `matching` are those that were in doubt, and match."""
        mask = self.sure.copy()
        mask[slots_of(matching)] = True
        return Candidates(self.epochs, mask, mask)


class CandidateCache:
    """The candidates of the latest filters, valid until the next write. Thread-safe.

    `may_grow` gets the bytes of another entry, and returns whether there is memory for it.
    """

    def __init__(self, may_grow: Callable[[int], bool] = lambda size: True) -> None:
        self._may_grow = may_grow
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, tuple[Moment, Candidates]] = OrderedDict()
        """By the text of a filter: as objects, filters with 1 and with true are equal."""

    @property
    def bytes(self) -> int:
        """Bytes of memory that the cache takes."""
        entries = list(self._entries.values())
        return sum(_SLOT_BYTES * len(candidates.epochs) for _, candidates in entries)

    def clear(self) -> None:
        """Drop all entries."""
        with self._lock:
            self._entries.clear()

    def get(self, filter: Filter, moment: Moment) -> Candidates | None:
        """Return the candidates of a filter at a moment; None without any."""
        key = repr(filter.root)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry[0] != moment:
                return None
            self._entries.move_to_end(key)
            return entry[1]

    def put(self, filter: Filter, moment: Moment, candidates: Candidates) -> None:
        """Add candidates, and drop those of other moments, and the least used beyond the limit."""
        if not self._may_grow(_SLOT_BYTES * len(candidates.epochs)):
            return
        with self._lock:
            for old in [each for each, entry in self._entries.items() if entry[0] != moment]:
                del self._entries[old]
            self._entries[repr(filter.root)] = moment, candidates
            if len(self._entries) > CACHED_FILTERS_MAX:
                self._entries.popitem(last=False)
