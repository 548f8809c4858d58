"""hnswlib's file format, as far as labels and deleted marks need it.

hnswlib does not report which labels are marked deleted. It also trusts the sizes in a file: with another
dimension, it reads past the end of its memory. The file's header and level 0 answer both. Little-endian,
written by hnswlib 0.8.0 (`HierarchicalNSW::saveIndex`):

    8 * 6       offset of level 0 (0), capacity, elements, element bytes, label offset, data offset
    4 + 4       greatest level (signed), entry point
    8 * 5       links above level 0 (M), links at level 0 (2 M), M, level factor (double), ef_construction
    elements *  u16 number of links, u16 flags (bit 0: deleted), 2 M * u32 links, d * f32 values, u64 label
    then for each element u32 bytes of its links above level 0, and these links
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from vecstow_engine.index.hits import Labels, Rows
from vecstow_engine.model.errors import DamagedFile

_HEADER: Final = struct.Struct("<6QiI3QdQ")
_DELETED: Final = 1
_FLAGS_OFFSET: Final = 2


@dataclass(frozen=True, slots=True)
class SnapshotContent:
    """The settings, labels and rows of a saved graph."""

    max_connections: int
    ef_construction: int
    labels: Labels
    """Every label, deleted ones included, in the order of insertion."""
    deleted: npt.NDArray[np.bool_]
    """Whether each label is marked deleted."""
    rows: Rows
    """The rows (n, dimension) of the labels, mapped from the file."""


def read_content(path: str, dimension: int) -> SnapshotContent:
    """Return the content of the graph saved at `path`; raise DamagedFile when its sizes are contradictory."""
    with Path(path).open("rb") as file:
        raw = file.read(_HEADER.size)
    if len(raw) < _HEADER.size:
        raise DamagedFile(f"{len(raw)} bytes; a saved graph has at least {_HEADER.size}", file=path)
    level0_offset, _, count, element_bytes, label_offset, data_offset, _, _, _, links, m, _, ef = (
        _HEADER.unpack(raw)
    )
    size = element_size(m, dimension)
    if (level0_offset, links, element_bytes, data_offset, label_offset) != (
        0,
        2 * m,
        size,
        4 + 8 * m,
        size - 8,
    ):
        raise DamagedFile(
            f"not a graph of {dimension} dimensions (M {m}, {element_bytes} bytes an element)", file=path
        )
    if Path(path).stat().st_size < _HEADER.size + count * (element_bytes + 4):
        raise DamagedFile(f"too short for its {count} elements", file=path)
    if count == 0:
        none = np.empty((0, dimension), dtype=np.float32)
        return SnapshotContent(m, ef, np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.bool_), none)
    elements = np.memmap(path, np.uint8, "r", _HEADER.size, (count, element_bytes))
    labels = np.ascontiguousarray(elements[:, label_offset:]).view("<u8").astype(np.uint64).ravel()
    deleted = (elements[:, _FLAGS_OFFSET] & _DELETED).astype(np.bool_)
    return SnapshotContent(m, ef, labels, deleted, elements[:, data_offset:label_offset].view("<f4"))


def element_size(max_connections: int, dimension: int) -> int:
    """Return the bytes of one element at level 0: counters, links, vector and label."""
    return 4 + 2 * max_connections * 4 + 4 * dimension + 8
