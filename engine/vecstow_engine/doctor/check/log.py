"""The check of the write-ahead log: segment headers, records, the chain, and what a start makes of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from vecstow_engine.doctor.check.advice import NextStep, set_aside
from vecstow_engine.doctor.check.findings import Inquiry, Severity
from vecstow_engine.doctor.check.table import content_problem
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
from vecstow_engine.storage.log.segment import Upsert, decode_effect
from vecstow_engine.storage.points.records import Meta
from vecstow_engine.storage.recovery_plan import refuse_strangers

READ_ATTEMPTS_MAX: Final = 5

_Read = TypeVar("_Read")


class _Problem(NamedTuple):
    """The fault of a record that passes its checksum."""

    sequence: int
    offset: int
    what: str
    is_undecodable: bool


def check_log(inquiry: Inquiry, identity: Identity, meta: Meta | None) -> frozenset[str]:
    """Check the log of one incarnation; without `meta` check each segment for itself.

    Returns the ids that a start writes or deletes when it replays the log.
    """
    folder = inquiry.layout.log(identity.uid)
    with inquiry.reading(folder):
        segments, problems = _steady(lambda: _read(folder, identity))
        facts = {"segments": len(segments), "records": sum(r.count for s in segments for r in s.runs)}
        inquiry.facts["log"] = facts
        if not segments:
            _report_missing(inquiry, folder, meta)
            return frozenset()
        aside = set_aside(inquiry.layout, inquiry.name)
        with inquiry.reading(inquiry.folder, lambda: inquiry.remedies.at_rest(aside)):
            refuse_strangers(segments, identity, inquiry.name if inquiry.is_rival else None)
        applied = meta.applied if meta is not None else 0
        for segment in segments:
            _check_header(inquiry, segment, identity)
            for problem in problems[segment.path]:
                _report_problem(inquiry, segment.path, problem, applied)
        if meta is not None:
            facts["pending"] = select_records(segments, applied).count
            _report_tails(inquiry, segments[:-1] if inquiry.serving else segments, applied)
            return _steady(lambda: _replayed(folder, identity, applied))
    return frozenset()


def _replayed(folder: Path, identity: Identity, applied: int) -> frozenset[str]:
    ids: set[str] = set()
    for record in records_of(select_records(read_log(folder), applied).extents):
        with suppress(ValueError):  # Reported already.
            ids.update(decode_effect(record, identity.stride).ids)
    return frozenset(ids)


def _steady(read: Callable[[], _Read]) -> _Read:
    """Read again when the first write after a start replaced the segments meanwhile."""
    for _ in range(READ_ATTEMPTS_MAX):
        with suppress(FileNotFoundError, LogChanged):
            return read()
    raise StorageError("its segments changed under each attempt to read them")


def _read(folder: Path, identity: Identity) -> tuple[list[FoundSegment], dict[Path, list[_Problem]]]:
    """Read all segments, and the problems of their records."""
    segments = read_log(folder)
    return segments, {segment.path: list(_problems(segment, identity)) for segment in segments}


def _problems(segment: FoundSegment, identity: Identity) -> Iterator[_Problem]:
    for record in segment.records():
        try:
            effect = decode_effect(record, identity.stride)
        except ValueError as error:
            yield _Problem(record.sequence, record.offset, f"cannot be applied: {error}", is_undecodable=True)
            continue
        payloads = effect.payloads if isinstance(effect, Upsert) else [None] * len(effect.ids)
        for what in islice(filter(None, map(content_problem, effect.ids, payloads)), 1):
            yield _Problem(record.sequence, record.offset, what, is_undecodable=False)


def _report_missing(inquiry: Inquiry, folder: Path, meta: Meta | None) -> None:
    checkpoint = "the last checkpoint" if meta is None else f"the last checkpoint (sequence {meta.applied})"
    log = folder.relative_to(inquiry.layout.data)
    lost = (
        f"acknowledged writes after {checkpoint} are lost unless a copy of the volume has {log}: "
        "copy that back while no engine runs, and before anything is written: "
        "a new log's segments have those names"
    )
    message = "there is no log (wal_missing): what only it had is lost"
    inquiry.add(Severity.WARNING, folder, message, steps=(NextStep(lost),))


def _check_header(inquiry: Inquiry, segment: FoundSegment, identity: Identity) -> None:
    path, header = segment.path, segment.header
    if header is None:
        return
    if header.first_sequence != segment.first_sequence:
        named = path.with_name(segment_name(header.first_sequence))
        move = NextStep(command=f"mv {shlex.quote(str(path))} {shlex.quote(str(named))}")
        message = f"its header says that it begins with sequence {header.first_sequence}"
        inquiry.quarantine(path, message, offset=36, steps=inquiry.remedies.at_rest(move))
    if header.identity.shape != identity.shape:
        inquiry.quarantine(path, "its header has another shape than the collection", offset=28)


def _report_problem(inquiry: Inquiry, path: Path, problem: _Problem, applied: int) -> None:
    message = f"record {problem.sequence} passes its checksum, but {problem.what}"
    if problem.sequence <= applied:
        inquiry.add(Severity.WARNING, path, f"{message}; it is applied already", offset=problem.offset)
    elif problem.is_undecodable:
        inquiry.quarantine(path, message, offset=problem.offset)
    else:
        inquiry.add(Severity.ERROR, path, message, offset=problem.offset)


def _report_tails(inquiry: Inquiry, segments: Sequence[FoundSegment], applied: int) -> None:
    for segment in segments:
        beyond = [run for run in segment.runs if run.offset >= segment.valid_bytes]
        if segment.header is None or any(run.first <= applied for run in beyond):
            what = "the segment header" if segment.header is None else "a record"
            message = f"{what} fails its checksum; what it held is applied already"
            inquiry.add(Severity.WARNING, segment.path, message, offset=segment.valid_bytes)
        elif segment.is_torn:
            size = "1 byte" if segment.tail_bytes == 1 else f"{segment.tail_bytes} bytes"
            message = f"torn tail of {size}, as a crash leaves it; the next start sets it aside"
            inquiry.add(Severity.INFO, segment.path, message, offset=segment.valid_bytes)
