"""The reading of a log: which records count, what is a torn tail, and what is damage (rule 6).

`read_log` observes; `select_records` decides and is pure. Neither keeps a payload: memory grows with the
number of places where the sequence breaks off, not with the length of the log. `Extent.records` reads the
records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
    """Raised when a segment changed after it was read."""


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent valid records of one segment, whose sequences rise by one.

    A record that leaves a gap after its previous one is a run of its own.
    """

    previous: int
    """The previous sequence of the first record."""
    last: int
    count: int
    offset: int
    end: int
    """The byte offsets in the file where the run begins (`offset`) and ends (`end`)."""
    synced: int
    """The highest sequence that a record of the run reports as durable."""

    @property
    def first(self) -> int:
        """The sequence of the first record."""
        return self.last - self.count + 1

    def follows(self, sequence: int) -> bool:
        """Whether a record of the run has `sequence` as its previous sequence."""
        return sequence == self.previous or self.first <= sequence < self.last

    def extended(self, head: RecordHead) -> Run | None:
        """Return the run with the next record added; None when that record begins another run."""
        dense = self.first == self.previous + 1
        if not dense or (head.previous, head.sequence, head.offset) != (self.last, self.last + 1, self.end):
            return None
        synced = max(self.synced, head.synced)
        return Run(self.previous, head.sequence, self.count + 1, self.offset, head.end, synced)


@dataclass(frozen=True, slots=True)
class FoundSegment:
    """The content of one segment file."""

    path: Path
    header: SegmentHeader | None
    """None when the file has no valid header; then none of its records count."""
    runs: tuple[Run, ...]
    valid_bytes: int
    """The offset where the unbroken sequence of records after the header ends."""
    size: int
    is_torn: bool
    """Whether a byte after `valid_bytes` is not zero."""

    @property
    def first_sequence(self) -> int:
        """The first sequence that the segment may hold, according to its name."""
        return int(self.path.stem)

    @property
    def tail_bytes(self) -> int:
        """The number of bytes after the valid ones."""
        return self.size - self.valid_bytes

    def records(self) -> Iterator[Record]:
        """Read every valid record; raise the errors of `Extent.records`."""
        for run in self.runs:
            yield from Extent(self, run, run.previous, run.last).records()


@dataclass(frozen=True, slots=True)
class Extent:
    """The records of one run that count: those above `after`, up to and including `upto`."""

    segment: FoundSegment
    run: Run
    after: int
    upto: int

    @property
    def count(self) -> int:
        """The number of these records."""
        return min(self.run.count, self.upto - self.after)

    def records(self) -> Iterator[Record]:
        """Read the records one at a time; raise LogChanged when they are gone, or an OSError."""
        assert self.segment.header is not None
        last = self.after
        with self.segment.path.open("rb", buffering=BLOCK_BYTES) as stream:
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
    """The records of a log above the applied sequence."""

    extents: tuple[Extent, ...]
    last: int
    """The last sequence of the chain; the applied sequence when the chain is empty."""
    torn: tuple[FoundSegment, ...] = ()
    """Segments with bytes after their last good record that are not all zero."""
    warnings: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """The number of records."""
        return sum(extent.count for extent in self.extents)


class Runs:
    """All runs of a log. Of two records with the same previous sequence, the newer segment's counts."""

    def __init__(self, segments: Sequence[FoundSegment]) -> None:
        self._runs = [(segment, run) for segment in sorted(segments, key=_age) for run in segment.runs]

    def follow(self, last: int) -> Iterator[Extent]:
        """Yield the chain of records after the sequence `last`."""
        while (extent := self._after(last)) is not None:
            yield extent
            last = extent.upto

    def first_followed(self, above: int = -1) -> int | None:
        """Return the lowest sequence above `above` after which a run begins; None when there is none."""
        return min((run.previous for _, run in self._runs if run.previous > above), default=None)

    def _after(self, last: int) -> Extent | None:
        found = [number for number, (_, run) in enumerate(self._runs) if run.follows(last)]
        if not found:
            return None
        segment, run = self._runs[found[-1]]
        newer = (run.previous for _, run in self._runs[found[-1] + 1 :])
        # A newer run that follows a record of this run replaces every later record of this run.
        replaced_after = [previous for previous in newer if previous > last and run.follows(previous)]
        return Extent(segment, run, last, min([run.last, *replaced_after]))


