"""One collection's index: a graph, the tail that is on its way there, and the backlog that is only on disk.

A graph takes 2.6 MB at least, so an index of few rows is flat: all of them stay in the tail.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from vecstow_engine.index import exact, searching
from vecstow_engine.index.graph import HnswGraph, graph_bytes
from vecstow_engine.index.graph_feeder import GraphFeeder
from vecstow_engine.index.hits import Hits, Labels, Rows
from vecstow_engine.index.label_table import LabelTable
from vecstow_engine.index.state import BACKLOG, GRAPH, TAIL, Fetch, IndexState
from vecstow_engine.index.tail import row_bytes
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import DistanceMetric

FLAT_ROWS_MAX: Final = 1000
SLICE_ROWS_MAX: Final = 1024


class VectorIndex:
    """Nearest neighbours of one collection. Every method may be called from any thread.

    Adding and removing never wait for the graph; searching waits for a slice of `slice_seconds` at most, and
    for the searches that came before it.
    """

    def __init__(
        self,
        metric: DistanceMetric,
        dimension: int,
        config: IndexConfig,
        fetch: Fetch,
        *,
        threads: int = 2,
        slice_seconds: float = 0.02,
        flat_rows_max: int = FLAT_ROWS_MAX,
    ) -> None:
        self._threads = threads
        self._state = IndexState(metric, dimension, config, fetch, flat_rows_max)
        self._feeder = GraphFeeder(self._state, slice_seconds)
        self.searched_at = -math.inf
        """time.monotonic() of the last search."""

    def add(self, rows: Rows, labels: Labels) -> None:
        """Rows (n, dimension) under distinct labels (n,), searchable at once; known ones are passed over.

        The label that held a slot before must have been removed, and a removed label never comes back.
        """
        state = self._state
        prepared = exact.prepare(state.metric, rows)
        with state.lock:
            new = ~state.table.known(labels)
            if not new.all():
                prepared, labels = prepared[new], labels[new]
            state.tail.add(prepared, labels)
            state.table.put(labels, TAIL)

    def add_backlog(self, labels: Labels) -> None:
        """Live labels whose rows `fetch` can read, searchable at once; known ones are passed over."""
        state = self._state
        with state.lock:
            new = labels[~state.table.known(labels)]
            state.backlog.add(new)
            state.table.put(new, BACKLOG)

    def remove(self, labels: Labels) -> None:
        """No search that starts after this returns any of them; unknown ones are passed over."""
        self._state.remove(labels)

    def search(self, queries: Rows, k: int, ef: int) -> Hits:
        """The k nearest (k >= 1) of each query (q, dimension), padded; `ef` holds for this call alone.

        Raises what `fetch` raises while there is a backlog.
        """
        self.searched_at = time.monotonic()
        prepared = exact.prepare(self._state.metric, queries)
        return searching.search(self._state, prepared, k, ef, self._threads)

    def advance(self, rows_max: int = SLICE_ROWS_MAX, threads: int | None = None) -> int:
        """Move one slice towards the graph; returns how many labels were dealt with, 0 when all is done.

        Raises what `fetch` raises, and then nothing has changed.
        """
        return self._feeder.advance(rows_max, self._threads if threads is None else threads)

    def adopt(self, graph: HnswGraph) -> None:
        """Serve a loaded graph; raises RuntimeError when there is one already."""
        self._feeder.adopt(graph)

    def reconcile(self, live_labels: Labels) -> None:
        """Remove from the graph what is not live, and add to the backlog what is live and not known.

        `live_labels` is the whole collection. What was added meanwhile stays.
        """
        state = self._state
        live = LabelTable()
        live.put(live_labels, GRAPH)
        with state.lock:
            held = state.table.labels_at(GRAPH)
        state.remove(held[~live.known(held)])
        self.add_backlog(live_labels)

    def start_rebuild(self, config: IndexConfig) -> None:
        """Build the graph anew in later slices with these settings, while the old one serves.

        Replaces a rebuild that is under way; without a graph it sets what the first one is built with.
        """
        self._feeder.start_rebuild(config)

    def start_over(self, config: IndexConfig) -> None:
        """Give the graph up, and build another one with these settings from the rows that `fetch` reads."""
        self._feeder.start_over(config)

    @contextmanager
    def fork_point(self) -> Iterator[HnswGraph | None]:
        """Nothing changes or searches the graph meanwhile: fork here, and save the graph in the child."""
        state = self._state
        with state.turn:
            with state.lock:
                state.apply_removals()
            yield state.graph

    @property
    def count(self) -> int:
        """Live labels."""
        with self._state.lock:
            return self._state.outside_graph + self._state.table.count(GRAPH)

    @property
    def pending(self) -> int:
        """Labels that `advance` has yet to move or check; in a flat index the tail is where they belong."""
        state = self._state
        with state.lock:
            return state.table.count(BACKLOG) if state.flat else state.outside_graph + state.unchecked

    @property
    def indexed(self) -> int:
        """Labels that are where they belong: in the graph or, while the index is flat, in memory."""
        state = self._state
        with state.lock:
            return state.table.count(TAIL if state.flat else GRAPH)

    @property
    def rebuilding(self) -> bool:
        """Whether a second graph is being built."""
        return self._state.rebuild is not None

    @property
    def progress(self) -> tuple[int, int]:
        """Labels indexed and labels in all; indexed in the new graph while rebuilding."""
        rebuild = self._state.rebuild
        return (self.indexed if rebuild is None else rebuild.graph.live_count), self.count

    @property
    def tail_bytes(self) -> int:
        """Bytes of rows that wait in memory."""
        with self._state.lock:
            return self._state.tail.bytes

    @property
    def graph_rows(self) -> int:
        """Distinct rows in the graph, deleted ones included; a rebuild drops the deleted."""
        graph = self._state.graph
        return 0 if graph is None else graph.row_count

    @property
    def deleted_share(self) -> float:
        """Deleted rows among the graph's rows, 0 to 1; a rebuild drops them."""
        state = self._state
        with state.lock:
            noted = state.removals_noted
        if noted:  # labels that may share nodes with others
            with state.turn, state.lock:
                state.apply_removals()
        graph = state.graph
        return graph.deleted_share if graph is not None else 0.0

    @property
    def unchecked(self) -> int:
        """Nodes of the graph that nobody has searched for yet."""
        graph = self._state.graph
        return graph.checking.count if graph is not None else 0

    @property
    def unreached(self) -> int:
        """Nodes that searches may not find: the graph does not lead to them, and there was no room apart."""
        graph = self._state.graph
        return graph.unreached_count if graph is not None else 0

    @property
    def apart(self) -> int:
        """Nodes of the graph that are searched exactly, because the graph does not lead to them."""
        graph = self._state.graph
        return graph.apart_count if graph is not None else 0

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory, about."""
        rebuild = self._state.rebuild
        second = rebuild.graph.memory_bytes if rebuild is not None else 0
        return self.graph_bytes + second + self.tail_bytes + self.table_bytes

    @property
    def graph_bytes(self) -> int:
        """Bytes that the graph takes."""
        graph = self._state.graph
        return graph.memory_bytes if graph is not None else 0

    @property
    def table_bytes(self) -> int:
        """Bytes of the table of labels."""
        return self._state.table.bytes

    @property
    def is_flat(self) -> bool:
        """Whether there are too few rows for a graph, so that the tail is where they belong."""
        return self._state.flat

    def full_bytes(self, added: int = 0) -> int:
        """Bytes that the graph takes once it holds every label and `added` more.

        While so many rows are too few for a graph: the bytes that they take in memory.
        """
        state = self._state
        with state.lock:
            outside = state.outside_graph + added
            if state.graph is None and outside <= state.flat_rows_max:
                return outside * row_bytes(state.dimension)
            held = self._size(0) if state.graph is None else state.graph.memory_bytes
            return held + self._size(outside) - self._size(0)

    @property
    def rebuild_bytes(self) -> int:
        """Bytes that a second graph of all rows takes; 0 where there is no first one."""
        state = self._state
        if state.graph is None:
            return 0
        return self._size(state.graph.row_count - state.graph.deleted_count + state.outside_graph)

    def _size(self, rows: int) -> int:
        return graph_bytes(rows, self._state.dimension, self._state.config.max_connections)
