"""The check of `points.db`, of the rows that it says are live, and of the snapshots that it records."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import islice
from typing import Final

import numpy as np

from vecstow_engine.doctor.check.findings import Inquiry, Severity
from vecstow_engine.model.errors import DamagedFile, InvalidInput, StorageError
from vecstow_engine.model.names import check_point_id
from vecstow_engine.model.points import decode_rows
from vecstow_engine.storage.files import check_interruption
from vecstow_engine.storage.identity import HEADER_BYTES, Identity
from vecstow_engine.storage.layout import COLUMNS, INDEX, POINTS, ROWS
from vecstow_engine.storage.points.reader import PointTable, private_copy
from vecstow_engine.storage.points.records import Meta, StoredPoint
from vecstow_engine.storage.points.table_repair import Fault, find_faults, mend
from vecstow_engine.storage.rows import RowsFile, row_checksums
from vecstow_engine.storage.snapshots import valid_snapshot

BLOCK_POINTS: Final = 4096
PAGE_BYTES: Final = 4096
"""SQLite's default, which is never changed."""

_PAGE = re.compile(r"[Pp]age (\d+)")


def check_meta(inquiry: Inquiry, table: PointTable, identity: Identity) -> Meta | None:
    """Check the meta row; return it when it can be relied on."""
    path = inquiry.folder / POINTS
    meta = None
    with inquiry.reading(path):
        meta = table.meta()
        inquiry.facts.update(points=meta.points, applied=meta.applied, checkpoints=meta.checkpoints)
        if meta.uid != identity.uid:
            inquiry.quarantine(path, f"it belongs to incarnation {meta.uid}, but {ROWS} to {identity.uid}")
    return meta


def check_structure(inquiry: Inquiry, table: PointTable) -> None:
    """Report the errors of SQLite's own check that are left when a start has rebuilt what it can.

    Points are read all the same: an error may concern none of them.
    """
    path = inquiry.folder / POINTS
    with inquiry.reading(path):
        for error in _errors_after_start(inquiry, table):
            page = _PAGE.search(error)
            offset = (int(page[1]) - 1) * PAGE_BYTES if page else None
            inquiry.add(Severity.ERROR, path, f"SQLite's integrity check: {error}", offset=offset)


def _errors_after_start(inquiry: Inquiry, table: PointTable) -> list[str]:
    """Rebuild on a copy what a start rebuilds. Raises DamagedFile for what a start cannot rebuild."""
    faults = find_faults(table)
    if not faults:
        return _integrity_errors(table)
    for fault in faults:
        message = f"{fault.value}, which are intact; the next start rebuilds it"
        if inquiry.remedies.served and fault is not Fault.PAGES:
            message += ", and until then points may seem absent"
            inquiry.add(Severity.ERROR, inquiry.folder / POINTS, message)
        else:
            inquiry.add(Severity.WARNING, inquiry.folder / POINTS, message)
    with private_copy(table.path) as copy:
        mend(copy, faults)
        with closing(PointTable(copy, at_rest=True)) as mended:
            return _integrity_errors(mended)


def _integrity_errors(table: PointTable) -> list[str]:
    """Return SQLite's errors. No reader may need a tree that cannot be walked."""
    try:
        return table.integrity_errors()
    except DamagedFile as error:
        return [error.reason]


def check_points(
    inquiry: Inquiry, table: PointTable, identity: Identity, meta: Meta, replayed: frozenset[str]
) -> None:
    """Check count and sum, every point and its row. `replayed`: the log has newer effects on these ids."""
    path = inquiry.folder / POINTS
    with inquiry.reading(path):
        table.slots(meta)
    with inquiry.reading(path), ExitStack() as stack:
        rows = None  # A missing file was found when the files were matched.
        if (inquiry.folder / ROWS).exists():
            file = stack.enter_context(
                closing(RowsFile(inquiry.folder / ROWS, identity.stride, read_only=True))
            )
            rows = _LiveRows(inquiry, identity, replayed, file)
        done = intact = 0
        inquiry.progress(done, meta.points)
        points = table.scan()
        while block := list(islice(points, BLOCK_POINTS)):
            check_interruption()
            for slot in [slot for slot, point in block if point is None]:
                _report_point(inquiry, slot, table.id_at(slot), replayed)
            good = [point for _, point in block if point is not None]
            for point in good:
                _check_content(inquiry, point, meta)
            intact += rows.check(good) if rows is not None else 0
            done += len(block)
            inquiry.progress(done, meta.points)
        inquiry.facts["intact_points"] = intact


def _report_point(inquiry: Inquiry, slot: int, point_id: str | None, replayed: frozenset[str]) -> None:
    """Report a damaged point. The replay of a newer effect needs it: it says which slot becomes free."""
    path = inquiry.folder / POINTS
    message = f"the point at slot {slot}, id {point_id!r} as it stands there, fails its checksum"
    if point_id in replayed:
        inquiry.quarantine(path, f"{message}, and the log writes it")
    else:
        inquiry.withhold(path, message)


