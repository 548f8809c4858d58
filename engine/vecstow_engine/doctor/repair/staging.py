"""The repaired collection, written next to the damaged one, and the exchange of the two.

`storage.staging` draws the folder of evidence, to which the damaged collection goes. A crash leaves the
damaged collection in its place; or, between the two renames, neither, and the next start of an engine or of a
repair does the second one; or the repaired one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.doctor.check import Progress
from vecstow_engine.doctor.check.collection import check_collection
from vecstow_engine.doctor.repair.evidence import Loss
from vecstow_engine.doctor.repair.plan import RepairPlan
from vecstow_engine.doctor.repair.salvage import Salvage
from vecstow_engine.model.errors import Conflict, DamagedFile, NewerFormat, StorageError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage import files, volume
from vecstow_engine.storage.creation import create_files
from vecstow_engine.storage.identity import HEADER_BYTES, identity_of
from vecstow_engine.storage.layout import MANIFEST, POINTS, ROWS, Layout, timestamp
from vecstow_engine.storage.manifests import manifests_locked, read_manifest, write_manifest
from vecstow_engine.storage.points.records import StoredPoint
from vecstow_engine.storage.points.writer import write_points
from vecstow_engine.storage.rows import RowsFile, row_checksums
from vecstow_engine.storage.staging import (
    LOST,
    REPORT,
    clear_place,
    cleared_on_error,
    readable_manifest,
    unknown_between,
    unused_path,
)

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
    layout: Layout, staging: Path, manifest: Manifest, found: Salvage, total: int, progress: Progress
) -> None:
    """Write the collection into `staging`, durably, the manifest last. Raises DiskFull, StorageError or an
    OSError.
    """
    assert manifest.collection_uid is not None
    files.make_folder(staging.parent)
    clear_place(staging)
    files.make_folder(staging)
    create_files(staging, identity_of(manifest, manifest.collection_uid))
    with closing(RowsFile(staging / ROWS, found.identity.stride)) as file:
        slot = 0
        for rows in _rows(layout.collection(manifest.name) / ROWS, found):
            file.write(np.arange(slot, slot + len(rows), dtype=np.int64), rows)
            slot += len(rows)
            progress("writing rows", slot, total)
        file.sync()
    points = _points(found, total, progress)
    write_points(staging / POINTS, [], points, applied=found.applied, checkpoints=found.epoch)
    write_manifest(staging, manifest)


def verify(staging: Path, manifest: Manifest, progress: Progress) -> None:
    """Read all that was written; raise StorageError for what a check would find."""
    report = check_collection(Layout(staging.parent), manifest, progress, "verifying")
    if not report.clean:
        finding = report.findings[0]
        raise StorageError(
            f"what was rebuilt does not pass its check ({finding.file}: {finding.message}); "
            "nothing was changed",
            collection=manifest.name,
            operation="repair",
            hint="look at the disk and its errors",
        )


def begin_evidence(
    layout: Layout, plan: RepairPlan, losses: Iterable[Loss] = (), uids: tuple[str, str] | None = None
) -> Path:
    """Make the folder of evidence, with the plan and all losses; return its path.

    `uids`: of the collection before and after, when its log is to be set aside too.
    """
    files.make_folder(layout.quarantine)
    evidence = unused_path(layout.quarantine / f"{plan.collection}-{timestamp()}")
    lines = (json.dumps(loss.document(), ensure_ascii=False).encode() + b"\n" for loss in losses)
    document = plan.document() | {"collection": plan.collection, "uids": uids}
    with cleared_on_error(evidence):
        files.make_folder(evidence)
        with files.new_file(evidence / LOST) as fd:
            files.write_parts(fd, lines)
        files.replace_file(evidence / REPORT, [json.dumps(document, indent=2, ensure_ascii=False).encode()])
    return evidence


def replace_manifest(layout: Layout, evidence: Path, observed: Manifest | None, manifest: Manifest) -> None:
    """Copy the manifest to the evidence, and write another one in its place.

    Raises Conflict when it was changed since it was observed, and NewerFormat when a later release did that.
    """
    folder = layout.collection(manifest.name)
    aside = evidence / manifest.name
    with manifests_locked(layout):
        if readable_manifest(folder) != observed:
            raise Conflict(
                f"the manifest of collection {folder.name!r} was changed meanwhile",
                collection=folder.name,
                operation="repair",
                hint="call again",
            )
        if (folder / MANIFEST).exists():
            files.make_folder(aside)
            files.copy_file(folder / MANIFEST, aside / MANIFEST)
            files.sync_folder(aside)
        write_manifest(folder, manifest)


def take_place(layout: Layout, staging: Path, evidence: Path, observed: Manifest | None) -> None:
    """Exchange the folders. Raises Conflict when the collection was dropped or declared again meanwhile.

    Raises OutcomeUnknown when the damaged one is set aside, and the repaired one has no place yet.
    """
    name = staging.name
    target = layout.collection(name)
    with manifests_locked(layout):
        _follow(target, staging, observed)
        files.rename(target, evidence / name)
        with unknown_between(name, "repair", "the next start of an engine goes on with it"):
            files.rename(staging, target)


def _follow(target: Path, staging: Path, observed: Manifest | None) -> None:
    """Keep a manifest that was changed while its data was repaired, but for its uid."""
    try:
        found = read_manifest(target)
    except (DamagedFile, NewerFormat):
        return
    repaired = read_manifest(staging)
    assert repaired is not None
    if found is None or found == observed:
        return
    if found.dropped_at is not None or found.shape != repaired.shape:
        raise Conflict(
            f"collection {found.name!r} was dropped or declared again meanwhile",
            collection=found.name,
            operation="repair",
        )
    write_manifest(staging, dataclasses.replace(found, collection_uid=repaired.collection_uid))


def _rows(source: Path, found: Salvage) -> Iterator[NDArray[np.uint8]]:
    """Yield the rows of the saved points in their order; raise StorageError for one that has changed."""
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


def _points(found: Salvage, total: int, progress: Progress) -> Iterator[StoredPoint]:
    """Yield the points in the order of their rows: new slots, one new epoch, their old sequences."""
    for slot, point in enumerate(found.evidence.saved()):
        yield StoredPoint(slot, point.id, point.sequence, found.epoch, point.row_checksum, point.payload)
        if (slot + 1) % BLOCK_ROWS == 0:
            progress("writing points", slot + 1, total)
