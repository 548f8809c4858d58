"""What a damaged log still proves: records in their order, across what is lost. Pure.

A record says which one it follows, so a gap shows as a record that follows an unknown one. Records behind a
gap count as long as something says that the gap was durable; what follows the last durable one and a gap is a
torn tail, as in recovery, and does not count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vecstow_engine.doctor.repair.seeds import seed_before
from vecstow_engine.storage.collection_identity import Identity
from vecstow_engine.storage.log.replay import Extent, FoundSegment, Runs, read_runs
from vecstow_engine.storage.log.segment import HEADER_BYTES, SegmentHeader

SEED_OFFSET: Final = 8 + 4 + 16 + 4 + 1 + 1 + 2 + 8 + 8


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that were durable and are lost: those after `after`, up to and with `upto`."""

    after: int
    upto: int
    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Unread:
    """Records after `after` that may have been in a segment, or a log, of which nothing is left."""

    after: int
    file: str
    reason: str = "the segment's header is lost, and with it whatever records it held"


@dataclass(frozen=True, slots=True)
class Chain:
    """The records that count, ascending, and what is missing between them."""

    extents: tuple[Extent, ...]
    gaps: tuple[Gap, ...]
    newest: int
    """The highest sequence that any intact header or record speaks of; 0 when there is none."""
    unread: Unread | None = None
    """The newest segment, when its header is lost: nothing tells what it held."""

    def lost(self, applied: int) -> tuple[Gap, ...]:
        """The gaps that no checkpoint covers."""
        return tuple(
            dataclasses.replace(gap, after=max(gap.after, applied)) for gap in self.gaps if gap.upto > applied
        )

    def decisive_after(self, applied: int) -> int:
        """Records above this sequence are followed by every other one that `applied` contains."""
        return max((gap.after for gap in self.gaps if gap.after < applied), default=-1)


def chain_of(segments: Sequence[FoundSegment], applied: int | None) -> Chain:
    """Follow the records of all segments. `applied`: what the point table contains; None: unknown."""
    runs = Runs(segments)
    durable = max(
        [applied or 0, *(_synced(segment) for segment in segments)],
        default=0,
    )
    extents: list[Extent] = []
    gaps: list[Gap] = []
    last = _beginning(runs, applied)
    while True:
        for extent in runs.follow(last):
            extents.append(extent)
            last = extent.upto
        if last >= durable:
            break
        following = runs.first_followed(above=last)
        upto = durable if following is None else min(following, durable)
        gaps.append(_gap(segments, last, upto))
        last = upto
    return Chain(tuple(extents), tuple(gaps), _newest(segments), _unread(segments, last))


def readable(segment: FoundSegment, identity: Identity) -> FoundSegment:
    """The segment, with what its records still prove when its header does not.

    Its seed is taken as it stands, and then as the first record has it: only if it is right do records pass
    their checksums.
    """
    if segment.header is not None or segment.size < HEADER_BYTES:
        return segment
    for seed, records_min in ((_standing_seed(segment.path), 1), (seed_before(segment.path), 2)):
        if seed is None:
            continue
        found = read_runs(segment.path, SegmentHeader(identity, segment.first_sequence, 0, seed))
        if sum(run.count for run in found.runs) >= records_min:
            return found
    return segment


def _standing_seed(path: Path) -> int:
    with path.open("rb") as stream:
        stream.seek(SEED_OFFSET)
        return int.from_bytes(stream.read(4), "little")


def _unread(segments: Sequence[FoundSegment], last: int) -> Unread | None:
    """A segment has its name only with a durable header, so one without may have held records.

    What an older one held is told by the headers and records behind it.
    """
    if not segments or segments[-1].header is not None:
        return None
    return Unread(max(last, segments[-1].first_sequence - 1), str(segments[-1].path))


def _beginning(runs: Runs, applied: int | None) -> int:
    """Where the chain begins: at its first record, or at what is applied when it begins above that."""
    first = runs.first_followed()
    if first is None:
        return applied or 0
    return first if applied is None else min(first, applied)


def _synced(segment: FoundSegment) -> int:
    marks = [run.synced for run in segment.runs]
    return max([segment.header.synced if segment.header is not None else 0, *marks])


def _newest(segments: Sequence[FoundSegment]) -> int:
    return max(_mentioned(segments), default=0)


def _mentioned(segments: Sequence[FoundSegment]) -> Iterator[int]:
    for segment in segments:
        if segment.header is not None:
            yield segment.header.synced
            yield segment.header.first_sequence - 1
        for run in segment.runs:
            yield run.last
            yield run.synced


def _gap(segments: Sequence[FoundSegment], last: int, upto: int) -> Gap:
    """Where the lost records must have stood: where the segment that begins before them breaks off."""
    before = [segment for segment in segments if segment.first_sequence <= last + 1]
    segment = before[-1] if before else segments[0] if segments else None
    if segment is None:
        return Gap(last, upto, "", 0)
    return Gap(last, upto, str(segment.path), segment.valid_bytes if before else 0)
