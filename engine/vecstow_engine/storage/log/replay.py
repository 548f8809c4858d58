"""Reading a log back: which records count, what is a torn tail, and what is damage (rule 6 of the disk).

`read_log` observes, `select_records` decides and is pure. Neither keeps a payload: memory grows with the
number of places where a log breaks off, not with its length. `Extent.records` reads what counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from vecstow_engine.model.errors import DamagedFile, StorageError
from vecstow_engine.storage.log.segment import (
    HEADER_BYTES,
    Record,
    RecordHead,
    SegmentHeader,
    decode_header,
)
from vecstow_engine.storage.log.segment_reader import (
    BLOCK_BYTES,
    has_content,
    heads,
    heads_beyond,
    iterate_records,
    size_of,
)

_SEGMENT_NAME = re.compile(r"[0-9]{20}\.log")


class LogChanged(StorageError):
    """Raised when a segment is no longer as it was read."""


@dataclass(frozen=True, slots=True)
class Run:
    """Valid records of one segment, one behind the other, whose sequences rise by one.

    A record that leaves a gap after its previous one is a run of its own.
    """

    previous: int
    """What the first record follows."""
    last: int
    count: int
    offset: int
    end: int
    """Where it begins and ends in the file."""
    synced: int
    """The highest sequence that one of the records calls durable."""

    @property
    def first(self) -> int:
        """The sequence of the first record."""
        return self.last - self.count + 1

    def follows(self, sequence: int) -> bool:
        """Whether one of the records follows `sequence`."""
        return sequence == self.previous or self.first <= sequence < self.last

    def extended(self, head: RecordHead) -> Run | None:
        """Return the run with the next record; None when that begins another run."""
        dense = self.first == self.previous + 1
        if not dense or (head.previous, head.sequence, head.offset) != (self.last, self.last + 1, self.end):
            return None
        synced = max(self.synced, head.synced)
        return Run(self.previous, head.sequence, self.count + 1, self.offset, head.end, synced)


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """One segment file as it was read."""

    path: Path
    header: SegmentHeader | None
    """None when it has no valid header: then nothing in it counts."""
    runs: tuple[Run, ...]
    valid_bytes: int
    """Where the unbroken sequence of records from the header on ends."""
    size: int
    is_torn: bool
    """Bytes after that are not all zero."""

    @property
    def first_sequence(self) -> int:
        """The first sequence it may hold, by its name."""
        return int(self.path.stem)

    @property
    def tail_bytes(self) -> int:
        """How many bytes stand after the valid ones."""
        return self.size - self.valid_bytes

    def records(self) -> Iterator[Record]:
        """Read every valid record; raises as `Extent.records`."""
        for run in self.runs:
            yield from Extent(self, run, run.previous, run.last).records()


@dataclass(frozen=True, slots=True)
class Extent:
    """The records of one run that count: those after one sequence, up to and with another."""

    segment: FoundSegment
    run: Run
    after: int
    upto: int

    @property
    def count(self) -> int:
        """How many they are."""
        return min(self.run.count, self.upto - self.after)

    def records(self) -> Iterator[Record]:
        """Read them, one at a time; raises LogChanged when they are no longer there, or an OSError."""
        assert self.segment.header is not None
        last = self.after
        with _opened(self.segment.path) as stream:
            for record in iterate_records(stream, self.segment.header.seed, self.run.offset):
                if self.after < record.sequence <= self.upto:
                    last = record.sequence
                    yield record
                if record.sequence >= self.upto:
                    break
        if last != self.upto:
            raise LogChanged(f"{self.segment.path} changed while it was read, after sequence {last}")


@dataclass(frozen=True, slots=True)
class Replayable:
    """What a log gives above the applied sequence."""

    extents: tuple[Extent, ...]
    last: int
    """The last sequence of the chain; `applied` when there is none."""
    torn: tuple[FoundSegment, ...] = ()
    """Segments with bytes after their last good record that are not all zero."""
    warnings: tuple[str, ...] = field(default=())

    @property
    def count(self) -> int:
        """How many records it gives."""
        return sum(extent.count for extent in self.extents)


class Runs:
    """All runs of a log. Of two records that follow the same one, the newer segment's counts."""

    def __init__(self, segments: Sequence[FoundSegment]) -> None:
        self._runs = [(segment, run) for segment in sorted(segments, key=_age) for run in segment.runs]

    def follow(self, last: int) -> Iterator[Extent]:
        """Yield the records that follow `last`, each the one before it."""
        while (extent := self._after(last)) is not None:
            yield extent
            last = extent.upto

    def first_followed(self, above: int = -1) -> int | None:
        """Return the lowest sequence above `above` that a run begins after; None when there is none."""
        return min((run.previous for _, run in self._runs if run.previous > above), default=None)

    def _after(self, last: int) -> Extent | None:
        found = [number for number, (_, run) in enumerate(self._runs) if run.follows(last)]
        if not found:
            return None
        segment, run = self._runs[found[-1]]
        newer = (run.previous for _, run in self._runs[found[-1] + 1 :])
        overtaken = [previous for previous in newer if previous > last and run.follows(previous)]
        return Extent(segment, run, last, min([run.last, *overtaken]))


