"""Collections made of data files that have no manifest, or that d-vecDB wrote.

The new collection is made beside the served ones and comes to its place by a rename: before it nothing was
imported, and a start throws away what a failure or a crash left. The source stays as it is; when it is the
target's own folder, it is moved to `.quarantine/`, whole, and from then on a start finishes the import.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
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
)
from vecstow_engine.model.manifest import ManagedBy, Manifest
from vecstow_engine.model.names import new_collection_uid
from vecstow_engine.storage import files
from vecstow_engine.storage.backup import Settled, begin_log_if_possible, clear_away, settle_copy
from vecstow_engine.storage.creation import bulk_load
from vecstow_engine.storage.dvecdb import ForeignPoint, ForeignReport, read_batches, read_vectors
from vecstow_engine.storage.layout import INDEX, POINTS, ROWS, Layout, rfc3339, timestamp
from vecstow_engine.storage.manifests import manifests_locked, read_manifest, write_manifest
from vecstow_engine.storage.rows_header import MAGIC, read_header

BATCH_POINTS: Final = 4096


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
    files.remove_tree(staging)
    try:
        if _is_ours(path):
            settled = _copy_ours(layout, source, staging, wanted)
        else:
            settled = Settled(*bulk_load(staging, wanted, _foreign_batches(path, wanted, report)))
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
    """None also for one that cannot be read: the caller's word stands."""
    with contextlib.suppress(DamagedFile, NewerFormat):
        return read_manifest(folder)
    return None


def _copy_ours(layout: Layout, source: Path, staging: Path, wanted: Manifest) -> Settled:
    """Copy files of our own format, with what their log holds, and give them a uid of their own."""
    identity = read_header(source / ROWS)
    if identity.shape != wanted.shape:
        raise InvalidInput(
            f"{source / ROWS} holds {identity.dimension}, {identity.metric}, {identity.vector_type}; "
            f"asked for {wanted.dimension}, {wanted.distance_metric}, {wanted.vector_type}"
        )
    copy = Layout(staging.with_name(staging.name + "-copy"))
    folder = copy.collection(wanted.name)
    files.remove_tree(copy.data)
    try:
        files.make_folder(copy.data)
        files.make_folder(folder)
        for name in (ROWS, POINTS, POINTS + "-wal"):
            if (source / name).exists():
                files.copy_file(source / name, folder / name)
        _copy_segments(layout.log(identity.uid), copy, identity.uid)
        write_manifest(folder, dataclasses.replace(wanted, collection_uid=identity.uid))
        settled = settle_copy(copy, wanted.name, wanted.name)
        files.remove(folder / INDEX)
        files.rename(folder, staging)
    finally:
        clear_away(copy.data)
    return settled


def _copy_segments(source: Path, copy: Layout, uid: str) -> None:
    if source.is_dir():
        files.make_folder(copy.logs)
        files.make_folder(copy.log(uid))
        for path in sorted(source.glob("*.log")):
            files.copy_file(path, copy.log(uid) / path.name)


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
