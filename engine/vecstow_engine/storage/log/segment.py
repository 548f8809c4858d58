"""The bytes of one log segment: header and records. Pure; `writer` writes and `segment_reader` reads them.

Format: docs/storage-format.md, "The log". The seed makes the remains of another segment's records fail.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from vecstow_engine.model.errors import DamagedFile, NewerFormat, TooLarge, refused
from vecstow_engine.storage.collection_identity import Identity, pack_identity, unpack_identity

MAGIC: Final = b"VSTWWAL1"
VERSION: Final = 1
HEADER_BYTES: Final = 8 + 4 + 16 + 4 + 1 + 1 + 2 + 8 + 8 + 4 + 1 + 64 + 3 + 4
RECORD_HEADER_BYTES: Final = 4 + 4 + 8 + 8 + 8 + 1 + 7
PAYLOAD_BYTES_MAX: Final = 1 << 30
"""The longest payload that a reader accepts: earlier releases wrote payloads up to this length."""
RECORD_BYTES_MAX: Final = 128 << 20
"""The longest payload that a writer logs. Recovery holds one record in memory at a time."""

UPSERT: Final = 1
DELETE: Final = 2

_HEADER = struct.Struct("<8sI16sIBB2xQQIB64s3x")
_RECORD_TAIL = struct.Struct("<QQQB7x")
_LENGTH_AND_CHECKSUM = struct.Struct("<II")
_U32 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The header of a segment."""

    identity: Identity
    first_sequence: int
    synced: int
    """Every record up to this sequence was durable when the header was written."""
    seed: int


@dataclass(frozen=True, slots=True)
class Record:
    """One batch of effects, which is atomic."""

    sequence: int
    previous: int
    synced: int
    type: int
    payload: bytes
    offset: int = 0
    """The byte offset of the record in its file."""


@dataclass(frozen=True, slots=True)
class RecordHead:
    """A record without its payload."""

    sequence: int
    previous: int
    synced: int
    type: int
    offset: int
    """The byte offset of the record in its file."""
    length: int
    """Bytes of the payload."""
    checksum: int
    begun: int
    """The CRC32C of the seed and the header fields. Continued over the payload, it must equal `checksum`."""

    @property
    def end(self) -> int:
        """The byte offset of the next record."""
        return self.offset + RECORD_HEADER_BYTES + self.length

    def with_payload(self, payload: bytes) -> Record:
        """Return the whole record."""
        return Record(self.sequence, self.previous, self.synced, self.type, payload, self.offset)


def encode_header(header: SegmentHeader) -> bytes:
    """Return the 128 bytes of a segment's header."""
    uid, dimension, metric, vector_type, name_length, name = pack_identity(header.identity)
    body = _HEADER.pack(
        MAGIC, VERSION, uid, dimension, metric, vector_type,
        header.first_sequence, header.synced, header.seed, name_length, name,
    )  # fmt: skip
    return body + _U32.pack(crc32c(body))


def decode_header(raw: bytes, file: str) -> SegmentHeader:
    """Decode a header; raise DamagedFile or NewerFormat."""
    if len(raw) < HEADER_BYTES or raw[:8] != MAGIC:
        raise DamagedFile("no segment header", file=file, offset=0)
    body = raw[: HEADER_BYTES - 4]
    if _U32.unpack_from(raw, HEADER_BYTES - 4)[0] != crc32c(body):
        raise DamagedFile("the segment header fails its checksum", file=file, offset=0)
    _, version, uid, dimension, metric, kind, first, synced, seed, length, name = _HEADER.unpack(body)
    if version > VERSION:
        raise NewerFormat(f"{file} has version {version}; this release reads up to {VERSION}")
    identity = unpack_identity(uid, dimension, metric, kind, length, name, file)
    return SegmentHeader(identity, first, synced, seed)


def encode_record(
    seed: int, sequence: int, previous: int, synced: int, record_type: int, payload: bytes
) -> bytes:
    """Return the 40 bytes of the record header, which precede `payload`."""
    length = _U32.pack(len(payload))
    tail = _RECORD_TAIL.pack(sequence, previous, synced, record_type)
    return length + _U32.pack(crc32c(payload, crc32c(tail, crc32c(length, seed)))) + tail


def refuse_oversized(size: int) -> None:
    """Raise TooLarge for a payload above the limit of a writer."""
    if size > RECORD_BYTES_MAX:
        raise TooLarge(
            f"the write takes {size} bytes in the log; the limit is {RECORD_BYTES_MAX}", operation="write",
            hint="send fewer points at a time", details=refused("vectors", size, RECORD_BYTES_MAX),
        )  # fmt: skip


def decode_record_head(raw: bytes, seed: int, offset: int) -> RecordHead | None:
    """Decode the record header at `offset`; return None when no payload can follow it."""
    if len(raw) < RECORD_HEADER_BYTES:
        return None
    length, checksum = _LENGTH_AND_CHECKSUM.unpack_from(raw)
    sequence, previous, synced, record_type = _RECORD_TAIL.unpack_from(raw, 8)
    if length > PAYLOAD_BYTES_MAX or sequence <= previous:  # the sequences of a chain rise, so a chain ends
        return None
    begun = crc32c(raw[8:RECORD_HEADER_BYTES], crc32c(raw[:4], seed))
    return RecordHead(sequence, previous, synced, record_type, offset, length, checksum, begun)
