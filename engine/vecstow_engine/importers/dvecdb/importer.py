"""The importer of a `vectors.bin` that d-vecDB wrote: read record by record, and past damaged bytes."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.importers.dvecdb.metadata import Candidate, MetadataReader
from vecstow_engine.importers.dvecdb.record_file import (
    FRAME_BYTES,
    HEAD_BYTES,
    METADATA_BYTES_MAX,
    RecordFile,
    RecordHeader,
    detect,
)
from vecstow_engine.importers.report import ImportReport
from vecstow_engine.model.errors import InvalidInput, TooLarge, refused
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.points import PointBatch
from vecstow_engine.storage.backup import Settled
from vecstow_engine.storage.creation import bulk_load
from vecstow_engine.storage.layout import ROWS, Layout

BATCH_POINTS: Final = 4096
SURVEY_RECORDS_MAX: Final = 2_000
"""The number of records that the survey reads before the first point is returned."""
SURVEY_BYTES_MAX: Final = 4 * 1024 * 1024
HEADS_MAX: Final = 64
"""The heads that are examined to find the end of one record's metadata, which may contain similar bytes."""
ENDS_MAX: Final = 2
"""The number of these heads at which a reading may end."""
FILLING_BYTES_MIN: Final = 64
"""The zeros that count as the file's filling; fewer may be values of a record that was cut short."""
FILLING_BYTES_READ: Final = 4_096
"""The zeros of the filling that may belong to the last record."""


@dataclass(frozen=True, slots=True)
class ForeignPoint:
    """One record: `vector` is float32 (dimension,), finite and read-only; the record begins at `offset`."""

    id: str
    vector: NDArray[np.float32]
    metadata: dict[str, Any] | None
    offset: int


def build(layout: Layout, source: Path, staging: Path, wanted: Manifest) -> tuple[Settled, ImportReport]:
    """Make the collection `wanted` from `source`, in the new folder `staging`; skip unreadable records.

    The manifest is written last. Returns the collection and a report. Raises InvalidInput when the file holds
    another shape, DiskFull or StorageError.
    """
    report = ImportReport()
    made = bulk_load(staging, wanted, _batches(source / ROWS, wanted, report))
    return Settled(*made, remarks=report.remarks()), report


def _batches(path: Path, wanted: Manifest, report: ImportReport) -> Iterator[PointBatch]:
    for points in read_batches(read_vectors(path, wanted.dimension, report), BATCH_POINTS):
        try:
            yield _batch_of(wanted, points)
        except (InvalidInput, TooLarge):
            if fitting := [point for point in points if _fits(wanted, point, report)]:
                yield _batch_of(wanted, fitting)


def _fits(wanted: Manifest, point: ForeignPoint, report: ImportReport) -> bool:
    """Whether a point is within the limits; another one is reported as skipped."""
    try:
        _batch_of(wanted, [point])
    except (InvalidInput, TooLarge) as error:
        report.skip(point.offset, f"{point.id}: {error.message}")
        return False
    return True


def _batch_of(wanted: Manifest, points: list[ForeignPoint]) -> PointBatch:
    rows = np.stack([p.vector for p in points]) if points else np.zeros((0, wanted.dimension), np.float32)
    return PointBatch.build(wanted, [p.id for p in points], rows, [p.metadata for p in points])


def read_vectors(path: Path, dimension: int, report: ImportReport) -> Iterator[ForeignPoint]:
    """Yield every record in file order, also those that d-vecDB deleted, since deletes never reach the file.

    An id may be repeated; the later record wins. The iteration fills `report`. A record that cannot be read
    whole is skipped and reported, never yielded in part. At its start, the iteration raises StorageError for
    a file that cannot be read, and InvalidInput for a file with another dimension.
    """
    with contextlib.closing(RecordFile(path, dimension)) as source:
        yield from _Reader(source, report).points()


def read_batches(points: Iterable[ForeignPoint], size: int) -> Iterator[list[ForeignPoint]]:
    """Yield the points in lists of up to `size` in which each id is unique; the later record wins.

    Upserts in this order leave a collection with the last record of every id.
    """
    batch: dict[str, ForeignPoint] = {}
    for point in points:
        batch[point.id] = point
        if len(batch) >= size:
            yield list(batch.values())
            batch.clear()
    if batch:
        yield list(batch.values())


