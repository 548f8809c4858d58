"""Reads of `points.db`, from any thread, in short statements. The checksum of every point is verified.

Reads of a table that no writer uses leave the file and its folder as they were.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.model.errors import DamagedFile, DiskFull, StorageError, is_no_room
from vecstow_engine.storage import files
from vecstow_engine.storage.points.records import (
    SUM_MODULUS,
    Meta,
    Slots,
    SnapshotEntry,
    StoredPoint,
    checked_point,
    damaged_when,
    read_meta,
)
from vecstow_engine.storage.points.writer import SELECT_META, connect, connect_at_rest, wrapped

IDS_PER_STATEMENT: Final = 500
SCAN_ROWS: Final = 4096
SCAN_BYTES: Final = 4 * 1024 * 1024
"""The bytes of payloads that a scan reads at a time, exceeded by at most one step."""
SCAN_STEP_ROWS: Final = 64
READER_CACHE_KIB: Final = 1024
COPY_ATTEMPTS_MAX: Final = 3
_BROKEN_TEXT: Final = functools.partial(str, encoding="utf-8", errors="surrogateescape")
_POINT_COLUMNS: Final = "slot, id, sequence, generation, row_checksum, payload, checksum"
_SELECT_LISTED: Final = (
    "SELECT listed.id, points.slot, points.id, points.sequence, points.generation, points.row_checksum,"
    " points.payload, points.checksum, listed.slot"
    " FROM points AS listed LEFT JOIN points ON points.slot = listed.slot WHERE listed.id"
)
"""The table occurs twice: otherwise SQLite reads the id from its index, and hides damage in the table."""
_PAYLOAD: Final = _POINT_COLUMNS.split(", ").index("payload")
_Row: TypeAlias = tuple[Any, ...]
_Fetch: TypeAlias = Callable[[sqlite3.Cursor], list[_Row]]


class PointTable:
    """Reads of one `points.db` over one guarded connection. Short statements let checkpoints through."""

    def __init__(self, path: Path, *, at_rest: bool = False, read_only: bool = False) -> None:
        """Open the table for reading; without a flag, a writer may move the `-wal` into it meanwhile.

        `at_rest`: no program writes the file, and its `-wal` is empty, so no locks are needed. `read_only`:
        the `-wal` is read, and closing the connection changes neither file.
        """
        self.path = path
        self._lock = threading.Lock()
        with wrapped(path):
            self._connection = (
                connect_at_rest(path) if at_rest else connect(path, READER_CACHE_KIB, read_only=read_only)
            )

    def close(self) -> None:
        """Close the connection, which frees up to three descriptors."""
        with self._lock:
            self._connection.close()

    def query(
        self, statement: str, values: Sequence[Any] = (), fetch: _Fetch = sqlite3.Cursor.fetchall
    ) -> list[_Row]:
        """Return the rows of a statement, unchecked; raise the typed errors of `wrapped`."""
        with self._lock, wrapped(self.path):
            try:
                return fetch(self._connection.execute(statement, values))
            except sqlite3.OperationalError as error:
                if "decode to UTF-8" not in str(error):
                    raise
                return self._all_with_broken_text(statement, values, fetch)

    def meta(self) -> Meta:
        """Return the meta row; raise DamagedFile when it is missing or fails its checksum, or NewerFormat."""
        return read_meta(self.query(SELECT_META), self.path)

    def slots(self, meta: Meta) -> Slots:
        """Return the fixed columns of all points; raise DamagedFile when count or sum differ from `meta`."""
        with damaged_when(self.path, ValueError, TypeError, OverflowError):
            columns = list(self._scan_columns())
            table = np.concatenate(columns) if columns else np.zeros((0, 4), np.int64)
            checksum_sum = int(sum(int(block[:, 3].sum()) for block in columns)) % SUM_MODULUS
        if len(table) != meta.points or checksum_sum != meta.checksum_sum:
            raise DamagedFile(
                f"{len(table)} points with sum {checksum_sum}; the meta row says {meta.points} "
                f"and {meta.checksum_sum}: the file mixes two moments",
                file=str(self.path),
            )
        if (np.diff(table[:, 0]) <= 0).any():
            raise DamagedFile("the points are not in the order of their slots", file=str(self.path))
        # Epoch 0 means a free slot, and no point has it. A damaged row with epoch 0 keeps its slot.
        epochs = np.maximum(table[:, 1].astype(np.uint32), 1)
        return Slots(table[:, 0].copy(), epochs, table[:, 2].astype(np.uint32))

    def by_ids(self, ids: Sequence[str]) -> dict[str, StoredPoint | None]:
        """Return the points of those `ids` that exist; None for one that fails its checksum."""
        found: dict[str, StoredPoint | None] = {}
        for listed, *row in self._all_of(f"{_SELECT_LISTED} IN", ids):
            point = checked_point(row)
            found[listed] = point if point is not None and point.id == listed else None
        return found

    def following(self, point_id: str, count: int) -> list[tuple[str, int, StoredPoint | None]]:
        """Return the points after `point_id` in the order of ids: id, slot, and None for a failed checksum.

        They are at most `count`, with about `SCAN_BYTES` of payloads, and at least one unless there is none.
        Raises DamagedFile where the index of ids is out of order, or leads to another point or to none.
        """
        fetch = functools.partial(_fetch_some, payload=_PAYLOAD + 1)
        rows = self.query(f"{_SELECT_LISTED} > ? ORDER BY listed.id LIMIT ?", (point_id, count), fetch)
        ids = [row[0] for row in rows]
        with damaged_when(self.path, TypeError, ValueError):
            "".join(ids).encode()  # raises ValueError for text that is not UTF-8
            is_ordered = all(map(operator.lt, [point_id, *ids], ids))
        points = [checked_point(row[1:]) for row in rows]
        lost = [
            row[1] is None or (p is not None and p.id != row[0]) for row, p in zip(rows, points, strict=True)
        ]
        if not is_ordered or any(lost):
            raise DamagedFile(
                "the index of ids is out of order, or leads to other points", file=str(self.path)
            )
        return [(row[0], row[-1], point) for row, point in zip(rows, points, strict=True)]

    def listed_slots(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the slots of `ids` in the index of ids, for those that it has; no point is read."""
        return dict(self._all_of("SELECT id, slot FROM points WHERE id IN", ids))

    def by_slots(self, slots: Sequence[int]) -> dict[int, StoredPoint | None]:
        """Return the points at those `slots` that hold one; None for one that fails its checksum."""
        statement = f"SELECT {_POINT_COLUMNS} FROM points WHERE slot IN"
        return {row[0]: checked_point(row) for row in self._all_of(statement, slots)}

    def scan(self, after: int = -1) -> Iterator[tuple[int, StoredPoint | None]]:
        """Yield (slot, point) ascending by slot, in short statements; None for a failed checksum."""
        statement = f"SELECT {_POINT_COLUMNS} FROM points WHERE slot > ? ORDER BY slot LIMIT {SCAN_ROWS}"
        while rows := self.query(statement, (after,), _fetch_some):
            for row in rows:
                yield row[0], checked_point(row)
            after = self._behind(after, rows)

    def snapshots(self) -> list[SnapshotEntry]:
        """Return the recorded index snapshots, newest first, without those that fail their checksum."""
        valid = [entry for entry, checksum in self._snapshot_rows() if entry.checksum == checksum]
        return sorted(valid, key=lambda entry: -entry.sequence)

    def bad_snapshots(self) -> int:
        """Return the number of snapshot records that fail their checksum."""
        return sum(entry.checksum != checksum for entry, checksum in self._snapshot_rows())

    def id_at(self, slot: int) -> str | None:
        """Return the id at a slot, unchecked; None when there is no point or the id is not text."""
        rows = self.query("SELECT id FROM points WHERE slot = ?", (slot,))
        return rows[0][0] if rows and isinstance(rows[0][0], str) else None

    def integrity_errors(self) -> list[str]:
        """Return the first 20 findings of SQLite's integrity check; empty when there are none."""
        return [str(row[0]) for row in self.query("PRAGMA integrity_check(20)") if row[0] != "ok"]

    def _snapshot_rows(self) -> list[tuple[SnapshotEntry, Any]]:
        statement = "SELECT crc, bytes, sequence, space, max_connections, library, checksum FROM snapshots"
        return [(SnapshotEntry(*row[:6]), row[6]) for row in self.query(statement + " ORDER BY rowid DESC")]

    def _scan_columns(self) -> Iterator[NDArray[np.int64]]:
        statement = (
            "SELECT slot, generation, row_checksum, checksum FROM points WHERE slot > ? "
            f"ORDER BY slot LIMIT {SCAN_ROWS}"
        )
        after = -1
        full = True
        while full:
            rows = self.query(statement, (after,))
            full = len(rows) == SCAN_ROWS
            if rows:
                yield np.array(rows, np.int64)
                after = self._behind(after, rows)

    def _behind(self, after: int, rows: Sequence[tuple[Any, ...]]) -> int:
        """Return the slot where a scan continues; raise DamagedFile unless it rises, to prevent a loop."""
        last = int(rows[-1][0])
        if last <= after:
            raise DamagedFile("the points are not in the order of their slots", file=str(self.path))
        return last

    def _all_of(self, statement: str, items: Sequence[Any]) -> Iterator[_Row]:
        """Yield the rows of a statement that ends in IN, for some of the items at a time."""
        for start in range(0, len(items), IDS_PER_STATEMENT):
            part = items[start : start + IDS_PER_STATEMENT]
            yield from self.query(f"{statement} ({','.join('?' * len(part))})", part)

    def _all_with_broken_text(self, statement: str, values: Sequence[Any], fetch: _Fetch) -> list[_Row]:
        """Fetch rows with text that is not valid UTF-8: its checksum fails, and other rows stay readable."""
        self._connection.text_factory = _BROKEN_TEXT
        try:
            return fetch(self._connection.execute(statement, values))
        finally:
            self._connection.text_factory = str


def _fetch_some(cursor: sqlite3.Cursor, payload: int = _PAYLOAD) -> list[_Row]:
    """Fetch the first rows, with about `SCAN_BYTES` of payloads, which are in that column."""
    rows: list[_Row] = []
    size = 0
    while size < SCAN_BYTES and (more := cursor.fetchmany(SCAN_STEP_ROWS)):
        rows += more
        size += sum(sys.getsizeof(row[payload]) for row in more)
    cursor.close()
    return rows


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
            kind = DiskFull if is_no_room(error) else StorageError
            message = f"{path} has a -wal, and cannot be copied to {folder} to be read: {error}"
            raise kind(message, hint="TMPDIR names the folder for temporary files") from error
        if _signature(path) == before:
            return target
    raise StorageError(f"{path} changed under each attempt to copy it")


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
