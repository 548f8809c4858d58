"""The points of a collection in the order of their ids (by code point), a block at a time.

A block joins the index of ids of `points.db` with the ids of the overlays. A point that exists while its
block is read is in the block, even if it is written again meanwhile.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from vecstow_engine.storage.layers import Entry, Layers, Overlay
from vecstow_engine.storage.points.records import ServedPoint, StoredPoint

RUN_GROWTH: Final = 2
"""A run of sorted ids is merged with the next one unless it is this many times as long."""

_Found: TypeAlias = Entry | StoredPoint


@dataclass(frozen=True, slots=True)
class Block:
    """Served points that follow each other in the order of ids."""

    points: list[ServedPoint]
    """Ascending by id; may be empty."""
    end: str | None
    """The last id that the block covers; None when no point follows the block."""


class Walk:
    """The order of ids of one collection; thread-safe."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._sorted: WeakKeyDictionary[Overlay, SortedIds] = WeakKeyDictionary()
        self._sorting = threading.Lock()

    def block(self, after: str, count: int) -> Block:
        """Return the served points after the id `after`: the next of about `count` ids.

        Raises DamagedFile when the index of ids is damaged, and the errors of `Layers.find`.
        """
        # The overlays come first: a point that a checkpoint moves meanwhile is met twice, never missed.
        changed, covered = self._changed(after, count)
        with self._layers.table() as table:
            rows = table.following(after, count)
        ends = [*covered, *[listed for listed, _, _ in rows[-1:]]]
        end = min(ends, default=None)
        found: dict[str, _Found | None] = {}
        for listed, slot, point in rows:
            if point is None:
                self._layers.withhold_point(slot)
            found[listed] = point
        found |= changed
        points, replaced = self._sift(
            [point for i, point in found.items() if point is not None and (end is None or i <= end)]
        )
        if replaced:
            points += newest_points(self._layers, replaced)
        return Block(sorted(points, key=lambda point: point.id), end)

    def _changed(self, after: str, count: int) -> tuple[dict[str, Entry | None], list[str]]:
        """Return the overlays' next ids, None for a deleted point, and the last id where more follow."""
        with self._sorting:
            with self._layers.lock:
                overlays = self._layers.overlays()
                for overlay in overlays:
                    self._sorted.setdefault(overlay, SortedIds()).add_new(overlay.by_id)
            lists = [self._sorted[overlay].following(after, count) for overlay in overlays]
        changed: dict[str, Entry | None] = {}
        with self._layers.lock:
            for overlay, ids in zip(reversed(overlays), reversed(lists), strict=True):
                changed |= {point_id: overlay.by_id[point_id] for point_id in ids}
        return changed, [ids[-1] for ids in lists if len(ids) == count]

    def _sift(self, points: list[_Found]) -> tuple[list[ServedPoint], list[str]]:
        """Return the points that are live and not withheld, and the ids of those that are not live."""
        slots = np.fromiter((point.slot for point in points), np.int64, len(points))
        served, replaced = [], []
        with self._layers.lock:
            withheld = self._layers.withheld
            epochs = self._layers.slots.epochs(slots).tolist()
            for point, epoch in zip(points, epochs, strict=True):
                if point.epoch != epoch:
                    replaced.append(point.id)
                elif point.slot not in withheld:
                    served.append(_served(point))
        return served, replaced


def newest_points(layers: Layers, ids: Sequence[str]) -> list[ServedPoint]:
    """Return the served points of those `ids` that exist; raise the errors of `Layers.find`."""
    found, _ = layers.find(ids)
    with layers.lock:
        return [_served(point) for point in found.values() if point.slot not in layers.withheld]


def _served(point: _Found) -> ServedPoint:
    return ServedPoint(point.epoch << 32 | point.slot, point.id, point.payload)


class SortedIds:
    """The ids of a dict that only grows, in ascending order: sorted runs, each much longer than the next.

    An id is merged a few times at most, however often the ids are read between two writes.
    """

    def __init__(self) -> None:
        self._count = 0
        self._new: list[str] = []
        self._runs: list[list[str]] = []

    def add_new(self, ids: dict[str, Entry | None]) -> None:
        """Note the ids since the last call. No thread may change the dict meanwhile."""
        self._new += islice(reversed(ids), len(ids) - self._count)
        self._count = len(ids)

    def following(self, after: str, count: int) -> list[str]:
        """Return the first `count` ids above `after`, ascending."""
        if self._new:
            self._merge(sorted(self._new))
            self._new = []
        starts = [bisect_right(run, after) for run in self._runs]
        parts = [run[at : at + count] for run, at in zip(self._runs, starts, strict=True)]
        return sorted(chain.from_iterable(parts))[:count]

    def _merge(self, run: list[str]) -> None:
        while self._runs and len(self._runs[-1]) < RUN_GROWTH * len(run):
            run = sorted(self._runs.pop() + run)
        self._runs.append(run)
