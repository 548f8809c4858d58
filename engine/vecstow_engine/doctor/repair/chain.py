"""The part of a damaged log that still proves itself: records in their order, across what is lost.

A record says which one it follows, so a gap shows as a record that follows an unknown one. Records behind a
gap count as long as something says that the gap was durable; what follows the last durable one and a gap is a
torn tail, as in recovery, and does not count. A segment without a readable header proves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crc32c import crc32c

from vecstow_engine.doctor.check.table import content_problem
from vecstow_engine.doctor.repair.evidence import Loss
from vecstow_engine.storage.log.replay import Extent, FoundSegment, Runs
from vecstow_engine.storage.log.segment import Upsert, decode_effect


@dataclass(frozen=True, slots=True)
class _Gap:
    """Records that are lost: those after `after`, up to and with `upto`."""

    after: int
    upto: int | None
    """None: nothing says how many the segment had."""
    path: Path
    offset: int = 0
    reason: str = "lost, though durable once: missing, or not passing the checksum"


@dataclass(frozen=True, slots=True)
class Chain:
    """The records that count, ascending, and what is missing between them."""

    extents: tuple[Extent, ...]
    gaps: tuple[_Gap, ...]
    newest: int
    """The highest sequence that the table, a header or a record reports; 0 when there is none."""

    def lost(self, applied: int, data: Path) -> Iterator[Loss]:
        """Yield the gaps that no checkpoint covers; files relative to `data`."""
        for gap in self.gaps:
            if gap.upto is None or gap.upto > applied:
                records = max(gap.after, applied) + 1, gap.upto
                yield Loss(gap.reason, os.path.relpath(gap.path, data), gap.offset, records=records)

    def effects(self, stride: int, data: Path) -> Iterator[tuple[Any, ...]]:
        """Yield (id, sequence, row, row checksum, payload, flaw, file, offset) of each id in each record.

        Sequences ascend. A deleted id has no row. Of an id twice in a record the last place counts.
        """
        for extent in self.extents:
            file = os.path.relpath(extent.segment.path, data)
            for record in extent.records():
                effect = decode_effect(record, stride)
                for point_id, line in {point_id: line for line, point_id in enumerate(effect.ids)}.items():
                    row = checksum = payload = flaw = None
                    if isinstance(effect, Upsert):
                        row, payload = effect.rows[line].tobytes(), effect.payloads[line]
                        checksum, flaw = crc32c(row), content_problem(point_id, payload)
                    yield point_id, record.sequence, row, checksum, payload, flaw, file, record.offset


def chain_of(segments: Sequence[FoundSegment], applied: int | None, stride: int) -> Chain:
    """Follow the records of all segments. `applied`: what the point table contains; None: unknown."""
    runs = Runs(segments)
    headers = [segment.header for segment in segments if segment.header is not None]
    found = [run for segment in segments for run in segment.runs]
    durable = max([applied or 0, *(header.synced for header in headers), *(run.synced for run in found)])
    extents: list[Extent] = []
    gaps: list[_Gap] = []
    begins = [begin for begin in (runs.first_followed(), applied) if begin is not None]
    last = first = min(begins, default=0)
    while True:
        for extent in runs.follow(last):
            extents += _usable(extent, stride, gaps)
            last = extent.upto
        if last >= durable:
            break
        following = runs.first_followed(above=last)
        upto = durable if following is None else min(following, durable)
        gaps.append(_Gap(last, upto, *_place(segments, last)))
        last = upto
    extents, gaps = _without_overtaken(extents, gaps, first, applied)
    if segments and segments[-1].header is None:
        # It got its name only with a durable header. What follows an older one shows what is missing there.
        newest = segments[-1]
        reason = "the segment's header is lost, and with it whatever records it held"
        gaps.append(_Gap(max(last, newest.first_sequence - 1), None, newest.path, reason=reason))
    said = [durable, *(header.first_sequence - 1 for header in headers), *(run.last for run in found)]
    return Chain(tuple(extents), tuple(gaps), max(said))


def _usable(extent: Extent, stride: int, gaps: list[_Gap]) -> Iterator[Extent]:
    """Yield the parts of an extent; add the records between them, which cannot be applied, to the gaps."""
    for record in extent.records():
        try:
            decode_effect(record, stride)
        except ValueError:
            gaps.append(_Gap(record.previous, record.sequence, extent.segment.path, record.offset))
            if record.previous > extent.after:
                yield replace(extent, upto=record.previous)
            extent = replace(extent, after=record.sequence)
    if extent.upto > extent.after:
        yield extent


def _without_overtaken(
    extents: list[Extent], gaps: list[_Gap], first: int, applied: int | None
) -> tuple[list[Extent], list[_Gap]]:
    """Remove the records before a gap that the point table contains, or may contain.

    The table may hold what the gap had on their ids, which nothing tells. They are lost with it.
    """
    contained = [gap for gap in gaps if applied is None or gap.after < applied]
    if not contained:
        return extents, gaps
    last = contained[-1]
    gaps = [replace(last, after=first), *gaps[len(contained) :]]
    return [extent for extent in extents if extent.after > last.after], gaps


def _place(segments: Sequence[FoundSegment], last: int) -> tuple[Path, int]:
    """Return where the lost records were: where the segment that begins before them breaks off."""
    before = [segment for segment in segments if segment.first_sequence <= last + 1]
    return (before[-1].path, before[-1].valid_bytes) if before else (segments[0].path, 0)
