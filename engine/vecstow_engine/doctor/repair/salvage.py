"""All that the files of a damaged collection still prove. Nothing is written on the volume.

A point proves by its checksum that it was written so; not that it was neither replaced nor deleted since.
Whole proof comes first: the meta row has the count of all points and the sum of their checksums. Where it
does not fit, points are lost, and each one must have a witness: the index of ids if that is intact, else the
tree, which must lead to the point from its slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from vecstow_engine.doctor.check import Progress
from vecstow_engine.doctor.check.table import content_problem, row_problems
from vecstow_engine.doctor.repair.chain import chain_of
from vecstow_engine.doctor.repair.evidence import Evidence, Loss, SavedPoint
from vecstow_engine.doctor.repair.table import DamagedTable
from vecstow_engine.storage.identity import HEADER_BYTES, Identity
from vecstow_engine.storage.layout import POINTS, ROWS, Layout
from vecstow_engine.storage.log.replay import FoundSegment
from vecstow_engine.storage.points.reader import SCAN_ROWS
from vecstow_engine.storage.points.records import Meta
from vecstow_engine.storage.rows import RowsFile


@dataclass(frozen=True, slots=True)
class Salvage:
    """The points that can be saved, and the numbers with which the collection goes on."""

    identity: Identity
    """The identity in the files that were found."""
    evidence: Evidence
    lost_records: tuple[Loss, ...]
    """Acknowledged records of the log that are lost, in runs."""
    lost_rows: tuple[Loss, ...]
    """Runs of rows whose ids only a lost `points.db` had; some may have been free."""
    applied: int
    """At least every sequence that was ever given out: none is used again."""
    epoch: int
    """Above every epoch that any point has."""
    lost_without_id: int
    """Points that the meta row counts and that left no trace."""
    is_whole: bool
    """Whether nothing of the table is missing, as far as anything tells."""
    meta_is_lost: bool
    table_is_lost: bool
    """Whether neither meta row nor points nor ids can be read."""

    def losses(self) -> Iterator[Loss]:
        """Yield what cannot be saved: lost records of the log, rows that no point claims, then points."""
        yield from self.lost_records
        yield from self.lost_rows
        yield from self.evidence.lost()


def salvage(
    layout: Layout,
    name: str,
    identity: Identity,
    table: DamagedTable,
    meta: Meta | None,
    segments: Sequence[FoundSegment],
    evidence: Evidence,
    progress: Progress,
) -> Salvage:
    """Bring table, rows and log together in `evidence`."""
    path = layout.collection(name) / ROWS
    rows = max(0, path.stat().st_size - HEADER_BYTES) // identity.stride if path.exists() else 0
    has_index = _read_table(table, meta, evidence, rows, progress)
    newest, epoch = evidence.newest()
    is_whole = _choose(table, meta, evidence, has_index=has_index)
    _mark_flaws(evidence, name, path, identity, progress)
    if not is_whole:
        evidence.add_lost(f"{name}/{POINTS}", listed=has_index)
    is_unnamed = not is_whole and not has_index
    unclaimed = tuple(evidence.unclaimed(rows)) if is_unnamed and meta is None else ()
    applied = newest if meta is None else meta.applied
    own = [segment for segment in segments if _is_of(segment, identity)]
    chain = chain_of(own, None if meta is None else meta.applied, identity.stride)
    traced = evidence.live()
    effects = chain.effects(identity.stride, layout.data)
    for is_applied, group in groupby(effects, lambda effect: effect[1] <= applied):
        evidence.add_effects(group)
        if is_applied:  # The table had these points, too.
            traced = evidence.live()
    return Salvage(
        identity,
        evidence,
        lost_records=tuple(chain.lost(applied, layout.data)),
        lost_rows=tuple(_rows_lost(name, identity, first, last) for first, last in unclaimed),
        applied=max(applied, newest, chain.newest),
        epoch=max(epoch, meta.checkpoints if meta else 0) + 1,
        lost_without_id=max(0, meta.points - traced) if is_unnamed and meta else 0,
        is_whole=is_whole,
        meta_is_lost=meta is None,
        table_is_lost=meta is None and not epoch and not evidence.listed()[0],
    )


def _is_of(segment: FoundSegment, identity: Identity) -> bool:
    """Return whether a segment may be of the incarnation, whatever its name was then."""
    header = segment.header
    return header is None or replace(header.identity, name=identity.name) == identity


def _rows_lost(name: str, identity: Identity, first: int, last: int) -> Loss:
    reason = f"nothing tells whose they are: {POINTS} had the ids; some of them may have been free"
    return Loss(reason, f"{name}/{ROWS}", HEADER_BYTES + first * identity.stride, rows=(first, last))


def _read_table(
    table: DamagedTable, meta: Meta | None, evidence: Evidence, rows: int, progress: Progress
) -> bool:
    """Read what the trees lead to; return whether the index of ids says which points there are."""
    evidence.add_listed(table.ids())
    entries, slot_max = evidence.listed()
    total = entries if meta is None else meta.points

    def counted() -> Iterator[tuple[Any, ...]]:
        for done, row in enumerate(table.points(max(rows, slot_max + 1)), start=1):
            if done % SCAN_ROWS == 0:
                progress("reading points", done, max(done, total))
            yield row

    evidence.add_rows(counted())
    return table.is_index_whole and (meta is None or meta.points == entries)


def _choose(table: DamagedTable, meta: Meta | None, evidence: Evidence, *, has_index: bool) -> bool:
    """Keep only the live points; return whether these are proven to be all that there were."""

    def fits() -> bool:
        return meta is not None and evidence.count_and_sum() == (meta.points, meta.checksum_sum)

    evidence.keep_newest()
    if fits():
        return True
    if not has_index:
        evidence.keep_placed(table)
        return False
    evidence.keep_listed()
    return fits() or (meta is None and evidence.live() == evidence.listed()[0])


def _mark_flaws(evidence: Evidence, name: str, path: Path, identity: Identity, progress: Progress) -> None:
    """Mark each live point whose row or content cannot be kept."""
    done, total = 0, evidence.live()
    after = -1
    while block := evidence.kept(after):
        evidence.mark(_flaws(block, name, path, identity))
        after = block[-1].slot
        done += len(block)
        progress("reading rows", done, total)


def _flaws(
    block: Sequence[SavedPoint], name: str, path: Path, identity: Identity
) -> Iterator[tuple[str, str, int | None, int]]:
    """Yield (flaw, file, offset, n) of the points that cannot be kept."""
    slots, checksums = [point.slot for point in block], [point.row_checksum for point in block]
    problems: list[str | None] = ["is missing"] * len(block)
    if path.exists():
        with closing(RowsFile(path, identity.stride, read_only=True)) as file:
            problems = row_problems(file, slots, checksums, identity)
    for point, problem in zip(block, problems, strict=True):
        if problem is not None:
            what = f"its row {problem}" if path.exists() else f"{ROWS} is missing"
            yield what, f"{name}/{ROWS}", HEADER_BYTES + point.slot * identity.stride, point.n
        elif (flaw := content_problem(point.id, point.payload)) is not None:
            yield flaw, f"{name}/{POINTS}", None, point.n
