"""The first two steps of a recovery: the observation of the files, and the decision. Nothing changes.

SQLite reads a table whose `-wal` is not empty, and makes `-shm` for it: an index of `-wal` that every opening
builds again. The observation removes `-shm` afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import DamagedFile, Foreign, NewerFormat, StorageError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage import files
from vecstow_engine.storage.handles import DataFiles
from vecstow_engine.storage.identity import HEADER_BYTES, MAGIC, Identity, read_header
from vecstow_engine.storage.layout import COLUMNS, INDEX, POINTS, ROWS, Layout, has_content
from vecstow_engine.storage.log.replay import (
    FoundSegment,
    Replayable,
    read_headers,
    read_log,
    segment_paths,
    select_records,
)
from vecstow_engine.storage.points.reader import peek_meta, table_with_journal
from vecstow_engine.storage.points.records import Meta, Slots
from vecstow_engine.storage.points.table_repair import Fault, find_faults

_TEMPORARIES: Final = frozenset(
    name + files.TEMPORARY_SUFFIX for name in (ROWS, INDEX, COLUMNS, POINTS, POINTS + "-wal")
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


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision about one collection."""

    found: Observation
    replayable: Replayable
    begins_segment: bool
    """Whether recovery itself begins a new segment: after records, a torn tail, or a rename of the folder.
    Otherwise the first write does so."""


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
    rows_bytes = os.stat(folder / ROWS).st_size
    segments = tuple(read_log(layout.log(identity.uid)))
    temporaries = tuple(folder / name for name in sorted(_TEMPORARIES & set(os.listdir(folder))))
    return Observation(folder, data_files, identity, rows_bytes, meta, slots, faults, segments, temporaries)


def make_plan(found: Observation, name: str, *, is_rival: bool) -> Plan:
    """Return the plan for the folder `name`. `is_rival`: whether another folder claims the same uid.

    Raises DamagedFile when the files do not belong together, or records of the log are lost.
    """
    identity, meta = found.identity, found.meta
    if meta.uid != identity.uid:
        message = f"it belongs to incarnation {meta.uid}, but {ROWS} to {identity.uid}"
        raise DamagedFile(message, file=str(found.folder / POINTS))
    slots = found.slots.slots
    if len(slots) and slots[-1] >= (found.rows_bytes - HEADER_BYTES) // identity.stride:
        message = f"it ends at byte {found.rows_bytes}, but a live row stands at slot {slots[-1]}"
        raise DamagedFile(message, file=str(found.folder / ROWS), offset=found.rows_bytes)
    refuse_strangers(found.segments, identity, name if is_rival else None)
    replayable = select_records(found.segments, meta.applied)
    newest = found.segments[-1].header if found.segments else None
    is_renamed = newest is not None and newest.identity.name != name
    return Plan(found, replayable, bool(replayable.extents or replayable.torn) or is_renamed)


def refuse_strangers(segments: Sequence[FoundSegment], identity: Identity, rival: str | None) -> None:
    """Raise DamagedFile for a segment of another incarnation, or for a rival that does not own the log.

    `rival` is the name of this folder when another folder claims its uid too. The newest segment names the
    owner.
    """
    owner = identity.name
    for segment in segments:
        if segment.header is not None:
            owner, uid = segment.header.identity.name, segment.header.identity.uid
            if uid != identity.uid:
                message = f"it belongs to incarnation {uid}, not {identity.uid}"
                raise DamagedFile(message, file=str(segment.path), offset=12)
    if rival is not None and owner != rival:
        message = f"its uid {identity.uid} is also claimed by another folder, to which the log belongs"
        raise DamagedFile(message, file=rival)


def match_files(layout: Layout, folder: Path, manifest: Manifest) -> Identity | None:
    """Return the identity on which header and manifest agree; None when there is no data and never was."""
    rows_path, points_path = folder / ROWS, folder / POINTS
    has_points = has_content(points_path)
    if not has_content(rows_path):
        _refuse_missing(rows_path, manifest, expected=has_points)
        return None
    identity = _read_rows_header(rows_path, manifest, has_points=has_points)
    if manifest.collection_uid not in (None, identity.uid):
        message = f"it belongs to incarnation {identity.uid}, but the manifest says {manifest.collection_uid}"
        raise DamagedFile(message, file=str(rows_path), offset=12)
    if identity.shape != manifest.shape:
        message = f"it holds {_words(identity.shape)}, but the manifest says {_words(manifest.shape)}"
        raise DamagedFile(message, file=str(rows_path), offset=28, hint="put the manifest right")
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
        message = "it is missing or empty, though the collection held data"
        raise DamagedFile(message, file=str(path), hint="restore the file or a backup of the collection")


def _words(shape: tuple[object, ...]) -> str:
    return "dimension {}, {}, {}".format(*shape)


def refuse_newer(folder: Path, log: Path) -> None:
    """Raise NewerFormat for the data files of a folder, or its log; ignore damage, which others report."""
    for read, path in ((read_header, folder / ROWS), (peek_meta, folder / POINTS), (read_headers, log)):
        try:
            read(path)
        except NewerFormat:
            raise
        except (StorageError, OSError):
            continue
