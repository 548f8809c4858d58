"""The place of each label, by slot: 5 bytes per slot, where a Python set takes a hundred."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from vecstow_engine.index.hits import Labels
from vecstow_engine.model.labels import generations_of, make_labels, slots_of

NOWHERE: Final = 0
_SLOTS_MIN: Final = 64
_PLACES: Final = 8


class LabelTable:
    """A place (1 to 7) for each label, at most one label per slot. Not thread-safe."""

    def __init__(self) -> None:
        self._generations = np.zeros(0, dtype=np.uint32)
        self._places = np.zeros(0, dtype=np.uint8)
        self._counts = np.zeros(_PLACES, dtype=np.int64)

    def places(self, labels: Labels) -> npt.NDArray[np.uint8]:
        """Return the place of each label, NOWHERE for unknown ones; shape (n,)."""
        slots = slots_of(labels)
        found = np.zeros(len(labels), dtype=np.uint8)
        inside = slots < len(self._places)
        slots = slots[inside]
        same = self._generations[slots] == generations_of(labels[inside])
        found[inside] = np.where(same, self._places[slots], np.uint8(NOWHERE))
        return found

    def known(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Whether each label has a place; shape (n,)."""
        known: npt.NDArray[np.bool_] = self.places(labels) != NOWHERE
        return known

    def taken(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Whether the slot of each label has a place, under any generation; shape (n,)."""
        slots = slots_of(labels)
        found = np.zeros(len(labels), dtype=np.bool_)
        inside = slots < len(self._places)
        found[inside] = self._places[slots[inside]] != NOWHERE
        return found

    def put(self, labels: Labels, place: int) -> None:
        """Set the place of distinct labels; a label takes its slot over from an older label."""
        slots = slots_of(labels)
        self._reserve(int(slots.max(initial=0)) + 1)
        self._counts -= np.bincount(self._places[slots], minlength=_PLACES)
        self._counts[place] += len(labels)
        self._generations[slots] = generations_of(labels)
        self._places[slots] = place

    def discard(self, labels: Labels) -> None:
        """Remove these labels; ignore unknown ones."""
        self.put(labels[self.known(labels)], NOWHERE)

    def occupants(self, labels: Labels) -> Labels:
        """Return the labels that hold the slots of `labels` under another generation."""
        slots = slots_of(labels)
        slots = slots[slots < len(self._places)]
        held = make_labels(slots, self._generations[slots])
        others: Labels = held[(self._places[slots] != NOWHERE) & ~np.isin(held, labels)]
        return others

    def labels_at(self, place: int) -> Labels:
        """Return all labels at a place, by rising slot."""
        slots = np.flatnonzero(self._places == place)
        return make_labels(slots, self._generations[slots])

    def count(self, place: int) -> int:
        """Return the number of labels at a place."""
        return int(self._counts[place])

    @property
    def bytes(self) -> int:
        """Bytes of memory."""
        return self._generations.nbytes + self._places.nbytes

    def _reserve(self, slots: int) -> None:
        have = len(self._places)
        if slots <= have:
            return
        grown = max(slots, have + have // 2, _SLOTS_MIN)
        for name in ("_generations", "_places"):
            old = getattr(self, name)
            new = np.zeros(grown, dtype=old.dtype)
            new[:have] = old
            setattr(self, name, new)
