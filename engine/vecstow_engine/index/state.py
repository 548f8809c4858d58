"""The data that the parts of one index share, and its two locks.

A label is in one place at a time: in the tail, in the backlog or in the graph. `turn` guards hnswlib's graph
and is held for a slice or a search. `lock` guards everything else and is held for moments. A thread that
takes both takes `turn` first.

The turn is held from before the insertion of a row until the row has left the tail. The holder of the turn
therefore sees each label in exactly one place. Additions and removals need only the short lock. A removal
from the graph is recorded, and the next holder of the turn marks it. After many removals, `remove` takes the
turn itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import numpy as np

from vecstow_engine.index.backlog import Backlog
from vecstow_engine.index.fair_lock import FairLock
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.hits import Labels, Rows
from vecstow_engine.index.label_table import LabelTable
from vecstow_engine.index.rebuild import Rebuild
from vecstow_engine.index.tail import Tail
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import DistanceMetric

Fetch = Callable[[Labels], Rows]
"""A callback that returns rows (n, dimension) of live labels on disk. Called without any lock; may raise."""

TAIL: Final = 1
BACKLOG: Final = 2
GRAPH: Final = 3

FLAT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Above this size, a search of all rows takes longer than a search of a graph."""
_REMOVALS_NOTED_MAX: Final = 256


class IndexState:
    """The places of the labels of one index. Each docstring names the locks that the caller holds."""

    def __init__(
        self, metric: DistanceMetric, dimension: int, config: IndexConfig, fetch: Fetch, flat_rows_max: int
    ) -> None:
        self.metric = metric
        self.dimension = dimension
        self.config = config
        self.fetch = fetch
        self.turn = FairLock()
        self.lock = threading.Lock()
        self.table = LabelTable()
        self.tail = Tail(metric, dimension)
        self.backlog = Backlog()
        self.graph: HnswGraph | None = None
        self.rebuild: Rebuild | None = None
        self._removed: list[Labels] = []
        self.flat_rows_max = min(flat_rows_max, FLAT_BYTES_MAX // (4 * dimension))

    @property
    def flat(self) -> bool:
        """Whether there are too few rows for a graph, so that all rows stay in the tail. Any locks."""
        return self.graph is None and self.outside_graph <= self.flat_rows_max

    @property
    def outside_graph(self) -> int:
        """The number of labels in the tail and the backlog. Any locks."""
        return self.table.count(TAIL) + self.table.count(BACKLOG)

    @property
    def unchecked(self) -> int:
        """The number of nodes to search for before the graph counts as complete. Any locks."""
        return self.graph.checking.urgent if self.graph is not None else 0

    @property
    def removals_noted(self) -> int:
        """The number of removed labels that the graph does not mark yet. `lock`."""
        return sum(len(labels) for labels in self._removed)

    def remove(self, labels: Labels) -> None:
        """Remove labels from any place; ignore unknown ones. No locks."""
        with self.lock:
            places = self.table.places(labels)
            self.tail.remove(labels[places == TAIL])
            if (places == GRAPH).any():
                self._removed.append(labels[places == GRAPH])
            self.table.discard(labels)
            many = len(self._removed) > _REMOVALS_NOTED_MAX
        if many:
            with self.turn, self.lock:
                self.apply_removals()

    def apply_removals(self) -> None:
        """Mark in the graph the removals since the last call. Both locks."""
        if self._removed and self.graph is not None:
            labels = np.concatenate(self._removed)
            self.graph.mark_deleted(labels)
            if self.rebuild is not None:
                self.rebuild.note_removed(labels)
        self._removed = []

    def put_in_graph(self, labels: Labels) -> None:
        """Move the labels of an inserted slice to the graph, except those removed meanwhile. Both locks."""
        assert self.graph is not None
        stayed = self.table.places(labels) == TAIL
        self.graph.mark_deleted(labels[~stayed])
        self.table.put(labels[stayed], GRAPH)
        if self.rebuild is not None:
            self.rebuild.note_added(labels[stayed])

    def still_live(self, labels: Labels) -> Labels:
        """Return those of the labels that were not removed, from any place. No locks."""
        with self.lock:
            return labels[self.table.known(labels)]
