"""The write-ahead log: every segment's header, every record, the chain, and what a start makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vecstow_engine.model.errors import StorageError
from vecstow_engine.storage.check import advice
from vecstow_engine.storage.check.content import content_problem
from vecstow_engine.storage.check.inquiry import Inquiry
from vecstow_engine.storage.check.report import Severity
from vecstow_engine.storage.identity import Identity
from vecstow_engine.storage.layout import segment_name
from vecstow_engine.storage.points import Meta
from vecstow_engine.storage.records import Effect, Upsert, decode_effect
from vecstow_engine.storage.recovery import refuse_strangers
from vecstow_engine.storage.replay import FoundSegment, follow, read_log
from vecstow_engine.storage.segment import Record

READ_ATTEMPTS_MAX: Final = 5


def check_log(
    inquiry: Inquiry, identity: Identity, meta: Meta | None, *, is_rival: bool, serving: bool
) -> frozenset[str]:
    """Check the log of one incarnation; without `meta` each segment for itself.

    Returns the ids that a start writes or deletes when it replays the log.
    """
    folder = inquiry.layout.log(identity.uid)
    next_command = inquiry.mend
    with inquiry.reading(folder, next_command):
        segments = _read(inquiry, identity)
        facts = {"segments": len(segments), "records": sum(len(s.records) for s in segments)}
        inquiry.facts["log"] = facts
        if not segments:
            inquiry.add(
                Severity.WARNING, folder, "there is no log (wal_missing): what only it had is lost",
                next_command=advice.find_log(inquiry.layout, identity.uid, meta.applied if meta else None),
            )  # fmt: skip
            return frozenset()
        aside = advice.set_aside(inquiry.layout, inquiry.name)
        with inquiry.reading(inquiry.folder, inquiry.at_rest(aside)):
            refuse_strangers(segments, identity, inquiry.name if is_rival else None)
        applied = meta.applied if meta is not None else 0
        for segment in segments:
            _check_segment(inquiry, segment, identity, applied)
        if meta is not None:
            verdict = follow(segments, meta.applied)
            facts["pending"] = len(verdict.records)
            _tell_of_tails(inquiry, segments[:-1] if serving else segments, applied)
            return _replayed(verdict.records, identity)
    return frozenset()


def _replayed(records: Sequence[Record], identity: Identity) -> frozenset[str]:
    effects = (_effect_of(record, identity) for record in records)
    return frozenset(
        point_id for effect in effects if not isinstance(effect, str) for point_id in effect.ids
    )  # fmt: skip


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
            next_command=inquiry.at_rest(
                f"mv {segment.path} {segment.path.with_name(segment_name(header.first_sequence))}"
            ),
        )  # fmt: skip
    if header.identity.shape != identity.shape:
        inquiry.quarantine(
            segment.path, "its header has another shape than the collection", offset=28,
            next_command=inquiry.mend,
        )  # fmt: skip
    for record in segment.records:
        _check_record(inquiry, segment, record, identity, applied)


def _check_record(
    inquiry: Inquiry, segment: FoundSegment, record: Record, identity: Identity, applied: int
) -> None:
    effect = _effect_of(record, identity)
    problem = effect if isinstance(effect, str) else _content_problem(effect)
    if problem is None:
        return
    message = f"record {record.sequence} passes its checksum, but {problem}"
    next_command = inquiry.mend
    if record.sequence <= applied:
        inquiry.add(Severity.WARNING, segment.path, f"{message}; it is applied already", offset=record.offset)
    elif isinstance(effect, str):
        inquiry.quarantine(segment.path, message, offset=record.offset, next_command=next_command)
    else:
        inquiry.add(
            Severity.ERROR, segment.path, message, offset=record.offset, next_command=next_command
        )  # fmt: skip


def _effect_of(record: Record, identity: Identity) -> Effect | str:
    """The effect, or why it cannot be applied."""
    try:
        return decode_effect(record, identity.stride)
    except ValueError as error:
        return f"cannot be applied: {error}"


def _content_problem(effect: Effect) -> str | None:
    """What of an effect is not such as is written."""
    payloads = effect.payloads if isinstance(effect, Upsert) else [None] * len(effect.ids)
    problems = map(content_problem, effect.ids, payloads)
    return next((problem for problem in problems if problem is not None), None)


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
            size = "1 byte" if len(segment.tail) == 1 else f"{len(segment.tail)} bytes"
            message = f"torn tail of {size}, as a crash leaves it; the next start sets it aside"
            inquiry.add(Severity.INFO, segment.path, message, offset=segment.valid_bytes)
