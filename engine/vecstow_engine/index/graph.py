"""The graph of one index: approximate nearest neighbours of many rows, equal ones included.

hnswlib isolates points next to many equal or nearly equal ones, whose links lead only to one another. Equal
rows therefore share one node, and nodes that the graph does not lead to are nodes apart, which are searched
exactly. A search for inserted nodes finds the nodes apart.

Not thread-safe: the caller allows one call at a time, and one search at a time.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from vecstow_engine.index import exact
from vecstow_engine.index.exact import NO_LABEL, Hits, Labels, Rows
from vecstow_engine.index.hnsw import Hnsw, hnsw_bytes
from vecstow_engine.index.nodes import ROW_TABLE_BYTES, Groups, Hashes, NodeChecks, RowTable
from vecstow_engine.index.places import LabelTable, Tail
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import MAGNITUDE_MAX, MAGNITUDE_MIN, DistanceMetric
from vecstow_engine.model.points import slots_of

_LIVE: Final = 1
_CHECK_COSTS: Final = {1: 1.0, 8: 3.0, 64: 15.0}
"""The cost of a check by ef, in greedy searches. The first ef finds most nodes; the last ef decides."""
_CHECK_COSTS_IN_DOUBT: Final = {1: 1.0, 8: 3.0, 16: 5.0}
"""Among nearly equal rows, one ef finds an isolated node by chance, and the next ef misses it."""
_SWEEP_GROWTH: Final = 2
"""The growth after which all nodes are checked again, because later nodes take the links of earlier ones."""
EQUAL_SHARE_MAX: Final = 0.01
"""The share of nodes with equal rows above which a loaded graph is worth a rebuild."""
APART_ROWS_MAX: Final = 2000
APART_BYTES_MAX: Final = 4 * 1024 * 1024
_LABEL_BYTES: Final = 5
"""Bytes of a label in the label table."""
_CHECK_BYTES: Final = 8
"""Bytes of a node in the queue of checks, which holds all nodes after a start."""


def graph_bytes(rows: int, dimension: int, max_connections: int) -> int:
    """Return about how many bytes of memory a graph of distinct rows takes, without nodes apart."""
    tables = rows * (ROW_TABLE_BYTES + _LABEL_BYTES + _CHECK_BYTES)
    return hnsw_bytes(rows, dimension, max_connections) + tables


class HnswGraph:
    """Approximate nearest neighbours of prepared rows (`exact.prepare`) under uint64 labels."""

    def __init__(
        self,
        metric: DistanceMetric,
        dimension: int,
        config: IndexConfig,
        capacity: int = 0,
        loaded: Hnsw | None = None,
    ) -> None:
        self._metric = metric
        self._dimension = dimension
        self.hnsw = Hnsw(metric, dimension, config, capacity) if loaded is None else loaded
        self._table = LabelTable()
        self._rows = RowTable(dimension)
        self._groups = Groups()
        self.apart = Tail(metric, dimension)
        """The nodes apart, which are searched exactly."""
        self._apart_max = min(APART_ROWS_MAX, max(1, APART_BYTES_MAX // (4 * dimension)))
        self.checking = NodeChecks()
        self._outside: set[int] = set()
        """Nodes apart that are not in hnswlib's graph."""
        self._swept_rows = 0
        self.unreached_count = 0
        """The number of nodes that the graph does not lead to and that had no room as nodes apart."""
        self.is_outdated = False
        """Whether nodes of a loaded graph hold equal rows or rows that hnswlib cannot measure, as in earlier
        releases.
        """

    def add(self, rows: Rows, labels: Labels, threads: int) -> None:
        """Insert prepared rows (n, dimension) under distinct labels (n,); grow when full.

        A label takes over its slot from a label of another epoch, which is marked deleted.
        """
        if not len(labels):
            return
        self.mark_deleted(self._table.occupants(labels))
        beyond = self._beyond(rows)
        self._insert(rows[~beyond], labels[~beyond], threads)
        # hnswlib cannot measure the others, so they become nodes apart, under their own labels.
        self.apart.add(rows[beyond], labels[beyond])
        self._table.put(labels[beyond], _LIVE)
        self._outside.update(labels[beyond].tolist())

    def _insert(self, rows: Rows, labels: Labels, threads: int) -> None:
        nodes, new, hashes, first = self._nodes_for(rows, labels)
        self.hnsw.add(rows[new], labels[new], threads)
        # Only after hnswlib took the rows: a row that it rejected is no node that equal rows could join.
        self._rows.put(hashes, labels[first])
        self.checking.note(labels[new])
        self._table.put(labels[new], _LIVE)
        if not new.all():
            self._join(labels[~new], nodes[~new])
            self._table.put(labels[~new], _LIVE)
        self._sweep_when_grown()

    def _beyond(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Whether the float32 sums of squares that hnswlib computes of each row (n,) may overflow or vanish.

        Earlier releases accepted such rows. They are searched exactly.
        """
        if self._metric is DistanceMetric.COSINE:
            return np.zeros(len(rows), dtype=np.bool_)
        # No copy of the rows: `load` passes all rows of a file.
        peaks = np.maximum(rows.max(axis=1, initial=0), -rows.min(axis=1, initial=0))
        inside = (peaks >= MAGNITUDE_MIN) & (peaks <= MAGNITUDE_MAX)
        beyond: npt.NDArray[np.bool_] = ~(inside | (peaks == 0))
        return beyond

    def _nodes_for(
        self, rows: Rows, labels: Labels
    ) -> tuple[Labels, npt.NDArray[np.bool_], Hashes, npt.NDArray[np.intp]]:
        """Return the node of each row (n,), whether the row becomes a new node, hashes and lines.

        Hashes and lines are those of the distinct rows that no node held before.
        """
        hashes, first, inverse = np.unique(self._rows.hashes(rows), return_index=True, return_inverse=True)
        nodes = self._rows.find(hashes)
        known = nodes != NO_LABEL
        if len(first) == len(rows) and not known.any():
            return labels, np.ones(len(rows), dtype=np.bool_), hashes, first
        held = rows[first]
        held[known] = self._node_rows(nodes[known])
        nodes[~known] = labels[first[~known]]
        new = (held[inverse] != rows).any(axis=1)
        new[first[~known]] = True
        return np.where(new, labels, nodes[inverse]), new, hashes[~known], first[~known]

    def _node_rows(self, nodes: Labels) -> Rows:
        """Return the rows of nodes, hidden ones included."""
        rows = np.empty((len(nodes), self._dimension), dtype=np.float32)
        apart = self.apart.holds(nodes)
        rows[apart] = self.apart.rows(nodes[apart])
        dead = nodes[~self._is_live(nodes)]
        self.hnsw.show(dead)
        rows[~apart] = self.hnsw.rows(nodes[~apart])
        self.hnsw.hide(dead)
        return rows

    def _join(self, labels: Labels, nodes: Labels) -> None:
        """Add labels (n,) to existing nodes (n,), and show nodes that were hidden."""
        distinct = np.unique(nodes)
        alone = distinct[self._table.known(distinct) & ~self._groups.lists(distinct)]
        dead = distinct[~self._is_live(distinct)]
        self.hnsw.show(dead)
        self.checking.note(dead)
        self._groups.join(labels, nodes, alone)

    def _is_live(self, nodes: Labels) -> npt.NDArray[np.bool_]:
        return self._table.known(nodes) | self._groups.lists(nodes)

    def mark_deleted(self, labels: Labels) -> None:
        """Stop returning these labels, for good; ignore unknown and deleted ones."""
        if not len(labels):
            return
        live = labels[self.contains(labels)]
        dead = self._groups.leave(live)
        self._table.discard(live)
        self.hnsw.hide(dead[~self.apart.holds(dead)])
        self.apart.remove(dead)
        if self._outside:
            self._outside.difference_update(dead.tolist())

    def contains(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Whether each label is in the graph and live; shape (n,)."""
        return self._table.known(labels)

    def live_labels(self) -> Labels:
        """Return all live labels, by rising slot."""
        return self._table.labels_at(_LIVE)

    def rows(self, labels: Labels) -> Rows:
        """Return the prepared rows (n, dimension) of live labels, at about 25 ns a value."""
        nodes, inverse = np.unique(self._groups.nodes_of(labels), return_inverse=True)
        return self._node_rows(nodes)[inverse]

    def search(self, queries: Rows, k: int, ef: int, threads: int) -> Hits:
        """Return the k nearest live labels of prepared queries (q, dimension), padded to k places.

        `ef` is the size of the candidate list for this call alone, at least k. An answer has fewer than
        min(k, live_count) labels when the graph leads to no more, which many nearly equal or deleted rows can
        cause. `short` finds these queries, and `search_among` completes them.
        """
        hits = self.hnsw.search(queries, k, ef, threads)
        if self.apart.count:
            hits = self.apart.snapshot().search(queries, k, hits)
        return self._groups.expand(hits)

    def short(self, hits: Hits) -> npt.NDArray[np.intp]:
        """Return the positions of the queries with fewer labels in their answer than exist."""
        wanted = min(hits.k, self.live_count)
        return (
            np.flatnonzero(hits.labels[:, wanted - 1] == NO_LABEL) if wanted else np.empty(0, dtype=np.intp)
        )

    def search_among(self, queries: Rows, labels: Labels, k: int) -> Hits:
        """Return the k nearest among these labels, exactly; ignore deleted and unknown ones."""
        live = labels[self.contains(labels)]
        return exact.nearest(self._metric, queries, self.rows(live), live, k)

    def check(self, count: int, threads: int) -> int:
        """Search for `count` inserted nodes, and make those that are not found nodes apart.

        Returns the number of nodes taken from the queue, 0 when it is empty.
        """
        nodes = self.checking.take(count)
        shown = np.unique(nodes)
        shown = shown[self._is_live(shown) & ~self.apart.holds(shown)]
        lost, cost = self._lost(shown, threads)
        room = lost[: max(0, self._apart_max - self.apart.count)]
        self.unreached_count += len(lost) - len(room)
        self.apart.add(self.hnsw.rows(room), room)
        self.hnsw.hide(room)
        self.checking.report(len(shown), len(lost), cost)
        if not self.checking.urgent and not self._swept_rows:
            self._swept_rows = self.row_count
        return len(nodes)

    def _lost(self, nodes: Labels, threads: int) -> tuple[Labels, float]:
        """Return those of the shown nodes that the search for their own rows does not find, and its cost."""
        rows, cost = self.hnsw.rows(nodes), 0.0
        for ef, weight in (_CHECK_COSTS_IN_DOUBT if self.checking.is_doubtful else _CHECK_COSTS).items():
            if len(nodes):
                cost += weight * len(nodes)
                found = self.hnsw.leads_to(rows, nodes, ef, threads)
                rows, nodes = rows[~found], nodes[~found]
        return nodes, cost

    def _sweep_when_grown(self) -> None:
        if self._swept_rows and self.row_count >= _SWEEP_GROWTH * self._swept_rows:
            self._swept_rows = self.row_count
            self.unreached_count = 0
            self.checking.start_over(np.unique(self._groups.nodes_of(self.live_labels())))

    @property
    def row_count(self) -> int:
        """The number of hnswlib's nodes, deleted ones included."""
        return self.hnsw.row_count

    @property
    def live_count(self) -> int:
        """The number of labels that a search may return."""
        return self._table.count(_LIVE)

    @property
    def deleted_count(self) -> int:
        """The number of nodes that are still in the graph without a live label."""
        return self.hnsw.hidden_count - self.apart.count + len(self._outside)

    @property
    def deleted_share(self) -> float:
        """The share of deleted nodes among all nodes, 0 to 1."""
        return self.deleted_count / max(1, self.row_count)

    @property
    def memory_bytes(self) -> int:
        """About how many bytes of memory the graph uses, without memory that is only reserved."""
        own = graph_bytes(self.row_count, self._dimension, self.hnsw.max_connections)
        return own + self._groups.bytes + self.apart.bytes

    def save(self, path: str) -> None:
        """Write the graph in hnswlib's format, with the GIL held; sync nothing and report no error.

        In the file, labels that share another label's node and nodes apart are not live. After a load the
        caller adds them again, and their rows lead them to their nodes.
        """
        self.hnsw.save(path)

    @classmethod
    def load(
        cls, path: str, metric: DistanceMetric, dimension: int, config: IndexConfig, capacity: int
    ) -> HnswGraph:
        """Return the graph that `save` wrote; the parameters, rules and errors are those of `Hnsw.load`."""
        hnsw, content = Hnsw.load(path, metric, dimension, config, capacity)
        graph = cls(metric, dimension, config, loaded=hnsw)
        beyond = graph._beyond(content.rows)
        hnsw.hide(content.labels[beyond & ~content.deleted])
        live, outlived = _newest_of_slots(content.labels[~beyond & ~content.deleted])
        hnsw.hide(outlived)
        graph._table.put(live, _LIVE)
        graph.checking.look_through(live)
        hashes, first = np.unique(graph._rows.hashes(content.rows), return_index=True)
        graph._rows.put(hashes, content.labels[first])
        equal = len(content.labels) - len(first)
        graph.is_outdated = bool(beyond.any()) or equal > EQUAL_SHARE_MAX * len(content.labels)
        return graph


def _newest_of_slots(labels: Labels) -> tuple[Labels, Labels]:
    """Return the newest label of each slot, and the other labels.

    A removed label stays the name of a node that other labels share, while its slot has a newer label.
    """
    newest_first = np.sort(labels)[::-1]
    _, first = np.unique(slots_of(newest_first), return_index=True)
    return newest_first[first], np.delete(newest_first, first)
