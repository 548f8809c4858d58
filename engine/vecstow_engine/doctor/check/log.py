"""The write-ahead log: every segment's header, every record, the chain, and what a start makes of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from vecstow_engine.doctor.check import advice
from vecstow_engine.doctor.check.content import content_problem
from vecstow_engine.doctor.check.findings import NextStep, Severity
from vecstow_engine.doctor.check.inquiry import Inquiry
from vecstow_engine.model.errors import StorageError
from vecstow_engine.storage.identity import Identity
from vecstow_engine.storage.layout import segment_name
from vecstow_engine.storage.log.replay import (
    FoundSegment,
    LogChanged,
    read_log,
    records_of,
    select_records,
)
from vecstow_engine.storage.log.segment import Effect, Record, Upsert, decode_effect
from vecstow_engine.storage.points.records import Meta
from vecstow_engine.storage.recovery_plan import refuse_strangers

READ_ATTEMPTS_MAX: Final = 5

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why a record that passes its checksum is not as it must be."""

    sequence: int
    offset: int
    message: str
    is_undecodable: bool


def check_log(
    inquiry: Inquiry, identity: Identity, meta: Meta | None, *, is_rival: bool, serving: bool
) -> frozenset[str]:
    """Check the log of one incarnation; without `meta` each segment for itself.

    Returns the ids that a start writes or deletes when it replays the log.
    """
    folder = inquiry.layout.log(identity.uid)
    next_steps = inquiry.mend
    with inquiry.reading(folder, next_steps):
        segments, problems = _steady(lambda: _read(folder, identity))
        records = sum(run.count for segment in segments for run in segment.runs)
        facts = {"segments": len(segments), "records": records}
        inquiry.facts["log"] = facts
        if not segments:
            inquiry.add(
                Severity.WARNING, folder, "there is no log (wal_missing): what only it had is lost",
                next_steps=advice.find_log(inquiry.layout, identity.uid, meta.applied if meta else None),
            )  # fmt: skip
            return frozenset()
        aside = advice.set_aside(inquiry.layout, inquiry.name)
        with inquiry.reading(inquiry.folder, inquiry.at_rest(aside)):
            refuse_strangers(segments, identity, inquiry.name if is_rival else None)
        applied = meta.applied if meta is not None else 0
        for segment in segments:
            _check_header(inquiry, segment, identity)
            for problem in problems.get(segment.path, ()):
                _tell_of_problem(inquiry, segment, problem, applied)
        if meta is not None:
            replayable = select_records(segments, meta.applied)
            facts["pending"] = replayable.count
            _tell_of_tails(inquiry, segments[:-1] if serving else segments, applied)
            return _steady(lambda: _replayed(folder, identity, meta.applied))
    return frozenset()


def _replayed(folder: Path, identity: Identity, applied: int) -> frozenset[str]:
    records = records_of(select_records(read_log(folder), applied).extents)
    effects = (_effect_of(record, identity) for record in records)
    return frozenset(
        point_id for effect in effects if not isinstance(effect, str) for point_id in effect.ids
    )  # fmt: skip


def _steady(read: Callable[[], _Found]) -> _Found:
    """Read again when the first write after a start replaced the segments meanwhile."""
    for _ in range(READ_ATTEMPTS_MAX):
        try:
            return read()
        except (FileNotFoundError, LogChanged):
            continue
    raise StorageError("its segments changed under each attempt to read them")


def _read(folder: Path, identity: Identity) -> tuple[list[FoundSegment], dict[Path, list[_Problem]]]:
    """Read all segments, and the problems of each one's records."""
    segments = read_log(folder)
    return segments, {segment.path: list(_problems(segment, identity)) for segment in segments}


def _problems(segment: FoundSegment, identity: Identity) -> Iterator[_Problem]:
    for record in segment.records():
        effect = _effect_of(record, identity)
        problem = effect if isinstance(effect, str) else _content_problem(effect)
        if problem is not None:
            message = f"record {record.sequence} passes its checksum, but {problem}"
            yield _Problem(record.sequence, record.offset, message, isinstance(effect, str))


def _check_header(inquiry: Inquiry, segment: FoundSegment, identity: Identity) -> None:
    header = segment.header
    if header is None:
        return
    if header.first_sequence != segment.first_sequence:
        named = segment.path.with_name(segment_name(header.first_sequence))
        inquiry.quarantine(
            segment.path, f"its header says that it begins with sequence {header.first_sequence}", offset=36,
            next_steps=inquiry.at_rest(
                NextStep(command=f"mv {shlex.quote(str(segment.path))} {shlex.quote(str(named))}")
            ),
        )  # fmt: skip
    if header.identity.shape != identity.shape:
        inquiry.quarantine(
            segment.path, "its header has another shape than the collection", offset=28,
            next_steps=inquiry.mend,
        )  # fmt: skip


def _tell_of_problem(inquiry: Inquiry, segment: FoundSegment, problem: _Problem, applied: int) -> None:
    path, offset, next_steps = segment.path, problem.offset, inquiry.mend
    if problem.sequence <= applied:
        inquiry.add(Severity.WARNING, path, f"{problem.message}; it is applied already", offset=offset)
    elif problem.is_undecodable:
        inquiry.quarantine(path, problem.message, offset=offset, next_steps=next_steps)
    else:
        inquiry.add(Severity.ERROR, path, problem.message, offset=offset, next_steps=next_steps)


def _effect_of(record: Record, identity: Identity) -> Effect | str:
    """The effect, or why it cannot be applied."""
    try:
        return decode_effect(record, identity.stride)
    except ValueError as error:
        return f"cannot be applied: {error}"


def _content_problem(effect: Effect) -> str | None:
    """Return which value of an effect no write accepts."""
    payloads = effect.payloads if isinstance(effect, Upsert) else [None] * len(effect.ids)
    problems = map(content_problem, effect.ids, payloads)
    return next((problem for problem in problems if problem is not None), None)


def _tell_of_tails(inquiry: Inquiry, segments: Sequence[FoundSegment], applied: int) -> None:
    for segment in segments:
        beyond = [run for run in segment.runs if run.offset >= segment.valid_bytes]
        if segment.header is None:
            message = "the segment header fails its checksum; what it held is applied already"
            inquiry.add(Severity.WARNING, segment.path, message, offset=0)
        elif any(run.first <= applied for run in beyond):
            message = "a record fails its checksum; what it held is applied already"
            inquiry.add(Severity.WARNING, segment.path, message, offset=segment.valid_bytes)
        elif segment.is_torn:
            size = "1 byte" if segment.tail_bytes == 1 else f"{segment.tail_bytes} bytes"
            message = f"torn tail of {size}, as a crash leaves it; the next start sets it aside"
            inquiry.add(Severity.INFO, segment.path, message, offset=segment.valid_bytes)
