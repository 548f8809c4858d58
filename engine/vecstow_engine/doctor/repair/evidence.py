"""The points that were met, and what the log says of them: a private table that SQLite keeps for us.

It lies in memory up to its cache, beyond that in a file below the system's folder for temporary files
(SQLITE_TMPDIR, TMPDIR), which has no name and goes with the process. Nothing is written on the volume.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from vecstow_engine.doctor.repair.plan import Loss
from vecstow_engine.doctor.repair.table import DamagedTable
from vecstow_engine.model.errors import DiskFull, StorageError
from vecstow_engine.storage.points.reader import SCAN_ROWS
from vecstow_engine.storage.points.records import SUM_MODULUS, checked_point

CACHE_KIB: Final = 64 * 1024
_SCHEMA: Final = """
CREATE TABLE listed (id TEXT PRIMARY KEY, slot INTEGER) WITHOUT ROWID;
CREATE TABLE damaged (slot INTEGER PRIMARY KEY, id TEXT, payload BLOB);
CREATE TABLE points (
  n INTEGER PRIMARY KEY, slot INTEGER, id TEXT, sequence INTEGER, generation INTEGER, row_checksum INTEGER,
  payload BLOB, checksum INTEGER, row BLOB, flaw TEXT, file TEXT, offset INTEGER, UNIQUE (slot, sequence));
"""
_KEEP_NEWEST: Final = """
DELETE FROM points WHERE n NOT IN (SELECT n FROM (
  SELECT n, row_number() OVER (PARTITION BY slot ORDER BY sequence DESC) AS of_slot FROM (
    SELECT n, slot, sequence, row_number() OVER (PARTITION BY id ORDER BY sequence DESC) AS of_id FROM points
  ) WHERE of_id = 1
) WHERE of_slot = 1)
"""
_ADD_LOST: Final = "INSERT OR IGNORE INTO points (slot, id, sequence, payload, flaw, file)"
_DAMAGED: Final = (
    "SELECT slot, id, -1, payload, 'its point fails its checksum', ? FROM damaged"
    " WHERE slot NOT IN (SELECT slot FROM points)"
)
_LISTED: Final = (
    "SELECT l.slot, l.id, -1, d.payload, CASE WHEN d.slot IS NULL"
    " THEN 'the index of ids has it, and its point cannot be read' ELSE 'its point fails its checksum' END, ?"
    " FROM listed AS l LEFT JOIN damaged AS d ON d.slot = l.slot"
)
_ADD_EFFECT: Final = """
INSERT OR REPLACE INTO points (id, sequence, row, row_checksum, payload, flaw, file, offset)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE NOT EXISTS (
  SELECT 1 FROM points WHERE id = ?1 AND (sequence > ?2 OR (sequence = ?2 AND flaw IS NULL)))
