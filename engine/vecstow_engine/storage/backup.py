"""Copies of one collection on the same volume, and collections made from such copies.

A backup has the form of a data directory with one collection: `<backup>/<collection>/` and
`<backup>/wal/<uid>/`. Files that are never written again are hard links, the others copies. The caller
holds checkpoints back meanwhile, so that only the log changes.
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
)
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.names import check_collection_name, new_collection_uid
from vecstow_engine.storage import files
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.identity import identity_of
from vecstow_engine.storage.layout import INDEX, MANIFEST, POINTS, ROWS, Layout, rfc3339, timestamp
from vecstow_engine.storage.log import Log
from vecstow_engine.storage.manifests import manifests_locked, read_manifest, write_manifest
from vecstow_engine.storage.point_commits import rewrite_meta
from vecstow_engine.storage.points import Meta
from vecstow_engine.storage.recovery import open_store
from vecstow_engine.storage.rows_header import encode_header

# What is never written again is linked; a manifest is small, and a person may write into it.
_TRANSFERS: Final = {
    MANIFEST: files.copy_file, INDEX: files.link_file, ROWS: files.copy_file, POINTS: files.copy_file,
    POINTS + "-wal": files.copy_file,
}  # fmt: skip


def make_backup(layout: Layout, manifest: Manifest) -> Path:
    """Copy one collection as it lies on the disk, durably; returns the backup's folder."""
    target = layout.backups / f"{manifest.name}-{timestamp()}"
    unnamed = files.temporary(target)
    files.make_folder(layout.backups)
    if target.exists():
        raise Conflict(f"backup {target} exists", hint="wait a second, and call again")
    files.remove_tree(unnamed)
    files.make_folder(unnamed)
    _copy_collection(layout, Layout(unnamed), manifest)
    files.rename(unnamed, target)
    return target


def remove_unfinished_backups(layout: Layout) -> None:
    """Throw away what a crash left of backups that never got their names."""
    if layout.backups.is_dir():
        for path in layout.backups.iterdir():
            if path.name.endswith(files.TEMPORARY_SUFFIX):
                files.remove_tree(path)


def backup_collection_name(path: Path) -> str:
    """The one collection that a backup holds; raises NotFound."""
    names = [manifest.parent.name for manifest in path.glob(f"*/{MANIFEST}")]
    if len(names) != 1:
        raise NotFound(f"{path} is no backup: it holds {len(names)} collections")
    return names[0]


@dataclass(frozen=True, slots=True)
class Settled:
    """A copy that was brought to rest."""

    manifest: Manifest
    applied: int = 0
    """The sequence that its files contain."""
    remarks: tuple[str, ...] = ()
    """What its recovery found: it happened in the copy, and would be forgotten with it."""
    made_whole: bool = True
    """Its files hold everything, and its log nothing yet."""


def restore_backup(layout: Layout, backup: Path, new_name: str | None) -> Settled:
    """Make a collection from a backup, with a uid of its own; the backup stays as it is.

    Raises NotFound, Conflict when the name is taken, DamagedFile when the backup cannot be opened.
    """
    source_name = backup_collection_name(backup)
    name = check_collection_name(new_name or source_name)
    if layout.collection(name).exists():
        raise Conflict(f"collection {name!r} exists", collection=name, hint="restore it under a new name")
    staging = Layout(layout.staging / f"{name}-{new_collection_uid()}")
    files.make_folder(layout.staging)
    try:
        _copy_tree(backup, staging.data)
        settled = settle_copy(staging, source_name, name)
        with manifests_locked(layout):
            if layout.collection(name).exists():
                raise Conflict(f"collection {name!r} exists", collection=name)
            files.rename(staging.collection(source_name), layout.collection(name))
        begin_log_if_possible(layout, settled.manifest, settled.applied)
    finally:
        clear_away(staging.data)
    return settled


def begin_log(layout: Layout, manifest: Manifest, applied: int) -> None:
    """The first log segment of a collection that was made whole, everything up to `applied` in its table.

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
    """As `begin_log`, for a collection that has its place: it is whole, and a write can begin its log."""
    with contextlib.suppress(DiskFull, StorageError):
        begin_log(layout, manifest, applied)


def clear_away(staging: Path) -> None:
    """Remove what lies in staging; if the disk refuses, the next start does it."""
    with contextlib.suppress(OSError):
        files.remove_tree(staging)


def path_below(layout: Layout, given: str, roots: tuple[Path, ...]) -> Path:
    """The path that a caller named, absolute or relative to the data directory; it must lie below one of
    `roots`.

    Raises InvalidInput for one that leads out of them, NotFound when nothing is there.
    """
    if "\0" in given:
        raise InvalidInput("a path holds no NUL character")
    path = Path(os.path.normpath(layout.data / given))
    resolved = path.resolve()
    if not any(resolved.is_relative_to(root.resolve()) and resolved != root.resolve() for root in roots):
        raise InvalidInput(f"path {given!r} lies outside of " + ", ".join(str(root) for root in roots))
    if not path.is_dir():
        raise NotFound(f"path {given!r} is no folder")
    return path


def _copy_collection(source: Layout, target: Layout, manifest: Manifest) -> None:
    folder = target.collection(manifest.name)
    files.make_folder(folder)
    found = source.collection(manifest.name)
    for name, transfer in _TRANSFERS.items():
        # SQLite takes its -wal away, empty, when the last reader is done: it may go at any moment.
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


def settle_copy(staging: Layout, source_name: str, name: str) -> Settled:
    """Bring a copied collection to rest: log applied, then name and uid of its own in every file."""
    folder = staging.collection(source_name)
    manifest = read_manifest(folder)
    if manifest is None:
        raise DamagedFile("it is missing", file=str(folder / MANIFEST))
    handles = HandleCache(8)
    try:
        opened = open_store(staging, manifest, handles)
        if opened.store is not None:
            opened.store.checkpoint()
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
    return Settled(fresh, applied, opened.warnings)


def _stamp(folder: Path, manifest: Manifest, uid: str, meta: Meta) -> None:
    fd = files.open_existing(folder / ROWS)
    try:
        files.write_at(fd, 0, [encode_header(identity_of(manifest, uid))])
        files.sync(fd)
    finally:
        os.close(fd)
    rewrite_meta(folder / POINTS, dataclasses.replace(meta, uid=uid, name=manifest.name))
    files.remove(folder / INDEX)
