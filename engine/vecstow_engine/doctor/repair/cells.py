"""Cells of SQLite's b-tree pages, read one by one: what one damaged cell holds back is that cell alone.

Format: https://sqlite.org/fileformat2.html, "B-tree Pages" and "Record Format". Pure but for the pages that
a long cell goes on in.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from vecstow_engine.doctor.repair.pages import PAGE_BYTES

TABLE_LEAF: Final = 0x0D
TABLE_INTERIOR: Final = 0x05
INDEX_LEAF: Final = 0x0A
INDEX_INTERIOR: Final = 0x02
PAYLOAD_BYTES_MAX: Final = 1 << 20
"""A point's payload and id are far below it; a damaged length is not followed further."""
_LOCAL_TABLE_MAX: Final = PAGE_BYTES - 35
_LOCAL_INDEX_MAX: Final = (PAGE_BYTES - 12) * 64 // 255 - 23
_LOCAL_MIN: Final = (PAGE_BYTES - 12) * 32 // 255 - 23
_INTEGER_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

Reader = Callable[[int], bytes]
"""The page of a number."""


class Unreadable(ValueError):
    """Raised for a page or a cell that cannot be what it must be."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a leaf, or of an index's interior page."""

    offset: int
    """In its page."""
    key: int
    """The rowid; 0 in an index."""
    columns: tuple[Any, ...]
    child: int = 0
    """The page on its left, of an interior page's cell."""
    beyond: tuple[int, ...] = ()
    """The pages that it goes on in."""


def page_type(page: bytes, start: int = 0) -> int:
    """What a page says that it is. `start`: where its b-tree header stands; 100 on the first page."""
    return page[start]


def cell_offsets(page: bytes, start: int = 0) -> list[int]:
    """Where the cells of a b-tree page begin; raises Unreadable when they cannot be there."""
    head = 12 if page[start] in (TABLE_INTERIOR, INDEX_INTERIOR) else 8
    (count,) = struct.unpack_from(">H", page, start + 3)
    behind = start + head + 2 * count
    if behind > PAGE_BYTES:
        raise Unreadable(f"{count} cells have no room on a page")
    return list(struct.unpack_from(f">{count}H", page, start + head))


def right_child(page: bytes) -> int:
    """The last child of an interior page."""
    return int(struct.unpack_from(">I", page, 8)[0])


def table_children(page: bytes) -> Iterator[tuple[int, int]]:
    """(page, greatest rowid below it) of a table's interior page, the last child left out."""
    for offset in cell_offsets(page):
        if offset + 5 > PAGE_BYTES:
            raise Unreadable("a cell begins beyond the page")
        (child,) = struct.unpack_from(">I", page, offset)
        yield child, _signed(_varint(page, offset + 4)[0])


def table_cell(page: bytes, offset: int, read: Reader) -> Cell:
    """A row of a table's leaf; raises Unreadable."""
    length, position = _varint(page, offset)
    key, position = _varint(page, position)
    payload, beyond = _payload(page, position, length, _LOCAL_TABLE_MAX, read)
    return Cell(offset, _signed(key), _columns(payload), beyond=beyond)


def index_cell(page: bytes, offset: int, read: Reader) -> Cell:
    """An entry of an index, of a leaf or an interior page; raises Unreadable."""
    child = 0
    position = offset
    if page[0] == INDEX_INTERIOR:
        child = int.from_bytes(page[offset : offset + 4], "big")
        position += 4
    length, position = _varint(page, position)
    payload, beyond = _payload(page, position, length, _LOCAL_INDEX_MAX, read)
    return Cell(offset, 0, _columns(payload), child, beyond)


def _payload(
    page: bytes, position: int, length: int, local_max: int, read: Reader
) -> tuple[bytes, tuple[int, ...]]:
    if length > PAYLOAD_BYTES_MAX:
        raise Unreadable(f"a cell of {length} bytes")
    local = _local_bytes(length, local_max)
    if position + local > PAGE_BYTES:
        raise Unreadable("a cell ends beyond its page")
    parts = [page[position : position + local]]
    beyond: list[int] = []
    left = length - local
    following = int.from_bytes(page[position + local : position + local + 4], "big") if left else 0
    while left:
        if not following or following in beyond:
            raise Unreadable("a cell's overflow ends before the cell")
        beyond.append(following)
        overflow = read(following)
        parts.append(overflow[4 : 4 + min(left, PAGE_BYTES - 4)])
        left -= len(parts[-1])
        following = int.from_bytes(overflow[:4], "big")
    return b"".join(parts), tuple(beyond)


def _local_bytes(length: int, local_max: int) -> int:
    """How much of a cell stands on its own page."""
    if length <= local_max:
        return length
    local = _LOCAL_MIN + (length - _LOCAL_MIN) % (PAGE_BYTES - 4)
    return local if local <= local_max else _LOCAL_MIN


def _columns(payload: bytes) -> tuple[Any, ...]:
    """The values of a record; texts that are none stay bytes."""
    head_end, position = _varint(payload, 0)
    kinds = []
    limit = min(head_end, len(payload))
    while position < limit:
        kind, position = _varint(payload, position)
        kinds.append(kind)
    if position != head_end:
        raise Unreadable("a record's header is longer than the record")
    return tuple(_values(payload, head_end, kinds))


def _values(payload: bytes, position: int, kinds: list[int]) -> Iterator[Any]:
    for kind in kinds:
        size = _size(kind)
        if position + size > len(payload):
            raise Unreadable("a value ends beyond its record")
        yield _value(kind, payload[position : position + size])
        position += size


def _size(kind: int) -> int:
    if kind >= 12:
        return (kind - 12) // 2
    if kind in (10, 11):
        raise Unreadable(f"a value of the reserved type {kind}")
    return 8 if kind == 7 else _INTEGER_BYTES.get(kind, 0)


def _value(kind: int, raw: bytes) -> Any:
    if kind in _INTEGER_BYTES:
        return int.from_bytes(raw, "big", signed=True)
    if kind < 12:
        return {0: None, 7: 0.0, 8: 0, 9: 1}[kind]
    if kind % 2 == 0:
        return raw
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    """A big-endian number of 1 to 9 bytes, and where it ends."""
    if position < len(raw) and raw[position] < 0x80:
        return raw[position], position + 1  # most are so short
    value = 0
    for count in range(8):
        if position + count >= len(raw):
            raise Unreadable("a number ends beyond its page")
        byte = raw[position + count]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, position + count + 1
    if position + 8 >= len(raw):
        raise Unreadable("a number ends beyond its page")
    return value << 8 | raw[position + 8], position + 9


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
