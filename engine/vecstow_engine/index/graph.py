"""The HNSW graph (Malkov and Yashunin, arXiv:1603.09320): hnswlib 0.8.0 behind a small interface.

Not thread-safe, as hnswlib is not: the caller lets one call in at a time (two searches included, since
hnswlib keeps one `ef` for the whole index). What hnswlib leaves to its caller is done here: growing, labels
that are deleted twice, fewer results than k, Manhattan distances.
"""

from __future__ import annotations

import struct
from typing import Final

import hnswlib
import numpy as np
import numpy.typing as npt

from vecstow_engine.index import exact
from vecstow_engine.index.hits import NO_LABEL, Hits, Labels, Rows, ordered
from vecstow_engine.index.label_table import LabelTable
from vecstow_engine.index.snapshot_format import element_size, read_content
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import DistanceMetric

HNSWLIB_VERSION: Final = "0.8.0"
"""Stands in the record of a saved graph: another version may read it otherwise."""

_LIVE: Final = 1
_GROWTH: Final = 1.5
_CAPACITY_MIN: Final = 256
_READ_VALUES_MAX: Final = 256 * 1024
"""Values that hnswlib gives back in one call: 6 ms with the GIL held."""
_OVERFETCH: Final = 3
"""Candidates per answer from the L2 graph for Manhattan: recall 0.981 at ef 50 on 384-dimensional text."""
SPACES: Final = {
    DistanceMetric.COSINE: "ip",
    DistanceMetric.DOT_PRODUCT: "ip",
    DistanceMetric.EUCLIDEAN: "l2",
    DistanceMetric.MANHATTAN: "l2",
}
_ELEMENT_OVERHEAD_BYTES: Final = 48 + 48
"""Per element beside its row: a mutex (40), level and list pointer; a node of hnswlib's label map."""
_INDEX_OVERHEAD_BYTES: Final = 65_536 * 40
"""hnswlib's label mutexes, in every index however small."""