def records_of(extents: Iterable[Extent]) -> Iterator[Record]:
    """Read the records of all extents, one at a time; raises as `Extent.records`."""
    for extent in extents:
        yield from extent.records()


def segment_paths(folder: Path) -> list[Path]:
    """The segments of a log's folder, ascending by name; none when the folder is not there."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _SEGMENT_NAME.fullmatch(path.name))


def read_log(folder: Path) -> list[FoundSegment]:
    """Read all segments of a log's folder, ascending by name; raises NewerFormat or an OSError."""
    return [_read_segment(path) for path in segment_paths(folder)]


def read_headers(folder: Path) -> list[SegmentHeader]:
    """Read the valid headers of a log's segments, ascending by name; raises NewerFormat or an OSError."""
    found = []
    for path in segment_paths(folder):
        with path.open("rb") as stream:
            header = _header_of(stream, path)
        if header is not None:
            found.append(header)
    return found


def select_records(segments: Sequence[FoundSegment], applied: int) -> Replayable:
    """Chain the records above `applied`; raises DamagedFile when one that was synced is missing."""
    extents = tuple(Runs(segments).follow(applied))
    last = extents[-1].upto if extents else applied
    _refuse_lost_records(segments, applied, last)
    torn = tuple(segment for segment in segments if segment.is_torn)
    warnings = tuple(f"{segment.path}: no valid header" for segment in segments if segment.header is None)
    return Replayable(extents, last, torn, warnings)


def read_runs(path: Path, header: SegmentHeader) -> FoundSegment:
    """Read a segment, with this for its header."""
    with _opened(path) as stream:
        return runs_in(stream, path, header)


def runs_in(stream: BinaryIO, path: Path, header: SegmentHeader) -> FoundSegment:
    """Read the runs of an open segment."""
    runs: list[Run] = []
    end = _gather(runs, heads(stream, header.seed), HEADER_BYTES)
    _gather(runs, heads_beyond(stream, header.seed, end), end)
    return FoundSegment(path, header, tuple(runs), end, size_of(stream), has_content(stream, end))


def _opened(path: Path) -> BinaryIO:
    return path.open("rb", buffering=BLOCK_BYTES)


def _read_segment(path: Path) -> FoundSegment:
    with _opened(path) as stream:
        header = _header_of(stream, path)
        if header is None:
            return FoundSegment(path, None, (), 0, size_of(stream), has_content(stream, 0))
        return runs_in(stream, path, header)


def _header_of(stream: BinaryIO, path: Path) -> SegmentHeader | None:
    try:
        return decode_header(stream.read(HEADER_BYTES), str(path))
    except DamagedFile:
        return None


def _gather(runs: list[Run], found: Iterable[RecordHead], end: int) -> int:
    """Add records to the runs; returns where the last one ends, or `end`."""
    for head in found:
        longer = runs[-1].extended(head) if runs else None
        if longer is not None:
            runs[-1] = longer
        else:
            runs.append(Run(head.previous, head.sequence, 1, head.offset, head.end, head.synced))
        end = head.end
    return end


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
        for run in segment.runs:
            if run.synced > last:
                raise _lost(segment, last, run.synced, run.offset)


def _is_wholly_applied(segments: Sequence[FoundSegment], index: int, applied: int) -> bool:
    following = segments[index + 1 : index + 2]
    return bool(following) and following[0].first_sequence <= applied + 1


def _lost(segment: FoundSegment, last: int, synced: int, offset: int) -> DamagedFile:
    return DamagedFile(
        f"records after sequence {last} are missing or fail their checksum, though {synced} was durable",
        file=str(segment.path),
        offset=segment.valid_bytes if offset >= segment.valid_bytes else offset,
    )
