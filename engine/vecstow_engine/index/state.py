"""The data that the parts of one index share, its two locks, and the work that moves rows into the graph.

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
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from vecstow_engine.index import exact
from vecstow_engine.index.exact import Labels, Rows
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.places import BACKLOG, GRAPH, TAIL, Backlog, LabelTable, Tail
from vecstow_engine.index.turns import FairLock, SliceMeter
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import DistanceMetric

Fetch = Callable[[Labels], Rows]
"""A callback that returns rows (n, dimension) of live labels on disk. Called without any lock; may raise."""

FLAT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Above this size, a search of all rows takes longer than a search of a graph."""
_CHECK_EF: Final = 8
"""The cost of checking a row, as the `ef_construction` of an insertion that costs the same."""
_LEISURE: Final = 4
"""The divisor of a slice while nothing is urgent."""
_PRELOAD_BYTES: Final = 32 * 1024 * 1024
"""The bytes of tail up to which rows are read from disk ahead of the graph."""
_LOAD_BYTES_MAX: Final = 4 * 1024 * 1024
"""The bytes of rows that are read from disk in one slice."""


@dataclass(eq=False)
class Rebuild:
    """A second graph that is built from the first one's rows while the first one serves.

    A slice is inserted into `graph` without a lock; `todo` and `removed` may change meanwhile.
    """

    graph: HnswGraph
    todo: Backlog
    """The labels that the new graph still lacks."""
    removed: list[Labels] = field(default_factory=list)
    """Removed labels, which the graph marks after the slice. Labels in `todo` are checked at their turn."""


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
        self.removed: list[Labels] = []
        """Removed labels that the graph does not mark yet."""
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
    def urgent_checks(self) -> int:
        """The number of nodes to search for before the graph counts as complete. Any locks."""
        return self.graph.checking.urgent if self.graph is not None else 0

    def apply_removals(self) -> None:
        """Mark in the graph the removals since the last call. Both locks."""
        if self.removed and self.graph is not None:
            labels = np.concatenate(self.removed)
            self.graph.mark_deleted(labels)
            if self.rebuild is not None:
                self.rebuild.removed.append(labels)
        self.removed = []

    def still_live(self, labels: Labels) -> Labels:
        """Return those of the labels that were not removed, from any place. No locks."""
        with self.lock:
            return labels[self.table.known(labels)]


