"""The search for records in a file that is read in blocks.

    0.2.1   u64 16 | 16 bytes of the id | u64 dimension | dimension * f32 | u8 0 or 1 | metadata when 1
    0.2.6   u32 length of what follows | the same, with the metadata as u64 length and JSON

All numbers are little-endian. The value 16 and the dimension identify a head.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vecstow_engine.model.errors import StorageError

FORMAT_UNFRAMED: Final = "0.2.1"
FORMAT_FRAMED: Final = "0.2.6"
FRAME_BYTES: Final = 4
HEAD_BYTES: Final = 8 + 16 + 8
METADATA_BYTES_MAX: Final = 1024 * 1024
"""The limit of metadata, far above that of a payload; larger metadata is reported and skipped."""
KEY_BYTES_MAX: Final = 1024
"""The length above which a key is suspicious."""

_DIMENSION_MAX: Final = 65_536
_ID_LENGTH: Final = struct.pack("<Q", 16)
_HEAD: Final = struct.Struct("<Q16sQ")
_COUNT_AND_KEY: Final = struct.Struct("<QQ")
_FRAME: Final = struct.Struct("<I")
_BLOCK_BYTES: Final = 4 * 1024 * 1024
_ZEROS: Final = bytes(64 * 1024)


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """The head of a record: `offset` is its first byte, `body` the first byte of its id's length."""

    offset: int
    body: int
    id: bytes
    length: int | None
    """The bytes from `body` on, according to the frame; None without a frame."""

    @property
    def format(self) -> str:
        """The release whose format the record has."""
        return FORMAT_UNFRAMED if self.length is None else FORMAT_FRAMED


