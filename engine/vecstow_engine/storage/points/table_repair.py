"""A point table whose points are intact, but not found where a reader looks: noticed at the start, mended.

No checksum covers the tree above the points, nor the index of ids. Both follow from the points, and are made
anew. So is what pages keep of free space, which nobody but a writer reads: it would write over points.
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
    """What does not lead to the points."""

    TREE = "the tree of the points does not lead to all of them"
    IDS = "the index of ids does not fit the points"
    PAGES = "its pages do not fit what it says of them"


def find_faults(table: PointTable) -> list[Fault]:
    """What must be made anew; raises DamagedFile when points fail their checksums too.

    Then nobody can tell which ids there are.
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
    """It is wrong, or cannot even be walked."""
    try:
        return is_wrong()
    except StorageError:
        return True


def mend(path: Path, faults: list[Fault]) -> list[str]:
    """Make anew what does not lead to the points, durably; returns what to say of it.

    Raises DamagedFile when that cannot be done. Pages that stay as they are disturb no reader: then a
    checkpoint may fail.
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
            raise DamagedFile(f"{fault.value}, and could not be made anew", file=str(path))
    ends = dict.fromkeys(left, "could not be made anew, and a checkpoint may fail")
    return [f"{path}: {fault.value}; it {ends.get(fault, 'was made anew')}" for fault in faults]


def _mend_pages(path: Path) -> None:
    """What is recorded of index.bin is kept if it can be read; else the index is built from the rows."""
    for write_anew in (vacuum, vacuum_without_snapshots):
        with contextlib.suppress(DamagedFile):
            write_anew(path)
            with closing(PointTable(path, at_rest=True)) as table:
                if not table.misplaces_pages():
                    return


def rewrite(path: Path) -> None:
    """Write the table anew when a commit met damage where no point lies, durably; readers may have it open.

    Raises DamagedFile unless a scan gives every point: what is not read would be lost for good.
    """
    with closing(PointTable(path)) as table:
        table.slots(table.meta())
    vacuum(path)