class GraphFeeder:
    """The only code that adds to the graph of an index. Thread-safe; it runs one slice at a time."""

    def __init__(self, state: IndexState, slice_seconds: float) -> None:
        self._state = state
        self._meter = SliceMeter(slice_seconds, state.dimension * state.config.ef_construction)
        self._check_meter = SliceMeter(slice_seconds, state.dimension * _CHECK_EF)
        self._moving = threading.Lock()
        """Taken before the locks of the state."""
        self._rebuild_is_next = False
        self._load_is_next = False

    def advance(self, rows_max: int, threads: int) -> int:
        """Move one slice; return the number of labels that it processed, 0 when there is nothing to do.

        Rows on disk join the tail as far as memory allows, because their search is faster there. Reads from
        disk and a rebuild alternate with the tail. Raises the errors of `fetch`; nothing has changed then.
        """
        with self._moving:
            state = self._state
            if state.backlog and (state.flat or self._load_is_next or not state.tail.count):
                self._load_is_next = False
                if state.flat or state.tail.bytes < _PRELOAD_BYTES:
                    return self._load_backlog(min(rows_max, max(1, _LOAD_BYTES_MAX // (4 * state.dimension))))
            self._load_is_next = True
            if state.flat:
                return 0
            if state.urgent_checks and not state.outside_graph:
                return self._check(min(rows_max, self._check_meter.rows(threads)), threads)
            rows = min(rows_max, self._meter.rows(threads))
            if state.rebuild is not None and (self._rebuild_is_next or not state.outside_graph):
                self._rebuild_is_next = False
                return self._advance_rebuild(state.rebuild, rows, threads)
            self._rebuild_is_next = True
            if state.outside_graph or state.graph is None:
                return self._move_tail(rows, threads)
            checked = self._check(self._check_meter.rows(threads) // _LEISURE, threads)
            return checked if state.graph.checking.is_doubtful else 0

    def adopt(self, graph: HnswGraph) -> None:
        """Serve a loaded graph; raise RuntimeError when the index has a graph.

        The known labels are newer: a slot with a known label does not return to a label of the loaded graph.
        """
        state = self._state
        with self._moving, state.turn, state.lock:
            if state.graph is not None:
                raise RuntimeError("this index has a graph already")
            labels = graph.live_labels()
            graph.mark_deleted(labels[state.table.taken(labels)])
            state.table.put(graph.live_labels(), GRAPH)
            state.graph = graph

    def start_rebuild(self, config: IndexConfig) -> None:
        """Build a new graph in later slices, in place of a rebuild that is under way.

        The order is random: rows that arrive cluster by cluster make a graph that does not lead to all of
        them.
        """
        state = self._state
        with self._moving, state.turn, state.lock:
            state.config = config
            if state.graph is None:
                return
            state.apply_removals()
            labels = state.graph.live_labels()
            graph = HnswGraph(state.metric, state.dimension, config, len(labels) * 9 // 8)
            state.rebuild = Rebuild(graph, Backlog())
            state.rebuild.todo.add(np.random.default_rng().permutation(labels))

    def start_over(self, config: IndexConfig) -> None:
        """Drop the graph, and build another one from the rows on disk."""
        state = self._state
        with self._moving, state.turn, state.lock:
            state.config = config
            state.apply_removals()
            labels = state.table.labels_at(GRAPH)
            state.table.put(labels, BACKLOG)
            state.backlog.add(labels)
            old, state.graph, state.rebuild = (state.graph, state.rebuild), None, None
        del old  # A large graph takes a while to free, so no lock is held.

    def _load_backlog(self, rows_max: int) -> int:
        """Read rows of the backlog from disk into the tail. No lock is held while they are read."""
        state = self._state
        with state.lock:
            taken = state.backlog.peek(rows_max)
            labels = taken[state.table.places(taken) == BACKLOG]
        rows = np.empty((0, state.dimension), dtype=np.float32)
        if len(labels):
            rows = exact.prepare(state.metric, state.fetch(labels))
        with state.lock:
            stayed = state.table.places(labels) == BACKLOG
            state.tail.add(rows[stayed], labels[stayed])
            state.table.put(labels[stayed], TAIL)
            state.backlog.skip(len(taken))
        return len(taken)

    def _move_tail(self, rows_max: int, threads: int) -> int:
        """Insert the oldest rows of the tail into the graph, where those removed meanwhile are deleted."""
        state = self._state
        with state.turn:
            with state.lock:
                rows, labels = state.tail.peek(rows_max)
            if state.graph is None:
                state.graph = HnswGraph(state.metric, state.dimension, state.config, state.outside_graph)
            with self._meter.measure(len(labels)):
                state.graph.add(rows, labels, threads)
            with state.lock:
                stayed = state.table.places(labels) == TAIL
                state.graph.mark_deleted(labels[~stayed])
                state.table.put(labels[stayed], GRAPH)
                if state.rebuild is not None:
                    state.rebuild.todo.add(labels[stayed])
                state.tail.remove(labels)
        return len(labels)

    def _check(self, rows: int, threads: int) -> int:
        """Check inserted nodes. The tail is empty by then, so that a large import is checked once."""
        state = self._state
        with state.turn:
            with state.lock:
                state.apply_removals()
            assert state.graph is not None
            with self._check_meter.measure(rows):
                return state.graph.check(rows, threads)

    def _advance_rebuild(self, rebuild: Rebuild, rows_max: int, threads: int) -> int:
        """Insert one slice into the new graph. No search uses that graph yet, so insertion holds no lock."""
        state = self._state
        with state.turn:
            with state.lock:
                state.apply_removals()
                labels = rebuild.todo.peek(rows_max)
                live = labels[state.table.places(labels) == GRAPH]
            assert state.graph is not None
            rows = state.graph.rows(live)
        with self._meter.measure(len(live)):
            rebuild.graph.add(rows, live, threads)
        with state.turn, state.lock:
            state.apply_removals()
            for removed in rebuild.removed:
                rebuild.graph.mark_deleted(removed)
            rebuild.removed.clear()
            rebuild.todo.skip(len(labels))
            old = state.graph
            if not rebuild.todo:
                state.graph, state.rebuild = rebuild.graph, None
        # A large graph takes a while to free, so the last reference is dropped here, without a lock.
        del old
        return max(1, len(labels))
