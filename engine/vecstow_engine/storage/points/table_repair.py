"""The repair of a point table whose points are intact, but not found where a reader looks for them.

No checksum covers the tree above the points, or the index of ids. Both follow from the points and are
rebuilt. The records of free space in pages are rebuilt too: only a writer reads them, and it would overwrite
points.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import closing
from enum import Enum
from pathlib import Path

from vecstow_engine.model.errors import DamagedFile, StorageError
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.writer import rebuild_id_index, vacuum, vacuum_without_snapshots


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
    tree = [Fault.TREE] if table.loses_slots() else []
    ids = [Fault.IDS] if _cannot_tell(table.ids_differ) else []
    pages = [Fault.PAGES] if not tree and _cannot_tell(table.misplaces_pages) else []
    if not ids and not pages:
        return tree
    damaged = {slot for slot, point in table.scan() if point is None}
    if not damaged:
        return [*tree, *ids, *pages]
    if ids and table.ids_differ(without=damaged):
        raise DamagedFile("the index of ids is damaged, and so are points", file=str(table.path))
    return tree


def _cannot_tell(is_wrong: Callable[[], bool]) -> bool:
    """Whether the check reports a fault, or raises StorageError."""
    try:
        return is_wrong()
    except StorageError:
        return True


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
    for write_anew in (vacuum, vacuum_without_snapshots):
        with contextlib.suppress(DamagedFile):
            write_anew(path)
            with closing(PointTable(path, at_rest=True)) as table:
                if not table.misplaces_pages():
                    return


def rewrite(path: Path) -> None:
    """Rewrite the table, durably, after a commit met damage outside of the points; readers may have it open.

    Raises DamagedFile unless a scan returns every point: a rewrite would lose an unread point for good.
    """
    with closing(PointTable(path)) as table:
        table.slots(table.meta())
    vacuum(path)
