"""The bytes of one log segment: its header, its records, and the effects in them. Pure.

Format: docs/storage-format.md, "The log". The seed makes the remains of another segment's records fail.
Effects are encoded before logging and decoded on replay, without any policy in between.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, TypeAlias

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from vecstow_engine.model.conditions import Condition
from vecstow_engine.model.errors import DamagedFile, NewerFormat, TooLarge, refused
from vecstow_engine.storage.identity import Identity, pack_identity, unpack_identity

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
NO_PAYLOAD: Final = 0xFFFFFFFF

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
    """One effect: valid as a whole, or not at all."""

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
    fields = header.first_sequence, header.synced, header.seed, name_length, name
    body = _HEADER.pack(MAGIC, VERSION, uid, dimension, metric, vector_type, *fields)
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
        message = f"the write takes {size} bytes in the log; the limit is {RECORD_BYTES_MAX}"
        details = refused("vectors", size, RECORD_BYTES_MAX)
        hint = "send fewer points at a time"
        raise TooLarge(message, operation="write", hint=hint, details=details)


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


Guard: TypeAlias = int | Condition
"""A condition on one id when its effect is committed: the point has this label, or meets the condition."""


@dataclass(frozen=True, slots=True)
class Upsert:
    """Points in the form that the files store."""

    ids: list[str]
    rows: NDArray[np.uint8]
    """Stored bytes, shape (n, stride)."""
    payloads: list[bytes | None]
    all_new: bool = False
    """Whether the ids were made for these points, so that none can be live. Replay does not know this."""
    guards: Sequence[Guard] | None = None
    """The guard of each id, which are then distinct; None without guards. The log contains no guards."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Ids to remove; absent ids are ignored."""

    ids: list[str]
    guards: Sequence[Guard] | None = None
    """The guard of each id, which are then distinct; None without guards. The log contains no guards."""


Effect: TypeAlias = Upsert | Delete


def encode_effect(effect: Effect) -> tuple[int, bytes]:
    """Return the record type and payload of an effect."""
    if isinstance(effect, Delete):
        ids = [point_id.encode() for point_id in effect.ids]
        return DELETE, b"".join([struct.pack("<I", len(ids)), _lengths(ids, "<u2"), *ids])
    ids = [point_id.encode() for point_id in effect.ids]
    count, stride = effect.rows.shape
    payload_lengths = np.fromiter(
        (NO_PAYLOAD if payload is None else len(payload) for payload in effect.payloads), "<u4", count
    )
    parts = [struct.pack("<II", count, stride), _lengths(ids, "<u2"), payload_lengths.tobytes()]
    payloads = [payload for payload in effect.payloads if payload is not None]
    return UPSERT, b"".join([*parts, np.ascontiguousarray(effect.rows).data, *ids, *payloads])


def payload_bytes(effect: Effect) -> int:
    """Return the length of the payload of `encode_effect`; raise TooLarge above the limit of one record."""
    size = len("".join(effect.ids).encode())
    if isinstance(effect, Delete):
        size += 4 + 2 * len(effect.ids)
    else:
        size += 4 + 4 + 6 * len(effect.ids) + effect.rows.nbytes
        size += sum([len(payload) for payload in effect.payloads if payload is not None])
    refuse_oversized(size)
    return size


def without_absent(effects: Sequence[Effect], live: Container[str]) -> list[Effect]:
    """Return the effects to log, in which deletes name only ids that exist at their turn.

    `live`: the ids that exist before the first effect. A delete without such an id becomes a delete of no
    ids.
    """
    if not any(isinstance(effect, Delete) for effect in effects):
        return list(effects)
    changed: dict[str, bool] = {}
    needed: list[Effect] = []
    for effect in effects:
        if isinstance(effect, Delete):
            ids = [i for i in dict.fromkeys(effect.ids) if changed.get(i, i in live)]
            needed.append(Delete(ids))
            changed.update(dict.fromkeys(ids, False))
        else:
            needed.append(effect)
            changed.update(dict.fromkeys(effect.ids, True))
    return needed


def decode_effect(record: Record, stride: int | None = None) -> Effect:
    """Decode the effect of a checksummed record; raise ValueError for bytes that no release has written.

    `stride`: the expected bytes of a row; None accepts any.
    """
    try:
        if record.type == DELETE:
            return _decode_delete(record.payload)
        if record.type == UPSERT:
            return _decode_upsert(record.payload, stride)
    except struct.error as error:
        raise ValueError(str(error)) from error
    raise ValueError(f"it is of unknown type {record.type}")


def _decode_delete(raw: bytes) -> Delete:
    (count,) = struct.unpack_from("<I", raw)
    lengths = np.frombuffer(raw, "<u2", count, 4)
    ids_at = 4 + 2 * count
    _check_length(raw, ids_at + int(lengths.sum()))
    return Delete(_texts(raw, ids_at, lengths))


def _decode_upsert(raw: bytes, expected_stride: int | None) -> Upsert:
    count, stride = struct.unpack_from("<II", raw)
    if expected_stride not in (None, stride):
        raise ValueError(f"its rows have {stride} bytes, not {expected_stride}")
    id_lengths = np.frombuffer(raw, "<u2", count, 8)
    payload_lengths = np.frombuffer(raw, "<u4", count, 8 + 2 * count)
    rows_at = 8 + 6 * count
    rows = np.frombuffer(raw, np.uint8, count * stride, rows_at).reshape(count, stride)
    ids_at = rows_at + count * stride
    payloads_at = ids_at + int(id_lengths.sum())
    _check_length(raw, payloads_at + int(payload_lengths[payload_lengths != NO_PAYLOAD].sum()))
    return Upsert(_texts(raw, ids_at, id_lengths), rows, _payloads(raw, payloads_at, payload_lengths))


def _check_length(raw: bytes, expected: int) -> None:
    if len(raw) != expected:
        raise ValueError(f"it has {len(raw)} bytes, and says that they are {expected}")


def _lengths(items: Sequence[bytes], dtype: str) -> bytes:
    return np.fromiter(map(len, items), dtype, len(items)).tobytes()


def _texts(raw: bytes, start: int, lengths: NDArray[np.uint16]) -> list[str]:
    ends = list(accumulate(lengths.tolist(), initial=start))
    return [raw[begin:end].decode() for begin, end in pairwise(ends)]


def _payloads(raw: bytes, start: int, lengths: NDArray[np.uint32]) -> list[bytes | None]:
    payloads: list[bytes | None] = []
    position = start
    for length in lengths.tolist():
        if length == NO_PAYLOAD:
            payloads.append(None)
        else:
            payloads.append(raw[position : position + length])
            position += length
    return payloads
