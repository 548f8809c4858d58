"""The work that moves rows into the graph, slice by slice, and rebuilds the graph."""

from __future__ import annotations

import threading
from typing import Final

import numpy as np

from vecstow_engine.index import exact
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.hits import Labels, Rows
from vecstow_engine.index.rebuild import Rebuild
from vecstow_engine.index.slices import SliceMeter
from vecstow_engine.index.state import BACKLOG, GRAPH, TAIL, IndexState
from vecstow_engine.model.manifest import IndexConfig

_CHECK_EF: Final = 8
"""The cost of checking a row, as the `ef_construction` of an insertion that costs the same."""
_LEISURE: Final = 4
"""The divisor of a slice while nothing is urgent."""
PRELOAD_BYTES: Final = 32 * 1024 * 1024
"""The bytes of tail up to which rows are read from disk ahead of the graph."""
LOAD_BYTES_MAX: Final = 4 * 1024 * 1024
"""The bytes of rows that are read from disk in one slice."""


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
                if state.flat or state.tail.bytes < PRELOAD_BYTES:
                    return self._load_backlog(min(rows_max, max(1, LOAD_BYTES_MAX // (4 * state.dimension))))
            self._load_is_next = True
            if state.flat:
                return 0
            if state.unchecked and not state.outside_graph:
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
            state.rebuild = Rebuild(graph, np.random.default_rng().permutation(labels))

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
        """Read rows of the backlog from disk into the tail."""
        state = self._state
        taken, labels, rows = self._take_backlog(rows_max)
        with state.lock:
            stayed = state.table.places(labels) == BACKLOG
            state.tail.add(rows[stayed], labels[stayed])
            state.table.put(labels[stayed], TAIL)
            state.backlog.skip(taken)
        return taken

    def _move_tail(self, rows_max: int, threads: int) -> int:
        state = self._state
        with state.turn:
            with state.lock:
                rows, labels = state.tail.peek(rows_max)
            self._insert(rows, labels, threads)
            with state.lock:
                state.put_in_graph(labels)
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

    def _take_backlog(self, rows_max: int) -> tuple[int, Labels, Rows]:
        """Return how many labels to skip afterwards, the live ones among them, and their rows. Takes no lock
        while it reads.
        """
        state = self._state
        with state.lock:
            labels = state.backlog.peek(rows_max)
            live = labels[state.table.places(labels) == BACKLOG]
        rows = np.empty((0, state.dimension), dtype=np.float32)
        if len(live):
            rows = exact.prepare(state.metric, state.fetch(live))
        return len(labels), live, rows

    def _insert(self, rows: Rows, labels: Labels, threads: int) -> None:
        """Insert rows into the graph. The caller holds the turn."""
        state = self._state
        if state.graph is None:
            state.graph = HnswGraph(state.metric, state.dimension, state.config, state.outside_graph)
        with self._meter.measure(len(labels)):
            state.graph.add(rows, labels, threads)

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
            rebuild.mark_removed()
            rebuild.todo.skip(len(labels))
            old = state.graph
            if not rebuild.todo:
                state.graph, state.rebuild = rebuild.graph, None
        # A large graph takes a while to free, so the last reference is dropped here, without a lock.
        del old
        return max(1, len(labels))
