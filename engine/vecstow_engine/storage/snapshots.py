"""`index.bin` and `payload.bin`: recorded before the rename, verified before they are read (rules 13, 14).

hnswlib answers wrongly, or crashes, on a damaged file, and reports no error on a full disk. Size and CRC32C
are therefore checked after the write and before the read. Either of the two recorded entries of a file can
match it, because a crash can come between the record and the rename.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from crc32c import crc32c

from vecstow_engine.model.errors import DiskFull, StorageError
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import COLUMNS, INDEX, POINTS
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.records import COLUMNS_SPACE, SnapshotEntry
from vecstow_engine.storage.points.writer import write_snapshot

READ_BYTES: Final = 1 << 20
SPARE_BYTES_MAX: Final = 256 << 20
"""The room that a snapshot leaves for the log and the checkpoints; at most the snapshot's own size."""


def valid_snapshot(
    folder: Path, table: PointTable, applied: int, name: str = INDEX
) -> tuple[SnapshotEntry | None, str]:
    """Return the entry that matches the present file of that name, or None and why the file is unusable."""
    path = folder / name
    entries = [entry for entry in table.snapshots() if entry.file == name]
    size = path.stat().st_size
    if not any(entry.bytes == size for entry in entries):
        return None, f"{name} has {size} bytes, which no recorded snapshot has"
    crc = file_crc(path)
    for entry in entries:
        if (entry.bytes, entry.crc) == (size, crc):
            if entry.sequence > applied:
                return None, f"{name} contains sequence {entry.sequence}, but only {applied} is applied"
            return entry, ""
    return None, f"{name} fails its checksum"


def refuse_without_room(folder: Path, size: int, name: str = INDEX) -> None:
    """Raise DiskFull unless a snapshot of `size` bytes leaves room: it is a cache, and writes come first."""
    stats = os.statvfs(folder)
    free = stats.f_bavail * stats.f_frsize
    if free < size + min(size, SPARE_BYTES_MAX):
        message = f"{name} is not written again: it takes {size} bytes, and {free} are free"
        hint = "nothing is lost; the next start builds what it lacks from the rows"
        raise DiskFull(message, operation="snapshot", hint=hint)


def describe_snapshot(
    folder: Path, *, expected_bytes: int, sequence: int, space: str, max_connections: int, library: str
) -> SnapshotEntry:
    """Sync a saved temporary snapshot and return its entry.

    Removes a snapshot that does not have `expected_bytes`, and raises StorageError.
    """
    temporary = snapshot_temporary(folder)
    size = temporary.stat().st_size
    if size != expected_bytes:
        files.remove(temporary)
        raise StorageError(f"{temporary} has {size} bytes, not {expected_bytes}: the disk may be full")
    files.sync_file(temporary)
    return SnapshotEntry(file_crc(temporary), size, sequence, space, max_connections, library)


def install_snapshot(folder: Path, entry: SnapshotEntry) -> None:
    """Record a described snapshot, then rename it; what it contains must already be applied durably.

    Raises DiskFull or Busy; or StorageError or files.SyncFailed, after which the files must not be written
    again.
    """
    write_snapshot(folder / POINTS, entry)
    files.publish(snapshot_temporary(folder, entry.file), folder / entry.file)


def describe_columns(folder: Path, *, sequence: int, version: int) -> SnapshotEntry:
    """Sync saved temporary columns of payload indexes and return their entry."""
    temporary = snapshot_temporary(folder, COLUMNS)
    files.sync_file(temporary)
    size = temporary.stat().st_size
    return SnapshotEntry(file_crc(temporary), size, sequence, COLUMNS_SPACE, 0, str(version))


def snapshot_temporary(folder: Path, name: str = INDEX) -> Path:
    """Return the path of a snapshot before its rename."""
    return files.temporary(folder / name)


def file_crc(path: Path) -> int:
    """Return the CRC32C of a whole file, read in blocks."""
    crc = 0
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(READ_BYTES):
            crc = crc32c(block, crc)
    return crc
