"""`index.bin`: whether a start can take it. It is a cache, so nothing here is lost or served wrongly."""

from __future__ import annotations

from vecstow_engine.doctor.check.findings import Severity
from vecstow_engine.doctor.check.inquiry import Inquiry
from vecstow_engine.model.errors import StorageError
from vecstow_engine.storage.layout import INDEX, POINTS
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.records import Meta
from vecstow_engine.storage.snapshots import valid_snapshot


def check_index(inquiry: Inquiry, table: PointTable, meta: Meta) -> None:
    """Check index.bin against the recorded snapshots, and what is recorded."""
    try:
        _check_index(inquiry, table, meta)
    except (StorageError, OSError) as error:
        message = f"what is recorded of {INDEX} cannot be read: {error}; the next start builds it again"
        inquiry.add(Severity.WARNING, inquiry.folder / POINTS, message)


def _check_index(inquiry: Inquiry, table: PointTable, meta: Meta) -> None:
    path = inquiry.folder / INDEX
    bad = table.bad_snapshots()
    if bad:
        inquiry.add(
            Severity.WARNING,
            inquiry.folder / POINTS,
            f"{bad} record of {INDEX} fails its checksum; it is ignored"
            if bad == 1
            else f"{bad} records of {INDEX} fail their checksums; they are ignored",
        )
    if not path.exists():
        if table.snapshots():
            inquiry.add(Severity.INFO, path, "it is missing; the next start builds it again from the rows")
        return
    entry, remark = valid_snapshot(inquiry.folder, table, meta.applied)
    if entry is None:
        inquiry.add(Severity.WARNING, path, f"{remark}; the next start builds it again from the rows")
        return
    inquiry.facts["index"] = {"bytes": entry.bytes, "sequence": entry.sequence}
    if entry.sequence < meta.applied:
        inquiry.add(
            Severity.INFO, path,
            f"it contains sequence {entry.sequence} of {meta.applied}; a start adds the others from the rows",
        )  # fmt: skip
