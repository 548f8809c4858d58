"""Every page of a damaged `points.db`, looked at once: which points stand there, and what speaks for them.

A point proves by its checksum that it was written so; not that it was neither replaced nor deleted since. For
that speak the place where it stands, the index of ids, and the meta row's count and sum. What follows from
them is decided in `witnesses`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from vecstow_engine.doctor.repair.cells import (
    INDEX_INTERIOR,
    INDEX_LEAF,
    TABLE_INTERIOR,
    TABLE_LEAF,
    Cell,
    Unreadable,
    cell_offsets,
    index_cell,
    right_child,
    table_cell,
    table_children,
)
from vecstow_engine.doctor.repair.pages import PageFile
from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.storage.points.records import Meta, StoredPoint, checked_point, read_meta

POINT_COLUMNS: Final = 7
META_COLUMNS: Final = 9
_ROOTS: Final = {"meta": 2, "points": 3, "sqlite_autoindex_points_1": 4, "snapshots": 5}
"""Where the trees begin in every file that was made or vacuumed by us: in the order of their creation."""
_EVERY: Final = -(1 << 63), (1 << 63) - 1


class Standing(IntEnum):
    """What the place of a point says of it."""

    FREE = 0
    """On a page that nothing refers to, or that is said to be free: it may be long gone."""
    LOOSE = 1
    """On a page that must be in use, but not where the tree expects it."""
    PLACED = 2
    """Where the tree leads."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A row of the point table as it was met. `point` is None when it fails its checksum."""

    point: StoredPoint | None
    standing: Standing
    offset: int
    """Of the cell, in the file."""
    slot: int
    columns: tuple[Any, ...]


