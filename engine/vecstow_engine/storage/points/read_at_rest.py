"""Reads of a `points.db` that no writer uses: they leave the file and its folder as they were."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import DiskFull, StorageError, VecstowError, is_no_room
from vecstow_engine.storage import files
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.records import Meta

COPY_ATTEMPTS_MAX: Final = 3


def peek_meta(path: Path) -> Meta:
    """Return the meta row of the last checkpoint; raise StorageError when it is missing or fails its checks.

    The `-wal` is not read, and no lock is taken: another process may own the file.
    """
    with contextlib.closing(PointTable(path, at_rest=True)) as table:
        return table.meta()


@contextlib.contextmanager
def table_at_rest(path: Path) -> Iterator[PointTable]:
    """Open the point table as recovery would find it, `-wal` included. No writer may be at work.

    Raises StorageError, or DiskFull when there is no room for the copy.
    """
    with (
        file_at_rest(path) as source,
        contextlib.closing(PointTable(source, at_rest=source == path)) as table,
    ):
        yield table


@contextlib.contextmanager
def file_at_rest(path: Path) -> Iterator[Path]:
    """The file itself when its `-wal` is empty; else a private copy of both.

    The copy lies below the system's folder for temporary files. Raises StorageError or DiskFull.
    """
    if _size_and_time(_wal(path))[0] == 0:
        yield path
        return
    with private_copy(path) as copy:
        yield copy


@contextlib.contextmanager
def table_with_journal(path: Path) -> Iterator[PointTable]:
    """Open the point table, `-wal` included, of a collection that no other program uses. Neither file
    changes.

    SQLite makes `-shm`, an index of `-wal`; it is removed afterwards. Raises StorageError, or DiskFull when
    there is no room for `-shm`.
    """
    has_journal = _size_and_time(_wal(path))[0] > 0
    try:
        with contextlib.closing(PointTable(path, at_rest=not has_journal, read_only=has_journal)) as table:
            yield table
    finally:
        if has_journal:
            files.remove(path.with_name(path.name + "-shm"))


@contextlib.contextmanager
def private_copy(path: Path) -> Iterator[Path]:
    """Make a private copy of the table and its `-wal`. Raises StorageError or DiskFull."""
    with tempfile.TemporaryDirectory(prefix="vecstow-") as folder:
        yield _copy(path, Path(folder))


def _copy(path: Path, folder: Path) -> Path:
    """Copy table and `-wal`; repeat the copy when a closing reader moved `-wal` into the table meanwhile."""
    for attempt in range(COPY_ATTEMPTS_MAX):
        target = folder / f"{attempt}-{path.name}"
        before = _signature(path)
        try:
            files.copy_file(path, target)
            with contextlib.suppress(FileNotFoundError):
                files.copy_file(_wal(path), _wal(target))
        except OSError as error:
            raise _no_copy(path, folder, error) from error
        if _signature(path) == before:
            return target
    raise StorageError(f"{path} changed under each attempt to copy it")


def _no_copy(path: Path, folder: Path, error: OSError) -> VecstowError:
    kind = DiskFull if is_no_room(error) else StorageError
    return kind(
        f"{path} has a -wal, and cannot be copied to {folder} to be read: {error}",
        hint="TMPDIR names the folder for temporary files",
    )


def _signature(path: Path) -> list[tuple[int, int]]:
    return [_size_and_time(path), _size_and_time(_wal(path))]


def _wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
