"""The places of labels: the tail and the backlog, whose rows wait for the graph, and the table of all."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecstow_engine.index import exact
from vecstow_engine.index.exact import Hits, Labels, Rows
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.model.points import epochs_of, make_labels, slots_of

NOWHERE: Final = 0
TAIL: Final = 1
BACKLOG: Final = 2
GRAPH: Final = 3
_PLACES: Final = 8
_SLOTS_MIN: Final = 64
_CHUNK_BYTES_MAX: Final = 2 * 1024 * 1024
"""Memory is freed by chunks. From 4 MiB on numpy asks for huge pages, so that untouched ones take memory."""
_CHUNK_ROWS_MIN: Final = 32
_ROW_OVERHEAD_BYTES: Final = 9 + 120
"""Bytes per row: label and mark (9), an entry of the map of labels with its two integers (measured)."""
_INDEX_BITS: Final = 32
_INDEX_MASK: Final = 2**32 - 1


def row_bytes(dimension: int) -> int:
    """Return the bytes of memory that one row takes in a tail."""
    return 4 * dimension + _ROW_OVERHEAD_BYTES


class LabelTable:
    """A place (1 to 7) for each label, at most one label per slot. Not thread-safe.

    A slot takes 5 bytes, where a Python set takes a hundred.
    """

    def __init__(self) -> None:
        self._epochs = np.zeros(0, dtype=np.uint32)
        self._places = np.zeros(0, dtype=np.uint8)
        self._counts = np.zeros(_PLACES, dtype=np.int64)

    def places(self, labels: Labels) -> npt.NDArray[np.uint8]:
        """Return the place of each label, NOWHERE for unknown ones; shape (n,)."""
        slots = slots_of(labels)
        found = np.zeros(len(labels), dtype=np.uint8)
        inside = slots < len(self._places)
        slots = slots[inside]
        same = self._epochs[slots] == epochs_of(labels[inside])
        found[inside] = np.where(same, self._places[slots], np.uint8(NOWHERE))
        return found

    def known(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Whether each label has a place; shape (n,)."""
        known: npt.NDArray[np.bool_] = self.places(labels) != NOWHERE
        return known

    def taken(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Whether the slot of each label has a place, under any epoch; shape (n,)."""
        slots = slots_of(labels)
        found = np.zeros(len(labels), dtype=np.bool_)
        inside = slots < len(self._places)
        found[inside] = self._places[slots[inside]] != NOWHERE
        return found

    def put(self, labels: Labels, place: int) -> None:
        """Set the place of distinct labels; a label takes its slot over from an older label."""
        slots = slots_of(labels)
        self._reserve(int(slots.max(initial=0)) + 1)
        self._counts -= np.bincount(self._places[slots], minlength=_PLACES)
        self._counts[place] += len(labels)
        self._epochs[slots] = epochs_of(labels)
        self._places[slots] = place

    def discard(self, labels: Labels) -> None:
        """Remove these labels; ignore unknown ones."""
        self.put(labels[self.known(labels)], NOWHERE)

    def occupants(self, labels: Labels) -> Labels:
        """Return the labels that hold the slots of `labels` under another epoch."""
        slots = slots_of(labels)
        slots = slots[slots < len(self._places)]
        held = make_labels(slots, self._epochs[slots])
        others: Labels = held[(self._places[slots] != NOWHERE) & ~np.isin(held, labels)]
        return others

    def labels_at(self, place: int) -> Labels:
        """Return all labels at a place, by rising slot."""
        slots = np.flatnonzero(self._places == place)
        return make_labels(slots, self._epochs[slots])

    def count(self, place: int) -> int:
        """Return the number of labels at a place."""
        return int(self._counts[place])

    @property
    def bytes(self) -> int:
        """Bytes of memory."""
        return self._epochs.nbytes + self._places.nbytes

    def _reserve(self, slots: int) -> None:
        have = len(self._places)
        if slots <= have:
            return
        grown = max(slots, have + have // 2, _SLOTS_MIN)
        for name in ("_epochs", "_places"):
            old = getattr(self, name)
            new = np.zeros(grown, dtype=old.dtype)
            new[:have] = old
            setattr(self, name, new)


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

    def search(self, queries: Rows, k: int, hits: Hits) -> Hits:
        """Return the k nearest live rows of prepared queries, exactly, merged with `hits` of other rows."""
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

    def remove(self, labels: Labels) -> None:
        """Drop these labels; ignore unknown ones."""
        for label in labels.tolist():
            position = self._positions.pop(label, None)
            if position is None:
                continue
            number = position >> _INDEX_BITS
            chunk = self._chunks[number]
            chunk.live[position & _INDEX_MASK] = False
            chunk.count -= 1
            if not chunk.count:
                del self._chunks[number]

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

    def snapshot(self) -> TailSnapshot:
        """Return the present rows, for searches without a lock."""
        parts = [
            (chunk.rows[: chunk.filled], chunk.labels[: chunk.filled], chunk.live[: chunk.filled].copy())
            for chunk in self._chunks.values()
        ]
        return TailSnapshot(self._metric, parts)

    @property
    def count(self) -> int:
        """The number of live rows."""
        return len(self._positions)

    @property
    def bytes(self) -> int:
        """Bytes of the rows written to chunks that are still in memory."""
        return sum(chunk.filled for chunk in self._chunks.values()) * row_bytes(self._dimension)


class Backlog:
    """A queue of labels whose rows are only on disk, after a restart without a fresh snapshot of the graph.

    Removed labels stay in it, so readers look up each label. Not thread-safe.
    """

    def __init__(self) -> None:
        self._batches: deque[Labels] = deque()
        self.count = 0
        """The number of labels in the queue, removed ones included; any thread may read it."""

    def add(self, labels: Labels) -> None:
        """Append labels; the backlog keeps the array."""
        if len(labels):
            self._batches.append(labels)
            self.count += len(labels)

    def peek(self, count: int) -> Labels:
        """Return the first labels: at most `count`, all from one batch."""
        return self._batches[0][:count] if self._batches else np.empty(0, dtype=np.uint64)

    def skip(self, count: int) -> None:
        """Drop the first `count` labels, as `peek` returned them."""
        self.count -= count
        if count:
            rest = self._batches.popleft()[count:]
            if len(rest):
                self._batches.appendleft(rest)

    def snapshot(self) -> list[Labels]:
        """Return the present labels, batch by batch."""
        return list(self._batches)

    def __bool__(self) -> bool:
        return bool(self._batches)
