"""The index of one collection: a graph, a tail of rows that move into it, and a backlog of rows on disk.

A graph takes at least 2.6 MB, so an index of few rows is flat: all rows stay in the tail.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from vecstow_engine.index import exact
from vecstow_engine.index.exact import Hits, Labels, Rows, merge
from vecstow_engine.index.graph import HnswGraph, graph_bytes
from vecstow_engine.index.places import BACKLOG, GRAPH, TAIL, LabelTable, row_bytes
from vecstow_engine.index.row_cache import RowCache
from vecstow_engine.index.state import Fetch, GraphFeeder, IndexState
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import DistanceMetric

FLAT_ROWS_MAX: Final = 1000
SLICE_ROWS_MAX: Final = 1024
_REMOVALS_NOTED_MAX: Final = 256
_FETCH_BYTES: Final = 8 * 1024 * 1024
_GATHERED_BYTES: Final = 4 * 1024 * 1024
"""The bytes of rows that `search_among` compares at a time."""
_COMPLETE_BYTES: Final = 1024 * 1024
"""The bytes of rows that are read from hnswlib at a time: 6 ms with the GIL held."""


class VectorIndex:
    """Nearest neighbours of one collection. Thread-safe.

    Additions never wait for the graph. A removal waits only when many are not marked in the graph yet. A
    search waits for at most one slice of `slice_seconds`, and for the searches that came before it.
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
        may_cache: Callable[[int], bool] = lambda size: True,
    ) -> None:
        """Make an empty index. `may_cache` says whether there is memory for so many bytes of cached rows."""
        self._threads = threads
        self._state = IndexState(metric, dimension, config, fetch, flat_rows_max)
        self._feeder = GraphFeeder(self._state, slice_seconds)
        self._cache = RowCache(dimension, may_cache)
        self.searched_at = -math.inf
        """time.monotonic() of the last search."""

    def add(self, rows: Rows, labels: Labels) -> None:
        """Add rows (n, dimension) under distinct labels (n,), searchable at once; ignore known labels.

        The former label of a slot must be removed before. A removed label must not be added again.
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
        """Add live labels whose rows `fetch` can read, searchable at once; ignore known ones."""
        state = self._state
        with state.lock:
            new = labels[~state.table.known(labels)]
            state.backlog.add(new)
            state.table.put(new, BACKLOG)

    def remove(self, labels: Labels) -> None:
        """Remove labels, so that no search that starts later returns them; ignore unknown ones."""
        state = self._state
        with state.lock:
            places = state.table.places(labels)
            state.tail.remove(labels[places == TAIL])
            if (places == GRAPH).any():
                state.removed.append(labels[places == GRAPH])
            state.table.discard(labels)
            many = len(state.removed) > _REMOVALS_NOTED_MAX
        if many:
            with state.turn, state.lock:
                state.apply_removals()

    def search(self, queries: Rows, k: int, ef: int) -> Hits:
        """Return the k nearest (k >= 1) of each query (q, dimension), padded; `ef` applies to this call
        alone.

        Raises the errors of `fetch` while there is a backlog.
        """
        self.searched_at = time.monotonic()
        prepared = exact.prepare(self._state.metric, queries)
        return _search(self._state, prepared, k, ef, self._threads)

    def search_among(self, queries: Rows, labels: Labels, k: int) -> tuple[Hits, int]:
        """Return the k nearest of each query (q, dimension) among these labels (n,), exactly, padded.

        The labels ascend by slot. Also returns how many of the labels were left out, because they were
        removed before their rows were read; others that are removed by then may be found. Raises the errors
        of `fetch`.
        """
        self.searched_at = time.monotonic()
        state = self._state
        prepared = exact.prepare(state.metric, queries)
        hits, left_out = None, 0
        block = max(1, _GATHERED_BYTES // (4 * state.dimension))
        for start in range(0, len(labels), block):
            asked = labels[start : start + block]
            part, rows = self._rows(asked)
            left_out += len(asked) - len(part)
            hits = exact.nearest(state.metric, prepared, rows, part, k, hits)
        return Hits.none(len(prepared), k) if hits is None else hits, left_out

    def _rows(self, labels: Labels) -> tuple[Labels, Rows]:
        """Return the labels whose rows can be read, and these rows, prepared, cached or fetched.

        The rows are valid until the next call in this thread.
        """
        rows, known = self._cache.take(labels)
        if known.all():
            return labels, rows
        at = np.flatnonzero(~known)
        fetched = exact.prepare(self._state.metric, self._state.fetch(labels[at]))
        # `fetch` removes a label whose row fails its checks.
        good = np.isin(labels[at], self._state.still_live(labels[at]))
        self._cache.put(labels[at[good]], fetched[good])
        rows[at], known[at] = fetched, good
        return labels[known], rows[known]

    def drop_cached_rows(self) -> None:
        """Free the memory of cached rows; a later search reads them again."""
        self._cache.clear()

    @property
    def cached_bytes(self) -> int:
        """Bytes of memory that cached rows take."""
        return self._cache.bytes

    def advance(self, rows_max: int = SLICE_ROWS_MAX, threads: int | None = None) -> int:
        """Move one slice towards the graph; return the number of labels that it processed, 0 when all is
        done.

        Raises the errors of `fetch`; nothing has changed then.
        """
        return self._feeder.advance(rows_max, self._threads if threads is None else threads)

    def adopt(self, graph: HnswGraph) -> None:
        """Serve a loaded graph; raise RuntimeError when the index has a graph."""
        self._feeder.adopt(graph)

    def reconcile(self, live_labels: Labels) -> None:
        """Remove from the graph the labels that are not live; add unknown live labels to the backlog.

        `live_labels` are those of the whole collection. Labels that were added meanwhile stay.
        """
        state = self._state
        live = LabelTable()
        live.put(live_labels, GRAPH)
        with state.lock:
            held = state.table.labels_at(GRAPH)
        self.remove(held[~live.known(held)])
        self.add_backlog(live_labels)

    def start_rebuild(self, config: IndexConfig) -> None:
        """Build a new graph in later slices with these settings, while the old one serves.

        Replaces a rebuild that is under way. Without a graph, the settings apply to the first graph.
        """
        self._feeder.start_rebuild(config)

    def start_over(self, config: IndexConfig) -> None:
        """Drop the graph, and build another one with these settings from the rows that `fetch` reads."""
        self._feeder.start_over(config)

    @contextmanager
    def fork_point(self) -> Iterator[HnswGraph | None]:
        """Keep changes and searches off the graph during the block: fork there, and save it in the child."""
        state = self._state
        with state.turn:
            with state.lock:
                state.apply_removals()
            yield state.graph

    @property
    def count(self) -> int:
        """The number of live labels."""
        with self._state.lock:
            return self._state.outside_graph + self._state.table.count(GRAPH)

    @property
    def pending(self) -> int:
        """The number of labels that `advance` has yet to move or check; a flat index keeps its tail."""
        state = self._state
        with state.lock:
            return state.table.count(BACKLOG) if state.flat else state.outside_graph + state.urgent_checks

    @property
    def indexed(self) -> int:
        """The number of labels in their final place: in the graph or, in a flat index, in memory."""
        state = self._state
        with state.lock:
            return state.table.count(TAIL if state.flat else GRAPH)

    @property
    def rebuilding(self) -> bool:
        """Whether a second graph is being built."""
        return self._state.rebuild is not None

    @property
    def progress(self) -> tuple[int, int]:
        """The numbers of indexed labels and of all labels; during a rebuild, those in the new graph."""
        rebuild = self._state.rebuild
        return (self.indexed if rebuild is None else rebuild.graph.live_count), self.count

    @property
    def tail_bytes(self) -> int:
        """Bytes of rows in the tail."""
        with self._state.lock:
            return self._state.tail.bytes

    @property
    def graph_rows(self) -> int:
        """The number of distinct rows in the graph, with deleted ones, which a rebuild drops."""
        graph = self._state.graph
        return 0 if graph is None else graph.row_count

    @property
    def deleted_share(self) -> float:
        """The share of deleted rows among the graph's rows, 0 to 1; a rebuild drops them."""
        state = self._state
        if state.removed:  # These labels may share nodes with live ones.
            with state.turn, state.lock:
                state.apply_removals()
        graph = state.graph
        return graph.deleted_share if graph is not None else 0.0

    @property
    def unchecked(self) -> int:
        """The number of nodes in the graph that no check has searched for yet."""
        graph = self._state.graph
        return graph.checking.count if graph is not None else 0

    @property
    def unreached(self) -> int:
        """The number of nodes that searches may miss: the graph does not lead to them, nor are they apart."""
        graph = self._state.graph
        return graph.unreached_count if graph is not None else 0

    @property
    def memory_bytes(self) -> int:
        """About how many bytes of memory the index takes."""
        rebuild = self._state.rebuild
        second = rebuild.graph.memory_bytes if rebuild is not None else 0
        return self.graph_bytes + second + self.tail_bytes + self.table_bytes

    @property
    def graph_bytes(self) -> int:
        """Bytes of memory that the graph takes."""
        graph = self._state.graph
        return graph.memory_bytes if graph is not None else 0

    @property
    def table_bytes(self) -> int:
        """Bytes of memory that the table of labels takes."""
        return self._state.table.bytes

    @property
    def is_flat(self) -> bool:
        """Whether there are too few rows for a graph, so that all rows stay in the tail."""
        return self._state.flat

    def full_bytes(self, added: int = 0) -> int:
        """Return the bytes that the graph takes once it holds every label and `added` more.

        For too few rows for a graph, return the bytes that they take in the tail.
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
        """Bytes that a second graph of all rows takes; 0 without a first graph."""
        state = self._state
        if state.graph is None:
            return 0
        return self._size(state.graph.row_count - state.graph.deleted_count + state.outside_graph)

    def _size(self, rows: int) -> int:
        return graph_bytes(rows, self._state.dimension, self._state.config.max_connections)


def _search(state: IndexState, queries: Rows, k: int, ef: int, threads: int) -> Hits:
    """Return the k nearest of each prepared query, padded. The caller holds no locks.

    The graph is searched with the turn held. Tail and backlog are searched afterwards, in their state at the
    search of the graph. A row that moves meanwhile is therefore neither missed nor found twice.
    """
    with state.turn:
        with state.lock:
            tail = state.tail.snapshot()
            backlog = state.backlog.snapshot()
            state.apply_removals()
        graph = state.graph
        hits = Hits.none(len(queries), k) if graph is None else graph.search(queries, k, ef, threads)
        short = graph.short(hits) if graph is not None else ()
        labels = graph.live_labels() if graph is not None and len(short) else None
    if labels is not None:
        completed = _search_graph_exactly(state, queries[short], k, labels)
        hits.labels[short], hits.distances[short] = completed.labels, completed.distances
    hits = tail.search(queries, k, hits)
    for labels in backlog:
        hits = _search_on_disk(state, queries, k, labels, hits)
    return hits


def _search_graph_exactly(state: IndexState, queries: Rows, k: int, labels: Labels) -> Hits:
    """Search the graph's rows exactly, for queries that the graph did not lead far enough: slow, but never
    wrong.

    The turn is released between two parts, so that other threads wait for one part only.
    """
    hits = Hits.none(len(queries), k)
    size = max(1, _COMPLETE_BYTES // (4 * state.dimension))
    for start in range(0, len(labels), size):
        with state.turn:
            with state.lock:
                state.apply_removals()
            assert state.graph is not None
            found = state.graph.search_among(queries, labels[start : start + size], k)
        hits = merge(hits, found, k)
    return hits


def _search_on_disk(state: IndexState, queries: Rows, k: int, labels: Labels, hits: Hits) -> Hits:
    """Merge `hits` with the rows of these labels, read from disk in blocks.

    Some of the rows may be in the graph by now, but were not when it was searched.
    """
    block = max(1, _FETCH_BYTES // (4 * state.dimension))
    for start in range(0, len(labels), block):
        part = state.still_live(labels[start : start + block])
        if len(part):
            rows = exact.prepare(state.metric, state.fetch(part))
            # A write may have reused the slot of a label that was removed before its row was read.
            live = np.isin(part, state.still_live(part))
            hits = exact.nearest(state.metric, queries, rows[live], part[live], k, hits)
    return hits
