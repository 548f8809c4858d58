"""The part of a damaged log that still proves itself: records in their order, across what is lost.

A record says which one it follows, so a gap shows as a record that follows an unknown one. Records behind a
gap count as long as something says that the gap was durable; what follows the last durable one and a gap is a
torn tail, as in recovery, and does not count. A segment without a readable header tells nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crc32c import crc32c

from vecstow_engine.doctor.check.content import content_problem
from vecstow_engine.storage.log.replay import Extent, FoundSegment, Runs
from vecstow_engine.storage.log.segment import Effect, Upsert, decode_effect


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that are lost: those after `after`, up to and with `upto`."""

    after: int
    upto: int | None
    """None: nothing says how many the segment, or the log, had."""
    file: str
    offset: int = 0
    reason: str = "lost, though durable once: missing, or not passing the checksum"


@dataclass(frozen=True, slots=True)
class Chain:
    """The records that count, ascending, and what is missing between them."""

    extents: tuple[Extent, ...]
    gaps: tuple[Gap, ...]
    newest: int
    """The highest sequence that any intact header or record speaks of; 0 when there is none."""

    def lost(self, applied: int) -> tuple[Gap, ...]:
        """Return the gaps that no checkpoint covers."""
        left = (gap for gap in self.gaps if gap.upto is None or gap.upto > applied)
        return tuple(replace(gap, after=max(gap.after, applied)) for gap in left)

    def effects(self, stride: int, data: Path) -> Iterator[tuple[Any, ...]]:
        """Yield (id, sequence, row, row checksum, payload, flaw, file, offset) of each id in each record.

        Sequences ascend. A deleted id has no row. Of an id twice in a record the last place counts.
        """
        for extent in self.extents:
            file = os.path.relpath(extent.segment.path, data)
            for record in extent.records():
                for point_id, row, payload in _changes(decode_effect(record, stride)):
                    flaw = content_problem(point_id, payload) if row is not None else None
                    checksum = crc32c(row) if row is not None else None
                    yield point_id, record.sequence, row, checksum, payload, flaw, file, record.offset


def chain_of(segments: Sequence[FoundSegment], applied: int | None, stride: int) -> Chain:
    """Follow the records of all segments. `applied`: what the point table contains; None: unknown."""
    runs = Runs(segments)
    durable = max([applied or 0, *map(_synced, segments)])
    extents: list[Extent] = []
    gaps: list[Gap] = []
    last = first = _beginning(runs, applied)
    while True:
        for extent in runs.follow(last):
            extents.append(extent)
            last = extent.upto
        if last >= durable:
            break
        following = runs.first_followed(above=last)
        upto = durable if following is None else min(following, durable)
        gaps.append(Gap(last, upto, *_place(segments, last)))
        last = upto
    chain = _without_unusable(Chain(tuple(extents), tuple(gaps), _newest(segments)), stride)
    chain = _without_overtaken(chain, first, applied)
    return replace(chain, gaps=(*chain.gaps, *_unread(segments, last)))


def _without_unusable(chain: Chain, stride: int) -> Chain:
    """Return the chain with the records that pass their checksums but cannot be applied as gaps."""
    usable: list[Extent] = []
    gaps = list(chain.gaps)
    for extent in chain.extents:
        for record in extent.records():
            try:
                decode_effect(record, stride)
            except ValueError:
                gaps.append(Gap(record.previous, record.sequence, str(extent.segment.path), record.offset))
                usable.append(replace(extent, upto=record.previous))
                extent = replace(extent, after=record.sequence)
        usable.append(extent)
    gaps.sort(key=lambda gap: gap.after)
    return replace(chain, extents=tuple(part for part in usable if part.upto > part.after), gaps=tuple(gaps))


def _without_overtaken(chain: Chain, first: int, applied: int | None) -> Chain:
    """Return the chain without the records before a gap that the point table contains, or may contain.

    What the gap had on their ids is in the table, and not known. They are lost with it.
    """
    contained = [gap for gap in chain.gaps if applied is None or gap.after < applied]
    if not contained:
        return chain
    extents = tuple(extent for extent in chain.extents if extent.after > contained[-1].after)
    gaps = replace(contained[-1], after=first), *chain.gaps[len(contained) :]
    return replace(chain, extents=extents, gaps=gaps)


def _changes(effect: Effect) -> Iterator[tuple[str, bytes | None, bytes | None]]:
    if not isinstance(effect, Upsert):
        yield from ((point_id, None, None) for point_id in effect.ids)
        return
    last_place = {point_id: line for line, point_id in enumerate(effect.ids)}
    for point_id, line in last_place.items():
        yield point_id, effect.rows[line].tobytes(), effect.payloads[line]


def _unread(segments: Sequence[FoundSegment], last: int) -> Iterator[Gap]:
    """Yield what the newest segment may have held. It got its name only with a durable header.

    The headers and records behind an older one show what is missing.
    """
    if segments and segments[-1].header is None:
        reason = "the segment's header is lost, and with it whatever records it held"
        newest = segments[-1]
        yield Gap(max(last, newest.first_sequence - 1), None, str(newest.path), reason=reason)


def _beginning(runs: Runs, applied: int | None) -> int:
    """Return where the chain begins: at its first record, or at what is applied when it begins above that."""
    first = runs.first_followed()
    if first is None:
        return applied or 0
    return first if applied is None else min(first, applied)


def _synced(segment: FoundSegment) -> int:
    marks = [run.synced for run in segment.runs]
    return max([segment.header.synced if segment.header is not None else 0, *marks])


def _newest(segments: Sequence[FoundSegment]) -> int:
    headers = [segment.header for segment in segments if segment.header is not None]
    runs = [run for segment in segments for run in segment.runs]
    of_headers = [max(header.synced, header.first_sequence - 1) for header in headers]
    return max([0, *of_headers, *(max(run.last, run.synced) for run in runs)])


def _place(segments: Sequence[FoundSegment], last: int) -> tuple[str, int]:
    """Return where the lost records were: where the segment that begins before them breaks off."""
    before = [segment for segment in segments if segment.first_sequence <= last + 1]
    if before:
        return str(before[-1].path), before[-1].valid_bytes
    return (str(segments[0].path) if segments else ""), 0
