"""The repair of a point table whose points are intact, but not found where a reader looks for them.

No checksum covers the tree above the points, or the index of ids. Both follow from the points and are
rebuilt. The records of free space in pages are rebuilt too: only a writer reads them, and it would overwrite
points.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from contextlib import closing
from enum import Enum
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import DamagedFile, StorageError
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.writer import rebuild_id_index, vacuum, vacuum_without_snapshots

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


class Fault(Enum):
    """A structure of the table that does not lead to the points."""

    TREE = "the tree of the points does not lead to all of them"
    IDS = "the index of ids does not fit the points"
    PAGES = "its pages do not fit what it says of them"


def find_faults(table: PointTable) -> list[Fault]:
    """Return the structures to rebuild.

    Raises DamagedFile when the index of ids is damaged and points fail their checksums too: then the set of
    ids is unknown.
    """
    tree = [Fault.TREE] if _loses_slots(table) else []
    ids = [Fault.IDS] if _cannot_tell(_ids_differ, table) else []
    pages = [Fault.PAGES] if not tree and _cannot_tell(_misplaces_pages, table) else []
    if not ids and not pages:
        return tree
    damaged = {slot for slot, point in table.scan() if point is None}
    if not damaged:
        return [*tree, *ids, *pages]
    if ids and _ids_differ(table, without=damaged):
        raise DamagedFile("the index of ids is damaged, and so are points", file=str(table.path))
    return tree


def _cannot_tell(is_wrong: Callable[[PointTable], bool], table: PointTable) -> bool:
    """Whether the check reports a fault, or raises StorageError."""
    try:
        return is_wrong(table)
    except StorageError:
        return True


def _loses_slots(table: PointTable) -> bool:
    """Whether a search for a slot misses a point that a scan meets: a key in the tree has changed."""
    return bool(table.query(_SLOTS_LOST))


def _ids_differ(table: PointTable, without: Collection[int] = ()) -> bool:
    """Whether the index of ids and the points differ, apart from the points at the slots `without`.

    An index of another moment, or with a changed byte, hides points; no checksum covers it.
    """
    [(listed, kept, listed_sum, kept_sum, lost)] = table.query(_ID_INDEX_COMPARISON)
    if lost and without:
        return any(slot not in without for (slot,) in table.query(_IDS_NOT_INDEXED))
    return bool(lost) or (listed, listed_sum) != (kept, kept_sum)


def _misplaces_pages(table: PointTable) -> bool:
    """Whether a writer would overwrite a page in use, or fail on a page that no reader meets.

    SQLite's quick check, which finds this, reads each page once.
    """
    return table.query("PRAGMA quick_check(1)") != [("ok",)]


def mend(path: Path, faults: list[Fault]) -> list[str]:
    """Rebuild the structures that do not lead to the points, durably; return a remark for each.

    Raises DamagedFile when that fails. Pages that stay wrong do not disturb readers, but a checkpoint may
    fail.
    """
    if Fault.TREE in faults:
        vacuum(path)
    if Fault.IDS in faults:
        rebuild_id_index(path)
    if Fault.PAGES in faults:
        _mend_pages(path)
    with closing(PointTable(path, at_rest=True)) as table:
        left = find_faults(table)
    for fault in left:
        if fault is not Fault.PAGES:
            raise DamagedFile(f"{fault.value}, and could not be rebuilt", file=str(path))
    ends = dict.fromkeys(left, "could not be rebuilt, and a checkpoint may fail")
    return [f"{path}: {fault.value}; it {ends.get(fault, 'was rebuilt')}" for fault in faults]


def _mend_pages(path: Path) -> None:
    """Rewrite the table. Drop unreadable records of index.bin: the index is then built from the rows."""
    for rewrite_table in (vacuum, vacuum_without_snapshots):
        with contextlib.suppress(DamagedFile):
            rewrite_table(path)
            with closing(PointTable(path, at_rest=True)) as table:
                if not _misplaces_pages(table):
                    return


def rewrite(path: Path) -> None:
    """Rewrite the table, durably, after a commit met damage outside of the points; readers may have it open.

    Raises DamagedFile unless a scan returns every point: a rewrite would lose an unread point for good.
    """
    with closing(PointTable(path)) as table:
        table.slots(table.meta())
    vacuum(path)
