"""Commits to `points.db`, and the SQLite settings for them (rules 11 and 12).

Each commit uses a connection of its own, which is closed afterwards. A commit is durable when it returns.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

from vecstow_engine.model.errors import Busy, DamagedFile, DiskFull, StorageError
from vecstow_engine.storage import files
from vecstow_engine.storage.points.records import (
    COLUMNS_SPACE,
    SUM_MODULUS,
    VERSION,
    Meta,
    SnapshotEntry,
    StoredPoint,
    read_meta,
)

BUSY_TIMEOUT_SECONDS: Final = 30
SHARED_MEMORY_ROOM_BYTES: Final = 1 << 20
"""SQLite does not report why it could not make `-shm`; with less room than this, the cause is a full disk."""
WRITER_CACHE_KIB: Final = 16 * 1024
_SCHEMA: Final = """
CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, uid BLOB NOT NULL, name TEXT NOT NULL,
  applied INTEGER NOT NULL, checkpoints INTEGER NOT NULL, points INTEGER NOT NULL,
  checksum_sum INTEGER NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE points (
  slot INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, sequence INTEGER NOT NULL, generation INTEGER NOT NULL,
  row_checksum INTEGER NOT NULL, payload BLOB, checksum INTEGER NOT NULL);
"""
_SNAPSHOTS: Final = """
CREATE TABLE snapshots (
  crc INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, sequence INTEGER NOT NULL, space TEXT NOT NULL,
  max_connections INTEGER NOT NULL, library TEXT NOT NULL, checksum INTEGER NOT NULL);
