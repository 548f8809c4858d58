"""`points.db`: the point table in SQLite, and what of the log it contains (rules 11 and 12 of the disk).

A `PointTable` reads, from any thread, one statement at a time; `write_points` and `write_snapshot` are the
two commits, each with a connection of its own that is closed afterwards. Every point that is read is
checked.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import struct
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from vecstow_engine.model.errors import DamagedFile, DiskFull, NewerFormat, StorageError
from vecstow_engine.storage import files

VERSION: Final = 1
SUM_MODULUS: Final = 1 << 63
BUSY_TIMEOUT_SECONDS: Final = 30
IDS_PER_STATEMENT: Final = 500
SCAN_ROWS: Final = 4096
WRITER_CACHE_KIB: Final = 16 * 1024
READER_CACHE_KIB: Final = 1024

_SCHEMA: Final = """
CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, uid BLOB NOT NULL, name TEXT NOT NULL,
  applied INTEGER NOT NULL, checkpoints INTEGER NOT NULL, points INTEGER NOT NULL,
  checksum_sum INTEGER NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE points (
  slot INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, sequence INTEGER NOT NULL, generation INTEGER NOT NULL,
  row_checksum INTEGER NOT NULL, payload BLOB, checksum INTEGER NOT NULL);
CREATE TABLE snapshots (
  crc INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, sequence INTEGER NOT NULL, space TEXT NOT NULL,
  max_connections INTEGER NOT NULL, library TEXT NOT NULL, checksum INTEGER NOT NULL);
"""
_SELECT_META: Final = (
    "SELECT version, uid, name, applied, checkpoints, points, checksum_sum, checksum FROM meta"
)
_POINT = struct.Struct("<QQIIH")
_ID_INDEX: Final = "sqlite_autoindex_points_1"
"""The name that SQLite gives to the index behind UNIQUE."""
_IDS_NOT_INDEXED: Final = (
    "SELECT slot FROM points AS p NOT INDEXED WHERE NOT EXISTS "
    f"(SELECT 1 FROM points AS i INDEXED BY {_ID_INDEX} WHERE i.id = p.id AND i.slot = p.slot)"
)
_ID_INDEX_COMPARISON: Final = (
    f"SELECT (SELECT count(*) FROM points INDEXED BY {_ID_INDEX}), (SELECT count(*) FROM points NOT INDEXED),"
    f" (SELECT sum(slot) FROM points INDEXED BY {_ID_INDEX}), (SELECT sum(slot) FROM points NOT INDEXED),"
    f" (SELECT count(*) FROM ({_IDS_NOT_INDEXED}))"
)
"""The sums also: what an entry of the index is compared by need not be what is read from it."""
_SLOTS_LOST: Final = (
    "SELECT slot FROM points AS p NOT INDEXED WHERE NOT EXISTS "
    "(SELECT 1 FROM points AS i NOT INDEXED WHERE i.slot = p.slot) ORDER BY slot DESC LIMIT 1"
)
"""Descending: for the next slot up SQLite steps to the neighbour instead of going down the tree."""
_BROKEN_TEXT: Final = functools.partial(str, encoding="utf-8", errors="surrogateescape")
_POINT_COLUMNS: Final = "slot, id, sequence, generation, row_checksum, payload, checksum"


@dataclass(frozen=True, slots=True)
class Meta:
    """The one row that says what the table contains."""

    uid: str
    name: str
    applied: int = 0
    checkpoints: int = 0
    points: int = 0
    checksum_sum: int = 0

    @property
    def checksum(self) -> int:
        """CRC32C over every field."""
        fixed = struct.pack(
            "<I16sQQQQ", VERSION, bytes.fromhex(self.uid), self.applied, self.checkpoints,
            self.points, self.checksum_sum,
        )  # fmt: skip
        return crc32c(self.name.encode(), crc32c(fixed))


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """One row of the point table."""

    slot: int
    id: str
    sequence: int
    generation: int
    row_checksum: int
    payload: bytes | None

    @property
    def checksum(self) -> int:
        """CRC32C over every field."""
        point_id = self.id.encode()
        fixed = _POINT.pack(self.slot, self.sequence, self.generation, self.row_checksum, len(point_id))
        return crc32c(fixed + point_id + (b"\0" if self.payload is None else self.payload))


@dataclass(frozen=True, slots=True)
class Slots:
    """The point table's fixed columns, ascending by slot; each of shape (n,)."""

    slots: NDArray[np.int64]
    generations: NDArray[np.uint32]
    row_checksums: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """What is known of one valid `index.bin`."""

    crc: int
    bytes: int
    sequence: int
    space: str
    max_connections: int
    library: str

    @property
    def checksum(self) -> int:
        """CRC32C over every field."""
        text = f"{self.crc} {self.bytes} {self.sequence} {self.space} {self.max_connections} {self.library}"
        return crc32c(text.encode())


