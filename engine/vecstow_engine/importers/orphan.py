"""The import of a folder of data files, by the importer of their format."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vecstow_engine.importers import own_files
from vecstow_engine.importers.dvecdb import importer as dvecdb
from vecstow_engine.importers.report import ImportReport
from vecstow_engine.model.errors import NotFound
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.names import new_collection_uid
from vecstow_engine.storage import files
from vecstow_engine.storage.backup import Settled, begin_log_if_possible
from vecstow_engine.storage.layout import ROWS, Layout, rfc3339
from vecstow_engine.storage.staging import as_declared, clear_away, clear_place, readable_manifest, take_place


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
    # d-vecDB's file has no magic: its importer searches any file for records.
    build = own_files.build if own_files.recognizes(rows) else dvecdb.build
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
