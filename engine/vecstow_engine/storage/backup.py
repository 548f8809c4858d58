"""Backups of one collection on the same volume.

A backup has the form of a data directory with one collection: `<backup>/<collection>/` and
`<backup>/wal/<uid>/`. Files that are never written again are hard links; the other files are copies. The
caller postpones checkpoints during a backup, so that only the log changes.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import Conflict
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import INDEX, MANIFEST, POINTS, ROWS, Layout, size_or_zero, timestamp
from vecstow_engine.storage.log.replay import segment_paths
from vecstow_engine.storage.staging import clear_place, cleared_on_error
from vecstow_engine.storage.volume import refuse_without_room

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
