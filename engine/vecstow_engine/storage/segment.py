"""One log segment as bytes: header and records. Pure; `log` writes them, `replay` reads them.

Format: docs/storage-format.md, "The log". The seed makes the remains of another segment's records fail.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from crc32c import crc32c

from vecstow_engine.model.errors import DamagedFile, NewerFormat
from vecstow_engine.storage.identity import Identity, pack_identity, unpack_identity

MAGIC: Final = b"VSTWWAL1"
VERSION: Final = 1
HEADER_BYTES: Final = 8 + 4 + 16 + 4 + 1 + 1 + 2 + 8 + 8 + 4 + 1 + 64 + 3 + 4
RECORD_HEADER_BYTES: Final = 4 + 4 + 8 + 8 + 8 + 1 + 7
PAYLOAD_BYTES_MAX: Final = 1 << 30

UPSERT: Final = 1
DELETE: Final = 2

_HEADER = struct.Struct("<8sI16sIBB2xQQIB64s3x")
_RECORD_TAIL = struct.Struct("<QQQB7x")
_U32 = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself."""

    identity: Identity
    first_sequence: int
    synced: int
    """Every record up to this sequence was durable when the header was written."""
    seed: int


@dataclass(frozen=True, slots=True)
class Record:
    """One batch: all of it or nothing."""

    sequence: int
    previous: int
    synced: int
    type: int
    payload: bytes
    offset: int = 0
    """Where it stands in its file."""


def encode_header(header: SegmentHeader) -> bytes:
    """The 128 bytes of a segment's header."""
    uid, dimension, metric, vector_type, name_length, name = pack_identity(header.identity)
    body = _HEADER.pack(
        MAGIC, VERSION, uid, dimension, metric, vector_type,
        header.first_sequence, header.synced, header.seed, name_length, name,
    )  # fmt: skip
    return body + _U32.pack(crc32c(body))


def decode_header(raw: bytes, file: str) -> SegmentHeader:
    """Read a header; raises DamagedFile or NewerFormat."""
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
    """The 40 bytes that go before `payload`."""
    length = _U32.pack(len(payload))
    tail = _RECORD_TAIL.pack(sequence, previous, synced, record_type)
    return length + _U32.pack(crc32c(payload, crc32c(tail, crc32c(length, seed)))) + tail


def iterate_records(raw: bytes | memoryview, seed: int, start: int = HEADER_BYTES) -> Iterator[Record]:
    """Valid records from `start` on, up to the first that is cut or fails its checksum."""
    offset = start
    while (record := _decode_record(raw, seed, offset)) is not None:
        yield record
        offset += RECORD_HEADER_BYTES + len(record.payload)


def _decode_record(raw: bytes | memoryview, seed: int, offset: int) -> Record | None:
    if offset + RECORD_HEADER_BYTES > len(raw):
        return None
    length, checksum = struct.unpack_from("<II", raw, offset)
    end = offset + RECORD_HEADER_BYTES + length
    if length > PAYLOAD_BYTES_MAX or end > len(raw):
        return None
    tail = bytes(raw[offset + 8 : offset + RECORD_HEADER_BYTES])
    payload = bytes(raw[offset + RECORD_HEADER_BYTES : end])
    if checksum != crc32c(payload, crc32c(tail, crc32c(bytes(raw[offset : offset + 4]), seed))):
        return None
    sequence, previous, synced, record_type = _RECORD_TAIL.unpack(tail)
    if sequence <= previous:  # whoever follows a chain must come to its end
        return None
    return Record(sequence, previous, synced, record_type, payload, offset)
