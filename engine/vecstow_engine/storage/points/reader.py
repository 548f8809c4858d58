"""Reads of `points.db`: from any thread, one short statement at a time. Every point is checked."""

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
"""Payloads that a scan reads at a time, and one step more."""
SCAN_STEP_ROWS: Final = 64
READER_CACHE_KIB: Final = 1024
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
_SELECT_BY_IDS: Final = (
    "SELECT listed.id, points.slot, points.id, points.sequence, points.generation, points.row_checksum,"
    " points.payload, points.checksum"
    " FROM points AS listed LEFT JOIN points ON points.slot = listed.slot WHERE listed.id IN"
)
"""Twice the table: else SQLite takes the id from its index, and does not show one damaged in the table."""
_PAYLOAD: Final = _POINT_COLUMNS.split(", ").index("payload")
_Item = TypeVar("_Item")
_Row: TypeAlias = tuple[Any, ...]
_Fetch: TypeAlias = Callable[[sqlite3.Cursor], list[_Row]]


class PointTable:
    """Reads of one `points.db`: one connection, guarded; statements are short, so checkpoints get through."""

    def __init__(self, path: Path, *, at_rest: bool = False, read_only: bool = False) -> None:
        """Open the table for reading, and with neither flag for a writer that folds its `-wal` meanwhile.

        `at_rest`: nothing writes the file, and its `-wal` is empty, so no locks are needed. `read_only`: the
        `-wal` is read, and neither file is changed when the connection is closed.
        """
        self.path = path
        self._lock = threading.Lock()
        with wrapped(path):
            self._connection = (
                connect_at_rest(path) if at_rest else connect(path, READER_CACHE_KIB, read_only=read_only)
            )

    def close(self) -> None:
        """Close the connection, and with it up to three descriptors."""
        with self._lock:
            self._connection.close()

    def meta(self) -> Meta:
        """The meta row; raises DamagedFile when it is missing or fails its checksum, NewerFormat."""
        return read_meta(self._all(SELECT_META), self.path)

    def slots(self, meta: Meta) -> Slots:
        """The fixed columns of all points; raises DamagedFile when count or sum are not those of `meta`."""
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
        # Generation 0 means a free slot, and no point has it: one that a damaged row claims keeps its slot.
        generations = np.maximum(table[:, 1].astype(np.uint32), 1)
        return Slots(table[:, 0].copy(), generations, table[:, 2].astype(np.uint32))

    def by_ids(self, ids: Sequence[str]) -> dict[str, StoredPoint | None]:
        """The points of those `ids` that are there; None for one that fails its checksum."""
        found: dict[str, StoredPoint | None] = {}
        for part in _parts(ids):
            marks = ",".join("?" * len(part))
            for listed, *row in self._all(f"{_SELECT_BY_IDS} ({marks})", part):
                point = checked_point(row)
                found[listed] = point if point is not None and point.id == listed else None
        return found

    def listed_slots(self, ids: Sequence[str]) -> dict[str, int]:
        """The slots that the index of ids has for those `ids` that it knows; no point is looked at."""
        found: dict[str, int] = {}
        for part in _parts(ids):
            marks = ",".join("?" * len(part))
            found |= dict(self._all(f"SELECT id, slot FROM points WHERE id IN ({marks})", part))
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
        while rows := self._all(statement, (after,), _fetch_some):
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

    def misplaces_pages(self) -> bool:
        """Whether a writer would write over a page that is in use, or stumble over one that no reader meets.

        SQLite's quick check reads each page once.
        """
        return self._all("PRAGMA quick_check(1)") != [("ok",)]

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
        """Rows of which one holds a text that is none: its checksum tells, the others must not suffer."""
        self._connection.text_factory = _BROKEN_TEXT
        try:
            return fetch(self._connection.execute(statement, values))
        finally:
            self._connection.text_factory = str


def _fetch_some(cursor: sqlite3.Cursor) -> list[_Row]:
    """The first rows of `_POINT_COLUMNS`: about `SCAN_BYTES` of payloads."""
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
