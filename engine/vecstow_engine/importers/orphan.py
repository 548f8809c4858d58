"""The import of a folder of data files: Vecstow's own are copied, others are read by their importer.

Own files are an orphan, a backup, or a collection that was set aside.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from vecstow_engine.importers.dvecdb import importer as dvecdb
from vecstow_engine.importers.report import ImportReport
from vecstow_engine.model.errors import InvalidInput, NotFound, refused
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.names import new_collection_uid
from vecstow_engine.storage import files
from vecstow_engine.storage.backup import Settled, begin_log_if_possible, bring_to_rest
from vecstow_engine.storage.discovery import claimed_beside
from vecstow_engine.storage.identity import MAGIC, read_header
from vecstow_engine.storage.layout import COLUMNS, INDEX, POINTS, ROWS, Layout, rfc3339, size_or_zero
from vecstow_engine.storage.log.replay import segment_paths
from vecstow_engine.storage.manifests import write_manifest
from vecstow_engine.storage.staging import as_declared, clear_away, clear_place, readable_manifest, take_place
from vecstow_engine.storage.trash import is_claimed
from vecstow_engine.storage.volume import refuse_without_room

Build: TypeAlias = Callable[[Layout, Path, Path, Manifest], tuple[Settled, ImportReport]]
"""An importer: it makes a collection from the files in a source folder, in a new staging folder.

The manifest is written last. Raises InvalidInput when the files hold another shape, DamagedFile, DiskFull or
StorageError.
"""
_SHAPE_FIELDS: Final = ("dimension", "distance_metric", "vector_type")
"""REST's names of the parts of a shape."""


def import_orphan(layout: Layout, source: Path, wanted: Manifest) -> tuple[Settled, ImportReport]:
    """Make the collection `wanted` from the files in `source`; return it and the report.

    The source does not change; if it is the target's own folder, the whole folder is moved to `.quarantine/`.
    Raises NotFound when there is no vectors.bin, InvalidInput when it holds another shape, Conflict when the
    name is taken, or DamagedFile. Raises OutcomeUnknown when the old folder is set aside, but the new one has
    no place yet.
    """
    rows = source / ROWS
    if not rows.is_file() or rows.stat().st_size == 0:
        raise NotFound(f"{source} has no {ROWS}")
    wanted = _with_settings(source, dataclasses.replace(wanted, created_at=rfc3339(), updated_at=rfc3339()))
    in_place = source == layout.collection(wanted.name)
    if in_place:
        as_declared(source, wanted)  # A conflict is found before the work; `take_place` checks again.
    staging = layout.staging / (wanted.name if in_place else f"{wanted.name}-{new_collection_uid()}")
    files.make_folder(staging.parent)
    clear_place(staging)
    with rows.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    build = next(build for magic, build in IMPORTERS if head.startswith(magic))
    try:
        settled, report = build(layout, source, staging, wanted)
        manifest = take_place(layout, staging, settled.manifest, in_place=in_place)
        begin_log_if_possible(layout, manifest, settled.applied)
    finally:
        if not in_place or layout.collection(wanted.name).exists():
            clear_away(staging)
    return dataclasses.replace(settled, manifest=manifest), report


def _with_settings(source: Path, wanted: Manifest) -> Manifest:
    """Return `wanted` with index settings, owner and payload indexes of a manifest next to the files."""
    found = readable_manifest(source)
    if found is None or found.shape != wanted.shape:
        return wanted
    return dataclasses.replace(
        wanted, index_config=found.index_config, owner=found.owner, payload_indexes=found.payload_indexes
    )


def _copy_own(layout: Layout, source: Path, staging: Path, wanted: Manifest) -> tuple[Settled, ImportReport]:
    """Copy Vecstow's files in `source` to `staging`, apply their log, and give them their own uid.

    The manifest is written last.
    """
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
    log = copy.log(identity.uid)
    found = [path for name in (ROWS, POINTS, POINTS + "-wal") if (path := source / name).exists()]
    copies = {path: folder / path.name for path in found}
    copies |= {path: log / path.name for path in _segments_of(layout, source, identity.uid)}
    refuse_without_room(layout.data, sum(map(size_or_zero, copies)), "import", wanted.name)
    files.remove_tree(copy.data)
    try:
        for made in (copy.data, folder, log.parent, log):
            files.make_folder(made)
        for path, target in copies.items():
            files.copy_file(path, target)
        write_manifest(folder, dataclasses.replace(wanted, collection_uid=identity.uid))
        settled = bring_to_rest(copy, wanted.name, wanted.name)
        for name in (INDEX, COLUMNS):
            files.remove(folder / name)
        files.rename(folder, staging)
    finally:
        clear_away(copy.data)
    return settled, ImportReport(format="vecstow")


def _segments_of(layout: Layout, source: Path, uid: str) -> list[Path]:
    """Return the log segments of a collection's folder; none when its log is missing.

    The log is in the same data directory, backup or evidence. The log of a folder that was moved within this
    volume, for example by a drop, stays where it was. A log that another folder claims is not used: its
    records belong to that folder.
    """
    if source.parent == layout.deleted:
        return [] if is_claimed(layout, uid) else segment_paths(layout.log(uid))
    home = Layout(source.parent)
    is_moved = source.is_relative_to(layout.data) and not source.is_relative_to(layout.backups)
    if is_moved and not home.log(uid).is_dir():
        home = layout
    return [] if uid in claimed_beside(home, source.name) else segment_paths(home.log(uid))


IMPORTERS: Final[tuple[tuple[bytes, Build], ...]] = ((MAGIC, _copy_own), (b"", dvecdb.build))
"""The importer of each format, with the first bytes of its `vectors.bin`.

d-vecDB's comes last: its file has no fixed first bytes, and the importer searches any file for records.
"""
_HEAD_BYTES: Final = max(len(magic) for magic, _ in IMPORTERS)
