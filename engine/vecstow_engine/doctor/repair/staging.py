"""The repaired collection, written next to the damaged one; it gets its manifest last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.doctor.check import check_collection
from vecstow_engine.doctor.repair.plan import Progress, RepairPlan
from vecstow_engine.doctor.repair.salvage import Salvage
from vecstow_engine.model.errors import StorageError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage import files, volume
from vecstow_engine.storage.creation import create_files
from vecstow_engine.storage.identity import HEADER_BYTES, identity_of
from vecstow_engine.storage.layout import POINTS, ROWS, Layout
from vecstow_engine.storage.manifests import write_manifest
from vecstow_engine.storage.points.records import StoredPoint
from vecstow_engine.storage.points.writer import write_points
from vecstow_engine.storage.rows import RowsFile, row_checksums
from vecstow_engine.storage.staging import clear_place

BLOCK_ROWS: Final = 4096


def refuse_without_room(layout: Layout, name: str, salvage: Salvage, points: int) -> None:
    """Raise DiskFull unless a second copy fits: the damaged files stay as they are."""
    table = layout.collection(name) / POINTS
    table_bytes = table.stat().st_size if table.exists() else 0
    log_bytes = sum(path.stat().st_size for path in layout.log(salvage.identity.uid).glob("*.log"))
    # SQLite's own log holds the whole table before it is moved into the file.
    needed = HEADER_BYTES + points * salvage.identity.stride + 2 * (table_bytes + log_bytes)
    volume.refuse_without_room(layout.data, needed, "repair", name)


def build(
    layout: Layout, staging: Path, manifest: Manifest, found: Salvage, plan: RepairPlan, progress: Progress
) -> None:
    """Write the collection into `staging`, durably. Raises DiskFull, StorageError or an OSError."""
    assert manifest.collection_uid is not None
    name, total = manifest.name, plan.kept + plan.restored
    identity = identity_of(manifest, manifest.collection_uid)
    files.make_folder(staging.parent)
    clear_place(staging)
    files.make_folder(staging)
    create_files(staging, identity)
    _write_rows(
        layout.collection(name) / ROWS, staging / ROWS, found,
        lambda done: progress(f"{name}: writing rows", done, total),
    )  # fmt: skip
    points = _points(found, lambda done: progress(f"{name}: writing points", done, total))
    write_points(staging / POINTS, [], points, applied=found.applied, checkpoints=found.epoch)
    write_manifest(staging, manifest)


def verify(staging: Path, manifest: Manifest, progress: Progress) -> None:
    """Read all that was written; raises StorageError for what a check would find."""
    name = manifest.name
    report = check_collection(
        Layout(staging.parent), manifest,
        lambda _, done, total: progress(f"{name}: verifying", done, total),
    )  # fmt: skip
    if not report.clean:
        finding = report.findings[0]
        raise StorageError(
            f"what was rebuilt does not pass its check ({finding.file}: {finding.message}); "
            "nothing was changed",
            collection=name, operation="repair", hint="look at the disk and its errors",
        )  # fmt: skip


def _write_rows(source: Path, target: Path, found: Salvage, tell: Callable[[int], None]) -> None:
    file = RowsFile(target, found.identity.stride)
    slot = 0
    try:
        for rows in _rows(source, found):
            file.write(np.arange(slot, slot + len(rows), dtype=np.int64), rows)
            slot += len(rows)
            tell(slot)
        file.sync()
    finally:
        file.close()


def _rows(source: Path, found: Salvage) -> Iterator[NDArray[np.uint8]]:
    """Yield the rows of the saved points in their order; raises StorageError for one that has changed."""
    points = found.evidence.saved()
    while block := list(islice(points, BLOCK_ROWS)):
        rows = np.zeros((len(block), found.identity.stride), np.uint8)
        kept = [line for line, point in enumerate(block) if point.row is None]
        if kept:
            with closing(RowsFile(source, found.identity.stride, read_only=True)) as file:
                rows[kept] = file.read(np.array([block[line].slot for line in kept], np.int64))
        for line, point in enumerate(block):
            if point.row is not None:
                rows[line] = np.frombuffer(point.row, np.uint8)
        if (row_checksums(rows) != np.array([point.row_checksum for point in block], np.int64)).any():
            raise StorageError(f"{source} changed while it was read", operation="repair")
        yield rows


def _points(found: Salvage, tell: Callable[[int], None]) -> Iterator[StoredPoint]:
    """Yield the points in the order of their rows: new slots, one new epoch, their old sequences."""
    for slot, point in enumerate(found.evidence.saved()):
        yield StoredPoint(slot, point.id, point.sequence, found.epoch, point.row_checksum, point.payload)
        if (slot + 1) % BLOCK_ROWS == 0:
            tell(slot + 1)
