"""The decoding of hot requests: from the bytes of a body to PointBatch. `search_decoding` reads searches.

Limits are checked before objects are built, where possible: a vector of ten million floats for a collection
of dimension 128 costs only a scan of its bytes. The request's lease holds the memory before it is taken.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Raw
from numpy.typing import NDArray

from vecstow_engine.api.answers import Media
from vecstow_engine.api.conditions import with_fields
from vecstow_engine.api.parsing import (
    ABSENT,
    POINT_BYTES,
    Decoder,
    IdList,
    JsonBatch,
    PackedBatch,
    SinglePoint,
    Text,
    check_block,
    check_entries,
    check_members,
    check_text,
    decode,
    packed_entries,
    weigh_json,
    weigh_json_points,
    weigh_packed,
    weigh_packed_texts,
)
from vecstow_engine.model.conditions import Condition
from vecstow_engine.model.errors import InvalidInput, TooLarge, refused
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import VectorType
from vecstow_engine.model.names import POINT_ID_CHARACTERS_MAX
from vecstow_engine.model.payloads import PAYLOAD_BYTES_MAX, check_unpacked
from vecstow_engine.model.points import FLOAT32_MAX, PointBatch, beyond_limit, wrong_entries, wrong_length
from vecstow_engine.service.request_memory import Lease, Part

ID_TEXT_BYTES_MAX: Final = 12 * POINT_ID_CHARACTERS_MAX + 2
"""Bytes of the longest id in JSON: each character is two escapes of six bytes, and there are two quotes."""
PAYLOAD_TEXT_BYTES_MAX: Final = 4 * PAYLOAD_BYTES_MAX
"""Bytes of a payload as sent: spaces and escapes make it longer than the stored payload."""
FILTER_TEXT_BYTES_MAX: Final = 1024 * 1024
NULLS: Final = (b"null", b"\xc0")
_VALUE_BYTES: Final = {VectorType.FLOAT32: 5, VectorType.FLOAT16: 12, VectorType.INT8: 16}
"""Bytes of memory for one value of a vector while it is checked and encoded."""

Rows = NDArray[np.float32]
Object = dict[str, Any]
_json_point: Decoder[SinglePoint[Raw]] = msgspec.json.Decoder(SinglePoint[Raw])
_json_batch: Decoder[JsonBatch] = msgspec.json.Decoder(JsonBatch)
_json_id_list: Decoder[IdList] = msgspec.json.Decoder(IdList)
_json_id: Decoder[str | None] = msgspec.json.Decoder(str | None)
_json_ids: Decoder[list[str]] = msgspec.json.Decoder(list[str])
_json_floats: Decoder[list[float]] = msgspec.json.Decoder(list[float])
_json_object: Decoder[Object | None] = msgspec.json.Decoder(Object | None)
_packed_point: Decoder[SinglePoint[memoryview]] = msgspec.msgpack.Decoder(SinglePoint[memoryview])
_packed_batch: Decoder[PackedBatch] = msgspec.msgpack.Decoder(PackedBatch)
_packed_id_list: Decoder[IdList] = msgspec.msgpack.Decoder(IdList)
_packed_id: Decoder[str | None] = msgspec.msgpack.Decoder(str | None)
_packed_ids: Decoder[list[str]] = msgspec.msgpack.Decoder(list[str])
_packed_batch_ids: Decoder[list[str] | None] = msgspec.msgpack.Decoder(list[str] | None)
_packed_object: Decoder[Object | None] = msgspec.msgpack.Decoder(Object | None)
_packed_payloads: Decoder[list[Raw] | None] = msgspec.msgpack.Decoder(list[Raw] | None)


class Payloads(Sequence["Object | None"]):
    """The payloads of a batch, decoded one at a time on access: objects take many times their bytes."""

    def __init__(self, raws: Sequence[Raw], decoder: Decoder[Object | None], field: str) -> None:
        self._raws = raws
        self._decoder = decoder
        self._field = field

    def __len__(self) -> int:
        return len(self._raws)

    def __getitem__(self, position: Any) -> Any:
        return _payload(self._raws[position], self._decoder, self._field.format(position))


def read_point(
    body: Text,
    media: Media,
    lease: Lease,
    manifest: Manifest,
    condition: Condition | None,
    path_id: str | None = None,
) -> PointBatch:
    """Return a batch with the one point in `body`; with `path_id`, the point must have this id or none.

    `condition` is that of the headers; the body may have one instead. Raises InvalidInput,
    WrongShape, Malformed, TooLarge and Busy.
    """
    lease.grow(Part.DECODED, POINT_BYTES + manifest.dimension * _VALUE_BYTES[manifest.vector_type])
    if media is Media.JSON:
        point = decode(_json_point, body)
        point_id = read_id(point.id, media, "id")
        rows = json_row(point.data, manifest, "data").reshape(1, -1)
        check_members(body, point.given, (point.id, point.metadata))
        payload = _payload(point.metadata, _json_object, "metadata")
        condition = with_fields(condition, point.if_absent, point.if_exists)
    else:
        packed = decode(_packed_point, body)
        check_entries(body, packed.given)
        point_id = read_id(packed.id, media, "id")
        rows = packed_rows(packed.data, manifest, "data", 1)
        payload = _payload(packed.metadata, _packed_object, "metadata")
        condition = with_fields(condition, packed.if_absent, packed.if_exists)
    if path_id is not None and point_id not in (None, path_id):
        raise InvalidInput(
            f"id is {point_id!r} in the body and {path_id!r} in the path; they must be equal",
            collection=manifest.name,
            details=refused("id", point_id, path_id),
        )
    return PointBatch.build(manifest, [path_id or point_id], rows, [payload], place="", condition=condition)


def read_batch(body: Text, media: Media, lease: Lease, manifest: Manifest, points_max: int) -> PointBatch:
    """Return the batch in `body`; raise the errors of `read_point`, which name the point's position."""
    read = _read_json_batch if media is Media.JSON else _read_packed_batch
    batch = read(body, lease, manifest, points_max)
    payload_bytes = sum(len(payload) for payload in batch.payloads if payload is not None)
    lease.hold(Part.DECODED, batch.rows.nbytes + len(batch.ids) * POINT_BYTES + payload_bytes)
    return batch


