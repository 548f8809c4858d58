"""A small interface to hnswlib 0.8.0: a graph of distinct rows (Malkov and Yashunin, arXiv:1603.09320).

A node is a row under a uint64 label of hnswlib's, shown or hidden. A search passes through hidden nodes but
never returns them (hnswlib calls them deleted). Not thread-safe, because hnswlib is not: the caller allows
one call at a time. Two searches must not overlap either: hnswlib keeps one `ef` for the whole index. This
module adds what hnswlib leaves to its caller: growth, fewer results than k, Manhattan distances.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hnswlib
import numpy as np
import numpy.typing as npt

from vecstow_engine.index import exact
from vecstow_engine.index.exact import NO_LABEL, Hits, Labels, Rows, ordered
from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import DistanceMetric

HNSWLIB_VERSION: Final = "0.8.0"
"""Part of the record of a saved graph: another version may read the file differently."""

_GROWTH: Final = 1.5
_CAPACITY_MIN: Final = 256
_READ_VALUES_MAX: Final = 256 * 1024
"""The number of values that hnswlib returns in one call: 6 ms with the GIL held."""
_OVERFETCH: Final = 3
"""Candidates per answer from the L2 graph for Manhattan: recall 0.981 at ef 50 on 384-dimensional text."""
_OVERFETCH_OF_EF: Final = 2.0
"""Candidates per place of `ef` for Manhattan: recall 0.97 at ef 50 on 4,000 gaussian rows of 32 dimensions.
A factor of 0.6 gives 0.84 in two thirds of the time."""
_ROUNDING: Final = 2.0**-21
"""Inner products of unit vectors with a smaller difference are equal within the precision of float32."""
SPACES: Final = {
    DistanceMetric.COSINE: "ip",
    DistanceMetric.DOT_PRODUCT: "ip",
    DistanceMetric.EUCLIDEAN: "l2",
    DistanceMetric.MANHATTAN: "l2",
}
_ELEMENT_OVERHEAD_BYTES: Final = 48 + 48
"""Bytes per element besides its row: a mutex (40), level and list pointer; a node of hnswlib's label map."""
_INDEX_OVERHEAD_BYTES: Final = 65_536 * 40
"""hnswlib's label mutexes, which each index has at any size."""
_FILE_HEADER: Final = struct.Struct("<6QiI3QdQ")
"""The beginning of hnswlib's file, which its level 0 follows.

hnswlib does not report which labels are marked deleted. It also trusts the sizes in a file: with another
dimension, it reads past the end of its memory. The file's header and level 0 answer both. Little-endian,
written by hnswlib 0.8.0 (`HierarchicalNSW::saveIndex`):

    8 * 6       offset of level 0 (0), capacity, elements, element bytes, label offset, data offset
    4 + 4       greatest level (signed), entry point
    8 * 5       links above level 0 (M), links at level 0 (2 M), M, level factor (double), ef_construction
    elements *  u16 number of links, u16 flags (bit 0: deleted), 2 M * u32 links, d * f32 values, u64 label
    then for each element u32 bytes of its links above level 0, and these links
"""
_DELETED: Final = 1
_FLAGS_OFFSET: Final = 2


def hnsw_bytes(rows: int, dimension: int, max_connections: int) -> int:
    """Return about how many bytes of memory nodes use, without memory that is only reserved."""
    links_above = (4 * max_connections + 20) // max(1, max_connections - 1)
    element = _element_bytes(max_connections, dimension) + _ELEMENT_OVERHEAD_BYTES + links_above
    return rows * element + _INDEX_OVERHEAD_BYTES


