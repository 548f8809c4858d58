"""The write-ahead log: every segment's header, every record, the chain, and what a start makes of it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from vecstow_engine.model.errors import InvalidInput, StorageError
from vecstow_engine.model.names import check_point_id
from vecstow_engine.storage.check import advice
from vecstow_engine.storage.check.inquiry import Inquiry
from vecstow_engine.storage.check.report import Severity
from vecstow_engine.storage.check.table import is_json_object
from vecstow_engine.storage.identity import Identity
from vecstow_engine.storage.layout import segment_name
from vecstow_engine.storage.points import Meta
from vecstow_engine.storage.records import Upsert, decode_effect
from vecstow_engine.storage.recovery import refuse_strangers
from vecstow_engine.storage.replay import FoundSegment, follow, read_log
from vecstow_engine.storage.segment import DELETE, UPSERT, Record

READ_ATTEMPTS_MAX: Final = 5


def check_log(
    inquiry: Inquiry, identity: Identity, meta: Meta | None, *, is_rival: bool, serving: bool
) -> frozenset[str]:
    """Check the log of one incarnation; without `meta` each segment for itself.

    Returns the ids that a start writes or deletes when it replays the log.
    """
    folder = inquiry.layout.log(identity.uid)
    next_command = advice.without_log(inquiry.layout, inquiry.name, identity.uid)
    with inquiry.reading(folder, next_command):
        segments = _read(inquiry, identity)
        inquiry.facts["log"] = {"segments": len(segments), "records": sum(len(s.records) for s in segments)}
        if not segments:
            inquiry.add(
                Severity.WARNING, folder, "there is no log (wal_missing): what only it had is lost",
                next_command=advice.restore(inquiry.layout, inquiry.name),
            )  # fmt: skip
            return frozenset()
        with inquiry.reading(inquiry.folder, advice.set_aside(inquiry.layout, inquiry.name)):
            refuse_strangers(segments, identity, inquiry.name if is_rival else None)
        applied = meta.applied if meta is not None else 0
        for segment in segments:
            _check_segment(inquiry, segment, identity, applied)
        if meta is not None:
            verdict = follow(segments, meta.applied)
            _tell_of_tails(inquiry, segments[:-1] if serving else segments, applied)
            return _replayed(verdict.records, identity)
    return frozenset()


def _replayed(records: Sequence[Record], identity: Identity) -> frozenset[str]:
    sound = (record for record in records if _problem(record, identity) is None)
    return frozenset(point_id for record in sound for point_id in decode_effect(record).ids)


def _read(inquiry: Inquiry, identity: Identity) -> list[FoundSegment]:
    """All segments; again when the first write after a start replaced them meanwhile."""
    for _ in range(READ_ATTEMPTS_MAX):
        try:
            return read_log(inquiry.layout.log(identity.uid))
        except FileNotFoundError:
            continue
    raise StorageError("its segments changed under each attempt to read them")


def _check_segment(inquiry: Inquiry, segment: FoundSegment, identity: Identity, applied: int) -> None:
    header = segment.header
    if header is None:
        return
    if header.first_sequence != segment.first_sequence:
        inquiry.quarantine(
            segment.path, f"its header says that it begins with sequence {header.first_sequence}", offset=36,
            next_command=f"mv {segment.path} {segment.path.with_name(segment_name(header.first_sequence))}",
        )  # fmt: skip
    if header.identity.shape != identity.shape:
        inquiry.quarantine(
            segment.path, "its header has another shape than the collection", offset=28,
            next_command=advice.without_log(inquiry.layout, inquiry.name, identity.uid),
        )  # fmt: skip
    for record in segment.records:
        _check_record(inquiry, segment, record, identity, applied)


def _check_record(
    inquiry: Inquiry, segment: FoundSegment, record: Record, identity: Identity, applied: int
) -> None:
    problem = _problem(record, identity)
    if problem is None:
        return
    message = f"record {record.sequence} passes its checksum, but {problem}"
    if record.sequence <= applied:
        inquiry.add(Severity.WARNING, segment.path, f"{message}; it is applied already", offset=record.offset)
    else:
        inquiry.quarantine(
            segment.path, message, offset=record.offset,
            next_command=advice.without_log(inquiry.layout, inquiry.name, identity.uid),
        )  # fmt: skip


def _problem(record: Record, identity: Identity) -> str | None:
    """Why the effect of a record could not be applied."""
    if record.type not in (UPSERT, DELETE):
        return f"is of unknown type {record.type}"
    try:
        effect = decode_effect(record)
        for point_id in effect.ids:
            check_point_id(point_id)
    except (struct.error, ValueError, InvalidInput) as error:
        return f"cannot be read: {error}"
    if not isinstance(effect, Upsert):
        return None
    if effect.rows.shape[1] != identity.stride:
        return f"its rows have {effect.rows.shape[1]} bytes, not {identity.stride}"
    if not all(payload is None or is_json_object(payload) for payload in effect.payloads):
        return "a payload is no JSON object"
    return None


def _tell_of_tails(inquiry: Inquiry, segments: Sequence[FoundSegment], applied: int) -> None:
    for segment in segments:
        beyond = [record for record in segment.records if record.offset >= segment.valid_bytes]
        if segment.header is None:
            message = "the segment header fails its checksum; what it held is applied already"
            inquiry.add(Severity.WARNING, segment.path, message, offset=0)
        elif any(record.sequence <= applied for record in beyond):
            message = "a record fails its checksum; what it held is applied already"
            inquiry.add(Severity.WARNING, segment.path, message, offset=segment.valid_bytes)
        elif any(segment.tail):
            inquiry.add(
                Severity.INFO, segment.path,
                f"torn tail of {len(segment.tail)} bytes, as a crash leaves it; the next start sets it aside",
                offset=segment.valid_bytes,
            )  # fmt: skip
