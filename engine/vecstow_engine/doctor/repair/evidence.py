"""What was met of one collection's points, too much for memory: a private table that SQLite keeps for us.

It lies in memory up to its cache, beyond that in a file below the system's folder for temporary files
(SQLITE_TMPDIR, TMPDIR), which has no name and goes with the process. Nothing is written on the volume.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

from vecstow_engine.doctor.repair.survey import Sighting
from vecstow_engine.model.errors import DiskFull, StorageError
from vecstow_engine.storage.points.reader import SCAN_ROWS
from vecstow_engine.storage.points.records import SUM_MODULUS

CACHE_KIB: Final = 64 * 1024
_SCHEMA: Final = """
CREATE TABLE sightings (
  n INTEGER PRIMARY KEY, slot INTEGER, id TEXT, sequence INTEGER, generation INTEGER, row_checksum INTEGER,
  payload BLOB, checksum INTEGER, standing INTEGER, offset INTEGER);
CREATE TABLE damaged (slot INTEGER, id TEXT, payload BLOB, standing INTEGER, offset INTEGER);
CREATE TABLE listed (id TEXT, slot INTEGER, PRIMARY KEY (id, slot)) WITHOUT ROWID;
CREATE TABLE chosen (n INTEGER PRIMARY KEY, id TEXT, slot INTEGER, sequence INTEGER, flaw TEXT);
CREATE TABLE effects (
  id TEXT PRIMARY KEY, sequence INTEGER, decisive INTEGER, row BLOB, payload BLOB, offset INTEGER, file TEXT,
  flaw TEXT) WITHOUT ROWID;
"""
_NEWEST: Final = """
INSERT INTO chosen SELECT n, id, slot, sequence, NULL FROM (
  SELECT *, row_number() OVER (PARTITION BY slot ORDER BY sequence DESC, standing DESC, n) AS of_slot FROM (
    SELECT *, row_number() OVER (PARTITION BY id ORDER BY sequence DESC, standing DESC, n) AS of_id
    FROM sightings AS s WHERE {before}
  ) WHERE of_id = 1
) AS s WHERE of_slot = 1 AND {after}
"""
"""Of two points with one id, or in one slot, the newer was written when the older was gone."""
_IS_LISTED: Final = "EXISTS (SELECT 1 FROM listed AS l WHERE l.id = s.id AND l.slot = s.slot)"


class Evidence:
    """The points that were met, those that are chosen, and what the log says of ids."""

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
        """(id, slot) as the index of ids has them."""
        self._many("INSERT OR IGNORE INTO listed VALUES (?, ?)", entries)

    def add_sightings(self, sightings: Iterable[Sighting]) -> None:
        """What was met, the damaged among it."""
        for block in _blocks(sightings):
            good = [(s.point, s.standing, s.offset) for s in block if s.point is not None]
            self._many(
                "INSERT INTO sightings (slot, id, sequence, generation, row_checksum, payload, checksum,"
                " standing, offset) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (p.slot, p.id, p.sequence, p.generation, p.row_checksum, p.payload, p.checksum, *rest)
                    for p, *rest in good
                ),
            )
            self._many(
                "INSERT INTO damaged VALUES (?, ?, ?, ?, ?)",
                (
                    (s.slot, _text(s.columns[1]), _blob(s.columns[5]), s.standing, s.offset)
                    for s in block
                    if s.point is None
                ),
            )

    def add_effects(self, effects: Iterable[tuple[Any, ...]]) -> None:
        """Rows of the table `effects`, ascending by sequence: the last one of an id counts."""
        self._many("INSERT OR REPLACE INTO effects VALUES (?, ?, ?, ?, ?, ?, ?, ?)", effects)

    def choose(self, *, before: str = "1", after: str = "1") -> tuple[int, int]:
        """Choose the newest point of each id and slot among those that fit `before`; of these, those that
        fit `after` remain. Returns their count and the sum of their checksums.
        """
        self._do("DELETE FROM chosen")
        self._do(_NEWEST.format(before=before, after=after))
        self._do("CREATE UNIQUE INDEX IF NOT EXISTS chosen_id ON chosen (id)")
        self._do("CREATE UNIQUE INDEX IF NOT EXISTS chosen_slot ON chosen (slot)")
        [(count, checksum_sum)] = self.rows(
            "SELECT count(*), coalesce(sum(s.checksum), 0) FROM chosen AS c JOIN sightings AS s ON s.n = c.n"
        )
        return count, checksum_sum % SUM_MODULUS

    @staticmethod
    def standing_at_least(standing: int) -> str:
        """A condition of `choose`."""
        return f"s.standing >= {int(standing)}"

    @staticmethod
    def is_listed() -> str:
        """A condition of `choose`: the index of ids leads to this very point."""
        return _IS_LISTED

    def mark(self, flaws: Iterable[tuple[str, int]]) -> None:
        """(flaw, n): why chosen points cannot be kept as they stand."""
        self._many("UPDATE chosen SET flaw = ? WHERE n = ?", flaws)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows that a statement gives; for few."""
        with _wrapped():
            return self._connection.execute(statement, values).fetchall()

    def stream(self, statement: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows that a statement gives, one by one; nothing may change what it reads meanwhile."""
        with _wrapped():
            cursor = self._connection.execute(statement, values)
        while True:
            with _wrapped():
                block = cursor.fetchmany(SCAN_ROWS)
            if not block:
                return
            yield from block

    def count(self, statement: str) -> int:
        """The number of rows that a statement gives."""
        return int(self.rows(f"SELECT count(*) FROM ({statement})")[0][0])

    def _do(self, statement: str) -> None:
        with _wrapped():
            self._connection.execute(statement)

    def _many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with _wrapped():
            self._connection.execute("BEGIN")
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")


def _blocks(items: Iterable[Sighting]) -> Iterator[list[Sighting]]:
    iterator = iter(items)
    while block := list(islice(iterator, SCAN_ROWS)):
        yield block


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _blob(value: object) -> bytes | None:
    return value if isinstance(value, bytes) else None


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
