"""`payload.bin`: columns and text indexes as a file, a section for each.

Format: docs/storage-format.md, "payload.bin". The file is a cache. Its caller records length and checksum of
the file, and verifies both before a load.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecstow_engine.index.payload.column import Column
from vecstow_engine.index.payload.payload_columns import TEXT, MayTake, PayloadColumns
from vecstow_engine.index.text.text_index import TextIndex
from vecstow_engine.model.manifest import PayloadIndex

MAGIC: Final = b"VSTWCOLS"
FILE_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sI")
_HEAD_LENGTH: Final = struct.Struct("<I")


class SectionHead(msgspec.Struct, frozen=True):
    """The head of a section: of one field, or of the epochs, which come last."""

    field: str | None
    """None for the epochs."""
    type: str | None
    has_dotted_key: bool
    arrays: list[tuple[str, str, int]]
    """Name, dtype and number of entries of each array."""


def file_parts(columns: PayloadColumns) -> Iterator[bytes | memoryview]:
    """Yield the parts of a file, made as they are asked for: at most one column is in memory twice."""
    yield _HEADER.pack(MAGIC, FILE_VERSION)
    for declared, arrays in columns.parts():
        listed = [(name, array.dtype.str, len(array)) for name, array in arrays.items()]
        if declared is None:
            head = SectionHead(None, None, False, listed)
        else:
            column = columns.columns.get(declared.field)
            has_dotted_key = column is not None and column.has_dotted_key
            head = SectionHead(declared.field, declared.type, has_dotted_key, listed)
        written = msgspec.json.encode(head)
        yield _HEAD_LENGTH.pack(len(written)) + written
        yield from (array.data for array in arrays.values())


def load_columns(path: Path, declared: tuple[PayloadIndex, ...], may_take: MayTake) -> PayloadColumns:
    """Read a verified file; raise ValueError when it lacks a field of the declaration.

    Fields that are not declared are left out.
    """
    wanted = {each.field: each.type for each in declared}
    found: dict[str, Column | TextIndex] = {}
    with path.open("rb") as stream:
        if _HEADER.unpack(stream.read(_HEADER.size)) != (MAGIC, FILE_VERSION):
            raise ValueError(f"it has another format than version {FILE_VERSION}")
        while (head := _read_head(stream)).field is not None:
            if head.type is not None and wanted.get(head.field) == head.type:
                found[head.field] = _read_field(stream, head, str(path))
            else:
                size = sum(np.dtype(kind).itemsize * count for _, kind, count in head.arrays)
                stream.seek(size, os.SEEK_CUR)
        epochs = _read_arrays(stream, head)["epochs"]
    if lacking := sorted(wanted.keys() - found.keys()):
        raise ValueError(f"it has no index of the declared type for {', '.join(lacking)}")
    return PayloadColumns(declared, may_take, {field: found[field] for field in wanted}, epochs)


def _read_field(stream: IO[bytes], head: SectionHead, file: str) -> Column | TextIndex:
    arrays = _read_arrays(stream, head)
    if head.type == TEXT:
        return TextIndex.load(arrays[TEXT].data, file)
    column = Column.of_file(str(head.type), arrays)
    column.has_dotted_key = head.has_dotted_key
    return column


def _read_head(stream: IO[bytes]) -> SectionHead:
    (length,) = _HEAD_LENGTH.unpack(stream.read(_HEAD_LENGTH.size))
    return msgspec.json.decode(stream.read(length), type=SectionHead)


def _read_arrays(stream: IO[bytes], head: SectionHead) -> dict[str, NDArray[Any]]:
    return {name: np.fromfile(stream, kind, count) for name, kind, count in head.arrays}
