"""The points that were met, and the log's effects on them: a private table that SQLite keeps for a repair.

It lies in memory up to its cache, beyond that in a file below the system's folder for temporary files
(SQLITE_TMPDIR, TMPDIR), which has no name and goes with the process. Nothing is written on the volume.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from vecstow_engine.doctor.repair.table import DamagedTable
from vecstow_engine.model.errors import DiskFull, StorageError
from vecstow_engine.storage.points.reader import SCAN_ROWS
from vecstow_engine.storage.points.records import checked_point

CACHE_KIB: Final = 64 * 1024
_SCHEMA: Final = f"""
PRAGMA cache_size=-{CACHE_KIB};
PRAGMA journal_mode=OFF;
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
_KEEP_LISTED: Final = """
DELETE FROM points WHERE NOT EXISTS (
  SELECT 1 FROM listed AS l WHERE l.id = points.id AND l.slot = points.slot)
"""
_ADD_DAMAGED: Final = """
INSERT OR IGNORE INTO points (slot, id, sequence, payload, flaw, file)
SELECT slot, id, -1, payload, 'its point fails its checksum', ? FROM damaged
WHERE slot NOT IN (SELECT slot FROM points)
"""
_ADD_LISTED: Final = """
INSERT OR IGNORE INTO points (slot, id, sequence, payload, flaw, file)
SELECT l.slot, l.id, -1, d.payload, CASE WHEN d.slot IS NULL
  THEN 'the index of ids has it, and its point cannot be read' ELSE 'its point fails its checksum' END, ?
FROM listed AS l LEFT JOIN damaged AS d ON d.slot = l.slot
"""
_ADD_EFFECT: Final = """
INSERT OR REPLACE INTO points (id, sequence, row, row_checksum, payload, flaw, file, offset)
WITH new (id, sequence, row, row_checksum, payload, flaw, file, offset) AS (VALUES (?, ?, ?, ?, ?, ?, ?, ?))
SELECT * FROM new WHERE NOT EXISTS (
  SELECT 1 FROM points AS p WHERE p.id = new.id
  AND (p.sequence > new.sequence OR (p.sequence = new.sequence AND p.flaw IS NULL)))
"""
_COUNTS: Final = """
SELECT count(*) FILTER (WHERE slot IS NOT NULL AND flaw IS NULL),
  count(*) FILTER (WHERE row IS NOT NULL AND flaw IS NULL), count(flaw) FROM points
"""
_SAVED: Final = """
SELECT coalesce(slot, -1), id, sequence, row_checksum, payload, row, n FROM points
WHERE flaw IS NULL AND (slot IS NOT NULL OR row IS NOT NULL)
"""
_LOST: Final = """
SELECT flaw, file, offset, id, slot, payload, sequence >= 0 FROM points
WHERE flaw IS NOT NULL ORDER BY slot, id
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """One point, a run of rows, or a run of log records, that cannot be saved."""

    reason: str
    file: str
    """Relative to the data directory."""
    offset: int | None = None
    id: str | None = None
    slot: int | None = None
    payload: bytes | None = None
    proven: bool = False
    """Whether id and payload pass the point's checksum. If not, they are reported all the same, unproven."""
    records: tuple[int, int | None] | None = None
    """First and last sequence of a loss in the log; None for the last when nothing says how many there were.
    """
    rows: tuple[int, int] | None = None
    """First and last slot of rows without known ids."""

    def document(self) -> dict[str, object]:
        """A line of `lost.jsonl`; the payload, as far as it is known, stands under `metadata`, as in REST."""
        known: dict[str, object] = {"reason": self.reason, "file": self.file, "offset": self.offset}
        if self.records is not None:
            return known | {"records": list(self.records)}
        if self.rows is not None:
            return known | {"rows": list(self.rows)}
        point = {"id": self.id, "slot": self.slot, "proven": self.proven, "metadata": self._metadata()}
        return point | known

    def _metadata(self) -> Any:
        """The payload as JSON, or as text; None for a payload without proof that is no object."""
        if self.payload is None:
            return None
        try:
            value = json.loads(self.payload)
        except (ValueError, RecursionError):
            value = self.payload.decode("utf-8", "replace")
        return value if self.proven or isinstance(value, dict) else None


class SavedPoint(NamedTuple):
    """A point whose row stands in the old rows file, at its slot, or in the log."""

    slot: int
    """-1 when the row stood in the log."""
    id: str
    sequence: int
    row_checksum: int
    payload: bytes | None
    row: bytes | None
    n: int


