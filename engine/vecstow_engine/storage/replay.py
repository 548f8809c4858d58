"""Reading a log back: which records count, what is a torn tail, and what is damage (rule 6 of the disk).

`read_log` observes, `follow` decides and is pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.storage.segment import (
    DELETE,
    HEADER_BYTES,
    RECORD_HEADER_BYTES,
    UPSERT,
    Record,
    SegmentHeader,
    decode_header,
    iterate_records,
)

_SEGMENT_NAME = re.compile(r"[0-9]{20}\.log")


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """One segment file as it was read."""

    path: Path
    header: SegmentHeader | None
    """None when it has no valid header: then nothing in it counts."""
    records: tuple[Record, ...]
    valid_bytes: int
    """Where the unbroken run of records from the header on ends."""
    tail: bytes
    """What stands after that."""

    @property
    def first_sequence(self) -> int:
        """The first sequence it may hold, by its name."""
        return int(self.path.stem)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a log gives above the applied sequence."""

    records: tuple[Record, ...]
    last: int
    """The last sequence of the chain; `applied` when there is none."""
    torn: tuple[FoundSegment, ...] = ()
    """Segments with bytes after their last good record that are not all zero."""
    warnings: tuple[str, ...] = field(default=())


def read_log(folder: Path) -> list[FoundSegment]:
    """All segments of a log's folder, ascending by name; none when the folder is not there."""
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.iterdir() if _SEGMENT_NAME.fullmatch(path.name))
    return [_read_segment(path) for path in paths]


def follow(segments: Sequence[FoundSegment], applied: int) -> Verdict:
    """Chain the records above `applied`; raises DamagedFile when one that was synced is missing."""
    by_previous = successors(segments, applied)
    records: list[Record] = []
    last = applied
    while (place := by_previous.get(last)) is not None:
        records.append(place[1])
        last = place[1].sequence
    _refuse_lost_records(segments, applied, last)
    torn = tuple(segment for segment in segments if any(segment.tail))
    warnings = tuple(f"{segment.path}: no valid header" for segment in segments if segment.header is None)
    return Verdict(tuple(records), last, torn, warnings)


def _read_segment(path: Path) -> FoundSegment:
    raw = path.read_bytes()
    try:
        header = decode_header(raw, str(path))
    except DamagedFile:
        return FoundSegment(path, None, (), 0, raw)
    records, end = records_in(raw, header.seed)
    return FoundSegment(path, header, tuple(records), end, raw[end:])


def records_in(raw: bytes, seed: int) -> tuple[list[Record], int]:
    """Every valid record of a segment's bytes, and where the unbroken run from its header on ends."""
    records = list(iterate_records(raw, seed))
    end = records[-1].offset + RECORD_HEADER_BYTES + len(records[-1].payload) if records else HEADER_BYTES
    if end < len(raw):
        records += _records_beyond(raw, seed, end)
    return records, end


def _records_beyond(raw: bytes, seed: int, start: int) -> Iterator[Record]:
    """Valid records after a bad one, wherever they begin: they may say that the bad one was synced."""
    position = start
    for offset in _plausible_offsets(raw, start):
        if offset >= position:
            for record in iterate_records(raw, seed, offset):
                position = record.offset + RECORD_HEADER_BYTES + len(record.payload)
                yield record


def _plausible_offsets(raw: bytes, start: int) -> list[int]:
    """Offsets whose fixed fields could be a record header's, by eight vectorised passes."""
    found: list[int] = []
    for shift in range(8):
        room = len(raw) - start - shift
        if room < RECORD_HEADER_BYTES:
            break
        words = np.frombuffer(raw, dtype="<u8", offset=start + shift, count=room // 8)
        sequence, previous, synced, kind = words[1:-3], words[2:-2], words[3:-1], words[4:]
        hits = ((kind == UPSERT) | (kind == DELETE)) & (sequence > previous) & (previous >= synced)
        found += (np.flatnonzero(hits) * 8 + start + shift).tolist()
    return sorted(found)


def successors(segments: Sequence[FoundSegment], above: int) -> dict[int, tuple[FoundSegment, Record]]:
    """Records above a sequence, and where they stand, by their `previous`.

    Of two with one `previous` the newer segment's counts.
    """
    return {
        record.previous: (segment, record)
        for segment in sorted(segments, key=_age)
        for record in segment.records
        if record.sequence > above
    }


def _age(segment: FoundSegment) -> tuple[int, int]:
    """Rises from older to newer segments, as their names do not.

    What recovery carries over goes into a segment named after its first record, below the names of those
    that it was found in; their torn tails must not come before what was written since. What was durable never
    falls; at the same mark, it is the segment of the lower name that goes on with new records.
    """
    return segment.header.synced if segment.header is not None else 0, -segment.first_sequence


def _refuse_lost_records(segments: Sequence[FoundSegment], applied: int, last: int) -> None:
    if segments and segments[0].first_sequence > applied + 1:
        raise DamagedFile(
            f"the log begins at sequence {segments[0].first_sequence}, but only {applied} is applied",
            file=str(segments[0].path), offset=0, hint="a segment is missing: restore it or a backup",
        )  # fmt: skip
    for index, segment in enumerate(segments):
        if segment.header is None:
            if not _is_wholly_applied(segments, index, applied):
                raise DamagedFile("the segment header fails its checksum", file=str(segment.path), offset=0)
            continue
        if segment.header.synced > last:
            raise _lost(segment, last, segment.header.synced, 0)
        for record in segment.records:
            if record.synced > last:
                raise _lost(segment, last, record.synced, record.offset)


def _is_wholly_applied(segments: Sequence[FoundSegment], index: int, applied: int) -> bool:
    following = segments[index + 1 : index + 2]
    return bool(following) and following[0].first_sequence <= applied + 1


def _lost(segment: FoundSegment, last: int, synced: int, offset: int) -> DamagedFile:
    return DamagedFile(
        f"records after sequence {last} are missing or fail their checksum, though {synced} was durable",
        file=str(segment.path),
        offset=segment.valid_bytes if offset >= segment.valid_bytes else offset,
    )