class HnswGraph:
    """Approximate nearest neighbours of prepared rows (`exact.prepare`) under uint64 labels."""

    def __init__(
        self, metric: DistanceMetric, dimension: int, config: IndexConfig, capacity: int = 0
    ) -> None:
        self._prepare_fields(metric, dimension, config.max_connections, config.ef_construction)
        self._index.init_index(
            max_elements=max(capacity, _CAPACITY_MIN),
            M=config.max_connections,
            ef_construction=config.ef_construction,
        )

    def _prepare_fields(self, metric: DistanceMetric, dimension: int, m: int, ef_construction: int) -> None:
        self._metric = metric
        self._dimension = dimension
        self.max_connections = m
        self.ef_construction = max(ef_construction, m)
        self._index = hnswlib.Index(SPACES[metric], dimension)
        self._table = LabelTable()
        self._deleted = 0
        self._row = struct.Struct(f"{dimension}f")

    def add(self, rows: Rows, labels: Labels, threads: int) -> None:
        """Insert prepared rows (n, dimension) under distinct labels (n,); grows when full.

        A label whose slot is held under another generation takes it over: the older one is marked deleted.
        """
        if not len(labels):
            return
        self.mark_deleted(self._table.occupants(labels))
        self._reserve(len(labels))
        known = self.row_count
        self._index.add_items(rows, labels, num_threads=threads)
        self._deleted -= known + len(labels) - self.row_count
        self._table.put(labels, _LIVE)

    def mark_deleted(self, labels: Labels) -> None:
        """Never return these labels again; unknown and deleted ones are passed over."""
        live = labels[self.contains(labels)]
        for label in live.tolist():
            self._index.mark_deleted(label)
        self._deleted += len(live)
        self._table.discard(live)

    def contains(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Which of the labels are in the graph and live; shape (n,)."""
        return self._table.known(labels)

    def live_labels(self) -> Labels:
        """All live labels, by rising slot."""
        return self._table.labels_at(_LIVE)

    def rows(self, labels: Labels) -> Rows:
        """The prepared rows (n, dimension) of live labels, at about 25 ns a value.

        hnswlib holds the GIL, so they are read in parts: other threads run in between.
        """
        rows = np.empty((len(labels), self._dimension), dtype=np.float32)
        part = max(1, _READ_VALUES_MAX // self._dimension)
        for start in range(0, len(labels), part):
            # hnswlib makes its own numpy array from the same lists, at twice the time.
            lists = self._index.get_items(labels[start : start + part], return_type="list")
            packed = b"".join([self._row.pack(*values) for values in lists])
            rows[start : start + part] = np.frombuffer(packed, dtype=np.float32).reshape(-1, self._dimension)
        return rows

    def search(self, queries: Rows, k: int, ef: int, threads: int) -> Hits:
        """The k nearest live labels of prepared queries (q, dimension), padded to k places.

        `ef` is the size of the candidate list for this call alone, at least k. An answer has fewer than
        min(k, live_count) labels where the graph leads to no more, as it may among many equal or deleted
        rows: `short` finds these queries, `search_among` completes them.
        """
        wanted = min(k, self.live_count)
        if wanted == 0 or len(queries) == 0:
            return Hits.none(len(queries), k)
        if self._metric is DistanceMetric.MANHATTAN:
            wanted = min(_OVERFETCH * wanted, self.live_count)
        self._index.set_ef(max(ef, wanted))
        found = self._reached(queries, wanted, threads)
        if self._metric is DistanceMetric.MANHATTAN:
            found = self._reranked(queries, found)
        return ordered(found, k)

    def short(self, hits: Hits) -> npt.NDArray[np.intp]:
        """The queries whose answer has fewer labels than there are to find."""
        wanted = min(hits.k, self.live_count)
        return (
            np.flatnonzero(hits.labels[:, wanted - 1] == NO_LABEL) if wanted else np.empty(0, dtype=np.intp)
        )

    def search_among(self, queries: Rows, labels: Labels, k: int) -> Hits:
        """The k nearest among these labels exactly, deleted and unknown ones passed over."""
        live = labels[self.contains(labels)]
        return exact.nearest(self._metric, queries, self.rows(live), live, k)

    def _reached(self, queries: Rows, k: int, threads: int) -> Hits:
        try:
            return self._measured(*self._index.knn_query(queries, k, num_threads=threads))
        except RuntimeError:
            # Some query reaches fewer than k rows, and hnswlib says neither which nor how many.
            if len(queries) == 1:
                return self._reached_by_one(queries, k)
        parts = [self._reached(queries[i : i + 1], k, 1) for i in range(len(queries))]
        return Hits(np.concatenate([p.labels for p in parts]), np.concatenate([p.distances for p in parts]))

    def _reached_by_one(self, query: Rows, k: int) -> Hits:
        """All that one query reaches, fewer than k, padded: by bisection."""
        low, high = 0, k - 1
        reached = Hits.none(1, 0)
        while low < high:
            middle = (low + high + 1) // 2
            try:
                reached = self._measured(*self._index.knn_query(query, middle, num_threads=1))
                low = middle
            except RuntimeError:
                high = middle - 1
        return ordered(reached, k)

    def _measured(self, labels: Labels, raw: Rows) -> Hits:
        """hnswlib's results as ours: it gives 1 - dot, or the square of the L2 norm."""
        if self._metric is DistanceMetric.DOT_PRODUCT:
            return Hits(labels, raw)
        raw = np.maximum(raw, 0)
        return Hits(labels, raw if self._metric is DistanceMetric.COSINE else np.sqrt(raw))

    def _reranked(self, queries: Rows, found: Hits) -> Hits:
        """The same labels with Manhattan distances."""
        labels, positions = np.unique(found.labels, return_inverse=True)
        positions = positions.reshape(found.labels.shape)
        rows = self.rows(labels[labels != NO_LABEL])
        distances = np.full_like(found.distances, np.inf)
        for i, query in enumerate(queries):
            real = positions[i] < len(rows)
            distances[i, real] = exact.distances(self._metric, query[None], rows[positions[i, real]])[0]
        return Hits(found.labels, distances)

    def _reserve(self, added: int) -> None:
        needed = self.row_count + added
        if needed > self._index.max_elements:
            self._index.resize_index(max(needed, int(self._index.max_elements * _GROWTH)))

    @property
    def space(self) -> str:
        """hnswlib's name of the distance, for the record of a saved graph."""
        return SPACES[self._metric]

    @property
    def row_count(self) -> int:
        """Rows, deleted ones included."""
        return int(self._index.element_count)

    @property
    def live_count(self) -> int:
        """Labels that a search may return."""
        return self._table.count(_LIVE)

    @property
    def deleted_count(self) -> int:
        """Rows that are still in the graph though their labels are marked deleted."""
        return self._deleted

    @property
    def deleted_share(self) -> float:
        """Deleted rows among all rows, 0 to 1."""
        return self._deleted / max(1, self._deleted + self.live_count)

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory, about: what is touched, not what is reserved."""
        links_above = (4 * self.max_connections + 20) // max(1, self.max_connections - 1)
        element = element_size(self.max_connections, self._dimension) + _ELEMENT_OVERHEAD_BYTES + links_above
        return self.row_count * element + _INDEX_OVERHEAD_BYTES + self._table.bytes

    def built_with(self, config: IndexConfig) -> bool:
        """Whether these settings would make the same graph."""
        return (self.max_connections, self.ef_construction) == (
            config.max_connections,
            max(config.ef_construction, config.max_connections),
        )

    def file_size(self) -> int:
        """Bytes that `save` writes; hnswlib reports no error on a full disk, so the caller compares."""
        return int(self._index.index_file_size())

    def save(self, path: str) -> None:
        """Write the graph in hnswlib's format, holding the GIL; syncs nothing and reports no error."""
        self._index.save_index(path)

    @classmethod
    def load(
        cls,
        path: str,
        metric: DistanceMetric,
        dimension: int,
        config: IndexConfig,
        element_count_max: int = 0,
    ) -> HnswGraph:
        """The graph saved at `path`, with room for `element_count_max` rows; holds the GIL.

        The file must be verified before: damage inside rows or links crashes the process. Raises DamagedFile
        when its sizes contradict. Its own settings win over `config`; `built_with` tells.
        """
        content = read_content(path, dimension)
        if not len(content.labels):
            # hnswlib takes an empty loaded index for one that has an entry point.
            return cls(metric, dimension, config, element_count_max)
        graph = cls.__new__(cls)
        graph._prepare_fields(metric, dimension, content.max_connections, content.ef_construction)
        graph._index.load_index(path, max_elements=element_count_max)
        graph._deleted = int(content.deleted.sum())
        graph._table.put(content.labels[~content.deleted], _LIVE)
        return graph