class RecordFile:
    """An open file with records of one dimension; the last read block is in memory.

    Memory stays bounded, and an error of the disk is an exception, not a signal as with a memory map.
    """

    def __init__(self, path: Path, dimension: int, block_bytes: int = _BLOCK_BYTES) -> None:
        self.path = path
        self.dimension = dimension
        self.fixed_bytes = HEAD_BYTES + 4 * dimension + 1
        """The bytes of a record without frame and metadata: the head, the vector and the byte 0 or 1."""
        self._block_bytes = block_bytes
        self._base = 0
        self._block = b""
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise StorageError(f"{path} cannot be opened: {error.strerror}") from error

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)

    def read(self, start: int, length: int) -> bytes:
        """Return up to `length` bytes from `start`; fewer at the end of the file. Raise StorageError."""
        at = self._load(start, length)
        return self._block[at : at + length]

    def find(self, pattern: bytes, start: int, stop: int) -> int:
        """Return the offset of the first `pattern` that lies within [start, stop); -1 when there is none."""
        stop = min(stop, self.size)
        while start + len(pattern) <= stop:
            at = self._load(start, len(pattern))
            found = self._block.find(pattern, at, stop - self._base)
            if found >= 0:
                return self._base + found
            start = self._base + len(self._block) - len(pattern) + 1
        return -1

    def zeros_end(self, start: int) -> int:
        """Return the offset where the zeros that begin at `start` end; `start` itself when there are none."""
        while start < self.size:
            chunk = self.read(start, len(_ZEROS))
            if chunk != _ZEROS[: len(chunk)]:
                return start + len(chunk) - len(chunk.lstrip(b"\0"))
            start += max(len(chunk), 1)
        return self.size

    def head_at(self, offset: int) -> RecordHeader | None:
        """Return the head that begins exactly at `offset`, or None."""
        raw = self.read(offset, FRAME_BYTES + HEAD_BYTES)
        point_id = self._id_at(raw, 0)
        if point_id is not None:
            return RecordHeader(offset, offset, point_id, None)
        point_id = self._id_at(raw, FRAME_BYTES)
        if point_id is None:
            return None
        (length,) = _FRAME.unpack_from(raw)
        if not 0 <= length - self.fixed_bytes <= METADATA_BYTES_MAX + 8:
            return None
        return RecordHeader(offset, offset + FRAME_BYTES, point_id, length)

    def heads(self, start: int, stop: int) -> Iterator[RecordHeader]:
        """Yield every head whose body begins in [start, stop), in order; metadata may hold similar bytes.

        No head begins before `start`: a frame before `start` is ignored, and its record has no frame then.
        """
        at = self.find(_ID_LENGTH, start, stop + len(_ID_LENGTH) - 1)
        while at >= 0:
            framed = self._framed(at) if at >= start + FRAME_BYTES else None
            head = framed or self.head_at(at)
            if head is not None:
                yield head
            at = self.find(_ID_LENGTH, at + 1, stop + len(_ID_LENGTH) - 1)

    def next_record(self, start: int, stop: int | None = None) -> RecordHeader | None:
        """Return the first head in [start, stop) that is followed by a plausible record, or None.

        Without `stop` the search goes on to the end of the file.
        """
        return next(filter(self.is_followed, self.heads(start, self.size if stop is None else stop)), None)

    def is_followed(self, head: RecordHeader) -> bool:
        """Whether plausible bytes follow the vector: a key of 16 letters and a number are no head."""
        if head.length is not None:
            return True
        start = head.body + self.fixed_bytes
        tag, rest = self.read(start - 1, 1), self.read(start, 16)
        if len(rest) < 16:
            return True
        count, key_bytes = _COUNT_AND_KEY.unpack(rest)
        if tag == b"\0" or (tag == b"\1" and count == 0):
            end = start + 8 * (tag == b"\1")
            if self.head_at(end) is not None:
                return True
            # The filling follows the last record. A vector that ends in zeros may be part of the filling.
            return self.read(start - 5, 4) != bytes(4) and not self.read(end, HEAD_BYTES).strip(b"\0")
        if tag != b"\1" or count > METADATA_BYTES_MAX:
            return False
        return rest[8:9] == b"{" or key_bytes <= KEY_BYTES_MAX

    def _load(self, start: int, length: int) -> int:
        """Load [start, start + length) into the block, up to the file's end; return its place there."""
        wanted_end = min(start + length, self.size)
        if start < self._base or wanted_end > self._base + len(self._block):
            try:
                self._block = os.pread(self._descriptor, max(self._block_bytes, length), start)
            except OSError as error:
                raise StorageError(f"{self.path} cannot be read at byte {start}: {error.strerror}") from error
            self._base = start
            if len(self._block) < wanted_end - start:
                self.size = start + len(self._block)
        return start - self._base

    def _id_at(self, raw: bytes, at: int) -> bytes | None:
        if len(raw) < at + HEAD_BYTES:
            return None
        id_length, point_id, found = _HEAD.unpack_from(raw, at)
        return bytes(point_id) if id_length == 16 and found == self.dimension else None

    def _framed(self, body: int) -> RecordHeader | None:
        """Return the head with its frame, when the four bytes before `body` fit the record; else None."""
        head = self.head_at(body - FRAME_BYTES)
        if head is None or head.length is None:
            return None
        metadata_bytes = head.length - self.fixed_bytes
        if 0 < metadata_bytes < 8:
            return None
        tag = b"\1" + struct.pack("<Q", metadata_bytes - 8) if metadata_bytes else b"\0"
        return head if self.read(body + self.fixed_bytes - 1, len(tag)) == tag else None


def detect(first_bytes: bytes) -> tuple[str, int] | None:
    """Return the format and the dimension of a file that begins with `first_bytes` (36 or more), or None.

    None can also mean that the file is empty, contains only zeros, or is damaged at its start.
    """
    for name, at in ((FORMAT_UNFRAMED, 0), (FORMAT_FRAMED, FRAME_BYTES)):
        if len(first_bytes) >= at + HEAD_BYTES:
            id_length, _, dimension = _HEAD.unpack_from(first_bytes, at)
            if id_length == 16 and 1 <= dimension <= _DIMENSION_MAX:
                return name, dimension
    return None