class Hnsw:
    """Approximate nearest neighbours of prepared rows (`exact.prepare`)."""

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
        self.space = SPACES[metric]
        """hnswlib's name of the distance, for the record of a saved graph."""
        self._index = hnswlib.Index(self.space, dimension)
        self.hidden_count = 0
        """The number of nodes that no search returns."""
        self._row = struct.Struct(f"{dimension}f")

    def add(self, rows: Rows, nodes: Labels, threads: int) -> None:
        """Insert prepared rows (n, dimension) as distinct nodes (n,); grow when full.

        A hidden node of that label is shown again, with its new row. After an error of hnswlib all of them
        are hidden, and can be added again.
        """
        if not len(nodes):
            return
        known = self.row_count
        needed = known + len(nodes)
        if needed > self._index.max_elements:
            self._index.resize_index(max(needed, int(self._index.max_elements * _GROWTH)))
        try:
            self._index.add_items(rows, nodes, num_threads=threads)
        except Exception:
            for node in nodes.tolist():
                with contextlib.suppress(RuntimeError):  # The node does not exist, or is hidden already.
                    self._index.mark_deleted(node)
            self.hidden_count += self.row_count - known
            raise
        self.hidden_count -= needed - self.row_count

    def hide(self, nodes: Labels) -> None:
        """Stop returning these shown nodes."""
        for node in nodes.tolist():
            self._index.mark_deleted(node)
        self.hidden_count += len(nodes)

    def show(self, nodes: Labels) -> None:
        """Let searches return these hidden nodes again."""
        for node in nodes.tolist():
            self._index.unmark_deleted(node)
        self.hidden_count -= len(nodes)

    def rows(self, nodes: Labels) -> Rows:
        """Return the prepared rows (n, dimension) of shown nodes, at about 25 ns a value.

        hnswlib holds the GIL, so rows are read in parts, and other threads run in between.
        """
        rows = np.empty((len(nodes), self._dimension), dtype=np.float32)
        part = max(1, _READ_VALUES_MAX // self._dimension)
        for start in range(0, len(nodes), part):
            # hnswlib can make a numpy array itself, from the same lists, but takes twice the time.
            lists = self._index.get_items(nodes[start : start + part], return_type="list")
            packed = b"".join([self._row.pack(*values) for values in lists])
            rows[start : start + part] = np.frombuffer(packed, dtype=np.float32).reshape(-1, self._dimension)
        return rows

    def search(self, queries: Rows, k: int, ef: int, threads: int) -> Hits:
        """Return the k nearest shown nodes of prepared queries (q, dimension), padded to k places.

        `ef` is the size of the candidate list for this call alone, at least k. An answer has fewer than
        min(k, shown_count) nodes when the graph leads to no more, which many nearly equal or hidden rows can
        cause.
        """
        wanted = min(k, self.shown_count)
        if wanted == 0 or len(queries) == 0:
            return Hits.none(len(queries), k)
        if self._metric is DistanceMetric.MANHATTAN:
            wanted = min(max(_OVERFETCH * wanted, int(_OVERFETCH_OF_EF * ef)), self.shown_count)
        self._index.set_ef(max(ef, wanted))
        found = self._reached(queries, wanted, threads)
        if self._metric is DistanceMetric.MANHATTAN:
            found = self._reranked(queries, found)
        return ordered(found, k)

    def leads_to(self, rows: Rows, nodes: Labels, ef: int, threads: int) -> npt.NDArray[np.bool_]:
        """Whether the search for its own row (n, dimension) finds each shown node (n,) or one as near."""
        self._index.set_ef(ef)
        found = self._reached(rows, 1, threads)
        own = np.zeros(len(rows), dtype=np.float32)
        slack = own
        if self.space == "ip":
            squares = np.einsum("ij,ij->i", rows, rows)
            own, slack = 1 - squares, _ROUNDING * squares
        led: npt.NDArray[np.bool_] = (found.labels[:, 0] == nodes) | (found.distances[:, 0] <= own + slack)
        return led

    def _reached(self, queries: Rows, k: int, threads: int) -> Hits:
        try:
            return self._measured(*self._index.knn_query(queries, k, num_threads=threads))
        except RuntimeError:
            # A query reaches fewer than k rows, but hnswlib does not report which query, nor how many rows.
            if len(queries) == 1:
                return self._reached_by_one(queries, k)
        parts = [self._reached(queries[i : i + 1], k, 1) for i in range(len(queries))]
        return Hits(np.concatenate([p.labels for p in parts]), np.concatenate([p.distances for p in parts]))

    def _reached_by_one(self, query: Rows, k: int) -> Hits:
        """Return all nodes that one query reaches, fewer than k, padded; found by bisection."""
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

    def _measured(self, nodes: Labels, raw: Rows) -> Hits:
        """Convert hnswlib's results, which are 1 - dot or the square of the L2 norm, to distances."""
        if self._metric is DistanceMetric.DOT_PRODUCT:
            return Hits(nodes, raw)
        raw = np.maximum(raw, 0)
        return Hits(nodes, raw if self._metric is DistanceMetric.COSINE else np.sqrt(raw))

    def _reranked(self, queries: Rows, found: Hits) -> Hits:
        """Return the same nodes with Manhattan distances."""
        nodes, positions = np.unique(found.labels, return_inverse=True)
        positions = positions.reshape(found.labels.shape)
        rows = self.rows(nodes[nodes != NO_LABEL])
        distances = np.full_like(found.distances, np.inf)
        for i, query in enumerate(queries):
            real = positions[i] < len(rows)
            distances[i, real] = exact.distances(self._metric, query[None], rows[positions[i, real]])[0]
        return Hits(found.labels, distances)

    @property
    def row_count(self) -> int:
        """The number of nodes, hidden ones included."""
        return int(self._index.element_count)

    @property
    def shown_count(self) -> int:
        """The number of nodes that a search may return."""
        return self.row_count - self.hidden_count

    def built_with(self, config: IndexConfig) -> bool:
        """Whether these settings would produce the same graph."""
        return (self.max_connections, self.ef_construction) == (
            config.max_connections,
            max(config.ef_construction, config.max_connections),
        )

    def file_size(self) -> int:
        """Return the bytes that `save` writes, to compare: hnswlib reports no error on a full disk."""
        return int(self._index.index_file_size())

    def save(self, path: str) -> None:
        """Write the graph in hnswlib's format, with the GIL held; sync nothing and report no error."""
        self._index.save_index(path)

    @classmethod
    def load(
        cls, path: str, metric: DistanceMetric, dimension: int, config: IndexConfig, capacity: int
    ) -> tuple[Hnsw, SnapshotContent]:
        """Return the graph saved at `path`, with room for `capacity` rows, and its content; hold the GIL.

        The file must be verified before: damage in rows or links crashes the process. Raises DamagedFile when
        its sizes contradict each other. The settings of the file win over `config`; `built_with` compares
        them.
        """
        content = _read_content(path, dimension)
        if not len(content.labels):
            # hnswlib wrongly assumes that an empty loaded index has an entry point.
            return cls(metric, dimension, config, capacity), content
        graph = cls.__new__(cls)
        graph._prepare_fields(metric, dimension, content.max_connections, content.ef_construction)
        graph._index.load_index(path, max_elements=capacity)
        graph.hidden_count = int(content.deleted.sum())
        return graph, content


@dataclass(frozen=True, slots=True)
class SnapshotContent:
    """The settings, labels and rows of a saved graph."""

    max_connections: int
    ef_construction: int
    labels: Labels
    """Every label, deleted ones included, in the order of insertion."""
    deleted: npt.NDArray[np.bool_]
    """Whether each label is marked deleted."""
    rows: Rows
    """The rows (n, dimension) of the labels, mapped from the file."""


def _read_content(path: str, dimension: int) -> SnapshotContent:
    """Return the content of the graph saved at `path`; raise DamagedFile when its sizes are contradictory."""
    with Path(path).open("rb") as file:
        raw = file.read(_FILE_HEADER.size)
    if len(raw) < _FILE_HEADER.size:
        raise DamagedFile(f"{len(raw)} bytes; a saved graph has at least {_FILE_HEADER.size}", file=path)
    level0, _, count, element_bytes, label_at, data_at, _, _, _, links, m, _, ef = _FILE_HEADER.unpack(raw)
    size = _element_bytes(m, dimension)
    if (level0, links, element_bytes, data_at, label_at) != (0, 2 * m, size, 4 + 8 * m, size - 8):
        raise DamagedFile(
            f"not a graph of {dimension} dimensions (M {m}, {element_bytes} bytes an element)", file=path
        )
    if Path(path).stat().st_size < _FILE_HEADER.size + count * (element_bytes + 4):
        raise DamagedFile(f"too short for its {count} elements", file=path)
    if count == 0:
        none = np.empty((0, dimension), dtype=np.float32)
        return SnapshotContent(m, ef, np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.bool_), none)
    elements = np.memmap(path, np.uint8, "r", _FILE_HEADER.size, (count, element_bytes))
    labels = np.ascontiguousarray(elements[:, label_at:]).view("<u8").astype(np.uint64).ravel()
    deleted = (elements[:, _FLAGS_OFFSET] & _DELETED).astype(np.bool_)
    return SnapshotContent(m, ef, labels, deleted, elements[:, data_at:label_at].view("<f4"))


def _element_bytes(max_connections: int, dimension: int) -> int:
    """Return the bytes of one element at level 0: counters, links, vector and label."""
    return 4 + 2 * max_connections * 4 + 4 * dimension + 8
