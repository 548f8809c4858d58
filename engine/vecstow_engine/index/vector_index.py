"""One collection's index: a graph, the tail that is on its way there, and the backlog that is only on disk.

A label is in one place at a time. Two locks, taken in this order: `_turn` guards hnswlib's graph and is held
for a slice or a search; `_state` guards everything else and is held for moments. So an added row never
waits for a slice, nor does a removal: the label table and the tail know it at once, and whoever has the turn
next, any later search included, marks it in the graph first.

A graph takes 2.6 MB at least, so an index of few rows is flat: all of them stay in the tail.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from vecstow_engine.index import exact
from vecstow_engine.index.backlog import Backlog
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.index.hits import NO_LABEL, Hits, Labels, Rows, merge
from vecstow_engine.index.label_table import LabelTable
from vecstow_engine.index.rebuild import Rebuild
from vecstow_engine.index.slices import SliceMeter
from vecstow_engine.index.tail import Tail
from vecstow_engine.index.turns import Turns
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import DistanceMetric

Fetch = Callable[[Labels], Rows]
"""Rows (n, dimension) of live labels that are durable on disk. Called without any lock; may raise."""

FLAT_ROWS_MAX: Final = 1000
FLAT_BYTES_MAX: Final = 4 * 1024 * 1024
SLICE_ROWS_MAX: Final = 1024
_FETCH_BYTES: Final = 8 * 1024 * 1024
_COMPLETE_BYTES: Final = 1024 * 1024
"""Rows read back from hnswlib at a time: 6 ms with the GIL held."""
_TAIL: Final = 1
_BACKLOG: Final = 2
_GRAPH: Final = 3


class VectorIndex:
    """Nearest neighbours of one collection. Every method may be called from any thread."""

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
        self._metric = metric
        self._dimension = dimension
        self._config = config
        self._fetch = fetch
        self._threads = threads
        self._meter = SliceMeter(slice_seconds)
        self._flat_rows_max = min(flat_rows_max, FLAT_BYTES_MAX // (4 * dimension))
        self._turn = Turns()
        self._state = threading.Lock()
        self._advancing = threading.Lock()
        self._graph: HnswGraph | None = None
        self._rebuild: Rebuild | None = None
        self._rebuild_is_next = False
        self._table = LabelTable()
        self._tail = Tail(metric, dimension)
        self._backlog = Backlog()
        self._removed: list[Labels] = []

    # -- what the collection holds

    def add(self, rows: Rows, labels: Labels) -> None:
        """Rows (n, dimension) under distinct labels (n,), searchable at once; known ones are passed over."""
        prepared = exact.prepare(self._metric, rows)
        with self._state:
            new = ~self._table.known(labels)
            if not new.all():
                prepared, labels = prepared[new], labels[new]
            self._tail.add(prepared, labels)
            self._table.put(labels, _TAIL)

    def add_backlog(self, labels: Labels) -> None:
        """Live labels whose rows `fetch` can read, searchable at once; known ones are passed over."""
        with self._state:
            new = labels[~self._table.known(labels)]
            self._backlog.add(new)
            self._table.put(new, _BACKLOG)

    def remove(self, labels: Labels) -> None:
        """No search that starts after this returns any of them; unknown ones are passed over."""
        with self._state:
            places = self._table.places(labels)
            self._tail.remove(labels[places == _TAIL])
            if (places == _GRAPH).any():
                self._removed.append(labels[places == _GRAPH])
            self._table.discard(labels)

    def reconcile(self, live_labels: Labels) -> None:
        """After `adopt`: remove from the graph what is not among `live_labels`, backlog what is missing.

        `live_labels` is the whole collection. What was already added otherwise stays.
        """
        known = LabelTable()
        known.put(live_labels, _GRAPH)
        with self._state:
            held = self._table.labels_at(_GRAPH)
        self.remove(held[~known.known(held)])
        self.add_backlog(live_labels)

    def adopt(self, graph: HnswGraph) -> None:
        """Serve a loaded graph; only for an index that has none yet."""
        with self._advancing, self._turn, self._state:
            if self._graph is not None:
                raise RuntimeError("this index has a graph already")
            self._graph = graph
            labels = graph.live_labels()
            known = labels[self._table.known(labels)]
            graph.mark_deleted(known)
            self._table.put(graph.live_labels(), _GRAPH)

    # -- search

    def search(self, queries: Rows, k: int, ef: int) -> Hits:
        """The k nearest of each query (q, dimension), padded; `ef` holds for this call alone."""
        prepared = exact.prepare(self._metric, queries)
        with self._turn:
            # A slice moves rows with the turn held: either all of it is in the tail here, or in the graph.
            with self._state:
                tail = self._tail.snapshot()
                backlog = self._backlog.snapshot()
                self._apply_removals()
            hits, unreached = self._search_graph(prepared, k, ef)
        if len(unreached):
            hits = self._complete(prepared, k, hits, unreached)
        if tail.parts:
            hits = merge(hits, tail.search(prepared, k), k)
        for labels in backlog:
            hits = self._search_on_disk(prepared, labels, k, hits)
        return hits

    def _search_graph(self, queries: Rows, k: int, ef: int) -> tuple[Hits, Labels]:
        """With the turn held: hits, and all labels of the graph when some query must be completed."""
        if self._graph is None:
            return Hits.none(len(queries), k), np.empty(0, dtype=np.uint64)
        hits = self._graph.search(queries, k, ef, self._threads)
        short = len(self._graph.short(hits)) > 0
        return hits, self._graph.live_labels() if short else np.empty(0, dtype=np.uint64)

    def _complete(self, queries: Rows, k: int, hits: Hits, labels: Labels) -> Hits:
        """Search the graph's rows exactly for queries that it did not lead far enough: slow, but never wrong.

        The turn is given back between two parts, so that others need not wait for all of it.
        """
        short = np.flatnonzero((hits.labels[:, : min(k, len(labels))] == NO_LABEL).any(axis=1))
        found = Hits.none(len(short), k)
        size = max(1, _COMPLETE_BYTES // (4 * self._dimension))
        for start in range(0, len(labels), size):
            with self._turn:
                with self._state:
                    self._apply_removals()
                graph = self._graph
                assert graph is not None
                part = graph.search_among(queries[short], labels[start : start + size], k)
            found = merge(found, part, k)
        hits.labels[short], hits.distances[short] = found.labels, found.distances
        return hits

    def _search_on_disk(self, queries: Rows, labels: Labels, k: int, hits: Hits) -> Hits:
        block = max(1, _FETCH_BYTES // (4 * self._dimension))
        for start in range(0, len(labels), block):
            part = self._still_live(labels[start : start + block])
            if not len(part):
                continue
            rows = exact.prepare(self._metric, self._fetch(part))
            # A slot that was freed since then may have been overwritten before it was read.
            found = exact.nearest(self._metric, queries, rows, part, k)
            gone = ~np.isin(part, self._still_live(part))
            if gone.any():
                found = exact.nearest(self._metric, queries, rows[~gone], part[~gone], k)
            hits = merge(hits, found, k)
        return hits

    def _still_live(self, labels: Labels) -> Labels:
        """Those that were not removed. Some may be in the graph by now, but were not when it was searched."""
        with self._state:
            return labels[self._table.known(labels)]

    # -- moving into the graph

    def advance(self, rows_max: int = SLICE_ROWS_MAX, threads: int | None = None) -> int:
        """Move one slice towards the graph; returns how many rows moved, 0 when there is nothing to do.

        One caller at a time does it, others wait. Raises what `fetch` raises, and then nothing has changed.
        """
        threads = self._threads if threads is None else threads
        with self._advancing:
            rows = min(rows_max, self._meter.rows(threads))
            if self._flat():
                return self._load_backlog(rows_max)
            waiting = self._tail.count > 0 or bool(self._backlog)
            if self._rebuild is not None and (self._rebuild_is_next or not waiting):
                self._rebuild_is_next = False
                return self._advance_rebuild(self._rebuild, rows, threads)
            self._rebuild_is_next = True
            if self._tail.count:
                return self._move_tail(rows, threads)
            return self._move_backlog(rows, threads)

    def _flat(self) -> bool:
        total = self._table.count(_TAIL) + self._table.count(_BACKLOG)
        return self._graph is None and total <= self._flat_rows_max

    def _load_backlog(self, rows_max: int) -> int:
        """Flat: rows from disk join the tail, which is all the index there is."""
        taken, labels, rows = self._take_backlog(rows_max)
        with self._state:
            waiting = self._table.places(labels) == _BACKLOG
            self._tail.add(rows[waiting], labels[waiting])
            self._table.put(labels[waiting], _TAIL)
            self._backlog.skip(taken)
        return taken

    def _move_tail(self, rows_max: int, threads: int) -> int:
        with self._turn:
            with self._state:
                rows, labels = self._tail.peek(rows_max)
            self._insert(rows, labels, threads)
            with self._state:
                self._settle(labels, _TAIL)
                self._tail.remove(labels)
        return len(labels)

    def _move_backlog(self, rows_max: int, threads: int) -> int:
        taken, labels, rows = self._take_backlog(rows_max)
        with self._turn:
            self._insert(rows, labels, threads)
            with self._state:
                self._settle(labels, _BACKLOG)
                self._backlog.skip(taken)
        return taken

    def _take_backlog(self, rows_max: int) -> tuple[int, Labels, Rows]:
        """How many labels to skip afterwards, the live ones of them, and their prepared rows."""
        with self._state:
            labels = self._backlog.peek(rows_max)
            live = labels[self._table.places(labels) == _BACKLOG]
        rows = np.empty((0, self._dimension), dtype=np.float32)
        if len(live):
            rows = exact.prepare(self._metric, self._fetch(live))
        return len(labels), live, rows

    def _insert(self, rows: Rows, labels: Labels, threads: int) -> None:
        """With the turn held."""
        if self._graph is None:
            with self._state:
                total = self._table.count(_TAIL) + self._table.count(_BACKLOG)
            self._graph = HnswGraph(self._metric, self._dimension, self._config, total)
        with self._meter.measure(len(labels)):
            self._graph.add(rows, labels, threads)

    def _settle(self, labels: Labels, source: int) -> None:
        """With both locks held: labels of a slice are in the graph now, but for those removed meanwhile."""
        assert self._graph is not None
        stayed = self._table.places(labels) == source
        self._graph.mark_deleted(labels[~stayed])
        self._table.put(labels[stayed], _GRAPH)
        if self._rebuild is not None:
            self._rebuild.note_added(labels[stayed])

    def _apply_removals(self) -> None:
        """With both locks held: mark deleted in the graph what `remove` has left to do."""
        removed, self._removed = self._removed, []
        for labels in removed:
            assert self._graph is not None
            self._graph.mark_deleted(labels)
            if self._rebuild is not None:
                self._rebuild.note_removed(labels)

    # -- rebuild

    def start_rebuild(self, config: IndexConfig) -> None:
        """Build the graph anew in later slices, with these settings; replaces a rebuild that is under way."""
        with self._advancing, self._turn, self._state:
            self._config = config
            if self._graph is None:
                return
            self._apply_removals()
            graph = HnswGraph(self._metric, self._dimension, config, self._table.count(_GRAPH) * 9 // 8)
            self._rebuild = Rebuild(graph, self._graph.live_labels())

    def _advance_rebuild(self, rebuild: Rebuild, rows_max: int, threads: int) -> int:
        with self._turn:
            with self._state:
                self._apply_removals()
                labels = rebuild.todo.peek(rows_max)
                live = labels[self._table.places(labels) == _GRAPH]
            assert self._graph is not None
            rows = self._graph.rows(live)
        with self._meter.measure(len(live)):
            rebuild.insert(rows, live, threads)
        with self._turn, self._state:
            self._apply_removals()
            rebuild.settle()
            rebuild.todo.skip(len(labels))
            old = self._graph
            if not rebuild.todo:
                self._graph, self._rebuild = rebuild.graph, None
        # Freed here, without a lock: a large graph takes a while.
        del old
        return max(1, len(labels))

    # -- snapshots and figures

    @contextmanager
    def fork_point(self) -> Iterator[HnswGraph | None]:
        """Nothing changes the graph while this is held: fork in it, and save the graph in the child."""
        with self._turn:
            with self._state:
                self._apply_removals()
            yield self._graph

    @property
    def count(self) -> int:
        """Live labels."""
        with self._state:
            return sum(self._table.count(place) for place in (_TAIL, _BACKLOG, _GRAPH))

    @property
    def pending(self) -> int:
        """Labels that `advance` has yet to move; in a flat index the tail is where they belong."""
        with self._state:
            return self._table.count(_BACKLOG) + (0 if self._flat() else self._table.count(_TAIL))

    @property
    def indexed(self) -> int:
        """Labels that are where they belong: in the graph or, while the index is flat, in memory."""
        return self.count - self.pending

    @property
    def rebuilding(self) -> bool:
        """Whether a second graph is being built."""
        return self._rebuild is not None

    @property
    def progress(self) -> tuple[int, int]:
        """Indexed and total; of the new graph while rebuilding."""
        rebuild = self._rebuild
        return (self.indexed if rebuild is None else rebuild.graph.live_count), self.count

    @property
    def tail_bytes(self) -> int:
        """Bytes of rows that wait in memory."""
        with self._state:
            return self._tail.bytes

    @property
    def deleted_share(self) -> float:
        """Deleted rows among the graph's rows, 0 to 1; a rebuild drops them."""
        graph = self._graph
        if graph is None or not graph.row_count:
            return 0.0
        with self._state:
            return 1 - self._table.count(_GRAPH) / graph.row_count

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory, about."""
        graphs = [self._graph, self._rebuild.graph if self._rebuild is not None else None]
        return (
            sum(graph.memory_bytes for graph in graphs if graph is not None)
            + self.tail_bytes
            + self._table.bytes
        )