"""
_SAVED: Final = (
    "SELECT slot, id, sequence, row_checksum, payload, row, n FROM points"
    " WHERE flaw IS NULL AND (slot IS NOT NULL OR row IS NOT NULL)"
)


class SavedPoint(NamedTuple):
    """A point whose row stands in the old rows file, at its slot, or stood in the log."""

    slot: int | None
    id: str
    sequence: int
    row_checksum: int
    payload: bytes | None
    row: bytes | None
    n: int


class Evidence:
    """First every point that proves itself, then the live ones, then the last word on each id.

    A point has a slot, the last write of the log a row, its last delete neither; a loss has a flaw.
    """

    def __init__(self) -> None:
        with _wrapped():
            self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._connection.executescript(
                f"PRAGMA cache_size=-{CACHE_KIB}; PRAGMA journal_mode=OFF; {_SCHEMA}"
            )

    def close(self) -> None:
        """Forget everything."""
        self._connection.close()

    def add_listed(self, entries: Iterable[tuple[str, int]]) -> None:
        """Add (id, slot) as the index of ids has them."""
        self._many("INSERT INTO listed VALUES (?, ?)", entries)

    def add_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows of the table: as a point if they pass their checksum, else as damaged."""
        with _wrapped():
            self._connection.execute("BEGIN")
            for row in rows:
                self._add_row(row)
            self._connection.execute("COMMIT")

    def keep_newest(self) -> None:
        """Keep the newer of two points with one id or slot: the older was gone when it was written."""
        self._do(_KEEP_NEWEST)
        self._do("CREATE UNIQUE INDEX points_id ON points (id)")

    def keep_listed(self) -> None:
        """Keep the points to which the index of ids leads."""
        self._do(
            "DELETE FROM points WHERE NOT EXISTS"
            " (SELECT 1 FROM listed AS l WHERE l.id = points.id AND l.slot = points.slot)"
        )

    def keep_placed(self, table: DamagedTable) -> None:
        """Keep the points to which the tree leads from their slots."""
        with _wrapped():
            self._connection.create_function("leads_to", 2, table.leads_to)
        self._do("DELETE FROM points WHERE NOT leads_to(slot, checksum)")

    def count_and_sum(self) -> tuple[int, int]:
        """Return what the meta row has of the points: their count and the sum of their checksums."""
        count, checksum_sum = self._row("SELECT count(*), coalesce(sum(checksum), 0) FROM points")
        return count, checksum_sum % SUM_MODULUS

    def newest(self) -> tuple[int, int]:
        """Return the highest sequence and epoch of the points."""
        sequence, epoch = self._row(
            "SELECT coalesce(max(sequence), 0), coalesce(max(generation), 0) FROM points"
        )
        return sequence, epoch

    def listed(self) -> tuple[int, int]:
        """Return how many entries the index of ids has, and their highest slot; -1 without any."""
        count, slot = self._row("SELECT count(*), coalesce(max(slot), -1) FROM listed")
        return count, slot

    def mark(self, flaws: Iterable[tuple[str, str, int | None, int]]) -> None:
        """Mark points that cannot be kept, by (flaw, file, offset, n)."""
        self._many("UPDATE points SET flaw = ?, file = ?, offset = ? WHERE n = ?", flaws)

    def add_lost(self, file: str, *, listed: bool) -> None:
        """Add the points of the table that are lost, as the index of ids names them or their own remains."""
        with _wrapped():
            self._connection.execute(f"{_ADD_LOST} {_LISTED if listed else _DAMAGED}", (file,))

    def unclaimed(self, rows: int) -> Iterator[tuple[int, int]]:
        """Yield runs, first and last, of the slots below `rows` that no point has, be it a lost one."""
        start = 0
        for (slot,) in self._stream("SELECT slot FROM points UNION ALL SELECT ? ORDER BY slot", (rows,)):
            if start < min(slot, rows):
                yield start, min(slot, rows) - 1
            start = max(start, slot + 1)

    def add_effects(self, effects: Iterable[tuple[Any, ...]]) -> None:
        """Add what `Chain.effects` gives: the last word on an id replaces the point of the table.

        A damaged point is replaced by the record that wrote it, too.
        """
        self._many(_ADD_EFFECT, effects)

    def counts(self) -> tuple[int, int, int]:
        """Return how many points are kept, restored from the log, and lost."""
        kept, restored, lost = self._row(
            "SELECT count(*) FILTER (WHERE slot IS NOT NULL AND flaw IS NULL),"
            " count(*) FILTER (WHERE row IS NOT NULL AND flaw IS NULL), count(flaw) FROM points"
        )
        return kept, restored, lost

    def kept(self, after: int) -> list[SavedPoint]:
        """Return the next points behind a slot, ascending, that have no flaw yet."""
        statement = f"{_SAVED} AND slot > ? ORDER BY slot LIMIT {SCAN_ROWS}"
        return [SavedPoint(*row) for row in self._stream(statement, (after,))]

    def saved(self) -> Iterator[SavedPoint]:
        """Yield the points that make up the repaired collection, in the same order each time."""
        return (SavedPoint(*row) for row in self._stream(f"{_SAVED} ORDER BY slot, sequence, n"))

    def lost(self) -> Iterator[Loss]:
        """Yield the points that cannot be saved, as far as they have ids or slots."""
        known = "flaw, file, offset, id, slot, payload, sequence"
        statement = f"SELECT {known} FROM points WHERE flaw IS NOT NULL ORDER BY slot, id"
        for flaw, file, offset, point_id, slot, payload, sequence in self._stream(statement):
            yield Loss(flaw, file, offset, point_id, slot, payload, proven=sequence >= 0)

    def _add_row(self, row: Sequence[Any]) -> None:
        if checked_point(row) is not None:
            columns = "slot, id, sequence, generation, row_checksum, payload, checksum"
            self._connection.execute(
                f"INSERT OR IGNORE INTO points ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", row
            )
            return
        point_id = row[1] if isinstance(row[1], str) else None
        payload = row[5] if isinstance(row[5], bytes) else None
        self._connection.execute(
            "INSERT OR IGNORE INTO damaged VALUES (?, ?, ?)", (row[0], point_id, payload)
        )

    def _row(self, statement: str) -> tuple[Any, ...]:
        with _wrapped():
            return tuple(self._connection.execute(statement).fetchone())

    def _stream(self, statement: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield rows; nothing may change what the statement reads meanwhile."""
        with _wrapped():
            cursor = self._connection.execute(statement, values)
        while True:
            with _wrapped():
                block = cursor.fetchmany(SCAN_ROWS)
            if not block:
                return
            yield from block

    def _do(self, statement: str) -> None:
        with _wrapped():
            self._connection.execute(statement)

    def _many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with _wrapped():
            self._connection.execute("BEGIN")
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")


@contextmanager
def _wrapped() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            raise DiskFull(
                "there is no room for what repair must remember; nothing was changed",
                operation="repair", hint="TMPDIR names the folder for temporary files",
            ) from error  # fmt: skip
        raise StorageError(f"what repair remembers could not be kept: {error}") from error