def create_points(path: Path, meta: Meta) -> None:
    """Make an empty point table, durably. What a crashed attempt left is thrown away: it had no manifest."""
    for name in (path.name, path.name + "-wal", path.name + "-shm"):
        files.remove(path.with_name(name))
    os.close(files.open_new(path))  # SQLite would choose another mode; its -wal and -shm take this one
    with _wrapped(path), _writer(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        connection.executescript(f"BEGIN; {_SCHEMA}")
        _write_meta(connection, meta)
        connection.execute("COMMIT")
        _make_durable(connection, path)
    files.sync_folder(path.parent)


def settle(path: Path) -> None:
    """Make durable what SQLite's `-wal` shows, before anything else reads `path`.

    The page cache may show frames that the disk never had, so the found `-wal` is written anew, under its
    name, and only then moved into the database. `-shm` is rebuilt by SQLite.
    """
    wal = path.with_name(path.name + "-wal")
    with contextlib.suppress(FileNotFoundError):
        if wal.stat().st_size == 0:
            return
        files.remove(path.with_name(path.name + "-shm"))
        copy = files.temporary(wal)
        files.remove(copy)
        files.copy_file(wal, copy)
        files.publish(copy, wal)
        with _wrapped(path), _writer(path) as connection:
            _make_durable(connection, path)


class PointTable:
    """Reads of one `points.db`: one connection, guarded; statements are short, so checkpoints get through."""

    def __init__(self, path: Path, *, at_rest: bool = False) -> None:
        """`at_rest`: nothing writes the file meanwhile, and its `-wal` is empty, so no locks are needed."""
        self.path = path
        self._lock = threading.Lock()
        with _wrapped(path):
            self._connection = _connect_at_rest(path) if at_rest else _connect(path, READER_CACHE_KIB)

    def close(self) -> None:
        """Close the connection, and with it up to three descriptors."""
        with self._lock:
            self._connection.close()

    def meta(self) -> Meta:
        """The meta row; raises DamagedFile when it is missing or fails its checksum, NewerFormat."""
        return _read_meta(self._all(_SELECT_META), self.path)

    def slots(self, meta: Meta) -> Slots:
        """The fixed columns of all points; raises DamagedFile when count or sum are not those of `meta`."""
        with _damaged_when(self.path, ValueError, TypeError, OverflowError):
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
        # Generation 0 means a free slot, and no point has it: one that a damaged row claims keeps its slot.
        generations = np.maximum(table[:, 1].astype(np.uint32), 1)
        return Slots(table[:, 0].copy(), generations, table[:, 2].astype(np.uint32))

    def by_ids(self, ids: Sequence[str]) -> dict[str, StoredPoint | None]:
        """The points of those `ids` that are there; None for one that fails its checksum."""
        found: dict[str, StoredPoint | None] = {}
        for part in _parts(ids):
            marks = ",".join("?" * len(part))
            for row in self._all(f"SELECT {_POINT_COLUMNS} FROM points WHERE id IN ({marks})", part):
                found[row[1]] = checked_point(row)
        return found

    def by_slots(self, slots: Sequence[int]) -> dict[int, StoredPoint | None]:
        """The points at those `slots` that are there; None for one that fails its checksum."""
        found: dict[int, StoredPoint | None] = {}
        for part in _parts(slots):
            marks = ",".join("?" * len(part))
            for row in self._all(f"SELECT {_POINT_COLUMNS} FROM points WHERE slot IN ({marks})", part):
                found[row[0]] = checked_point(row)
        return found

    def scan(self, after: int = -1) -> Iterator[tuple[int, StoredPoint | None]]:
        """(slot, point) ascending by slot, in short statements; None for one that fails its checksum."""
        statement = f"SELECT {_POINT_COLUMNS} FROM points WHERE slot > ? ORDER BY slot LIMIT {SCAN_ROWS}"
        while rows := self._all(statement, (after,)):
            for row in rows:
                yield row[0], checked_point(row)
            after = self._behind(after, rows)

    def snapshots(self) -> list[SnapshotEntry]:
        """The recorded index snapshots, newest first; those that fail their checksum are left out."""
        valid = [entry for entry, checksum in self._snapshot_rows() if entry.checksum == checksum]
        return sorted(valid, key=lambda entry: -entry.sequence)

    def bad_snapshots(self) -> int:
        """How many records of snapshots fail their checksum."""
        return sum(entry.checksum != checksum for entry, checksum in self._snapshot_rows())

    def id_at(self, slot: int) -> str | None:
        """The id at a slot as it stands there, unchecked; None when it is no text."""
        rows = self._all("SELECT id FROM points WHERE slot = ?", (slot,))
        return rows[0][0] if rows and isinstance(rows[0][0], str) else None

    def loses_slots(self) -> bool:
        """Whether a point that a scan meets is not found by its slot: a key between the pages has changed."""
        return bool(self._all(_SLOTS_LOST))

    def ids_differ(self, without: Collection[int] = ()) -> bool:
        """Whether the index of ids and the points say different things, the points at slots `without` aside.

        Of two moments, or with a changed byte, the index makes a point seem absent; no checksum covers it.
        """
        [(listed, kept, listed_sum, kept_sum, lost)] = self._all(_ID_INDEX_COMPARISON)
        if lost and without:
            return any(slot not in without for (slot,) in self._all(_IDS_NOT_INDEXED))
        return bool(lost) or (listed, listed_sum) != (kept, kept_sum)

    def integrity_errors(self) -> list[str]:
        """What SQLite's own check finds; empty when it finds nothing."""
        return [str(row[0]) for row in self._all("PRAGMA integrity_check(20)") if row[0] != "ok"]

    def _snapshot_rows(self) -> list[tuple[SnapshotEntry, Any]]:
        statement = "SELECT crc, bytes, sequence, space, max_connections, library, checksum FROM snapshots"
        return [(SnapshotEntry(*row[:6]), row[6]) for row in self._all(statement + " ORDER BY rowid DESC")]

    def _scan_columns(self) -> Iterator[NDArray[np.int64]]:
        statement = (
            "SELECT slot, generation, row_checksum, checksum FROM points WHERE slot > ? "
            f"ORDER BY slot LIMIT {SCAN_ROWS}"
        )
        after = -1
        full = True
        while full:
            rows = self._all(statement, (after,))
            full = len(rows) == SCAN_ROWS
            if rows:
                yield np.array(rows, np.int64)
                after = self._behind(after, rows)

    def _behind(self, after: int, rows: Sequence[tuple[Any, ...]]) -> int:
        """Where a scan goes on; raises DamagedFile where that leads back, and so round for ever."""
        last = int(rows[-1][0])
        if last <= after:
            raise DamagedFile("the points are not in the order of their slots", file=str(self.path))
        return last

    def _all(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, _wrapped(self.path):
            try:
                return self._connection.execute(statement, values).fetchall()
            except sqlite3.OperationalError as error:
                if "decode to UTF-8" not in str(error):
                    raise
                return self._all_with_broken_text(statement, values)

    def _all_with_broken_text(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Rows of which one holds a text that is none: its checksum tells, the others must not suffer."""
        self._connection.text_factory = _BROKEN_TEXT
        try:
            return self._connection.execute(statement, values).fetchall()
        finally:
            self._connection.text_factory = str


def write_points(
    path: Path, freed: Iterable[int], points: Iterable[StoredPoint], applied: int, checkpoints: int
) -> Meta:
    """One checkpoint: free `freed` slots, add `points`, say what is applied. Durable when this returns.

    Raises DiskFull (try the same again: what was committed already is not committed twice), or StorageError,
    after which `path` must not be written again in this process.
    """
    with _wrapped(path), _writer(path) as connection:
        meta = _read_meta(connection.execute(_SELECT_META).fetchall(), path)
        if meta.applied != applied:
            connection.execute("BEGIN IMMEDIATE")
            removed, removed_sum = _delete_slots(connection, freed)
            added, added_sum = _insert_points(connection, points)
            meta = replace(
                meta, applied=applied, checkpoints=checkpoints, points=meta.points - removed + added,
                checksum_sum=(meta.checksum_sum - removed_sum + added_sum) % SUM_MODULUS,
            )  # fmt: skip
            _write_meta(connection, meta)
            connection.execute("COMMIT")
        _make_durable(connection, path)
    return meta


def write_snapshot(path: Path, entry: SnapshotEntry, keep: int = 2) -> None:
    """Record a snapshot of the index beside the previous one; durable when this returns."""
    with _wrapped(path), _writer(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM snapshots WHERE crc = ?", (entry.crc,))
        connection.execute(
            "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                entry.crc,
                entry.bytes,
                entry.sequence,
                entry.space,
                entry.max_connections,
                entry.library,
                entry.checksum,
            ),
        )
        connection.execute(
            "DELETE FROM snapshots WHERE crc NOT IN"
            " (SELECT crc FROM snapshots ORDER BY sequence DESC LIMIT ?)",
            (keep,),
        )
        connection.execute("COMMIT")
        _make_durable(connection, path)


def rewrite_meta(path: Path, meta: Meta) -> None:
    """Give a copied table another identity; durable when this returns."""
    with _wrapped(path), _writer(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        _write_meta(connection, meta)
        connection.execute("DELETE FROM snapshots")
        connection.execute("COMMIT")
        _make_durable(connection, path)


def rebuild_id_index(path: Path) -> None:
    """Make the index of ids anew from the points; durable when this returns."""
    with _wrapped(path), _writer(path) as connection:
        connection.execute("REINDEX points")
        _make_durable(connection, path)


def vacuum(path: Path) -> None:
    """Rewrite the table without its free pages; durable when this returns."""
    with _wrapped(path), _writer(path) as connection:
        connection.execute("VACUUM")
        _make_durable(connection, path)


def checked_point(row: Sequence[Any]) -> StoredPoint | None:
    """The point of a table row, or None when it fails its checksum."""
    try:
        point = StoredPoint(*row[:6])
        return point if point.checksum == row[6] else None
    except (struct.error, AttributeError, TypeError, ValueError):
        return None


def _read_meta(rows: Sequence[Sequence[Any]], path: Path) -> Meta:
    if len(rows) != 1:
        raise DamagedFile(f"{len(rows)} meta rows; there must be one", file=str(path))
    version, uid, name, applied, checkpoints, points, checksum_sum, checksum = rows[0]
    if isinstance(version, int) and version > VERSION:
        raise NewerFormat(f"{path} has version {version}; this release reads up to {VERSION}")
    with _damaged_when(path, ValueError, TypeError, AttributeError, struct.error, OverflowError):
        meta = Meta(uid.hex(), name, applied, checkpoints, points, checksum_sum)
        if meta.checksum == checksum:
            return meta
    raise DamagedFile("the meta row fails its checksum", file=str(path))


@contextlib.contextmanager
def _damaged_when(path: Path, *errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise DamagedFile(f"a column holds what it cannot: {error}", file=str(path)) from error


def _delete_slots(connection: sqlite3.Connection, slots: Iterable[int]) -> tuple[int, int]:
    removed = removed_sum = 0
    for slot in slots:
        for (checksum,) in connection.execute(
            "DELETE FROM points WHERE slot = ? RETURNING checksum", (slot,)
        ):
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
            yield p.slot, p.id, p.sequence, p.generation, p.row_checksum, p.payload, checksum

    connection.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)", rows())
    return added, added_sum


def _write_meta(connection: sqlite3.Connection, meta: Meta) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO meta VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            VERSION, bytes.fromhex(meta.uid), meta.name, meta.applied, meta.checkpoints, meta.points,
            meta.checksum_sum, meta.checksum,
        ),
    )  # fmt: skip


def _make_durable(connection: sqlite3.Connection, path: Path) -> None:
    """Move SQLite's log into the database file and sync it: only busy = 0 proves that it happened.

    The passive pass does the work beside the readers; the truncating one then has little left to wait for.
    """
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise StorageError(f"{path}: readers held the table for {BUSY_TIMEOUT_SECONDS} s")


@contextlib.contextmanager
def _writer(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(_connect(path, WRITER_CACHE_KIB)) as connection:
        yield connection


def _connect(path: Path, cache_kib: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False,
    )  # fmt: skip
    connection.executescript(
        "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA mmap_size=0;"
        f"PRAGMA cache_size=-{cache_kib};"
    )
    return connection


def _connect_at_rest(path: Path) -> sqlite3.Connection:
    """A reading connection that takes no locks and makes no `-wal` and `-shm` beside the file."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
    )


@contextlib.contextmanager
def _wrapped(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _typed(error, path) from error


def _typed(error: sqlite3.Error, path: Path) -> StorageError | DiskFull:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name == "SQLITE_FULL":
        return DiskFull(
            f"the volume is full while writing {path.name}; nothing was changed", operation="checkpoint"
        )
    if (
        name in ("SQLITE_CORRUPT", "SQLITE_NOTADB")
        or "malformed" in str(error)
        or "no such table" in str(error)
    ):
        return DamagedFile(f"{error} ({name or 'sqlite'})", file=str(path))
    return StorageError(f"{path}: {error} ({name or 'sqlite'})")


_Item = TypeVar("_Item")


def _parts(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), IDS_PER_STATEMENT):
        yield items[start : start + IDS_PER_STATEMENT]
