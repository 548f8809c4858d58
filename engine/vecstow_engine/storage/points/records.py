"""The rows of `points.db`: meta row, points, snapshots, and the checksums over them. Pure."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from vecstow_engine.model.errors import DamagedFile, NewerFormat
from vecstow_engine.storage.layout import COLUMNS, INDEX

VERSION: Final = 1
COLUMNS_SPACE: Final = "payload"
"""The space in the record of a `payload.bin`; that of an `index.bin` is the space of its distances."""
SUM_MODULUS: Final = 1 << 63
_POINT = struct.Struct("<QQIIH")


@dataclass(frozen=True, slots=True)
class Meta:
    """The meta row, which describes the content of the table."""

    uid: str
    name: str
    applied: int = 0
    checkpoints: int = 0
    points: int = 0
    checksum_sum: int = 0

    @property
    def checksum(self) -> int:
        """CRC32C over every field."""
        numbers = self.applied, self.checkpoints, self.points, self.checksum_sum
        fixed = struct.pack("<I16sQQQQ", VERSION, bytes.fromhex(self.uid), *numbers)
        return crc32c(self.name.encode(), crc32c(fixed))


class StoredPoint(msgspec.Struct, frozen=True):
    """One row of the point table."""

    slot: int
    id: str
    sequence: int
    epoch: int
    """The column is called `generation`."""
    row_checksum: int
    payload: bytes | None

    @property
    def checksum(self) -> int:
        """CRC32C over every field."""
        point_id = self.id.encode()
        fixed = _POINT.pack(self.slot, self.sequence, self.epoch, self.row_checksum, len(point_id))
        return crc32c(fixed + point_id + (b"\0" if self.payload is None else self.payload))


class ServedPoint(NamedTuple):
    """One live point as a reader meets it."""

    label: int
    id: str
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Slots:
    """The fixed columns of the point table, ascending by slot; each of shape (n,)."""

    slots: NDArray[np.int64]
    epochs: NDArray[np.uint32]
    row_checksums: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class SnapshotEntry:
    """The record of one valid `index.bin` or `payload.bin`."""

    crc: int
    bytes: int
    sequence: int
    space: str
    max_connections: int
    library: str

    @property
    def file(self) -> str:
        """The name of the file."""
        return COLUMNS if self.space == COLUMNS_SPACE else INDEX

    @property
    def checksum(self) -> int:
        """CRC32C over every field."""
        text = f"{self.crc} {self.bytes} {self.sequence} {self.space} {self.max_connections} {self.library}"
        return crc32c(text.encode())


def checked_point(row: Sequence[Any]) -> StoredPoint | None:
    """Return the point of a table row, or None when it fails its checksum."""
    try:
        point = StoredPoint(*row[:6])
        return point if point.checksum == row[6] else None
    except (struct.error, AttributeError, TypeError, ValueError):
        return None


def read_meta(rows: Sequence[Sequence[Any]], path: Path) -> Meta:
    """Return the only meta row; raise DamagedFile unless it matches its checksum, or NewerFormat."""
    if len(rows) != 1:
        raise DamagedFile(f"{len(rows)} meta rows; there must be one", file=str(path))
    version, uid, name, applied, checkpoints, points, checksum_sum, checksum = rows[0]
    if isinstance(version, int) and version > VERSION:
        raise NewerFormat(f"{path} has version {version}; this release reads up to {VERSION}")
    with damaged_when(path, ValueError, TypeError, AttributeError, struct.error, OverflowError):
        meta = Meta(uid.hex(), name, applied, checkpoints, points, checksum_sum)
        if meta.checksum == checksum:
            return meta
    raise DamagedFile("the meta row fails its checksum", file=str(path))


@contextlib.contextmanager
def damaged_when(path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Raise DamagedFile for an error that a column of the wrong type or size causes."""
    try:
        yield
    except errors as error:
        raise DamagedFile(f"a column holds what it cannot: {error}", file=str(path)) from error
