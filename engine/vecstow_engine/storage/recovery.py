"""Opening a collection from the volume alone: match its files, read its log back, apply what is newer.

Observe, decide, act: nothing is written before every check has passed. Raises DamagedFile (quarantine),
Foreign or NewerFormat; a collection that never held data opens as None.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import DamagedFile, DiskFull, Foreign, ReadOnly, StorageError
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage import files
from vecstow_engine.storage.collection_identity import Identity
from vecstow_engine.storage.file_identity import DataFiles
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layers import Applied, Layers
from vecstow_engine.storage.layout import INDEX, POINTS, ROWS, Layout, has_content, timestamp
from vecstow_engine.storage.log.effects import Effect, decode_effect
from vecstow_engine.storage.log.replay import (
    FoundSegment,
    Replayable,
    read_log,
    records_of,
    segment_paths,
    select_records,
)
from vecstow_engine.storage.log.segment import Record
from vecstow_engine.storage.log.writer import Log
from vecstow_engine.storage.manifests import update_manifest
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.records import Meta
from vecstow_engine.storage.points.table_repair import find_faults, mend
from vecstow_engine.storage.points.writer import fold_journal
from vecstow_engine.storage.rows_header import HEADER_BYTES, MAGIC, read_header
from vecstow_engine.storage.slots import SlotTable
from vecstow_engine.storage.store import Store
from vecstow_engine.storage.versions import refuse_newer

WAL_MISSING: Final = (
    "wal_missing: there is no log; what came after the last checkpoint is lost, if anything did"
)
REPLAY_BYTES_MAX: Final = 64 << 20
"""Memory of replayed changes at which replay checkpoints what it has, unless the caller says otherwise."""
TORN_TAIL_BYTES_MAX: Final = 64 << 20
"""A longer torn tail is not copied aside."""
_TEMPORARIES: Final = tuple(name + files.TEMPORARY_SUFFIX for name in (ROWS, INDEX, POINTS, POINTS + "-wal"))
"""What a crash may leave; a manifest's belongs to whoever writes it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A collection as recovery found it."""

    manifest: Manifest
    store: Store | None
    """None: it never held data; its files come with the first write."""
    warnings: tuple[str, ...] = ()
    wal_missing: bool = False
    replayed: int = 0
    """Records that were newer than the last checkpoint."""
    changes: tuple[Applied, ...] = ()
    """What those records changed, except what replay has brought into the files since."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """The warnings, and whether there is no log."""
        return (*self.warnings, WAL_MISSING) if self.wal_missing else self.warnings


def open_store(
    layout: Layout,
    manifest: Manifest,
    handles: HandleCache,
    *,
    is_rival: bool = False,
    replay_bytes_max: int = REPLAY_BYTES_MAX,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Opened:
    """Open one collection. `is_rival`: another folder claims the same uid.

    Replay takes `replay_bytes_max` of memory for changes, and one record. `progress` gets the number of
    replayed records and of all.
    """
    folder = layout.collection(manifest.name)
    data_files = DataFiles.of(folder)
    identity = match_files(layout, folder, manifest)
    if identity is None:
        return Opened(manifest, None)
    refuse_newer(folder, layout.log(identity.uid))
    fold_journal(folder / POINTS)
    meta, slots, mended = _read_points(folder, identity)
    segments = read_log(layout.log(identity.uid))
    refuse_strangers(segments, identity, manifest.name if is_rival else None)
    replayable = select_records(segments, meta.applied)
    found = os.listdir(folder)
    for name in _TEMPORARIES:
        if name in found:
            files.remove(folder / name)
    served = dataclasses.replace(identity, name=manifest.name)
    log = Log(layout.log(identity.uid), served, applied=meta.applied, carried=replayable.extents)
    store = Store(Layers(folder, served, slots, handles, meta.checkpoints + 1), log, meta, data_files)
    try:
        changes = _replay(store, replayable, replay_bytes_max, progress)
        warnings = [*mended, *replayable.warnings, *_set_aside(layout, manifest.name, replayable.torn)]
        if replayable.extents or replayable.torn or _is_renamed(segments, manifest.name):
            warnings += _resume(log)
        return Opened(
            _with_uid(layout, manifest, identity.uid), store, tuple(warnings),
            wal_missing=not segments, replayed=replayable.count, changes=tuple(changes),
        )  # fmt: skip
    except BaseException:
        store.close()
        raise


def _replay(
    store: Store, replayable: Replayable, bytes_max: int, progress: Callable[[int, int], None]
) -> list[Applied]:
    """Apply the records in pieces that fit into memory; returns what those of the last piece changed."""
    changes: list[Applied] = []
    total = replayable.count
    for done, record in enumerate(records_of(replayable.extents), start=1):
        changes.append(store.replay(_effect_of(record, store.log), record.sequence))
        if store.overlay_bytes >= bytes_max:
            store.checkpoint_replayed()
            changes.clear()
        progress(done, total)
    return changes


def _is_renamed(segments: Sequence[FoundSegment], name: str) -> bool:
    """Whether the newest segment says another name than the folder has now."""
    newest = segments[-1].header if segments else None
    return newest is not None and newest.identity.name != name


def _effect_of(record: Record, log: Log) -> Effect:
    try:
        return decode_effect(record, log.identity.stride)
    except ValueError as error:
        raise DamagedFile(
            f"record {record.sequence} passes its checksum, but cannot be applied: {error}",
            file=str(log.folder), offset=record.offset,
        ) from error  # fmt: skip


def match_files(layout: Layout, folder: Path, manifest: Manifest) -> Identity | None:
    """The identity that header and manifest agree on; None when there is no data and never was."""
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


def _read_points(folder: Path, identity: Identity) -> tuple[Meta, SlotTable, list[str]]:
    table = PointTable(folder / POINTS, at_rest=True)
    try:
        meta = table.meta()
        if meta.uid != identity.uid:
            raise DamagedFile(
                f"it belongs to incarnation {meta.uid}, but {ROWS} to {identity.uid}", file=str(table.path)
            )
        slots = table.slots(meta)
        faults = find_faults(table)
    finally:
        table.close()
    remarks = mend(folder / POINTS, faults) if faults else []
    rows_path = folder / ROWS
    size = os.stat(rows_path).st_size
    capacity = (size - HEADER_BYTES) // identity.stride
    if len(slots.slots) and slots.slots[-1] >= capacity:
        raise DamagedFile(
            f"it ends at byte {size}, but a live row stands at slot {slots.slots[-1]}",
            file=str(rows_path),
            offset=size,
        )
    return meta, SlotTable(slots), remarks


def refuse_strangers(segments: Sequence[FoundSegment], identity: Identity, rival: str | None) -> None:
    """Raise DamagedFile for a segment of another incarnation; of rivals, the newest segment names the owner.

    `rival` is the name of the folder at hand, when another one claims its uid too.
    """
    headed = [segment for segment in segments if segment.header is not None]
    for segment in headed:
        if segment.header is not None and segment.header.identity.uid != identity.uid:
            raise DamagedFile(
                f"it belongs to incarnation {segment.header.identity.uid}, not {identity.uid}",
                file=str(segment.path), offset=12,
            )  # fmt: skip
    newest = headed[-1].header if headed else None
    owner = newest.identity.name if newest is not None else identity.name
    if rival is not None and owner != rival:
        raise DamagedFile(
            f"its uid {identity.uid} is also claimed by another folder, to which the log belongs",
            file=rival,
        )


def _set_aside(layout: Layout, name: str, torn: Sequence[FoundSegment]) -> list[str]:
    """Copy torn tails away before their segments go: normal after a crash, but evidence."""
    warnings = []
    for segment in torn:
        warnings.append(
            f"{segment.path}: torn tail of {segment.tail_bytes} bytes at byte {segment.valid_bytes}"
        )
        if segment.tail_bytes <= TORN_TAIL_BYTES_MAX:
            folder = layout.quarantine / f"{name}-{timestamp()}"
            try:
                files.make_folder(layout.quarantine)
                files.make_folder(folder)
                aside = folder / f"{segment.path.name}.torn-at-{segment.valid_bytes}"
                files.copy_end(segment.path, segment.valid_bytes, aside)
            except OSError as error:
                warnings.append(f"{segment.path}: the torn tail could not be set aside: {error}")
    return warnings


def _resume(log: Log) -> list[str]:
    try:
        log.resume()
    except DiskFull as error:
        return [f"the log goes on with the first write that finds room: {error.message}"]
    except StorageError as error:  # nothing was changed, and what was found can be read
        return [f"the log goes on with the first write that the disk takes: {error.message}"]
    except ReadOnly as error:
        return [error.message]
    return []


def _with_uid(layout: Layout, manifest: Manifest, uid: str) -> Manifest:
    """A manifest that was written by hand, or lost and written anew, takes the header's uid."""
    if manifest.collection_uid is not None:
        return manifest

    def decide(found: Manifest | None) -> Manifest | None:
        return found and dataclasses.replace(found, collection_uid=uid)

    return update_manifest(layout, manifest.name, decide)[1] or manifest
