"""Rows that are not in the graph yet, in memory and searched exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecstow_engine.index import exact
from vecstow_engine.index.hits import Hits, Labels, Rows, merge
from vecstow_engine.model.metrics import DistanceMetric

_CHUNK_BYTES: Final = 1024 * 1024
"""Memory is freed chunk by chunk; pages of a chunk that no row has touched are not resident."""


class _Chunk:
    """Consecutive rows, written once; `live` alone changes afterwards."""

    __slots__ = ("count", "filled", "labels", "live", "rows")

    def __init__(self, capacity: int, dimension: int) -> None:
        self.rows = np.empty((capacity, dimension), dtype=np.float32)
        self.labels = np.empty(capacity, dtype=np.uint64)
        self.live = np.zeros(capacity, dtype=np.bool_)
        self.filled = 0
        self.count = 0

    @property
    def full(self) -> bool:
        return self.filled == len(self.rows)

    def append(self, rows: Rows, labels: Labels) -> None:
        end = self.filled + len(rows)
        self.rows[self.filled : end] = rows
        self.labels[self.filled : end] = labels
        self.live[self.filled : end] = True
        self.filled = end
        self.count += len(rows)


@dataclass(frozen=True, slots=True)
class TailSnapshot:
    """The rows of one moment: later changes of the tail do not show."""

    metric: DistanceMetric
    parts: list[tuple[Rows, Labels, npt.NDArray[np.bool_]]]
    """Rows and labels as views, and a copy of which of them are live."""

    def search(self, queries: Rows, k: int) -> Hits:
        """The k nearest live rows of prepared queries, exactly."""
        hits = Hits.none(len(queries), k)
        for rows, labels, live in self.parts:
            if not live.all():
                rows, labels = rows[live], labels[live]
            hits = merge(hits, exact.nearest(self.metric, queries, rows, labels, k), k)
        return hits


class Tail:
    """Prepared rows with labels, oldest first. Not thread-safe, but its snapshots may be used anywhere."""

    def __init__(self, metric: DistanceMetric, dimension: int) -> None:
        self._metric = metric
        self._dimension = dimension
        self._chunk_rows = max(1, _CHUNK_BYTES // (4 * dimension))
        self._chunks: dict[int, _Chunk] = {}
        self._positions: dict[int, int] = {}
        """Label to position; positions count all rows ever added, so chunk = position // chunk_rows."""
        self._next = 0

    def add(self, rows: Rows, labels: Labels) -> None:
        """Append prepared rows (n, dimension) under labels (n,) that are not in the tail."""
        self._positions.update(zip(labels.tolist(), range(self._next, self._next + len(labels)), strict=True))
        done = 0
        while done < len(rows):
            chunk = self._chunks.get(self._next // self._chunk_rows)
            if chunk is None:
                chunk = _Chunk(self._chunk_rows, self._dimension)
                self._chunks[self._next // self._chunk_rows] = chunk
            taken = min(len(rows) - done, self._chunk_rows - chunk.filled)
            chunk.append(rows[done : done + taken], labels[done : done + taken])
            self._next += taken
            done += taken

    def remove(self, labels: Labels) -> int:
        """Drop these labels, passing over unknown ones; returns how many were there."""
        removed = 0
        for label in labels.tolist():
            position = self._positions.pop(label, None)
            if position is None:
                continue
            number, index = divmod(position, self._chunk_rows)
            chunk = self._chunks[number]
            chunk.live[index] = False
            chunk.count -= 1
            removed += 1
            if chunk.count == 0 and chunk.full:
                del self._chunks[number]
        if not self._positions and self._chunks:
            self._chunks.clear()
            self._next += -self._next % self._chunk_rows
        return removed

    def peek(self, count: int) -> tuple[Rows, Labels]:
        """Copies of the oldest `count` rows (fewer when there are fewer), and their labels."""
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
        """As `peek`, and removes them."""
        rows, labels = self.peek(count)
        self.remove(labels)
        return rows, labels

    def snapshot(self) -> TailSnapshot:
        """What is in the tail now, to be searched without a lock."""
        parts = [
            (chunk.rows[: chunk.filled], chunk.labels[: chunk.filled], chunk.live[: chunk.filled].copy())
            for chunk in self._chunks.values()
            if chunk.count
        ]
        return TailSnapshot(self._metric, parts)

    def search(self, queries: Rows, k: int) -> Hits:
        """The k nearest rows of prepared queries, exactly."""
        return self.snapshot().search(queries, k)

    @property
    def count(self) -> int:
        """Live rows."""
        return len(self._positions)

    @property
    def bytes(self) -> int:
        """Bytes of the rows written to chunks that are still held."""
        return sum(chunk.filled for chunk in self._chunks.values()) * (4 * self._dimension + 9)
