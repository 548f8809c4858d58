"""Backups of one collection on the same volume, and the restore of a collection from a backup.

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
    refused,
)
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.names import check_collection_name, new_collection_uid
from vecstow_engine.storage import files
from vecstow_engine.storage.collection_identity import identity_of
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layout import (
    INDEX,
    MANIFEST,
    POINTS,
    ROWS,
    Layout,
    rfc3339,
    size_or_zero,
    timestamp,
)
from vecstow_engine.storage.leftovers import clear_away, clear_place, cleared_on_error
from vecstow_engine.storage.log.replay import segment_paths
from vecstow_engine.storage.log.writer import Log
from vecstow_engine.storage.manifests import manifests_locked, read_manifest, write_manifest
from vecstow_engine.storage.points.records import Meta
from vecstow_engine.storage.points.writer import rewrite_meta
from vecstow_engine.storage.recovery import open_store
from vecstow_engine.storage.room import refuse_without_room, tree_bytes
from vecstow_engine.storage.rows_header import encode_header
from vecstow_engine.storage.trash import refuse_taken

# A file that is never written again is linked. A manifest is copied, because it is small and people edit it.
_TRANSFERS: Final = {
    MANIFEST: files.copy_file, INDEX: files.link_file, ROWS: files.copy_file, POINTS: files.copy_file,
    POINTS + "-wal": files.copy_file,
}  # fmt: skip


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
    refuse_without_room(layout.data, _copied_bytes(layout, manifest), "backup", manifest.name)
    with cleared_on_error(unnamed):
        files.make_folder(unnamed)
        _copy_collection(layout, Layout(unnamed), manifest)
        files.rename(unnamed, target)
    return target


def _copied_bytes(layout: Layout, manifest: Manifest) -> int:
    """Return the bytes that a backup copies; a link takes no room."""
    folder = layout.collection(manifest.name)
    copied = [folder / name for name, transfer in _TRANSFERS.items() if transfer is files.copy_file]
    if manifest.collection_uid is not None:
        copied += segment_paths(layout.log(manifest.collection_uid))[-1:]
    return sum(size_or_zero(path) for path in copied)


def remove_unfinished_backups(layout: Layout) -> None:
    """Remove the temporary folders of backups that a crash interrupted."""
    if layout.backups.is_dir():
        for path in layout.backups.iterdir():
            if path.name.endswith(files.TEMPORARY_SUFFIX):
                files.remove_tree(path)


def backup_collection_name(path: Path) -> str:
    """Return the name of the only collection in a backup; raise NotFound when there is not exactly one."""
    names = [manifest.parent.name for manifest in path.glob(f"*/{MANIFEST}")]
    if len(names) != 1:
        raise NotFound(f"{path} is no backup: it holds {len(names)} collections")
    return names[0]


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


def restore_backup(layout: Layout, backup: Path, new_name: str | None) -> Settled:
    """Make a collection with its own uid from a backup; the backup does not change.

    Raises NotFound, Conflict when the name is taken, DiskFull, or DamagedFile when the backup cannot be
    opened.
    """
    source_name = backup_collection_name(backup)
    name = check_collection_name(new_name or source_name)
    refuse_taken(layout.collection(name))
    staging = Layout(layout.staging / f"{name}-{new_collection_uid()}")
    files.make_folder(layout.staging)
    refuse_without_room(layout.data, tree_bytes(backup), "restore", name)
    try:
        _copy_tree(backup, staging.data)
        settled = bring_to_rest(staging, source_name, name)
        with manifests_locked(layout):
            if layout.collection(name).exists():
                raise Conflict(f"collection {name!r} exists", collection=name)
            files.rename(staging.collection(source_name), layout.collection(name))
        begin_log_if_possible(layout, settled.manifest, settled.applied)
    finally:
        clear_away(staging.data)
    return settled


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


def _copy_collection(source: Layout, target: Layout, manifest: Manifest) -> None:
    folder = target.collection(manifest.name)
    files.make_folder(folder)
    found = source.collection(manifest.name)
    for name, transfer in _TRANSFERS.items():
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
    segments = sorted(path for path in source.iterdir() if path.suffix == ".log")
    for path in segments[:-1]:
        files.link_file(path, folder / path.name)
    for path in segments[-1:]:
        files.copy_file(path, folder / path.name)
    files.sync_folder(folder)


def _copy_tree(source: Path, target: Path) -> None:
    files.make_folder(target)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            _copy_tree(path, target / path.name)
        elif path.is_file():
            files.copy_file(path, target / path.name)
    files.sync_folder(target)


def bring_to_rest(staging: Layout, source_name: str, name: str) -> Settled:
    """Apply the log of a copied collection, then write its own name and uid into every file."""
    folder = staging.collection(source_name)
    manifest = read_manifest(folder)
    if manifest is None:
        raise DamagedFile("it is missing", file=str(folder / MANIFEST))
    handles = HandleCache(8)
    try:
        opened = open_store(staging, manifest, handles)
        remarks = opened.remarks
        if opened.store is not None:
            opened.store.checkpoint()
            opened.store.view.verify()
            remarks += opened.store.layers.withheld_remarks()
    finally:
        handles.close()
    uid = new_collection_uid() if opened.store is not None else None
    fresh = dataclasses.replace(
        manifest, name=name, collection_uid=uid, dropped_at=None, updated_at=rfc3339()
    )
    if opened.store is not None and uid is not None:
        _stamp(folder, fresh, uid, opened.store.meta)
    write_manifest(folder, fresh)
    applied = opened.store.meta.applied if opened.store is not None else 0
    in_copy = f"{staging.data}{os.sep}"  # The copy is removed before a person reads the remark.
    return Settled(fresh, applied, tuple(remark.replace(in_copy, "") for remark in remarks))


def _stamp(folder: Path, manifest: Manifest, uid: str, meta: Meta) -> None:
    fd = files.open_existing(folder / ROWS)
    try:
        files.write_at(fd, 0, [encode_header(identity_of(manifest, uid))])
        files.sync(fd)
    finally:
        os.close(fd)
    rewrite_meta(folder / POINTS, dataclasses.replace(meta, uid=uid, name=manifest.name))
    files.remove(folder / INDEX)
