"""The tail: rows in memory that are not in the graph yet, searched exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecstow_engine.index import exact
from vecstow_engine.index.hits import Hits, Labels, Rows
from vecstow_engine.model.metrics import DistanceMetric

_CHUNK_BYTES_MAX: Final = 2 * 1024 * 1024
"""Memory is freed by chunks. From 4 MiB on numpy asks for huge pages, so that untouched ones take memory."""
_CHUNK_ROWS_MIN: Final = 32
ROW_OVERHEAD_BYTES: Final = 9 + 120
"""Bytes per row: label and mark (9), an entry of the map of labels with its two integers (measured)."""
_INDEX_BITS: Final = 32
_INDEX_MASK: Final = 2**32 - 1


def row_bytes(dimension: int) -> int:
    """Return the bytes of memory that one row takes in a tail."""
    return 4 * dimension + ROW_OVERHEAD_BYTES


class _Chunk:
    """Consecutive rows, written once; afterwards only `live` changes."""

    __slots__ = ("count", "filled", "labels", "live", "rows")

    def __init__(self, capacity: int, dimension: int) -> None:
        self.rows = np.empty((capacity, dimension), dtype=np.float32)
        self.labels = np.empty(capacity, dtype=np.uint64)
        self.live = np.zeros(capacity, dtype=np.bool_)
        self.filled = 0
        self.count = 0

    @property
    def room(self) -> int:
        return len(self.rows) - self.filled

    def append(self, rows: Rows, labels: Labels) -> None:
        end = self.filled + len(rows)
        self.rows[self.filled : end] = rows
        self.labels[self.filled : end] = labels
        self.live[self.filled : end] = True
        self.filled = end
        self.count += len(rows)


@dataclass(frozen=True, slots=True)
class TailSnapshot:
    """The rows at one moment; later changes of the tail do not affect it."""

    metric: DistanceMetric
    parts: list[tuple[Rows, Labels, npt.NDArray[np.bool_]]]
    """Rows and labels as views, and a copy of their live marks."""

    def search(self, queries: Rows, k: int, hits: Hits | None = None) -> Hits:
        """Return the k nearest live rows of prepared queries, exactly, merged with `hits` of other rows."""
        if hits is None:
            hits = Hits.none(len(queries), k)
        for rows, labels, live in self.parts:
            if not live.all():
                rows, labels = rows[live], labels[live]
            hits = exact.nearest(self.metric, queries, rows, labels, k, hits)
        return hits


class Tail:
    """Prepared rows with labels, oldest first. Not thread-safe, but any thread may use its snapshots."""

    def __init__(self, metric: DistanceMetric, dimension: int) -> None:
        self._metric = metric
        self._dimension = dimension
        self._chunks: dict[int, _Chunk] = {}
        self._newest = -1
        self._positions: dict[int, int] = {}
        """Label to (number of its chunk << 32 | row in the chunk)."""

    def add(self, rows: Rows, labels: Labels) -> None:
        """Append prepared rows (n, dimension) under labels (n,) that are not in the tail."""
        done = 0
        while done < len(rows):
            chunk = self._chunk_with_room(len(rows) - done)
            taken = min(len(rows) - done, chunk.room)
            part = slice(done, done + taken)
            first = self._newest << _INDEX_BITS | chunk.filled
            self._positions.update(zip(labels[part].tolist(), range(first, first + taken), strict=True))
            chunk.append(rows[part], labels[part])
            done += taken

    def _chunk_with_room(self, rows: int) -> _Chunk:
        """Return the newest chunk, or a new one as large as all others, so that a small tail stays small."""
        chunk = self._chunks.get(self._newest)
        if chunk is None or not chunk.room:
            most = max(1, _CHUNK_BYTES_MAX // (4 * self._dimension))
            chunk = _Chunk(min(most, max(rows, self.count, _CHUNK_ROWS_MIN)), self._dimension)
            self._newest += 1
            self._chunks[self._newest] = chunk
        return chunk

    def remove(self, labels: Labels) -> int:
        """Drop these labels, ignoring unknown ones; return how many were in the tail."""
        removed = 0
        for label in labels.tolist():
            position = self._positions.pop(label, None)
            if position is None:
                continue
            number = position >> _INDEX_BITS
            chunk = self._chunks[number]
            chunk.live[position & _INDEX_MASK] = False
            chunk.count -= 1
            removed += 1
            if not chunk.count:
                del self._chunks[number]
        return removed

    def rows(self, labels: Labels) -> Rows:
        """Return copies of the rows (n, dimension) of labels that are in the tail."""
        rows = np.empty((len(labels), self._dimension), dtype=np.float32)
        for i, label in enumerate(labels.tolist()):
            position = self._positions[label]
            rows[i] = self._chunks[position >> _INDEX_BITS].rows[position & _INDEX_MASK]
        return rows

    def holds(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Whether each label (n,) is in the tail."""
        return np.fromiter((label in self._positions for label in labels.tolist()), np.bool_, len(labels))

    def peek(self, count: int) -> tuple[Rows, Labels]:
        """Return copies of the oldest `count` rows (fewer when there are fewer), and their labels."""
        rows: list[Rows] = [np.empty((0, self._dimension), dtype=np.float32)]
        labels: list[Labels] = [np.empty(0, dtype=np.uint64)]
        for chunk in self._chunks.values():
            live = np.flatnonzero(chunk.live)[:count]
            rows.append(chunk.rows[live])
            labels.append(chunk.labels[live])
            count -= len(live)
            if count == 0:
                break
        return np.concatenate(rows), np.concatenate(labels)

    def pop(self, count: int) -> tuple[Rows, Labels]:
        """Return what `peek` returns, and remove it."""
        rows, labels = self.peek(count)
        self.remove(labels)
        return rows, labels

    def snapshot(self) -> TailSnapshot:
        """Return the present rows, for searches without a lock."""
        parts = [
            (chunk.rows[: chunk.filled], chunk.labels[: chunk.filled], chunk.live[: chunk.filled].copy())
            for chunk in self._chunks.values()
        ]
        return TailSnapshot(self._metric, parts)

    def search(self, queries: Rows, k: int) -> Hits:
        """Return the k nearest rows of prepared queries, exactly."""
        return self.snapshot().search(queries, k)

    @property
    def count(self) -> int:
        """The number of live rows."""
        return len(self._positions)

    @property
    def bytes(self) -> int:
        """Bytes of the rows written to chunks that are still in memory."""
        return sum(chunk.filled for chunk in self._chunks.values()) * row_bytes(self._dimension)