"""
_FILE_VERSIONS: Final = slice(18, 20)
_WRITE_AHEAD_LOG: Final = b"\2\2"
"""The bytes that journal_mode=WAL sets (https://www.sqlite.org/fileformat2.html, section 1.3.3)."""
SELECT_META: Final = (
    "SELECT version, uid, name, applied, checkpoints, points, checksum_sum, checksum FROM meta"
)


def create_points(path: Path, meta: Meta) -> None:
    """Make an empty point table, durably: built in memory and renamed to its place, so it is never
    incomplete.

    Removes the `-wal` and `-shm` of a crashed attempt, which had no manifest.
    """
    left = [p for p in (path.with_name(path.name + end) for end in ("-wal", "-shm")) if p.exists()]
    for leftover in left:
        files.remove(leftover)
    if left:
        files.sync_folder(path.parent)  # A -wal that reappears would count as the new table's.
    with wrapped(path), contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(_SCHEMA + _SNAPSHOTS)
        _write_meta(connection, meta)
        raw = bytearray(connection.serialize())
    raw[_FILE_VERSIONS] = _WRITE_AHEAD_LOG
    files.replace_file(path, [raw])


def fold_journal(path: Path) -> bool:
    """Make the content of SQLite's `-wal` durable. Return whether there was any.

    The page cache may show frames that the disk never had. The found `-wal` is therefore written again under
    its name, and only then moved into the database. SQLite rebuilds `-shm`.
    """
    wal = path.with_name(path.name + "-wal")
    if not wal.exists() or wal.stat().st_size == 0:
        return False
    files.remove(path.with_name(path.name + "-shm"))
    copy = files.temporary(wal)
    files.remove(copy)
    try:
        files.copy_file(wal, copy)
    except BaseException:
        files.remove(copy)
        raise
    files.publish(copy, wal)
    with wrapped(path), _writer(path) as connection:
        make_durable(connection, path)
    return True


def write_points(
    path: Path, freed: Iterable[int], points: Iterable[StoredPoint], applied: int, checkpoints: int
) -> Meta:
    """Commit one checkpoint: delete the points at `freed` slots, add `points`, record `applied`. Durable.

    Raises DiskFull or Busy: the same call can be repeated, and does not commit twice. Raises StorageError,
    after which `path` must not be written again in this process.
    """
    with wrapped(path), _writer(path) as connection:
        meta = read_meta(connection.execute(SELECT_META).fetchall(), path)
        if meta.applied != applied:
            connection.execute("BEGIN IMMEDIATE")
            removed, removed_sum = _delete_slots(connection, freed)
            added, added_sum = _insert_points(connection, points)
            points_now = meta.points - removed + added
            sum_now = (meta.checksum_sum - removed_sum + added_sum) % SUM_MODULUS
            meta = Meta(meta.uid, meta.name, applied, checkpoints, points_now, sum_now)
            _write_meta(connection, meta)
            connection.execute("COMMIT")
        make_durable(connection, path)
    return meta


def write_snapshot(path: Path, entry: SnapshotEntry, keep: int = 2) -> None:
    """Record a snapshot next to the previous one of its file; durable when this returns."""
    with wrapped(path), _writer(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM snapshots WHERE crc = ?", (entry.crc,))
        values = (*astuple(entry), entry.checksum)
        connection.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        connection.execute(
            "DELETE FROM snapshots WHERE (space = :columns) = :is_columns AND crc NOT IN (SELECT crc"
            " FROM snapshots WHERE (space = :columns) = :is_columns ORDER BY sequence DESC LIMIT :keep)",
            {"columns": COLUMNS_SPACE, "is_columns": entry.space == COLUMNS_SPACE, "keep": keep},
        )
        connection.execute("COMMIT")
        make_durable(connection, path)


def rewrite_meta(path: Path, meta: Meta) -> None:
    """Give a copied table another identity; durable when this returns."""
    with wrapped(path), _writer(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        _write_meta(connection, meta)
        connection.execute("DELETE FROM snapshots")
        connection.execute("COMMIT")
        make_durable(connection, path)


def rebuild_id_index(path: Path) -> None:
    """Rebuild the index of ids from the points; durable when this returns."""
    with wrapped(path), _writer(path) as connection:
        connection.execute("REINDEX points")
        make_durable(connection, path)


def vacuum(path: Path) -> None:
    """Rewrite the table without its free pages; durable when this returns."""
    with wrapped(path), _writer(path) as connection:
        connection.execute("VACUUM")
        make_durable(connection, path)


def vacuum_without_snapshots(path: Path) -> None:
    """Rewrite the table, durably, and drop the records of `index.bin` unread: their pages may be damaged."""
    with wrapped(path), _writer(path) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM sqlite_schema WHERE name = 'snapshots'")
        connection.execute("PRAGMA writable_schema=RESET")
        connection.execute(_SNAPSHOTS)
        connection.execute("COMMIT")
        connection.execute("VACUUM")
        make_durable(connection, path)


def _delete_slots(connection: sqlite3.Connection, slots: Iterable[int]) -> tuple[int, int]:
    removed = removed_sum = 0
    for slot in slots:
        found = connection.execute("DELETE FROM points WHERE slot = ? RETURNING checksum", (slot,))
        for (checksum,) in found:
            removed += 1
            removed_sum += checksum
    return removed, removed_sum


def _insert_points(connection: sqlite3.Connection, points: Iterable[StoredPoint]) -> tuple[int, int]:
    added = added_sum = 0

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal added, added_sum
        for p in points:
            checksum = p.checksum
            added += 1
            added_sum += checksum
            yield p.slot, p.id, p.sequence, p.epoch, p.row_checksum, p.payload, checksum

    connection.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)", rows())
    return added, added_sum


def _write_meta(connection: sqlite3.Connection, meta: Meta) -> None:
    values = (VERSION, bytes.fromhex(meta.uid), *astuple(meta)[1:], meta.checksum)
    connection.execute("INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def make_durable(connection: sqlite3.Connection, path: Path) -> None:
    """Move SQLite's log into the database file and sync it; only busy = 0 proves that this happened.

    The passive pass works next to readers, so that the truncating pass has little left to wait for.
    """
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise Busy(f"{path}: readers held the table for {BUSY_TIMEOUT_SECONDS} s", operation="checkpoint")


@contextlib.contextmanager
def _writer(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a connection, and close it unless a sync may have failed: closing the last connection repeats the
    sync and then unlinks `-wal`.

    The reference count keeps it open at the interpreter's end, too. A table has at most one such connection,
    because nothing writes the table afterwards.
    """
    connection = connect(path, WRITER_CACHE_KIB)
    stays_open = False
    try:
        yield connection
    except sqlite3.Error as error:
        stays_open = _errorname(error).startswith("SQLITE_IOERR")
        raise
    finally:
        if stays_open:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        else:
            connection.close()


def limit_caches(bytes_max: int) -> None:
    """Limit the caches of all connections of this process together; above it, each reuses its own pages."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"PRAGMA soft_heap_limit={bytes_max}")


def connect(path: Path, cache_kib: int, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a connection with the settings of rule 11; the file must exist."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
        uri=True,
        timeout=BUSY_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.executescript(
            "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA mmap_size=0;"
            f"PRAGMA cache_size=-{cache_kib};"
        )
    except sqlite3.Error:  # for example on a full disk, where `-shm` has no room
        connection.close()
        raise
    return connection


def connect_at_rest(path: Path) -> sqlite3.Connection:
    """Open a connection for reading that takes no locks and makes no `-wal` or `-shm`."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
    )


@contextlib.contextmanager
def wrapped(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into typed errors."""
    try:
        yield
    except sqlite3.Error as error:
        raise _typed(error, path) from error
    except UnicodeDecodeError as error:  # SQLite's message quotes the bytes of the file in place of a name.
        raise DamagedFile(f"its schema is no text: {error.reason}", file=str(path)) from error


def _typed(error: sqlite3.Error, path: Path) -> StorageError | DiskFull | Busy:
    name = _errorname(error)
    is_shared_memory = name.startswith("SQLITE_IOERR_SHM")  # SQLite needs room for -shm even to read.
    if name == "SQLITE_FULL" or (is_shared_memory and not _has_room(path)):
        return DiskFull(
            f"the volume is full while writing {path.name}; nothing was changed", operation="checkpoint"
        )
    damage = "malformed", "no such table"
    if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB") or any(text in str(error) for text in damage):
        return DamagedFile(f"{error} ({name or 'sqlite'})", file=str(path))
    is_unopened = name in ("SQLITE_CANTOPEN", "SQLITE_NOMEM")
    if is_shared_memory or (is_unopened and os.access(path, os.R_OK | os.W_OK)):
        return Busy(f"{path.name} cannot be opened now, perhaps for want of descriptors: {error} ({name})")
    return StorageError(f"{path}: {error} ({name or 'sqlite'})")


def _has_room(path: Path) -> bool:
    stats = os.statvfs(path.parent)
    return stats.f_bavail * stats.f_frsize >= SHARED_MEMORY_ROOM_BYTES


def could_not_open(error: StorageError) -> bool:
    """Whether SQLite could not open the table or its `-wal` for writing, for example for want of descriptors.

    Nothing was written, and the same call can be repeated.
    """
    cause = error.__cause__
    return isinstance(cause, sqlite3.Error) and _errorname(cause) in ("SQLITE_CANTOPEN", "SQLITE_READONLY")


def _errorname(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or ""
