"""Reads of `points.db`, from any thread, in short statements. The checksum of every point is verified."""

from __future__ import annotations

import functools
import sqlite3
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.model.errors import DamagedFile
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
_ID_INDEX: Final = "sqlite_autoindex_points_1"
"""The name that SQLite gives to the index of UNIQUE."""
_IDS_NOT_INDEXED: Final = (
    "SELECT slot FROM points AS p NOT INDEXED WHERE NOT EXISTS "
    f"(SELECT 1 FROM points AS i INDEXED BY {_ID_INDEX} WHERE i.id = p.id AND i.slot = p.slot)"
)
_ID_INDEX_COMPARISON: Final = (
    f"SELECT (SELECT count(*) FROM points INDEXED BY {_ID_INDEX}), (SELECT count(*) FROM points NOT INDEXED),"
    f" (SELECT sum(slot) FROM points INDEXED BY {_ID_INDEX}), (SELECT sum(slot) FROM points NOT INDEXED),"
    f" (SELECT count(*) FROM ({_IDS_NOT_INDEXED}))"
)
"""Sums are compared too: SQLite can compare an index entry by other bytes than it returns."""
_SLOTS_LOST: Final = (
    "SELECT slot FROM points AS p NOT INDEXED WHERE NOT EXISTS "
    "(SELECT 1 FROM points AS i NOT INDEXED WHERE i.slot = p.slot) ORDER BY slot DESC LIMIT 1"
)
"""Descending: SQLite finds the next slot up at the neighbouring entry, without a search of the tree."""
_BROKEN_TEXT: Final = functools.partial(str, encoding="utf-8", errors="surrogateescape")
_POINT_COLUMNS: Final = "slot, id, sequence, generation, row_checksum, payload, checksum"
_SELECT_BY_IDS: Final = (
    "SELECT listed.id, points.slot, points.id, points.sequence, points.generation, points.row_checksum,"
    " points.payload, points.checksum"
    " FROM points AS listed LEFT JOIN points ON points.slot = listed.slot WHERE listed.id IN"
)
"""The table occurs twice: otherwise SQLite reads the id from its index, and hides damage in the table."""
_PAYLOAD: Final = _POINT_COLUMNS.split(", ").index("payload")
_Item = TypeVar("_Item")
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

    def meta(self) -> Meta:
        """Return the meta row; raise DamagedFile when it is missing or fails its checksum, or NewerFormat."""
        return read_meta(self._all(SELECT_META), self.path)

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
        # Generation 0 means a free slot, and no point has it. A damaged row with generation 0 keeps its slot.
        generations = np.maximum(table[:, 1].astype(np.uint32), 1)
        return Slots(table[:, 0].copy(), generations, table[:, 2].astype(np.uint32))

    def by_ids(self, ids: Sequence[str]) -> dict[str, StoredPoint | None]:
        """Return the points of those `ids` that exist; None for one that fails its checksum."""
        found: dict[str, StoredPoint | None] = {}
        for part in _parts(ids):
            marks = ",".join("?" * len(part))
            for listed, *row in self._all(f"{_SELECT_BY_IDS} ({marks})", part):
                point = checked_point(row)
                found[listed] = point if point is not None and point.id == listed else None
        return found

    def listed_slots(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the slots of `ids` in the index of ids, for those that it has; no point is read."""
        found: dict[str, int] = {}
        for part in _parts(ids):
            marks = ",".join("?" * len(part))
            found |= dict(self._all(f"SELECT id, slot FROM points WHERE id IN ({marks})", part))
        return found

    def by_slots(self, slots: Sequence[int]) -> dict[int, StoredPoint | None]:
        """Return the points at those `slots` that hold one; None for one that fails its checksum."""
        found: dict[int, StoredPoint | None] = {}
        for part in _parts(slots):
            marks = ",".join("?" * len(part))
            for row in self._all(f"SELECT {_POINT_COLUMNS} FROM points WHERE slot IN ({marks})", part):
                found[row[0]] = checked_point(row)
        return found

    def scan(self, after: int = -1) -> Iterator[tuple[int, StoredPoint | None]]:
        """Yield (slot, point) ascending by slot, in short statements; None for a failed checksum."""
        statement = f"SELECT {_POINT_COLUMNS} FROM points WHERE slot > ? ORDER BY slot LIMIT {SCAN_ROWS}"
        while rows := self._all(statement, (after,), _fetch_some):
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
        rows = self._all("SELECT id FROM points WHERE slot = ?", (slot,))
        return rows[0][0] if rows and isinstance(rows[0][0], str) else None

    def loses_slots(self) -> bool:
        """Whether a search for a slot misses a point that a scan meets: a key in the tree has changed."""
        return bool(self._all(_SLOTS_LOST))

    def ids_differ(self, without: Collection[int] = ()) -> bool:
        """Whether the index of ids and the points differ, apart from the points at the slots `without`.

        An index of another moment, or with a changed byte, hides points; no checksum covers it.
        """
        [(listed, kept, listed_sum, kept_sum, lost)] = self._all(_ID_INDEX_COMPARISON)
        if lost and without:
            return any(slot not in without for (slot,) in self._all(_IDS_NOT_INDEXED))
        return bool(lost) or (listed, listed_sum) != (kept, kept_sum)

    def misplaces_pages(self) -> bool:
        """Whether a writer would overwrite a page in use, or fail on a page that no reader meets.

        SQLite's quick check, which finds this, reads each page once.
        """
        return self._all("PRAGMA quick_check(1)") != [("ok",)]

    def integrity_errors(self) -> list[str]:
        """Return the first 20 findings of SQLite's integrity check; empty when there are none."""
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
        """Return the slot where a scan continues; raise DamagedFile unless it rises, to prevent a loop."""
        last = int(rows[-1][0])
        if last <= after:
            raise DamagedFile("the points are not in the order of their slots", file=str(self.path))
        return last

    def _all(
        self, statement: str, values: Sequence[Any] = (), fetch: _Fetch = sqlite3.Cursor.fetchall
    ) -> list[_Row]:
        with self._lock, wrapped(self.path):
            try:
                return fetch(self._connection.execute(statement, values))
            except sqlite3.OperationalError as error:
                if "decode to UTF-8" not in str(error):
                    raise
                return self._all_with_broken_text(statement, values, fetch)

    def _all_with_broken_text(self, statement: str, values: Sequence[Any], fetch: _Fetch) -> list[_Row]:
        """Fetch rows with text that is not valid UTF-8: its checksum fails, and other rows stay readable."""
        self._connection.text_factory = _BROKEN_TEXT
        try:
            return fetch(self._connection.execute(statement, values))
        finally:
            self._connection.text_factory = str


def _fetch_some(cursor: sqlite3.Cursor) -> list[_Row]:
    """Fetch the first rows of `_POINT_COLUMNS`, with about `SCAN_BYTES` of payloads."""
    rows: list[_Row] = []
    size = 0
    while size < SCAN_BYTES and (more := cursor.fetchmany(SCAN_STEP_ROWS)):
        rows += more
        size += sum(sys.getsizeof(row[_PAYLOAD]) for row in more)
    cursor.close()
    return rows


def _parts(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), IDS_PER_STATEMENT):
        yield items[start : start + IDS_PER_STATEMENT]
