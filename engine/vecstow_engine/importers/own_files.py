"""The importer of Vecstow's own files: an orphan, a backup, a collection that was set aside."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from vecstow_engine.importers.report import ImportReport
from vecstow_engine.model.errors import InvalidInput, refused
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage import files
from vecstow_engine.storage.backup import Settled, bring_to_rest
from vecstow_engine.storage.discovery import claimed_beside
from vecstow_engine.storage.identity import MAGIC, read_header
from vecstow_engine.storage.layout import INDEX, POINTS, ROWS, Layout, size_or_zero
from vecstow_engine.storage.log.replay import segment_paths
from vecstow_engine.storage.manifests import write_manifest
from vecstow_engine.storage.staging import clear_away
from vecstow_engine.storage.trash import is_claimed
from vecstow_engine.storage.volume import refuse_without_room

_SHAPE_FIELDS: Final = ("dimension", "distance_metric", "vector_type")
"""REST's names of the parts of a shape."""


def recognizes(rows: Path) -> bool:
    """Whether the file begins with the magic of `vectors.bin`."""
    with rows.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def build(layout: Layout, source: Path, staging: Path, wanted: Manifest) -> tuple[Settled, ImportReport]:
    """Copy the files in `source` to `staging`, apply their log, and give them their own uid.

    The manifest is written last. Returns the collection and a report. Raises InvalidInput when the files hold
    another shape, DamagedFile, DiskFull or StorageError.
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
        files.remove(folder / INDEX)
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