class _UnreadableError(Exception):
    """Raised for a record that cannot be read; the search for the next one begins at `resume`."""

    def __init__(self, reason: str, resume: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.resume = resume


class _Reader:
    def __init__(self, source: RecordFile, report: ImportReport) -> None:
        self._source = source
        self._report = report
        self._metadata = MetadataReader(report)
        self._without_metadata = 0

    def points(self) -> Iterator[ForeignPoint]:
        self._check_dimension()
        self._metadata.survey(self._survey())
        offset = 0
        while offset < self._source.size:
            head = self._source.head_at(offset)
            if head is None:
                offset = self._pass_over(offset)
                continue
            try:
                vector = self._vector(head)
                metadata, end = self._metadata_of(head)
            except _UnreadableError as problem:
                self._report.skip(head.offset, problem.reason)
                offset = self._next_offset(problem.resume)
                continue
            self._report.count(head.format)
            self._without_metadata += metadata is None
            # d-vecDB stores the bytes of a UUID in the order of its digits.
            yield ForeignPoint(str(uuid.UUID(bytes=head.id)), vector, metadata, head.offset)
            offset = end

    def _check_dimension(self) -> None:
        found = detect(self._source.read(0, FRAME_BYTES + HEAD_BYTES))
        if found is None or found[1] == self._source.dimension:
            return
        if self._source.next_record(0) is None:
            raise InvalidInput(
                f"{self._source.path} holds vectors of dimension {found[1]}, not {self._source.dimension}",
                hint=f"import it with dimension {found[1]}",
                details=refused("dimension", self._source.dimension, found[1]),
            )

    def _survey(self) -> Iterator[bytes]:
        """Yield the metadata of the first records when it was stored without types."""
        head = self._source.next_record(0)
        surveyed_bytes = 0
        for _ in range(SURVEY_RECORDS_MAX):
            if head is None or head.length is not None or surveyed_bytes > SURVEY_BYTES_MAX:
                return
            start = head.body + self._source.fixed_bytes
            head = self._source.next_record(start, self._metadata_stop(start))
            if head is not None and self._source.read(start - 1, 1) == b"\1":
                surveyed_bytes += head.offset - start
                yield self._source.read(start, head.offset - start)

    def _pass_over(self, offset: int) -> int:
        """Return the offset after bytes that are no record; report them, except the filling at the end."""
        end = self._next_offset(offset)
        zeros_end = self._source.zeros_end(offset)
        if zeros_end < self._source.size:
            what = "zeros between records" if zeros_end >= end else "bytes that hold no record"
            self._report.skip(offset, f"{end - offset} {what}")
        return end

    def _next_offset(self, start: int) -> int:
        head = self._source.next_record(start)
        return self._source.size if head is None else head.offset

    def _vector(self, head: RecordHeader) -> NDArray[np.float32]:
        length = 4 * self._source.dimension
        raw = self._source.read(head.body + HEAD_BYTES, length)
        if len(raw) < length:
            raise _UnreadableError("the file ends inside this record", head.body + HEAD_BYTES)
        vector = np.frombuffer(raw, np.float32)
        if not np.isfinite(vector).all():
            raise _UnreadableError("the vector holds NaN or an infinity", head.body + HEAD_BYTES + length)
        return vector

    def _metadata_of(self, head: RecordHeader) -> tuple[dict[str, Any] | None, int]:
        """Return the metadata, None where the record has none, and the offset where the record ends."""
        start = head.body + self._source.fixed_bytes
        tag = self._source.read(start - 1, 1)
        if tag not in (b"\0", b"\1"):
            reason = "cut short before its metadata" if not tag else f"byte {tag[0]} where 0 or 1 must be"
            raise _UnreadableError(reason, start)
        if head.length is not None:
            return self._framed(head, start, tag == b"\1")
        return self._unframed(head, start) if tag == b"\1" else (None, self._bare_end(start))

    def _framed(
        self, head: RecordHeader, start: int, has_metadata: bool
    ) -> tuple[dict[str, Any] | None, int]:
        end = head.body + (head.length or 0)
        if end > self._source.size:
            raise _UnreadableError("the file ends inside this record", start)
        if not has_metadata:
            if end != start:
                raise _UnreadableError(f"length {head.length} does not fit a record without metadata", start)
            return None, end
        found = self._metadata.read([(self._source.read(start, end - start), end - start)], head.offset)
        if found is None:
            raise _UnreadableError("the metadata is no JSON object of the length that it states", start)
        return found[0], end

    def _bare_end(self, start: int) -> int:
        """Return the end of an unframed record without metadata.

        A record or zeros must follow, or at least half of the earlier records must have no metadata.
        """
        if self._source.head_at(start) is None:
            following = self._source.read(start, FILLING_BYTES_MIN)
            if following.strip(b"\0") and self._report.points > 2 * self._without_metadata:
                raise _UnreadableError("no metadata by its mark, but no record follows", start)
        return start

    def _unframed(self, head: RecordHeader, start: int) -> tuple[dict[str, Any], int]:
        """Return the metadata, which ends at the next record or at the file's last nonzero byte."""
        found = self._metadata.read(self._candidates(start), head.offset)
        if found is None:
            after = next(self._source.heads(start + 8, self._metadata_stop(start)), None)
            if after is None:
                raise _UnreadableError(self._why_not_the_last(start), start)
            found = self._metadata.open_ended(self._source.read(start, after.offset - start), head.offset)
        if found is None:
            reason = "the metadata cannot be read as a map that ends where a record begins"
            raise _UnreadableError(reason, start)
        return found[0], start + found[1]

    def _candidates(self, start: int) -> Iterator[Candidate]:
        """Yield the bytes that the metadata at `start` may have, the most likely first.

        They end where a record seems to follow, then at the filling, then at a head without a sign of a
        record.
        """
        stop = self._metadata_stop(start)
        doubted: list[int] = []
        followed = 0
        for head in islice(self._source.heads(start + 8, stop), HEADS_MAX):
            if not self._source.is_followed(head):
                doubted.append(head.offset)
                continue
            followed += 1
            yield self._source.read(start, head.offset - start), head.offset - start
            if followed == ENDS_MAX:
                break
        window = self._source.read(start, stop - start)
        data_bytes = len(window.rstrip(b"\0"))
        if len(window) - data_bytes >= FILLING_BYTES_MIN:
            yield window[: data_bytes + FILLING_BYTES_READ], data_bytes
        for end in doubted[:ENDS_MAX]:
            yield self._source.read(start, end - start), end - start

    def _why_not_the_last(self, start: int) -> str:
        window = self._source.read(start, METADATA_BYTES_MAX + 8)
        if len(window) - len(window.rstrip(b"\0")) >= FILLING_BYTES_MIN:
            return "the metadata cannot be read as a map"
        # Without the filling, a whole record and one that lost its last values look the same.
        ends = start + len(window) == self._source.size
        return "the file ends inside this record or right behind it" if ends else "metadata above 1 MiB"

    def _metadata_stop(self, start: int) -> int:
        return start + 8 + METADATA_BYTES_MAX