def read_ids(body: Text, media: Media, lease: Lease, ids_max: int) -> list[str]:
    """Return the ids in `body`, unchecked; raise TooLarge for more than `ids_max` ids.

    Raises also InvalidInput, WrongShape, Malformed and Busy.
    """
    if media is Media.JSON:
        raw = decode(_json_id_list, body).ids
        check_members(body, 1, [raw])
    else:
        raw = decode(_packed_id_list, body).ids
        check_entries(body, 1)
    return decode_ids(raw, media, lease, ids_max)


def decode_ids(raw: Raw, media: Media, lease: Lease, ids_max: int) -> list[str]:
    """Return the ids in the member `ids`, unchecked; raise the errors of `read_ids`."""
    text = bytes(raw)
    if media is Media.JSON:
        lease.take(Part.DECODED, weigh_json(text))
        ids = decode(_json_ids, text, "ids")
    else:
        entries = packed_entries(text) or 0
        _check_ids_count(entries, ids_max)
        lease.take(Part.DECODED, weigh_packed_texts(text, entries))
        ids = decode(_packed_ids, text, "ids")
    _check_ids_count(len(ids), ids_max)
    return ids


def _read_json_batch(body: Text, lease: Lease, manifest: Manifest, points_max: int) -> PointBatch:
    lease.take(Part.DECODED, weigh_json_points(body))
    batch = decode(_json_batch, body)
    points = batch.vectors
    _check_count(len(points), points_max)
    for position, point in enumerate(points):
        # A shorter text cannot hold so many values. Such a batch is refused before memory is taken for it.
        if len(memoryview(point.data)) <= 2 * manifest.dimension:
            json_row(point.data, manifest, f"vectors[{position}].data")
    lease.take(Part.DECODED, len(points) * manifest.dimension * _VALUE_BYTES[manifest.vector_type])
    rows = np.empty((len(points), manifest.dimension), np.float32)
    for position, point in enumerate(points):
        rows[position] = json_row(point.data, manifest, f"vectors[{position}].data")
    ids = [read_id(point.id, Media.JSON, f"vectors[{at}].id") for at, point in enumerate(points)]
    check_members(body, batch.given, (raw for point in points for raw in (point.id, point.metadata)))
    payloads = Payloads([point.metadata for point in points], _json_object, "vectors[{}].metadata")
    condition = with_fields(None, batch.if_absent, batch.if_exists)
    weigh = functools.partial(lease.take, Part.DECODED)
    return PointBatch.build(manifest, ids, rows, payloads, weigh=weigh, condition=condition)


def _read_packed_batch(body: Text, lease: Lease, manifest: Manifest, points_max: int) -> PointBatch:
    packed = decode(_packed_batch, body)
    check_entries(body, packed.given)
    row_bytes = 4 * manifest.dimension
    count = packed.vectors.nbytes // row_bytes
    if not packed.vectors.nbytes % row_bytes:
        _check_count(count, points_max)
    value_bytes = manifest.dimension * _VALUE_BYTES[manifest.vector_type]
    lease.take(Part.DECODED, count * (POINT_BYTES + value_bytes) + weigh_packed_texts(packed.ids, 0))
    rows = packed_rows(packed.vectors, manifest, "vectors")
    _check_entries("ids", packed.ids, count)
    _check_entries("metadata", packed.metadata, count)
    ids = None if packed.ids is ABSENT else decode(_packed_batch_ids, packed.ids, "ids")
    sent = packed.metadata
    raws = None if sent is ABSENT else decode(_packed_payloads, sent, "metadata")
    payloads = None if raws is None else Payloads(raws, _packed_object, "metadata[{}]")
    condition = with_fields(None, packed.if_absent, packed.if_exists)
    weigh = functools.partial(lease.take, Part.DECODED)
    return PointBatch.build(manifest, ids, rows, payloads, weigh=weigh, condition=condition)


