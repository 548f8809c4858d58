"""A `points.db` that may be damaged, read through SQLite as far as its trees lead.

SQLite raises at a page that it cannot read. The range of slots is halved there until single slots are left,
so a damaged page costs the points on it. A damaged first page is replaced in a private copy. Without a root
nothing is read.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from vecstow_engine.model.errors import DamagedFile, NewerFormat, StorageError
from vecstow_engine.storage import files
from vecstow_engine.storage.points.reader import file_at_rest, private_copy
from vecstow_engine.storage.points.records import Meta, read_meta
from vecstow_engine.storage.points.writer import SELECT_META, create_points, wrapped

SLOTS_END: Final = 1 << 32
"""Above every slot: half of a label."""
ATTEMPTS_MAX: Final = 1 << 18
"""Ranges that are tried: about ten seconds where every one of them fails."""
STEPS_BACK_MAX: Final = 64
"""Exchanged pages lead back a few times. A tree that leads round in circles does it for ever."""
PAGE_BYTES: Final = 4096
"""SQLite's default, which is never changed."""
_PAGE_COUNT_AND_FREE_LIST: Final = slice(28, 40)
_POINTS: Final = (
    "SELECT rowid, id, sequence, generation, row_checksum, payload, checksum FROM points NOT INDEXED WHERE "
)
_CHECKSUM: Final = "SELECT checksum FROM points NOT INDEXED WHERE rowid = ?"
_IDS: Final = "SELECT id, rowid FROM points INDEXED BY sqlite_autoindex_points_1"


class DamagedTable:
    """Reads of one table at rest. What it gives must still prove itself."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._steps_back = 0
        self.is_index_whole = False
        """The index of ids was walked to its end, in order; known after `ids`."""

    def meta(self) -> Meta | None:
        """Return the meta row if it proves itself; raises NewerFormat."""
        try:
            with wrapped(self._path):
                return read_meta(self._connection.execute(SELECT_META).fetchall(), self._path)
        except NewerFormat:
            raise
        except StorageError:
            return None

    def ids(self) -> Iterator[tuple[str, int]]:
        """Yield (id, slot) from the index of ids, up to its first fault."""
        last = b""
        with suppress(StorageError), wrapped(self._path):
            for point_id, slot in self._connection.execute(_IDS):
                if not isinstance(point_id, str) or not isinstance(slot, int) or point_id.encode() <= last:
                    return
                last = point_id.encode()
                yield point_id, slot
            self.is_index_whole = True

    def points(self, end: int) -> Iterator[tuple[Any, ...]]:
        """Yield the rows to which the tree leads. A row may come twice, or misplaced.

        `end`: above every slot that a row is looked for at, where the tree does not lead to all of them.
        """
        ranges = deque([(0, SLOTS_END)])
        for _ in range(ATTEMPTS_MAX):
            if not ranges:
                return
            low, high = ranges.popleft()
            row = None
            try:
                for row in self._between(low, high):
                    yield row
            except StorageError:
                # The unread part of a range begins behind its last row, if that is in its place.
                if high - low > 1:
                    if row is not None and row[0] >= low and self.leads_to(row[0], row[-1]):
                        low = row[0] + 1
                    high = min(high, end)
                    middle = (low + high) // 2
                    ranges.extend(part for part in ((low, middle), (middle, high)) if part[0] < part[1])

    def leads_to(self, slot: int, checksum: int) -> bool:
        """Whether the tree leads from this slot to the point with this checksum."""
        with suppress(StorageError), wrapped(self._path):
            return bool(self._connection.execute(_CHECKSUM, (slot,)).fetchone() == (checksum,))
        return False

    def _between(self, low: int, high: int) -> Iterator[tuple[Any, ...]]:
        last = low - 1
        # One slot is looked up: a cursor drops a row when the step to the next one fails.
        where = "rowid = ?" if high - low == 1 else "rowid >= ? ORDER BY rowid"
        with wrapped(self._path):
            for row in self._connection.execute(_POINTS + where, (low,)):
                if row[0] >= high:
                    # A damaged cell may have any slot: only a row in its place ends the range.
                    if self.leads_to(row[0], row[-1]):
                        return
                    raise DamagedFile("a point is in a wrong place", file=str(self._path))
                self._steps_back += row[0] <= last
                if self._steps_back > STEPS_BACK_MAX and row[0] <= last:
                    raise DamagedFile("the points are not in the order of their slots", file=str(self._path))
                last = row[0]
                yield row


@contextmanager
def damaged_table(path: Path) -> Iterator[DamagedTable]:
    """Open a table at rest, whatever is wrong with it. Raises StorageError or DiskFull when a copy fails."""
    with ExitStack() as stack:
        # A `-wal` alone is no table, and is not copied.
        source = stack.enter_context(file_at_rest(path)) if path.exists() else path
        connection = stack.enter_context(closing(_connect(source, at_rest=source == path)))
        if path.exists() and not _has_schema(connection):
            copy = stack.enter_context(private_copy(path))
            _renew_first_page(copy)
            connection = stack.enter_context(closing(_connect(copy, at_rest=False)))
        yield DamagedTable(path, connection)


def _has_schema(connection: sqlite3.Connection) -> bool:
    """Whether SQLite opens the table and finds the trees of points and meta row."""
    with suppress(sqlite3.Error):
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        return names >= {"meta", "points", "sqlite_autoindex_points_1"}
    return False


def _renew_first_page(copy: Path) -> None:
    """Replace the first page of a private copy: in every table it has the same schema and the same roots.

    Its header also has the number of pages, and the list of free pages, which is not read any more
    (https://www.sqlite.org/fileformat2.html, section 1.3).
    """
    new = copy.with_name("new.db")
    create_points(new, Meta("0" * 32, "", applied=0, checkpoints=0))
    with new.open("rb") as stream:
        page = bytearray(stream.read(PAGE_BYTES))
    pages = -(-copy.stat().st_size // PAGE_BYTES)
    page[_PAGE_COUNT_AND_FREE_LIST] = pages.to_bytes(4, "big") + bytes(8)
    fd = files.open_existing(copy)
    try:
        files.write_at(fd, 0, [page])
    finally:
        os.close(fd)


def _connect(source: Path, *, at_rest: bool) -> sqlite3.Connection:
    """Open a table; a missing file is as one without tables."""
    mode = "mode=ro&immutable=1" if at_rest else "mode=rw"
    with wrapped(source):
        place = f"{source.absolute().as_uri()}?{mode}" if source.exists() else ":memory:"
        connection = sqlite3.connect(place, uri=True)
        connection.text_factory = _text
        # Else SQLite refuses a file that is cut, and one in which any line of the schema is damaged.
        connection.execute("PRAGMA writable_schema=ON")
    return connection


def _text(raw: bytes) -> str | bytes:
    """A text that is none stays bytes, and then passes no checksum."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
