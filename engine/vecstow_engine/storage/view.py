"""Reads of one collection, from any thread: the point table seen through the overlays.

Points that fail their checks are withheld and never returned. A read is repeated when a checkpoint changed
the layers under it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.model.errors import StorageError
from vecstow_engine.model.points import Point, decode_rows, epochs_of, make_labels, slots_of
from vecstow_engine.storage.files import check_interruption
from vecstow_engine.storage.layers import Entry, Layers, stamp_of
from vecstow_engine.storage.log.segment import Upsert
from vecstow_engine.storage.points.records import ServedPoint, StoredPoint
from vecstow_engine.storage.rows import row_checksums
from vecstow_engine.storage.scan import Scan
from vecstow_engine.storage.walk import Walk, newest_points

READ_ATTEMPTS_MAX: Final = 5
VERIFY_BYTES: Final = 4 << 20
"""The size of the stored rows that are verified at a time."""

_Found: TypeAlias = Entry | StoredPoint


class View:
    """Readers' access to the layers of a collection."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self.walk = Walk(layers)
        """The served points in the order of their ids."""

    @property
    def count(self) -> int:
        """The number of served points."""
        with self._layers.lock:
            return self._layers.slots.live_count - len(self._layers.withheld)

    def labels(self) -> NDArray[np.uint64]:
        """Return the labels of all served points, shape (n,), ascending by slot."""
        with self._layers.lock:
            slots, epochs = self._layers.slots.live()
            if withheld := self._layers.withheld:
                served = ~np.isin(slots, np.fromiter(withheld, np.int64, len(withheld)))
                slots, epochs = slots[served], epochs[served]
        return make_labels(slots, epochs)

    def labels_of(self, ids: Sequence[str]) -> NDArray[np.uint64]:
        """Return the labels of those `ids` that exist, shape (n,); raise Unavailable for a withheld point."""
        found = self._find(ids).values()
        return make_labels([point.slot for point in found], [point.epoch for point in found])

    def newest(self, ids: Sequence[str]) -> list[ServedPoint]:
        """Return the served points of those `ids` that exist, in no particular order."""
        return newest_points(self._layers, ids)

    def are_served(self, labels: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which labels are live and not withheld, shape (n,)."""
        slots = slots_of(labels)
        with self._layers.lock:
            withheld = np.fromiter(self._layers.withheld, np.int64, len(self._layers.withheld))
            live = self._layers.slots.epochs(slots) == epochs_of(labels)
        return np.asarray(live & ~np.isin(slots, withheld), np.bool_)

    def served_epochs(self) -> NDArray[np.uint32]:
        """Return the epoch of each slot, shape (slots,); 0 for a slot without a served point."""
        with self._layers.lock:
            epochs = self._layers.slots.all_epochs()
            epochs[list(self._layers.withheld)] = 0
        return epochs

    def position(self) -> tuple[int, ...]:
        """Return a value that differs when other points are served."""
        active = self._layers.active
        return active.epoch, active.last_sequence, len(self._layers.withheld)

    def slots_of(self, ids: Sequence[str]) -> list[int]:
        """Return the slots of those ids that exist and are served, in no particular order."""
        found, _ = self._layers.find(ids)
        return [point.slot for point in found.values() if point.slot not in self._layers.withheld]

    def withheld_labels(self) -> NDArray[np.uint64]:
        """Return the labels of the live points that failed a check when they were read, shape (n,)."""
        with self._layers.lock:
            slots = np.fromiter(self._layers.withheld, np.int64, len(self._layers.withheld))
            return make_labels(slots, self._layers.slots.epochs(slots))

    def get(self, ids: Sequence[str]) -> list[Point | None]:
        """Return the points of `ids`, None for an absent one; raise Unavailable for a withheld one."""
        for _ in range(READ_ATTEMPTS_MAX):
            found = self._find(ids)
            rows = self._rows_of(list(found.values()))
            vectors = decode_rows(rows, self._layers.identity.vector_type)
            bad = _first_bad(found.values(), rows)
            if bad is None:
                read = zip(found.items(), vectors, strict=True)
                identity = self._layers.identity
                points = {i: Point(i, v, p.payload, stamp_of(identity, p)) for (i, p), v in read}
                return [points.get(point_id) for point_id in ids]
            if self._layers.slots.epoch(bad.slot) == bad.epoch:
                self._layers.withhold_row(bad.slot, bad.epoch)
                raise self._layers.withheld_error(bad.id, bad.slot)
        raise StorageError("the points changed under each attempt to read them")

    def resolve(self, labels: NDArray[np.uint64]) -> list[tuple[str, bytes | None] | None]:
        """Return (id, payload) of each label; None for a label that is no longer live or is withheld."""
        answers: list[tuple[str, bytes | None] | None] = [None] * len(labels)
        wanted: dict[int, list[int]] = {}
        slots = slots_of(labels)
        with self._layers.lock:
            live = np.flatnonzero(self._layers.slots.epochs(slots) == epochs_of(labels))
            for position, slot in zip(live.tolist(), slots[live].tolist(), strict=True):
                entry = self._layers.entry_at(slot)
                if slot in self._layers.withheld:
                    continue
                if entry is not None:
                    answers[position] = (entry.id, entry.payload)
                else:
                    wanted.setdefault(slot, []).append(position)
        epochs = epochs_of(labels)
        for slot, point in self._table_points(sorted(wanted)).items():
            for position in wanted[slot]:
                if point is not None and point.epoch == epochs[position]:
                    answers[position] = (point.id, point.payload)
        return answers

    def vectors(self, labels: NDArray[np.uint64]) -> NDArray[np.float32]:
        """Return decoded rows, shape (n, d); withhold a row that fails its checksum and return NaN."""
        rows, good = self._checked_rows(labels)
        vectors = decode_rows(rows, self._layers.identity.vector_type)
        if not good.all():
            vectors = vectors.copy()
            vectors[~good] = np.nan
        return vectors

    def as_upsert(self, labels: NDArray[np.uint64]) -> Upsert:
        """Return an effect that writes the points of labels again, without those that fail their checks.

        Its guards require that the points still have these labels when it is committed.
        """
        points = self.resolve(labels)
        rows, good = self._checked_rows(labels)
        kept = [(line, *point) for line, point in enumerate(points) if point is not None and good[line]]
        lines = np.array([line for line, _, _ in kept], int)
        ids, payloads = [i for _, i, _ in kept], [p for _, _, p in kept]
        return Upsert(ids, rows[lines], payloads, guards=labels[lines].tolist())

    def scan(self) -> Iterator[ServedPoint]:
        """Yield (label, id, payload) of every served point, in no particular order.

        `Scan.versions` describes what comes twice.
        """
        return Scan(self._layers, self).versions()

    def scan_once(self) -> Iterator[ServedPoint]:
        """Yield every served point once, in no particular order, in one of its versions."""
        return Scan(self._layers, self).once()

    def verify(self) -> None:
        """Read every point and every row, and withhold those that fail their checks."""
        for _ in self.scan():
            check_interruption()
        labels = self.labels()
        count = max(1, VERIFY_BYTES // self._layers.identity.stride)
        for start in range(0, len(labels), count):
            check_interruption()
            self.vectors(labels[start : start + count])

    def _checked_rows(self, labels: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return stored rows, shape (n, stride), and which pass their checksum; withhold the others."""
        slots = slots_of(labels)
        with self._layers.lock:
            entries = [self._layers.entry_at(slot) for slot in slots.tolist()]
            checksums = self._layers.slots.row_checksums(slots)
        rows = self._read(slots, entries)
        good = row_checksums(rows) == checksums
        bad = labels[~good]
        for slot, epoch in zip(slots_of(bad).tolist(), epochs_of(bad).tolist(), strict=True):
            self._layers.withhold_row(slot, epoch)
        return rows, good

    def _find(self, ids: Sequence[str]) -> dict[str, _Found]:
        found, damaged = self._layers.find(ids)
        for point_id in damaged:
            raise self._layers.withheld_error(point_id, None)
        for point_id, answer in found.items():
            if answer.slot in self._layers.withheld:
                raise self._layers.withheld_error(point_id, answer.slot)
        return found

    def _rows_of(self, found: Sequence[_Found]) -> NDArray[np.uint8]:
        slots = np.fromiter((point.slot for point in found), np.int64, len(found))
        with self._layers.lock:
            entries = [p if isinstance(p, Entry) else self._layers.entry_at(p.slot) for p in found]
        return self._read(slots, entries)

    def _read(self, slots: NDArray[np.int64], entries: Sequence[Entry | None]) -> NDArray[np.uint8]:
        """Return stored rows, shape (n, stride), from the overlay entry if there is one, else the file."""
        rows = np.zeros((len(slots), self._layers.identity.stride), np.uint8)
        on_disk = np.fromiter((entry is None for entry in entries), bool, len(entries))
        for line, entry in enumerate(entries):
            if entry is not None:
                rows[line] = entry.row
        if on_disk.any():
            with self._layers.rows() as file:
                rows[on_disk] = file.read(slots[on_disk])
        return rows

    def _table_points(self, slots: Sequence[int]) -> dict[int, StoredPoint | None]:
        if not slots:
            return {}
        with self._layers.table() as table:
            found = table.by_slots(slots)
        for slot, point in found.items():
            if point is None:
                self._layers.withhold_point(slot)
        return found


def _first_bad(points: Iterable[_Found], rows: NDArray[np.uint8]) -> _Found | None:
    """Return the first of the points whose row (n, stride) fails its checksum."""
    checked = zip(points, row_checksums(rows).tolist(), strict=True)
    return next((point for point, checksum in checked if point.row_checksum != checksum), None)
