"""The payloads of log records: upserts and deletes as effects, ready to apply. Pure.

Format: docs/storage-format.md, "The log". Effects are encoded before logging and decoded on replay, without
any policy in between.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.storage.log.segment import DELETE, UPSERT, Record, refuse_oversized

NO_PAYLOAD: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Upsert:
    """Points in the form that the files store."""

    ids: list[str]
    rows: NDArray[np.uint8]
    """Stored bytes, shape (n, stride)."""
    payloads: list[bytes | None]
    all_new: bool = False
    """Whether the ids were made for these points, so that none can be live. Replay does not know this."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Ids to remove; absent ids are ignored."""

    ids: list[str]


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
