"""The observation of the files of one collection. It changes none of them.

SQLite reads a table whose `-wal` is not empty, and makes `-shm` for it: an index of `-wal` that every opening
builds again. The observation removes `-shm` afterwards.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import DamagedFile, Foreign
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage import files
from vecstow_engine.storage.collection_identity import Identity
from vecstow_engine.storage.file_identity import DataFiles
from vecstow_engine.storage.layout import INDEX, POINTS, ROWS, Layout, has_content
from vecstow_engine.storage.log.replay import FoundSegment, read_log, segment_paths
from vecstow_engine.storage.points.read_at_rest import table_with_journal
from vecstow_engine.storage.points.records import Meta, Slots
from vecstow_engine.storage.points.table_repair import Fault, find_faults
from vecstow_engine.storage.rows_header import HEADER_BYTES, MAGIC, read_header
from vecstow_engine.storage.versions import refuse_newer

_TEMPORARIES: Final = frozenset(
    name + files.TEMPORARY_SUFFIX for name in (ROWS, INDEX, POINTS, POINTS + "-wal")
)
"""Temporary files that a crash may leave. The manifest's belongs to the program that writes it."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The files of a collection that holds data."""

    folder: Path
    data_files: DataFiles
    identity: Identity
    """The identity in the header of the rows; it agrees with the manifest."""
    rows_bytes: int
    meta: Meta
    slots: Slots
    faults: tuple[Fault, ...]
    """Structures of the table that do not lead to its points."""
    segments: tuple[FoundSegment, ...]
    temporaries: tuple[Path, ...]


def observe(layout: Layout, manifest: Manifest) -> Observation | None:
    """Read all files of a collection; return None when it never held data.

    Raises DamagedFile for a file that cannot be read or belongs to another collection, Foreign or
    NewerFormat.
    """
    folder = layout.collection(manifest.name)
    data_files = DataFiles.of(folder)
    identity = match_files(layout, folder, manifest)
    if identity is None:
        return None
    refuse_newer(folder, layout.log(identity.uid))
    with table_with_journal(folder / POINTS) as table:
        meta = table.meta()
        slots = table.slots(meta)
        faults = tuple(find_faults(table))
    return Observation(
        folder, data_files, identity, os.stat(folder / ROWS).st_size, meta, slots, faults,
        segments=tuple(read_log(layout.log(identity.uid))),
        temporaries=tuple(folder / name for name in sorted(_TEMPORARIES & set(os.listdir(folder)))),
    )  # fmt: skip


def match_files(layout: Layout, folder: Path, manifest: Manifest) -> Identity | None:
    """Return the identity on which header and manifest agree; None when there is no data and never was."""
    rows_path, points_path = folder / ROWS, folder / POINTS
    has_points = has_content(points_path)
    if not has_content(rows_path):
        _refuse_missing(rows_path, manifest, expected=has_points)
        return None
    identity = _read_rows_header(rows_path, manifest, has_points=has_points)
    if manifest.collection_uid not in (None, identity.uid):
        raise DamagedFile(
            f"it belongs to incarnation {identity.uid}, but the manifest says {manifest.collection_uid}",
            file=str(rows_path), offset=12,
        )  # fmt: skip
    if identity.shape != manifest.shape:
        raise DamagedFile(
            f"it holds {_words(identity.shape)}, but the manifest says {_words(manifest.shape)}",
            file=str(rows_path), offset=28, hint="put the manifest right",
        )  # fmt: skip
    if not has_points:
        has_rows = rows_path.stat().st_size > HEADER_BYTES
        has_log = bool(segment_paths(layout.log(identity.uid)))
        _refuse_missing(points_path, manifest, expected=has_rows or has_log)
        return None
    return identity


def _read_rows_header(path: Path, manifest: Manifest, *, has_points: bool) -> Identity:
    try:
        return read_header(path)
    except DamagedFile:
        with path.open("rb") as stream:
            is_ours = stream.read(8) == MAGIC
        if is_ours or manifest.collection_uid is not None or has_points:
            raise
    raise Foreign(
        f"{path} was not written by Vecstow; it is left as it is",
        collection=manifest.name,
        details={"file": str(path), "offset": 0},
        hint=f"vecstow import {manifest.name} --orphan {path.parent} --dimension {manifest.dimension}"
        f" --metric {manifest.distance_metric} --type {manifest.vector_type}",
    )


def _refuse_missing(path: Path, manifest: Manifest, *, expected: bool) -> None:
    if expected or manifest.collection_uid is not None:
        raise DamagedFile(
            "it is missing or empty, though the collection held data", file=str(path),
            hint="restore the file or a backup of the collection",
        )  # fmt: skip


def _words(shape: tuple[object, ...]) -> str:
    return "dimension {}, {}, {}".format(*shape)
