"""All that the files of a damaged collection still prove. Nothing is written on the volume.

A point proves by its checksum that it was written so; not that it was neither replaced nor deleted since.
Whole proof comes first: the meta row has the count of all points and the sum of their checksums. Where it
does not fit, points are lost, and each one must have a witness: the index of ids if that is intact, else the
tree, which must lead to the point from its slot.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vecstow_engine.doctor.check.content import content_problem
from vecstow_engine.doctor.repair.chain import Chain, Gap, chain_of
from vecstow_engine.doctor.repair.evidence import Evidence, SavedPoint
from vecstow_engine.doctor.repair.table import DamagedTable
from vecstow_engine.model.points import decode_rows
from vecstow_engine.storage.identity import HEADER_BYTES, Identity
from vecstow_engine.storage.layout import POINTS, ROWS, Layout
from vecstow_engine.storage.log.replay import FoundSegment
from vecstow_engine.storage.points.reader import SCAN_ROWS
from vecstow_engine.storage.points.records import Meta
from vecstow_engine.storage.rows import RowsFile, row_checksums

Tell: TypeAlias = Callable[[str, int, int], None]
"""Gets what is read, how many points are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Salvage:
    """The points that can be saved, and the numbers with which the collection goes on."""

    name: str
    identity: Identity
    """The identity in the files that were found."""
    evidence: Evidence
    gaps: tuple[Gap, ...]
    """Acknowledged records that are lost."""
    applied: int
    """At least every sequence that was ever given out: none is used again."""
    epoch: int
    """Above every epoch that any point has."""
    lost_without_id: int
    """Points that the meta row counts and that left no trace."""
    is_whole: bool
    """Nothing of the table is missing, as far as anything tells."""
    meta_is_lost: bool
    table_is_lost: bool
    """Neither meta row nor points nor ids can be read."""
    unclaimed: tuple[tuple[int, int], ...]
    """Runs of rows, first and last, whose ids only a lost `points.db` had; some may have been free."""

    @property
    def lost_rows(self) -> int:
        """How many those rows are."""
        return sum(last - first + 1 for first, last in self.unclaimed)


def salvage(
    layout: Layout, name: str, identity: Identity, table: DamagedTable, meta: Meta | None,
    segments: Sequence[FoundSegment], evidence: Evidence, tell: Tell,
) -> Salvage:  # fmt: skip
    """Bring table, rows and log together in `evidence`."""
    rows_count = _rows_count(layout.collection(name) / ROWS, identity)
    has_index = _read_table(table, meta, evidence, rows_count, tell)
    newest, epoch = evidence.newest()
    is_whole = _choose(table, meta, evidence, has_index=has_index)
    _mark_flaws(evidence, layout, name, identity, tell)
    if not is_whole:
        evidence.add_lost(f"{name}/{POINTS}", listed=has_index)
    is_unnamed = not is_whole and not has_index
    lost_without_id = meta.points - evidence.count_and_sum()[0] if is_unnamed and meta else 0
    unclaimed = tuple(evidence.unclaimed(rows_count)) if is_unnamed and meta is None else ()
    chain = _chain(segments, identity, meta)
    evidence.add_effects(chain.effects(identity.stride, layout.data))
    return Salvage(
        name, identity, evidence,
        gaps=tuple(_below(layout, gap) for gap in chain.lost(meta.applied if meta else newest)),
        applied=max(newest, chain.newest, meta.applied if meta else 0),
        epoch=max(epoch, meta.checkpoints if meta else 0) + 1,
        lost_without_id=max(0, lost_without_id),
        is_whole=is_whole,
        meta_is_lost=meta is None,
        table_is_lost=meta is None and not epoch and not evidence.listed()[0],
        unclaimed=unclaimed,
    )  # fmt: skip


def _rows_count(path: Path, identity: Identity) -> int:
    return max(0, path.stat().st_size - HEADER_BYTES) // identity.stride if path.exists() else 0


def _below(layout: Layout, gap: Gap) -> Gap:
    return replace(gap, file=os.path.relpath(gap.file, layout.data) if gap.file else "wal")


def _read_table(
    table: DamagedTable, meta: Meta | None, evidence: Evidence, rows_count: int, tell: Tell
) -> bool:
    """Read what the trees lead to; returns whether the index of ids says which points there are."""
    evidence.add_listed(table.ids())
    entries, slot_max = evidence.listed()
    total = entries if meta is None else meta.points
    evidence.add_rows(_told(table.points(max(rows_count, slot_max + 1)), tell, total))
    return table.is_index_whole and (meta is None or meta.points == entries)


def _told(rows: Iterator[tuple[Any, ...]], tell: Tell, total: int) -> Iterator[tuple[Any, ...]]:
    for done, row in enumerate(rows, start=1):
        if done % SCAN_ROWS == 0:
            tell("reading points", done, max(done, total))
        yield row


def _choose(table: DamagedTable, meta: Meta | None, evidence: Evidence, *, has_index: bool) -> bool:
    """Keep the live points alone; True when they are proven to be all that there were."""
    evidence.keep_newest()
    if _fits(evidence, meta):
        return True
    if not has_index:
        evidence.keep_placed(table)
        return False
    evidence.keep_listed()
    found, _ = evidence.count_and_sum()
    return _fits(evidence, meta) or (meta is None and found == evidence.listed()[0])


def _fits(evidence: Evidence, meta: Meta | None) -> bool:
    return meta is not None and evidence.count_and_sum() == (meta.points, meta.checksum_sum)


def _mark_flaws(evidence: Evidence, layout: Layout, name: str, identity: Identity, tell: Tell) -> None:
    """Mark each live point whose row or content cannot be kept."""
    done, total = 0, evidence.count_and_sum()[0]
    after = -1
    while block := evidence.kept(after):
        slots = np.array([point.slot for point in block], np.int64)
        problems = _problems(block, slots, layout.collection(name) / ROWS, identity)
        in_rows = ((f"{name}/{ROWS}", HEADER_BYTES + slot * identity.stride) for slot in slots.tolist())
        evidence.mark(
            (problem, *(place if is_of_row else (f"{name}/{POINTS}", None)), point.n)
            for point, place, (problem, is_of_row) in zip(block, in_rows, problems, strict=True)
            if problem is not None
        )
        after = int(slots[-1])
        done += len(block)
        tell("reading rows", done, total)


def _problems(
    block: list[SavedPoint], slots: NDArray[np.int64], path: Path, identity: Identity
) -> Iterator[tuple[str | None, bool]]:
    """Yield what is wrong with each point, and whether it is its row."""
    if not path.exists():
        yield from [(f"{ROWS} is missing", True)] * len(block)
        return
    with closing(RowsFile(path, identity.stride, read_only=True)) as file:
        rows = file.read(slots)
    checksums = row_checksums(rows).tolist()
    finite = np.asarray(np.isfinite(decode_rows(rows, identity.vector_type)).all(axis=1)).tolist()
    for point, checksum, is_finite in zip(block, checksums, finite, strict=True):
        if checksum != point.row_checksum:
            yield "its row fails its checksum", True
        elif not is_finite:
            yield "its row holds values that are not finite", True
        else:
            yield content_problem(point.id, point.payload), False


def _chain(segments: Sequence[FoundSegment], identity: Identity, meta: Meta | None) -> Chain:
    own = [segment for segment in segments if segment.header is None or _is_of(segment, identity)]
    return chain_of(own, meta.applied if meta is not None else None, identity.stride)


def _is_of(segment: FoundSegment, identity: Identity) -> bool:
    header = segment.header
    return header is not None and replace(header.identity, name=identity.name) == identity
