"""A scan of all points of a collection, in no particular order, while writes go on.

The points of the overlays come first, then those of the table, then those that were written meanwhile.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.model.points import epochs_of
from vecstow_engine.storage.layers import Layers
from vecstow_engine.storage.points.records import ServedPoint

SCAN_LABELS: Final = 4096
"""The number of points that a scan looks up at a time, of those written during the scan."""
ROUNDS_MAX: Final = 8
"""The most looks at what was written during the look before. Each takes a fraction of the time before."""


class Reader(Protocol):
    """The reads that a scan needs (`View`)."""

    def labels(self) -> NDArray[np.uint64]:
        """Return the labels of all served points, shape (n,)."""

    def resolve(self, labels: NDArray[np.uint64]) -> list[tuple[str, bytes | None] | None]:
        """Return (id, payload) of each label; None for a label that is no longer live or is withheld."""


class MetIds:
    """The ids that a read has met: eight bytes each, for a hash that no two ids of a collection share."""

    def __init__(self) -> None:
        self._first = array("q")
        self._sorted: NDArray[np.int64] | None = None
        self._later: set[int] = set()

    def is_new(self, point_id: str, *, is_distinct: bool = False) -> bool:
        """Return whether an id was not met before, and note it. The first ids may be known to be distinct."""
        number = hash(point_id)
        if is_distinct:
            self._first.append(number)
            return True
        if self._sorted is None:
            self._sorted = np.sort(np.array(self._first, np.int64))
        at = int(np.searchsorted(self._sorted, number))
        if number in self._later or (at < len(self._sorted) and self._sorted[at] == number):
            return False
        self._later.add(number)
        return True


class Scan:
    """One scan of the points that are served when it begins."""

    def __init__(self, layers: Layers, reader: Reader) -> None:
        self._layers = layers
        self._reader = reader
        with layers.lock:
            self._fresh = {e.slot: e for overlay in layers.overlays() for e in overlay.live()}
            self._since = layers.active.epoch
        self._recent: set[int] = set()

    def versions(self) -> Iterator[ServedPoint]:
        """Yield every point, and each point that is written during the scan with its new label.

        Such a point also comes with its old label when the scan met that before.
        """
        for points in (self._of_overlays(), self._of_table()):
            for point in points:
                if self._is_recent(point):
                    self._recent.add(point.label)
                yield point
        yield from self._written()

    def once(self) -> Iterator[ServedPoint]:
        """Yield every point once. A point that is written during the scan comes in one of its versions."""
        met = MetIds()
        for point in self._before():
            met.is_new(point.id, is_distinct=True)
            yield point
        for _ in range(ROUNDS_MAX):
            written = 0
            for point in self._written():
                written += 1
                if met.is_new(point.id):
                    yield point
            if not written:
                return

    def _before(self) -> Iterator[ServedPoint]:
        """Yield the points as they were when the scan began, as far as nothing replaced them."""
        for point in self._of_overlays():
            if self._is_recent(point):
                self._recent.add(point.label)
            yield point
        # A checkpoint moves what is written during the scan to the table.
        yield from (point for point in self._of_table() if not self._is_recent(point))

    def _is_recent(self, point: ServedPoint) -> bool:
        return point.label >> 32 >= self._since

    def _of_overlays(self) -> Iterator[ServedPoint]:
        for entry in self._fresh.values():
            if self._is_served(entry.slot, entry.epoch):
                yield ServedPoint(entry.epoch << 32 | entry.slot, entry.id, entry.payload)

    def _of_table(self) -> Iterator[ServedPoint]:
        with self._layers.table() as table:
            for slot, point in table.scan():
                if point is None:
                    self._layers.withhold_point(slot)
                elif slot not in self._fresh and self._is_served(slot, point.epoch):
                    yield ServedPoint(point.epoch << 32 | slot, point.id, point.payload)

    def _written(self) -> Iterator[ServedPoint]:
        """Yield the points that were written since the scan began, or since the last call."""
        labels = self._reader.labels()
        labels = labels[epochs_of(labels) >= self._since]
        labels = labels[[label not in self._recent for label in labels.tolist()]]
        for start in range(0, len(labels), SCAN_LABELS):
            part = labels[start : start + SCAN_LABELS]
            for label, point in zip(part.tolist(), self._reader.resolve(part), strict=True):
                self._recent.add(label)
                if point is not None:
                    yield ServedPoint(label, *point)

    def _is_served(self, slot: int, epoch: int) -> bool:
        return self._layers.slots.epoch(slot) == epoch and slot not in self._layers.withheld
