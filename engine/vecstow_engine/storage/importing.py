"""Collections made of data files that have no manifest, or that d-vecDB wrote.

The new collection is made beside the served ones and comes to its place by a rename: before it nothing was
imported, and a start throws away what a failure or a crash left. The source stays as it is; when it is the
target's own folder, it is moved to `.quarantine/`, whole, and from then on a start finishes the import.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from vecstow_engine.model.batch import PointBatch
from vecstow_engine.model.errors import (
    Conflict,
    DamagedFile,
    InvalidInput,
    NewerFormat,
    NotFound,
    OutcomeUnknown,
    TooLarge,
    refused,
)
from vecstow_engine.model.manifest import ManagedBy, Manifest
from vecstow_engine.model.names import new_collection_uid
from vecstow_engine.storage import files
from vecstow_engine.storage.backup import Settled, begin_log_if_possible, settle_copy
from vecstow_engine.storage.creation import bulk_load
from vecstow_engine.storage.discovery import claimed_beside
from vecstow_engine.storage.dvecdb import ForeignPoint, ForeignReport, read_batches, read_vectors
from vecstow_engine.storage.layout import INDEX, POINTS, ROWS, Layout, rfc3339, size_or_zero, timestamp
from vecstow_engine.storage.leftovers import clear_away, clear_place
from vecstow_engine.storage.manifests import manifests_locked, read_manifest, write_manifest
from vecstow_engine.storage.replay import segment_paths
from vecstow_engine.storage.room import refuse_without_room
from vecstow_engine.storage.rows_header import MAGIC, read_header
from vecstow_engine.storage.trash import is_claimed

BATCH_POINTS: Final = 4096
_SHAPE_FIELDS: Final = ("dimension", "distance_metric", "vector_type")
"""What REST calls the parts of a shape."""


def import_orphan(layout: Layout, source: Path, wanted: Manifest) -> tuple[Settled, ForeignReport]:
    """Make the collection `wanted` of the files in `source`; returns it, and what was read of foreign files.

    Raises NotFound when there is no vectors.bin, InvalidInput when it holds another shape, Conflict when
    the name is taken, DamagedFile; OutcomeUnknown when the old folder is set aside, and the new one has no
    place yet.
    """
    path = source / ROWS
    if not path.is_file() or path.stat().st_size == 0:
        raise NotFound(f"{source} has no {ROWS}")
    wanted = _with_settings(source, dataclasses.replace(wanted, created_at=rfc3339(), updated_at=rfc3339()))
    in_place = source == layout.collection(wanted.name)
    if in_place:
        _as_declared(source, wanted)  # before the work, whose end asks again
    staging = layout.staging / (wanted.name if in_place else f"{wanted.name}-{new_collection_uid()}")
    report = ForeignReport()
    files.make_folder(staging.parent)
    clear_place(staging)
    try:
        if _is_ours(path):
            settled = _copy_ours(layout, source, staging, wanted)
        else:
            made = bulk_load(staging, wanted, _foreign_batches(path, wanted, report))
            settled = Settled(*made, remarks=report.remarks())
        manifest = _take_place(layout, staging, settled.manifest, in_place=in_place)
        begin_log_if_possible(layout, manifest, settled.applied)
    finally:
        if not in_place or layout.collection(wanted.name).exists():
            clear_away(staging)
    return dataclasses.replace(settled, manifest=manifest), report


def finish_imports(layout: Layout) -> list[Manifest]:
    """Give what was made for the place of an old folder that place, when the old one is set aside already.

    Only that is staged under its name.
    """
    finished = []
    for staging in sorted(layout.staging.glob("*")):
        with contextlib.suppress(DamagedFile, NewerFormat):
            manifest = read_manifest(staging)  # written last, so the rest is whole
            if manifest is not None and not layout.collection(manifest.name).exists():
                _take_place(layout, staging, manifest, in_place=False)
                finished.append(manifest)
    return finished


def remove_unfinished(layout: Layout) -> None:
    """Throw away what a crash left half made, except for what a later release finishes."""
    for staging in sorted(layout.staging.glob("*")):
        try:
            read_manifest(staging)
        except NewerFormat:
            continue
        except (DamagedFile, OSError):
            pass
        files.remove_tree(staging)
    if not any(layout.staging.glob("*")):
        files.remove_tree(layout.staging)


def _take_place(layout: Layout, staging: Path, made: Manifest, *, in_place: bool) -> Manifest:
    """Let `staging`, whose manifest is `made`, be the collection; returns the manifest that it has there."""
    name = made.name
    target = layout.collection(name)
    with manifests_locked(layout):
        if in_place:
            made = _as_declared(target, made)
            write_manifest(staging, made)
            files.make_folder(layout.quarantine)
            files.rename(target, layout.quarantine / f"{name}-{timestamp()}")
        elif target.exists():
            raise Conflict(f"collection {name!r} exists", collection=name, operation="import")
        doubt = unknown_between(name, "import", "restart the engine: it goes on with it")
        with doubt if in_place else contextlib.nullcontext():
            _move_foreign_log(layout)
            files.rename(staging, target)
    return made


def _as_declared(folder: Path, made: Manifest) -> Manifest:
    """`made`, as the manifest declares it in whose place it comes: whoever wrote that one manages it still.

    Raises Conflict when it is marked as dropped, or a Kubernetes resource declares another shape.
    """
    found = _manifest_beside(folder)
    if found is None:
        return made
    if found.dropped_at is not None:
        raise Conflict(f"collection {made.name!r} is dropped", collection=made.name, operation="import")
    if found.shape != made.shape:
        if found.managed_by is ManagedBy.KUBERNETES:
            raise Conflict(
                f"collection {made.name!r} belongs to a Kubernetes resource, which declares "
                f"{found.dimension}, {found.distance_metric}, {found.vector_type}",
                collection=made.name, operation="import",
            )  # fmt: skip
        return made
    return dataclasses.replace(
        found, collection_uid=made.collection_uid,
        created_at=found.created_at or made.created_at, updated_at=made.updated_at,
    )  # fmt: skip


@contextlib.contextmanager
def unknown_between(name: str, operation: str, hint: str) -> Iterator[None]:
    """Around what comes once the old folder is set aside: after an error the next start goes on with it."""
    try:
        yield
    except files.SyncFailed:
        raise
    except OSError as error:
        raise OutcomeUnknown(
            f"outcome unknown: {name} was set aside, but what was made of it has no place yet: {error}",
            collection=name, operation=operation, hint=hint,
        ) from error  # fmt: skip


def _move_foreign_log(layout: Layout) -> None:
    """d-vecDB's `wal` is a file, and stands where the folder of logs must be."""
    if layout.logs.is_file():
        files.make_folder(layout.quarantine)
        files.rename(layout.logs, layout.quarantine / f"wal-{timestamp()}")


