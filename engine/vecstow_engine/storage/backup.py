"""Backups of one collection on the same volume; the restore of backups and of dropped collections.

A backup has the form of a data directory with one collection: `<backup>/<collection>/` and
`<backup>/wal/<uid>/`. Files that are never written again are hard links; the other files are copies. The
caller postpones checkpoints during a backup, so that only the log changes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import (
    Conflict,
    DamagedFile,
    DiskFull,
    InvalidInput,
    NotFound,
    ReadOnly,
    StorageError,
    as_storage_error,
    refused,
)
from vecstow_engine.model.manifest import Manifest, parse_manifest
from vecstow_engine.model.names import check_collection_name, new_collection_uid
from vecstow_engine.storage import files
from vecstow_engine.storage.aliases import refuse_alias_name
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.identity import encode_header, identity_of
from vecstow_engine.storage.layout import (
    COLUMNS,
    INDEX,
    MANIFEST,
    POINTS,
    ROWS,
    Layout,
    rfc3339,
    size_or_zero,
    timestamp,
)
from vecstow_engine.storage.log.replay import segment_paths
from vecstow_engine.storage.log.writer import Log
from vecstow_engine.storage.manifests import manifests_locked, read_manifest, write_manifest
from vecstow_engine.storage.points.records import Meta
from vecstow_engine.storage.points.writer import rewrite_meta
from vecstow_engine.storage.recovery import WAL_MISSING, open_store
from vecstow_engine.storage.recovery_plan import refuse_newer
from vecstow_engine.storage.staging import clear_away, clear_place, cleared_on_error, finish_interrupted
from vecstow_engine.storage.trash import list_deleted
from vecstow_engine.storage.volume import alone, refuse_without_room, stopped_volume, tree_bytes

_CACHES: Final = (INDEX, COLUMNS)
_FILES: Final = (MANIFEST, *_CACHES, ROWS, POINTS, POINTS + "-wal")


def make_backup(layout: Layout, manifest: Manifest) -> Path:
    """Copy the files of one collection as they are on disk, durably; return the folder of the backup.

    Raises Conflict when the folder exists, and DiskFull when the copy does not fit.
    """
    target = layout.backups / f"{manifest.name}-{timestamp()}"
    unnamed = files.temporary(target)
    files.make_folder(layout.backups)
    if target.exists():
        raise Conflict(f"backup {target} exists", hint="wait a second, and call again")
    clear_place(unnamed)
    folder = layout.collection(manifest.name)
    copied = [folder / name for name in _FILES if name not in _CACHES]
    if manifest.collection_uid is not None:
        copied += segment_paths(layout.log(manifest.collection_uid))[-1:]
    refuse_without_room(layout.data, sum(map(size_or_zero, copied)), "backup", manifest.name)
    with cleared_on_error(unnamed):
        files.make_folder(unnamed)
        _copy_collection(layout, Layout(unnamed), manifest)
        files.rename(unnamed, target)
    return target


def remove_unfinished_backups(layout: Layout) -> None:
    """Remove the temporary folders of backups that a crash interrupted."""
    if layout.backups.is_dir():
        for path in layout.backups.iterdir():
            if path.name.endswith(files.TEMPORARY_SUFFIX):
                files.remove_tree(path)


def _copy_collection(source: Layout, target: Layout, manifest: Manifest) -> None:
    folder = target.collection(manifest.name)
    files.make_folder(folder)
    found = source.collection(manifest.name)
    for name in _FILES:
        # A file that is never written again is linked.
        transfer = files.link_file if name in _CACHES else files.copy_file
        # SQLite removes an empty -wal when its last reader closes, so the file can disappear at any moment.
        with contextlib.suppress(FileNotFoundError):
            transfer(found / name, folder / name)
    files.sync_folder(folder)
    if manifest.collection_uid is not None:
        _copy_log(source.log(manifest.collection_uid), target)


def _copy_log(source: Path, target: Layout) -> None:
    if not source.is_dir():
        return
    files.make_folder(target.logs)
    folder = target.log(source.name)
    files.make_folder(folder)
    segments = segment_paths(source)
    for path in segments:
        transfer = files.copy_file if path == segments[-1] else files.link_file
        transfer(path, folder / path.name)
    files.sync_folder(folder)


@dataclass(frozen=True, slots=True)
class Settled:
    """A collection whose log is applied, with its own name and uid in every file."""

    manifest: Manifest
    applied: int = 0
    """The sequence that the files contain."""
    remarks: tuple[str, ...] = ()
    """The findings of the recovery, which ran on the copy: no other record of them remains."""
    made_whole: bool = True
    """Whether the files contain all points, so that the log is still empty."""


def restore(layout: Layout, given: str, new_name: str | None) -> Settled:
    """Restore the dropped collection or the backup at `given`, a path below `.deleted/` or `.backups/`.

    Raises InvalidInput for another path, NotFound, Conflict when the name is taken, DiskFull or DamagedFile.
    """
    path = path_below(layout, given, (layout.deleted, layout.backups), "backup_path")
    if path.parent == layout.deleted:
        return Settled(restore_deleted(layout, path, new_name), made_whole=False)
    return restore_backup(layout, path, new_name)


def restore_on_volume(data: Path, given: str, new_name: str | None) -> Settled:
    """Restore on a stopped volume. Raises the errors of `restore`, and VolumeRefused while an engine runs.

    The remarks also report a missing log of a dropped collection. A running engine reports that on opening.
    """
    layout = stopped_volume(data)
    with alone(layout):
        finish_interrupted(layout)
        try:
            settled = restore(layout, given, new_name)
        except OSError as error:
            raise as_storage_error(error, "restore") from error
    uid = settled.manifest.collection_uid
    if settled.made_whole or uid is None or segment_paths(layout.log(uid)):
        return settled
    return dataclasses.replace(settled, remarks=(*settled.remarks, WAL_MISSING))


def path_below(layout: Layout, given: str, roots: tuple[Path, ...], field: str = "path") -> Path:
    """Return the path that a caller gave, absolute or relative to the data directory.

    The path must be below one of `roots`. `field` is the caller's name for the value. Raises InvalidInput for
    a path outside of the roots, and NotFound for a path that is not a folder.
    """
    if "\0" in given:
        raise InvalidInput(f"{field} has a NUL character", details=refused(field, given))
    path = Path(os.path.normpath(layout.data / given))
    resolved = path.resolve()
    if not any(resolved.is_relative_to(root.resolve()) and resolved != root.resolve() for root in roots):
        allowed = [str(root) for root in roots]
        raise InvalidInput(
            f"{field} {given!r} lies outside of {', '.join(allowed)}", details=refused(field, given, allowed)
        )
    # Path.is_dir raises an error for a name that is too long.
    if not os.path.isdir(path):
        raise NotFound(f"{field} {given!r} is no folder", details=refused(field, given))
    return path


def restore_deleted(layout: Layout, path: Path, new_name: str | None) -> Manifest:
    """Restore a dropped collection, under `new_name` if given; return its manifest.

    The mark of the drop is removed first. After a crash in between, the collection is still in `.deleted/`,
    and the restore can be repeated. Raises NotFound, Conflict when the name is taken, DamagedFile or
    NewerFormat.
    """
    found = next((deleted for deleted in list_deleted(layout) if deleted.path == path), None)
    if found is None:
        raise NotFound(f"{path} is no dropped collection of this volume", hint="vecstow ls --deleted")
    name = check_collection_name(new_name or found.name)
    with manifests_locked(layout):
        target = layout.collection(name)
        refuse_taken(layout, target)
        manifest = _read_deleted_manifest(path)
        refuse_newer(path, layout.log(found.uid))
        restored = dataclasses.replace(manifest, name=name, dropped_at=None, updated_at=rfc3339())
        write_manifest(path, restored)
        files.rename(path, target)
    return restored


def restore_backup(layout: Layout, backup: Path, new_name: str | None) -> Settled:
    """Make a collection with its own uid from a backup; the backup does not change.

    Raises NotFound, Conflict when the name is taken, DiskFull, or DamagedFile when the backup cannot be
    opened.
    """
    names = [manifest.parent.name for manifest in backup.glob(f"*/{MANIFEST}")]
    if len(names) != 1:
        raise NotFound(f"{backup} is no backup: it holds {len(names)} collections")
    [source_name] = names
    name = check_collection_name(new_name or source_name)
    refuse_taken(layout, layout.collection(name))
    staging = Layout(layout.staging / f"{name}-{new_collection_uid()}")
    files.make_folder(layout.staging)
    refuse_without_room(layout.data, tree_bytes(backup), "restore", name)
    try:
        _copy_tree(backup, staging.data)
        settled = bring_to_rest(staging, source_name, name)
        with manifests_locked(layout):
            refuse_taken(layout, layout.collection(name))
            files.rename(staging.collection(source_name), layout.collection(name))
        begin_log_if_possible(layout, settled.manifest, settled.applied)
    finally:
        clear_away(staging.data)
    return settled


def bring_to_rest(staging: Layout, source_name: str, name: str) -> Settled:
    """Apply the log of a copied collection, then write its own name and uid into every file."""
    folder = staging.collection(source_name)
    manifest = read_manifest(folder)
    if manifest is None:
        raise DamagedFile("it is missing", file=str(folder / MANIFEST))
    with contextlib.closing(HandleCache(8)) as handles:
        opened = open_store(staging, manifest, handles)
        store, remarks = opened.store, opened.remarks
        if store is not None:
            store.checkpoint()
            store.view.verify()
            remarks += store.layers.withheld_remarks()
    uid = new_collection_uid() if store is not None else None
    fresh = dataclasses.replace(
        manifest, name=name, collection_uid=uid, dropped_at=None, updated_at=rfc3339()
    )
    if store is not None and uid is not None:
        _stamp(folder, fresh, uid, store.meta)
    write_manifest(folder, fresh)
    in_copy = f"{staging.data}{os.sep}"  # The copy is removed before a person reads the remark.
    remarks = tuple(remark.replace(in_copy, "") for remark in remarks)
    return Settled(fresh, store.meta.applied if store is not None else 0, remarks)


def begin_log(layout: Layout, manifest: Manifest, applied: int) -> None:
    """Write the first log segment of a collection whose point table contains everything up to `applied`.

    Raises DiskFull, StorageError or files.SyncFailed.
    """
    if manifest.collection_uid is not None:
        identity = identity_of(manifest, manifest.collection_uid)
        log = Log(layout.log(identity.uid), identity, applied=applied)
        try:
            log.resume()
        except ReadOnly as error:
            raise files.SyncFailed(errno.EIO, error.message) from error
        log.close()


def begin_log_if_possible(layout: Layout, manifest: Manifest, applied: int) -> None:
    """Call `begin_log`, and ignore DiskFull and StorageError: the first write can also begin the log."""
    with contextlib.suppress(DiskFull, StorageError):
        begin_log(layout, manifest, applied)


def refuse_taken(layout: Layout, target: Path) -> None:
    """Raise Conflict when the folder for a restored collection exists already, or its name is an alias."""
    if target.exists():
        message = f"collection {target.name!r} exists"
        hint = "restore it under a new name: --new-name NAME of vecstow restore, new_name over REST"
        raise Conflict(message, collection=target.name, hint=hint)
    refuse_alias_name(layout, target.name, "restore")


def _read_deleted_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    try:
        return parse_manifest(file.read_bytes(), str(file))
    except FileNotFoundError as error:
        raise DamagedFile("it is missing", file=str(file)) from error


def _copy_tree(source: Path, target: Path) -> None:
    files.make_folder(target)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            _copy_tree(path, target / path.name)
        elif path.is_file():
            files.copy_file(path, target / path.name)
    files.sync_folder(target)


def _stamp(folder: Path, manifest: Manifest, uid: str, meta: Meta) -> None:
    with files.closing(files.open_existing(folder / ROWS)) as fd:
        files.write_at(fd, 0, [encode_header(identity_of(manifest, uid))])
        files.sync(fd)
    rewrite_meta(folder / POINTS, dataclasses.replace(meta, uid=uid, name=manifest.name))
    for name in _CACHES:
        files.remove(folder / name)