def _check_entries(field: str, raw: Raw, count: int) -> None:
    entries = packed_entries(bytes(memoryview(raw)[:5]))
    if entries not in (None, count):
        raise wrong_entries(field, entries, count)


def read_id(raw: Raw, media: Media, field: str) -> str | None:
    """Return the id in a member, unchecked, None for an absent one; raise InvalidInput or WrongShape."""
    if raw is ABSENT:
        return None
    size = len(memoryview(raw))
    if size > ID_TEXT_BYTES_MAX:
        raise InvalidInput(
            f"{field} has {size} bytes; ids have at most {POINT_ID_CHARACTERS_MAX} characters",
            details=refused(field, size, POINT_ID_CHARACTERS_MAX),
        )
    return decode(_json_id if media is Media.JSON else _packed_id, raw, field)


def read_filter(raw: Raw, media: Media, lease: Lease) -> Filter | None:
    """Return the filter in the member of a body, None for an absent one; raise the errors of `read_point`."""
    document = decode_filter(raw, media, lease)
    return None if document is None else parse_filter(document)


def decode_filter(raw: Raw, media: Media, lease: Lease) -> Object | None:
    """Return the document of a filter like `read_filter`."""
    text = bytes(raw)
    if text in NULLS:
        return None
    _check_size("filter", len(text), FILTER_TEXT_BYTES_MAX)
    is_json = media is Media.JSON
    lease.take(Part.DECODED, weigh_json(text) if is_json else weigh_packed(text))
    found = decode(_json_object if is_json else _packed_object, text, "filter")
    (check_text if is_json else check_block)(text, found, "filter")
    return found


def decode_object(raw: Raw, media: Media, field: str) -> Object | None:
    """Return the object in a member that payloads take, None for an absent one."""
    return _payload(raw, _json_object if media is Media.JSON else _packed_object, field)


def _payload(raw: Raw, decoder: Decoder[Object | None], field: str) -> Object | None:
    if raw is ABSENT:
        return None
    _check_size(field, len(memoryview(raw)), PAYLOAD_TEXT_BYTES_MAX)
    payload = decode(decoder, raw, field)
    if payload and decoder is _packed_object:
        check_unpacked(payload, field)
        check_block(bytes(raw), payload, field)
    elif payload:
        check_text(bytes(raw), payload, field)
    return payload


def _check_size(field: str, size: int, bytes_max: int) -> None:
    if size > bytes_max:
        raise TooLarge(
            f"{field} has {size} bytes; at most {bytes_max} are read",
            details=refused(field, size, bytes_max),
        )


def _check_ids_count(count: int, ids_max: int) -> None:
    if count > ids_max:
        raise TooLarge(f"ids has {count} entries; at most {ids_max}", details=refused("ids", count, ids_max))


def json_row(raw: Raw, manifest: Manifest, field: str) -> Rows:
    """Return a vector, float32 (d,), from a JSON list of numbers; raise InvalidInput or WrongShape."""
    text = bytes(raw)
    if text[:1] == b"[":
        # A comma follows each value except the last, so more commas mean too many values.
        commas = text.count(b",")
        if commas >= manifest.dimension:
            raise wrong_length(commas + 1, manifest, field)
    values = decode(_json_floats, text, field)
    return row_of(values, manifest, field)


def row_of(values: Sequence[float], manifest: Manifest, field: str) -> Rows:
    """Return decoded numbers as a vector, float32 (d,); raise InvalidInput."""
    if len(values) != manifest.dimension:
        raise wrong_length(len(values), manifest, field)
    try:
        with np.errstate(over="raise"):
            return np.array(values, np.float32)
    except FloatingPointError:
        at, value = next((at, value) for at, value in enumerate(values) if abs(value) > FLOAT32_MAX)
        raise beyond_limit(f"{field}[{at}]", value, manifest.distance_metric, FLOAT32_MAX) from None


def packed_rows(block: memoryview, manifest: Manifest, field: str, count: int | None = None) -> Rows:
    """Return rows, float32 (n, d), as a copy: the body is freed, and the rows are aligned.

    Raises InvalidInput for a wrong number of bytes.
    """
    row_bytes = 4 * manifest.dimension
    if block.nbytes % row_bytes or count not in (None, block.nbytes // row_bytes):
        wanted = "a multiple of " if count is None else ""
        raise InvalidInput(
            f"{field} has {block.nbytes} bytes; it must have {wanted}{row_bytes} bytes: "
            f"{manifest.dimension} little-endian float32 a vector",
            collection=manifest.name,
            details=refused(field, block.nbytes, row_bytes),
        )
    return np.frombuffer(block, "<f4").reshape(-1, manifest.dimension).astype(np.float32, copy=True)


def _check_count(points: int, points_max: int) -> None:
    if points == 0:
        raise InvalidInput("vectors is empty; at least one is needed", details=refused("vectors", 0, 1))
    if points > points_max:
        raise TooLarge(
            f"vectors has {points} entries; at most {points_max} a batch",
            hint="send smaller batches",
            details=refused("vectors", points, points_max),
        )
