"""A point table whose points are intact, but not found where a reader looks: noticed at the start, mended.

No checksum covers the tree above the points, nor the index of ids. Both follow from the points, and are made
anew. So is what a page keeps of its free space, which nobody but a writer reads.
"""

from __future__ import annotations

from contextlib import closing
from enum import Enum
from pathlib import Path

from vecstow_engine.model.errors import DamagedFile, StorageError
from vecstow_engine.storage.point_commits import rebuild_id_index, vacuum
from vecstow_engine.storage.point_table import PointTable


class Fault(Enum):
    """What does not lead to the points."""

    TREE = "the tree of the points does not lead to all of them"
    IDS = "the index of ids does not fit the points"


def find_faults(table: PointTable) -> list[Fault]:
    """What must be made anew; raises DamagedFile when points fail their checksums too.

    Then nobody can tell which ids there are.
    """
    tree = [Fault.TREE] if table.loses_slots() else []
    try:
        if not table.ids_differ():
            return tree
    except StorageError:
        pass  # the index cannot even be walked
    damaged = {slot for slot, point in table.scan() if point is None}
    if not damaged:
        return [*tree, Fault.IDS]
    if table.ids_differ(without=damaged):
        raise DamagedFile("the index of ids is damaged, and so are points", file=str(table.path))
    return tree


def mend(path: Path, faults: list[Fault]) -> None:
    """Make anew what does not lead to the points, durably; raises DamagedFile when that cannot be done."""
    if Fault.TREE in faults:
        vacuum(path)
    if Fault.IDS in faults:
        rebuild_id_index(path)
    with closing(PointTable(path, at_rest=True)) as table:
        for fault in find_faults(table):
            raise DamagedFile(f"{fault.value}, and could not be made anew", file=str(path))


def rewrite(path: Path) -> None:
    """Write the table anew when a commit met damage where no point lies, durably; readers may have it open.

    Raises DamagedFile unless a scan gives every point: what is not read would be lost for good.
    """
    with closing(PointTable(path)) as table:
        table.slots(table.meta())
    vacuum(path)