class Evidence:
    """First every point that passes its checksum, then the live ones, then the last effect on each id.

    A point has a slot, the last write of the log a row, its last delete neither; a loss has a flaw. The
    methods raise sqlite3.Error; `typed_errors` surrounds them all.
    """

    def __init__(self) -> None:
        self._table = sqlite3.connect("", check_same_thread=False)  # Its one transaction never ends.
        self._table.executescript(_SCHEMA)

    def close(self) -> None:
        """Remove everything."""
        self._table.close()

    def add_listed(self, entries: Iterable[tuple[str, int]]) -> None:
        """Add (id, slot) as the index of ids has them."""
        self._table.executemany("INSERT INTO listed VALUES (?, ?)", entries)

    def add_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows of the table: as a point if they pass their checksum, else as damaged."""
        columns = "slot, id, sequence, generation, row_checksum, payload, checksum"
        add_point = f"INSERT OR IGNORE INTO points ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        for row in rows:
            if checked_point(row) is not None:
                self._table.execute(add_point, row)
                continue
            point_id = row[1] if isinstance(row[1], str) else None
            payload = row[5] if isinstance(row[5], bytes) else None
            self._table.execute("INSERT OR IGNORE INTO damaged VALUES (?, ?, ?)", (row[0], point_id, payload))

    def keep_newest(self) -> None:
        """Keep the newer of two points with one id or slot: the older was gone when it was written."""
        self._table.execute(_KEEP_NEWEST)
        self._table.execute("CREATE UNIQUE INDEX points_id ON points (id)")

    def keep_listed(self) -> None:
        """Keep the points to which the index of ids leads."""
        self._table.execute(_KEEP_LISTED)

    def keep_placed(self, table: DamagedTable) -> None:
        """Keep the points to which the tree leads from their slots."""
        self._table.create_function("leads_to", 2, table.leads_to)
        self._table.execute("DELETE FROM points WHERE NOT leads_to(slot, checksum)")

    def count_and_sum(self) -> tuple[int, ...]:
        """Return what the meta row has of the points: their count and the sum of their checksums."""
        return self._row("SELECT count(*), coalesce(sum(checksum), 0) FROM points")

    def newest(self) -> tuple[int, ...]:
        """Return the highest sequence and epoch of the points; 0 without any."""
        return self._row("SELECT coalesce(max(sequence), 0), coalesce(max(generation), 0) FROM points")

    def listed(self) -> tuple[int, ...]:
        """Return how many entries the index of ids has, and their highest slot; -1 without any."""
        return self._row("SELECT count(*), coalesce(max(slot), -1) FROM listed")

    def mark(self, flaws: Iterable[tuple[str, str, int | None, int]]) -> None:
        """Mark points that cannot be kept, by (flaw, file, offset, n)."""
        self._table.executemany("UPDATE points SET flaw = ?, file = ?, offset = ? WHERE n = ?", flaws)

    def add_lost(self, file: str, *, listed: bool) -> None:
        """Add the points of the table that are lost, as the index of ids names them or their own remains."""
        self._table.execute(_ADD_LISTED if listed else _ADD_DAMAGED, (file,))

    def unclaimed(self, rows: int) -> Iterator[tuple[int, int]]:
        """Yield runs, first and last, of the slots below `rows` that no point has, be it a lost one."""
        start = 0
        slots = "SELECT slot FROM points UNION ALL SELECT ? ORDER BY slot"
        for (slot,) in self._table.execute(slots, (rows,)):
            if start < min(slot, rows):
                yield start, min(slot, rows) - 1
            start = max(start, slot + 1)

    def add_effects(self, effects: Iterable[tuple[Any, ...]]) -> None:
        """Add the effects of `Chain.effects`: the last one on an id replaces the point of the table.

        A damaged point is replaced by the record that wrote it, too.
        """
        self._table.executemany(_ADD_EFFECT, effects)

    def live(self) -> int:
        """Return how many points there are, lost ones included, without those that the log deletes."""
        return self._row("SELECT count(*) FROM points WHERE slot IS NOT NULL OR row IS NOT NULL")[0]

    def counts(self) -> tuple[int, ...]:
        """Return how many points are kept, restored from the log, and lost."""
        return self._row(_COUNTS)

    def kept(self, after: int) -> list[SavedPoint]:
        """Return the next points behind a slot, ascending, that have no flaw yet."""
        statement = f"{_SAVED} AND slot > ? ORDER BY slot LIMIT {SCAN_ROWS}"
        return [SavedPoint(*row) for row in self._table.execute(statement, (after,))]

    def saved(self) -> Iterator[SavedPoint]:
        """Yield the points that make up the repaired collection, in the same order each time."""
        # The caller writes another table meanwhile, and would take an error here for one of that table.
        with typed_errors():
            for row in self._table.execute(f"{_SAVED} ORDER BY slot, sequence, n"):
                yield SavedPoint(*row)

    def lost(self) -> Iterator[Loss]:
        """Yield the points that cannot be saved, as far as they have ids or slots."""
        with typed_errors():
            for reason, file, offset, point_id, slot, payload, proven in self._table.execute(_LOST):
                yield Loss(reason, file, offset, point_id, slot, payload, bool(proven))

    def _row(self, statement: str) -> tuple[int, ...]:
        return tuple(self._table.execute(statement).fetchone())


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turn SQLite's errors about the evidence into typed errors; those about files are typed already."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            raise DiskFull(
                "there is no room for what repair must remember; nothing was changed",
                operation="repair",
                hint="TMPDIR names the folder for temporary files",
            ) from error
        raise StorageError(f"what repair remembers could not be kept: {error}") from error