def _check_content(inquiry: Inquiry, point: StoredPoint, meta: Meta) -> None:
    problems = [content_problem(point.id, point.payload)]
    if not 1 <= point.epoch <= meta.checkpoints:
        problems.append(f"generation {point.epoch} after {meta.checkpoints} checkpoints")
    if not 0 <= point.sequence <= meta.applied:
        problems.append(f"sequence {point.sequence}, but only {meta.applied} is applied")
    for problem in filter(None, problems):
        message = f"the point at slot {point.slot}, id {point.id!r}: {problem}"
        steps = inquiry.remedies.insert_again(point.id)
        inquiry.add(Severity.ERROR, inquiry.folder / POINTS, message, steps=steps)


def content_problem(point_id: str, payload: bytes | None) -> str | None:
    """Return why no engine writes this id or payload, whatever their checksum; None when one does."""
    try:
        check_point_id(point_id)
    except InvalidInput as error:
        return error.message
    try:
        is_object = payload is None or isinstance(json.loads(payload), dict)
    except (ValueError, RecursionError):
        is_object = False
    return None if is_object else "its payload is no JSON object"


def row_problems(
    file: RowsFile, slots: Sequence[int], checksums: Sequence[int], identity: Identity
) -> list[str | None]:
    """Return what is wrong with the row in each slot; None for an intact row."""
    rows = file.read(np.array(slots, np.int64))
    good = row_checksums(rows) == np.array(checksums, np.int64)
    finite = good.copy()
    finite[good] = np.all(np.isfinite(decode_rows(rows[good], identity.vector_type)), axis=1)
    problems: list[str | None] = [None] * len(slots)
    for line in np.flatnonzero(~finite).tolist():
        problems[line] = "holds values that are not finite" if good[line] else "fails its checksum"
    return problems


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
        self._capacity, surplus = divmod(max(0, self._size - HEADER_BYTES), identity.stride)
        self._is_cut = False
        if surplus:  # A crash may cut a row in the middle of a checkpoint.
            last = "byte is" if surplus == 1 else f"{surplus} bytes are"
            message = f"the last {last} no whole row; no point needs them"
            inquiry.add(Severity.INFO, file.path, message, offset=self._size - surplus)

    def check(self, points: Sequence[StoredPoint]) -> int:
        """Verify the rows of `points`, ascending by slot; return how many are intact."""
        present = [point for point in points if point.slot < self._capacity]
        if len(present) < len(points) and not self._is_cut:
            self._is_cut = True
            first = points[len(present)]
            message = f"it ends here, but point {first.id!r} stands at slot {first.slot}"
            self._inquiry.quarantine(self._file.path, message, offset=self._size)
        if not present:
            return 0
        slots, checksums = [p.slot for p in present], [p.row_checksum for p in present]
        problems = row_problems(self._file, slots, checksums, self._identity)
        for point, problem in zip(present, problems, strict=True):
            if problem is not None and point.id not in self._replayed:  # The log frees a replayed row.
                message = f"the row of point {point.id!r} {problem}"
                steps = self._inquiry.remedies.insert_again(point.id)
                offset = self._file.offset(point.slot)
                self._inquiry.withhold(self._file.path, message, offset=offset, steps=steps)
        return problems.count(None)


def check_snapshots(inquiry: Inquiry, table: PointTable, meta: Meta) -> None:
    """Check whether a start can take `index.bin` and `payload.bin`. As caches, their damage loses nothing."""
    try:
        if bad := table.bad_snapshots():
            fails = (
                "record fails its checksum; it is" if bad == 1 else "records fail their checksums; they are"
            )
            message = f"{bad} {fails} ignored: {INDEX} or {COLUMNS} is built again"
            inquiry.add(Severity.WARNING, inquiry.folder / POINTS, message)
        _check_snapshot(inquiry, table, meta, INDEX, "index", "from the rows")
        _check_snapshot(inquiry, table, meta, COLUMNS, "payload_index", "from the payloads")
    except (StorageError, OSError) as error:
        recorded = f"what is recorded of {INDEX} and {COLUMNS} cannot be read"
        message = f"{recorded}: {error}; the next start builds them again"
        inquiry.add(Severity.WARNING, inquiry.folder / POINTS, message)


def _check_snapshot(
    inquiry: Inquiry, table: PointTable, meta: Meta, name: str, fact: str, source: str
) -> None:
    path = inquiry.folder / name
    if not path.exists():
        if any(entry.file == name for entry in table.snapshots()):
            inquiry.add(Severity.INFO, path, f"it is missing; the next start builds it again {source}")
        return
    entry, remark = valid_snapshot(inquiry.folder, table, meta.applied, name)
    if entry is None:
        inquiry.add(Severity.WARNING, path, f"{remark}; the next start builds it again {source}")
        return
    inquiry.facts[fact] = {"bytes": entry.bytes, "sequence": entry.sequence}
    if entry.sequence < meta.applied:
        missing = f"it contains sequence {entry.sequence} of {meta.applied}; a start adds the others {source}"
        inquiry.add(Severity.INFO, path, missing)