class Survey:
    """One pass over a file's trees, then over the pages that no tree led to."""

    def __init__(self, pages: PageFile) -> None:
        self._pages = pages
        self._used = bytearray(pages.count + 1)
        self._roots = _ROOTS | self._schema()
        self.metas: list[Meta] = []
        """Every meta row that fits its checksum."""
        self.unreadable: list[int] = []
        """Offsets of pages of the trees that cannot be read."""
        self.index_intact = True
        """The index of ids was walked without a fault, in order; meaningful after `listed`."""

    def listed(self) -> Iterator[tuple[str, int]]:
        """(id, slot) of every entry of the index of ids."""
        last: tuple[bytes, int] | None = None
        for cell in self._index_cells(self._roots["sqlite_autoindex_points_1"]):
            if len(cell.columns) != 2 or not _is_entry(cell.columns):
                self.index_intact = False
                continue
            point_id, slot = cell.columns
            here = point_id.encode(), slot
            if last is not None and here <= last:
                self.index_intact = False
            last = here
            yield point_id, slot

    def sightings(self) -> Iterator[Sighting]:
        """Every row of the point table on any page. Call `listed` first: it tells which pages are in use."""
        for number, low, high in self._leaves(self._roots["points"]):
            for sighting in self._rows_of(number, Standing.PLACED):
                placed = low < sighting.slot <= high
                yield sighting if placed else _moved(sighting, Standing.LOOSE)
        for name in ("meta", "snapshots"):
            for number, _, _ in self._leaves(self._roots[name]):
                yield from self._rows_of(number, Standing.LOOSE)  # a point there has lost its place
        yield from self._unled()

    def _unled(self) -> Iterator[Sighting]:
        """The rows on pages that no tree led to."""
        free = self._free_pages()
        unled = [number for number in range(1, self._pages.count + 1) if not self._used[number]]
        for number in unled:
            is_loose = free is not None and number not in free
            yield from self._rows_of(number, Standing.LOOSE if is_loose else Standing.FREE)

    def _rows_of(self, number: int, standing: Standing) -> Iterator[Sighting]:
        page = self._pages.page(number)
        if page[0] != TABLE_LEAF:
            return
        try:
            offsets = cell_offsets(page)
        except Unreadable:
            return
        for offset in offsets:
            try:
                cell = table_cell(page, offset, self._read)
            except Unreadable:
                if standing is Standing.PLACED:
                    self._unreadable_page(number)
                continue
            yield from self._row_of(cell, standing, self._pages.offset(number) + offset)

    def _row_of(self, cell: Cell, standing: Standing, offset: int) -> Iterator[Sighting]:
        if len(cell.columns) == META_COLUMNS:
            self._take_meta(cell.columns)
        elif len(cell.columns) == POINT_COLUMNS and not isinstance(cell.columns[3], str):
            point = checked_point((cell.key, *cell.columns[1:]))
            for beyond in cell.beyond if point is not None else ():
                self._use(beyond)  # of a damaged cell they may be anything, rows of other points too
            yield Sighting(point, standing, offset, cell.key, cell.columns)

    def _take_meta(self, columns: tuple[Any, ...]) -> None:
        try:
            self.metas.append(read_meta([columns[1:]], self._pages.path))
        except DamagedFile:
            return

    def _leaves(self, root: int) -> Iterator[tuple[int, int, int]]:
        """(page, lowest rowid, highest rowid) of a table's leaves; the lowest is exclusive."""
        waiting = [(root, *_EVERY)]
        while waiting:
            number, low, high = waiting.pop()
            if not self._use(number):
                continue
            page = self._pages.page(number)
            if page[0] == TABLE_LEAF:
                yield number, low, high
            elif page[0] == TABLE_INTERIOR:
                waiting += reversed(self._children(number, page, low, high))
            else:
                self._unreadable_page(number)
                self._used[number] = 0  # whatever it is, it may be met again

    def _children(self, number: int, page: bytes, low: int, high: int) -> list[tuple[int, int, int]]:
        children = []
        try:
            for child, greatest in table_children(page):
                children.append((child, low, greatest))
                low = greatest
        except Unreadable:
            self._unreadable_page(number)
        return [*children, (right_child(page), low, high)]

    def _index_cells(self, number: int) -> Iterator[Cell]:
        """The entries of an index in their order."""
        page = self._pages.page(number) if self._use(number) else b"\0"
        if page[0] not in (INDEX_LEAF, INDEX_INTERIOR):
            self.index_intact = False
            if len(page) > 1:
                self._unreadable_page(number)
                self._used[number] = 0
            return
        for cell in self._cells_of_index_page(page):
            if cell.child:
                yield from self._index_cells(cell.child)
            yield cell
        if page[0] == INDEX_INTERIOR:
            yield from self._index_cells(right_child(page))

    def _cells_of_index_page(self, page: bytes) -> Iterator[Cell]:
        try:
            offsets = cell_offsets(page)
        except Unreadable:
            self.index_intact = False
            return
        for offset in offsets:
            try:
                cell = index_cell(page, offset, self._read)
            except Unreadable:
                self.index_intact = False
                continue
            for beyond in cell.beyond:
                self._use(beyond)
            yield cell

    def _schema(self) -> dict[str, int]:
        """Name to root page, of what the first page says."""
        page = self._pages.page(1)
        roots = {}
        try:
            offsets = cell_offsets(page, 100) if page[100] == TABLE_LEAF else []
            for offset in offsets:
                name, root = table_cell(page, offset, self._read).columns[1:4:2]
                if name in _ROOTS and isinstance(root, int):
                    roots[name] = root
        except (Unreadable, ValueError):
            return {}
        return roots

    def _free_pages(self) -> set[int] | None:
        """The pages that the file calls free; None when its list of them cannot be relied on."""
        trunk, count = struct.unpack_from(">II", self._pages.page(1), 32)
        free: set[int] = set()
        while trunk and trunk not in free and trunk <= self._pages.count:
            page = self._pages.page(trunk)
            following, leaves = struct.unpack_from(">II", page)
            if leaves > (len(page) - 8) // 4:
                return None
            free |= {trunk, *struct.unpack_from(f">{leaves}I", page, 8)}
            trunk = following
        is_header = self._pages.page(1)[:16] == b"SQLite format 3\0"
        return free if is_header and not trunk and len(free) == count else None

    def _read(self, number: int) -> bytes:
        if not 1 < number <= self._pages.count:
            raise Unreadable(f"there is no page {number}")
        return self._pages.page(number)

    def _use(self, number: int) -> bool:
        """Whether a page is there and is met for the first time; from now on it is known to be in use."""
        if not 1 < number <= self._pages.count or self._used[number]:
            return False
        self._used[number] = 1
        return True

    def _unreadable_page(self, number: int) -> None:
        offset = self._pages.offset(number)
        if offset not in self.unreadable:
            self.unreadable.append(offset)


def _moved(sighting: Sighting, standing: Standing) -> Sighting:
    return Sighting(sighting.point, standing, sighting.offset, sighting.slot, sighting.columns)


def _is_entry(columns: tuple[Any, ...]) -> bool:
    return isinstance(columns[0], str) and isinstance(columns[1], int)
