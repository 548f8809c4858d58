"""`points.db` and the rows that it says are live: structure, meta row, every point, every row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import Final

import numpy as np

from vecstow_engine.doctor.check.content import content_problem
from vecstow_engine.doctor.check.findings import Progress, Severity
from vecstow_engine.doctor.check.inquiry import Inquiry
from vecstow_engine.model.points import decode_rows
from vecstow_engine.storage.files import check_interruption
from vecstow_engine.storage.identity import HEADER_BYTES, Identity
from vecstow_engine.storage.layout import POINTS, ROWS
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.records import Meta, StoredPoint
from vecstow_engine.storage.rows import RowsFile, row_checksums

BLOCK_POINTS: Final = 4096


def check_meta(inquiry: Inquiry, table: PointTable, identity: Identity) -> Meta | None:
    """Check the meta row; returns it when it can be relied on."""
    path = inquiry.folder / POINTS
    next_steps = inquiry.mend
    with inquiry.reading(path, next_steps):
        meta = table.meta()
        inquiry.facts.update(points=meta.points, applied=meta.applied, checkpoints=meta.checkpoints)
        if meta.uid != identity.uid:
            message = f"it belongs to incarnation {meta.uid}, but {ROWS} to {identity.uid}"
            inquiry.quarantine(path, message, next_steps=next_steps)
        return meta
    return None


def check_points(
    inquiry: Inquiry,
    table: PointTable,
    identity: Identity,
    meta: Meta,
    replayed: frozenset[str],
    progress: Progress,
) -> None:
    """Check count and sum, every point and its row. `replayed`: the log has newer effects on these ids."""
    path = inquiry.folder / POINTS
    next_steps = inquiry.mend
    with inquiry.reading(path, next_steps):
        table.slots(meta)
    with inquiry.reading(path, next_steps):
        _check_points(inquiry, table, identity, meta, replayed, progress)


def _check_points(
    inquiry: Inquiry,
    table: PointTable,
    identity: Identity,
    meta: Meta,
    replayed: frozenset[str],
    progress: Progress,
) -> None:
    done = intact = 0
    progress(inquiry.name, done, meta.points)
    with _live_rows(inquiry, identity, replayed) as live_rows:
        for block in _blocks(table.scan()):
            good = [point for _, point in block if point is not None]
            for slot in [slot for slot, point in block if point is None]:
                _tell_of_point(inquiry, slot, table.id_at(slot), replayed)
            for point in good:
                _check_content(inquiry, point, meta)
            if live_rows is not None:
                intact += live_rows.check(good)
            done += len(block)
            progress(inquiry.name, done, meta.points)
    inquiry.facts["intact_points"] = intact


def _tell_of_point(inquiry: Inquiry, slot: int, point_id: str | None, replayed: frozenset[str]) -> None:
    """A point that the log replaces must be found in the table: which slot it gives up depends on it."""
    path = inquiry.folder / POINTS
    message = f"the point at slot {slot}, id {point_id!r} as it stands there, fails its checksum"
    next_steps = inquiry.mend
    if point_id in replayed:
        inquiry.quarantine(path, f"{message}, and the log writes it", next_steps=next_steps)
    else:
        inquiry.withhold(path, message, next_steps=next_steps)


@contextmanager
def _live_rows(inquiry: Inquiry, identity: Identity, replayed: frozenset[str]) -> Iterator[_LiveRows | None]:
    """None when there is no file: that was found when the files were matched."""
    path = inquiry.folder / ROWS
    if not path.exists():
        yield None
        return
    with closing(RowsFile(path, identity.stride, read_only=True)) as file:
        live_rows = _LiveRows(inquiry, identity, replayed, file)
        live_rows.check_end()
        yield live_rows


def _check_content(inquiry: Inquiry, point: StoredPoint, meta: Meta) -> None:
    """Check what a checksum cannot prove: a write accepts the values."""
    for problem in _problems(point, meta):
        inquiry.add(
            Severity.ERROR, inquiry.folder / POINTS,
            f"the point at slot {point.slot}, id {point.id!r}: {problem}",
            next_steps=inquiry.insert_again(point.id),
        )  # fmt: skip


def _problems(point: StoredPoint, meta: Meta) -> Iterator[str]:
    problem = content_problem(point.id, point.payload)
    if problem is not None:
        yield problem
    if not 1 <= point.epoch <= meta.checkpoints:
        yield f"generation {point.epoch} after {meta.checkpoints} checkpoints"
    if not 0 <= point.sequence <= meta.applied:
        yield f"sequence {point.sequence}, but only {meta.applied} is applied"


class _LiveRows:
    """The rows of points that are intact in the table."""

    def __init__(
        self, inquiry: Inquiry, identity: Identity, replayed: frozenset[str], file: RowsFile
    ) -> None:
        self._inquiry = inquiry
        self._identity = identity
        self._replayed = replayed
        self._file = file
        self._size = os.stat(file.path).st_size
        self._capacity = max(0, self._size - HEADER_BYTES) // identity.stride
        self._told_of_end = False

    def check(self, points: Sequence[StoredPoint]) -> int:
        """Verify the rows of `points`, ascending by slot; returns how many are intact."""
        present = [point for point in points if point.slot < self._capacity]
        if len(present) < len(points):
            self._tell_of_end(points[len(present)])
        if not present:
            return 0
        found = self._file.read(np.fromiter((p.slot for p in present), np.int64, len(present)))
        wanted = np.fromiter((p.row_checksum for p in present), np.int64, len(present))
        good = row_checksums(found) == wanted
        for line in np.flatnonzero(~good).tolist():
            self._withhold(present[line], "fails its checksum")
        lines = np.flatnonzero(good)
        values = decode_rows(found[lines], self._identity.vector_type)
        for line in lines[~np.all(np.isfinite(values), axis=1)].tolist():
            self._withhold(present[line], "holds values that are not finite")
            good[line] = False
        return int(good.sum())

    def check_end(self) -> None:
        """A row that a crash cut in the middle of a checkpoint is normal, but seldom."""
        surplus = max(0, self._size - HEADER_BYTES) % self._identity.stride
        if surplus:
            last = "byte is" if surplus == 1 else f"{surplus} bytes are"
            message = f"the last {last} no whole row; no point needs them"
            self._inquiry.add(Severity.INFO, self._file.path, message, offset=self._size - surplus)

    def _tell_of_end(self, point: StoredPoint) -> None:
        if not self._told_of_end:
            self._told_of_end = True
            self._inquiry.quarantine(
                self._file.path, f"it ends here, but point {point.id!r} stands at slot {point.slot}",
                offset=self._size,
                next_steps=self._inquiry.mend,
            )  # fmt: skip

    def _withhold(self, point: StoredPoint, problem: str) -> None:
        if point.id in self._replayed:
            return  # the log frees this row
        self._inquiry.withhold(
            self._file.path, f"the row of point {point.id!r} {problem}", offset=self._file.offset(point.slot),
            next_steps=self._inquiry.insert_again(point.id),
        )  # fmt: skip


def _blocks(
    points: Iterator[tuple[int, StoredPoint | None]],
) -> Iterator[list[tuple[int, StoredPoint | None]]]:
    while block := list(islice(points, BLOCK_POINTS)):
        check_interruption()
        yield block