def _is_ours(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def _with_settings(source: Path, wanted: Manifest) -> Manifest:
    """A manifest beside the files brings its index settings, owner and the like."""
    found = _manifest_beside(source)
    if found is None or found.shape != wanted.shape:
        return wanted
    return dataclasses.replace(
        wanted, index_config=found.index_config, owner=found.owner, payload_indexes=found.payload_indexes
    )


def _manifest_beside(folder: Path) -> Manifest | None:
    """None also for a damaged one: the caller's word stands. Raises NewerFormat."""
    with contextlib.suppress(DamagedFile):
        return read_manifest(folder)
    return None


def _copy_ours(layout: Layout, source: Path, staging: Path, wanted: Manifest) -> Settled:
    """Copy files of our own format, with what their log holds, and give them a uid of their own."""
    identity = read_header(source / ROWS)
    for field, asked, found in zip(_SHAPE_FIELDS, wanted.shape, identity.shape, strict=True):
        if asked != found:
            raise InvalidInput(
                f"{source / ROWS} holds {identity.dimension}, {identity.metric}, {identity.vector_type}; "
                f"asked for {wanted.dimension}, {wanted.distance_metric}, {wanted.vector_type}",
                details=refused(field, asked, found),
            )
    copy = Layout(staging.with_name(staging.name + "-copy"))
    folder = copy.collection(wanted.name)
    found = [path for name in (ROWS, POINTS, POINTS + "-wal") if (path := source / name).exists()]
    segments = _segments_of(layout, source, identity.uid)
    needed = sum(map(size_or_zero, [*found, *segments]))
    refuse_without_room(layout.data, needed, "import", wanted.name)
    files.remove_tree(copy.data)
    try:
        files.make_folder(copy.data)
        files.make_folder(folder)
        for path in found:
            files.copy_file(path, folder / path.name)
        _copy_segments(segments, copy.log(identity.uid))
        write_manifest(folder, dataclasses.replace(wanted, collection_uid=identity.uid))
        settled = settle_copy(copy, wanted.name, wanted.name)
        files.remove(folder / INDEX)
        files.rename(folder, staging)
    finally:
        clear_away(copy.data)
    return settled


def _segments_of(layout: Layout, source: Path, uid: str) -> list[Path]:
    """Return the log segments of a collection's folder; none when its log is missing.

    The log lies in the same data directory, backup or evidence. That of a folder which was moved within this
    volume, as a drop does, is where it was. A log that another folder claims holds what this one never had.
    """
    if source.parent == layout.deleted:
        return [] if is_claimed(layout, uid) else segment_paths(layout.log(uid))
    home = Layout(source.parent)
    is_moved = source.is_relative_to(layout.data) and not source.is_relative_to(layout.backups)
    if is_moved and not home.log(uid).is_dir():
        home = layout
    return [] if uid in claimed_beside(home, source.name) else segment_paths(home.log(uid))


def _copy_segments(segments: Sequence[Path], target: Path) -> None:
    files.make_folder(target.parent)
    files.make_folder(target)
    for path in segments:
        files.copy_file(path, target / path.name)


def _foreign_batches(path: Path, wanted: Manifest, report: ForeignReport) -> Iterator[PointBatch]:
    for points in read_batches(read_vectors(path, wanted.dimension, report), BATCH_POINTS):
        try:
            yield _batch_of(wanted, points)
        except (InvalidInput, TooLarge):
            yield _batch_of(wanted, [point for point in points if _fits(wanted, point, report)])


def _fits(wanted: Manifest, point: ForeignPoint, report: ForeignReport) -> bool:
    """Whether a point keeps the limits; one that does not is reported as skipped."""
    try:
        _batch_of(wanted, [point])
    except (InvalidInput, TooLarge) as error:
        report.skip(point.offset, f"{point.id}: {error.message}")
        return False
    return True


def _batch_of(wanted: Manifest, points: list[ForeignPoint]) -> PointBatch:
    rows = np.stack([p.vector for p in points]) if points else np.zeros((0, wanted.dimension), np.float32)
    return PointBatch.build(wanted, [p.id for p in points], rows, [p.metadata for p in points])