def records_of(extents: Iterable[Extent]) -> Iterator[Record]:
    """Read the records of all extents, one at a time; raise the errors of `Extent.records`."""
    for extent in extents:
        yield from extent.records()


def segment_paths(folder: Path) -> list[Path]:
    """Return the segments in a log's folder, ascending by name; none when the folder is missing."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _SEGMENT_NAME.fullmatch(path.name))


def read_log(folder: Path) -> list[FoundSegment]:
    """Read all segments in a log's folder, ascending by name; raise NewerFormat or an OSError."""
    return [_read_segment(path) for path in segment_paths(folder)]


def read_headers(folder: Path) -> list[SegmentHeader]:
    """Read the valid headers of a log's segments, ascending by name; raise NewerFormat or an OSError."""
    found = []
    for path in segment_paths(folder):
        with path.open("rb") as stream:
            found.append(_header_of(stream, path))
    return [header for header in found if header is not None]


def select_records(segments: Sequence[FoundSegment], applied: int) -> Replayable:
    """Chain the records above `applied`; raise DamagedFile when one that was synced is missing."""
    extents = tuple(Runs(segments).follow(applied))
    last = extents[-1].upto if extents else applied
    _refuse_lost_records(segments, applied, last)
    torn = tuple(segment for segment in segments if segment.is_torn)
    warnings = tuple(f"{segment.path}: no valid header" for segment in segments if segment.header is None)
    return Replayable(extents, last, torn, warnings)


def runs_in(stream: BinaryIO, path: Path, header: SegmentHeader) -> FoundSegment:
    """Read the runs of an open segment."""
    runs: list[Run] = []
    end = _gather(runs, heads(stream, header.seed), HEADER_BYTES)
    _gather(runs, heads_beyond(stream, header.seed, end), end)
    return FoundSegment(path, header, tuple(runs), end, size_of(stream), has_content(stream, end))


def _read_segment(path: Path) -> FoundSegment:
    with path.open("rb", buffering=BLOCK_BYTES) as stream:
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
    """Add records to the runs; return the offset where the last one ends, or `end` without a record."""
    for head in found:
        if runs and (longer := runs[-1].extended(head)) is not None:
            runs[-1] = longer
        else:
            runs.append(Run(head.previous, head.sequence, 1, head.offset, head.end, head.synced))
        end = head.end
    return end


def _age(segment: FoundSegment) -> tuple[int, int]:
    """Return a sort key that rises from older to newer segments. The order of names differs from this order.

    Recovery repeats carried records in a segment that is named after the first of them. That name can be
    below the names of the found segments. A torn tail of a found segment must not replace records that were
    written later. `synced` never falls from a segment to a newer one. At the same `synced`, the segment of
    the lower name is the newer one.
    """
    return segment.header.synced if segment.header is not None else 0, -segment.first_sequence


def _refuse_lost_records(segments: Sequence[FoundSegment], applied: int, last: int) -> None:
    if segments and segments[0].first_sequence > applied + 1:
        message = f"the log begins at sequence {segments[0].first_sequence}, but only {applied} is applied"
        hint = "a segment is missing: restore it or a backup"
        raise DamagedFile(message, file=str(segments[0].path), offset=0, hint=hint)
    for index, segment in enumerate(segments):
        if segment.header is None:
            following = segments[index + 1 : index + 2]
            if not following or following[0].first_sequence > applied + 1:
                raise DamagedFile("the segment header fails its checksum", file=str(segment.path), offset=0)
            continue
        if segment.header.synced > last:
            raise _lost(segment, last, segment.header.synced, 0)
        for run in segment.runs:
            if run.synced > last:
                raise _lost(segment, last, run.synced, run.offset)


def _lost(segment: FoundSegment, last: int, synced: int, offset: int) -> DamagedFile:
    return DamagedFile(
        f"records after sequence {last} are missing or fail their checksum, though {synced} was durable",
        file=str(segment.path),
        offset=segment.valid_bytes if offset >= segment.valid_bytes else offset,
    )
