"""All that the files of a damaged collection still prove, gathered. Nothing is written on the volume."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from vecstow_engine.doctor.repair.chain import Chain, Gap, Unread, chain_of, readable
from vecstow_engine.doctor.repair.evidence import Evidence
from vecstow_engine.doctor.repair.live_rows import Tell, mark_flaws
from vecstow_engine.doctor.repair.log_evidence import effect_rows, without_unusable
from vecstow_engine.doctor.repair.pages import PageFile
from vecstow_engine.doctor.repair.saved import Saved
from vecstow_engine.doctor.repair.survey import Sighting, Survey
from vecstow_engine.doctor.repair.witnesses import choose_points
from vecstow_engine.storage.collection_identity import Identity
from vecstow_engine.storage.layout import ROWS, Layout
from vecstow_engine.storage.log.replay import FoundSegment
from vecstow_engine.storage.points.reader import SCAN_ROWS
from vecstow_engine.storage.points.records import Meta
from vecstow_engine.storage.rows_header import HEADER_BYTES

_Missing = TypeVar("_Missing", Gap, Unread)
_UNKNOWN_APPLIED: Final = (1 << 63) - 1
"""Without a meta row any gap may be one that the table contains: nothing before it is the last word."""


class TableReading:
    """`points.db` read page by page into evidence of its own. Close it."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self.evidence = Evidence()
        self.meta: Meta | None = None
        self.index_intact = False
        self.is_there = path.exists()
        self.unreadable: list[int] = []
        """Offsets of pages that cannot be read."""
        if self.is_there:
            with closing(PageFile(path)) as pages:
                self._read(Survey(pages), tell)

    def close(self) -> None:
        """Forget everything."""
        self.evidence.close()

    def _read(self, survey: Survey, tell: Tell) -> None:
        self.evidence.add_listed(survey.listed())
        total = self.evidence.count("SELECT 1 FROM listed")
        self.evidence.add_sightings(_told(survey.sightings(), tell, total))
        self.index_intact = survey.index_intact
        self.unreadable = survey.unreadable
        self.meta = max(survey.metas, key=lambda meta: meta.applied, default=None)


@dataclass(frozen=True, slots=True)
class Salvage:
    """What can be saved, and under which numbers the collection goes on."""

    name: str
    identity: Identity
    """Of the files that were found."""
    saved: Saved
    gaps: tuple[Gap, ...]
    """Acknowledged records that are lost."""
    unread: Unread | None
    """Where more records may have been, of which nothing is left."""
    applied: int
    """At least every sequence that was ever given out: none is used again."""
    generation: int
    """Above every generation that any point has."""
    lost_without_id: int
    meta_is_lost: bool
    is_whole: bool
    """Nothing of the table is missing, as far as anything tells."""
    unclaimed: tuple[tuple[int, int], ...] = ()
    """Runs of rows, first and last, whose ids only a lost `points.db` had; some may have been free."""

    @property
    def lost_rows(self) -> int:
        """How many those rows are."""
        return sum(last - first + 1 for first, last in self.unclaimed)


def _told(sightings: Iterator[Sighting], tell: Tell, total: int) -> Iterator[Sighting]:
    """`total`: what the index of ids has, which may be damaged too."""
    for done, sighting in enumerate(sightings, start=1):
        if done % SCAN_ROWS == 0:
            tell(done, max(done, total))
        yield sighting


def salvage(
    layout: Layout, name: str, identity: Identity, reading: TableReading,
    segments: Sequence[FoundSegment], tell: Tell,
) -> Salvage:  # fmt: skip
    """Bring table, rows and log together."""
    meta, evidence = reading.meta, reading.evidence
    whole = choose_points(evidence, meta, index_intact=reading.index_intact)
    chain = _chain(segments, identity, meta)
    applied = meta.applied if meta is not None else _UNKNOWN_APPLIED
    evidence.add_effects(effect_rows(chain, identity.stride, applied, layout.data))
    mark_flaws(evidence, layout.collection(name) / ROWS, identity, tell)
    saved = Saved(evidence, name, identity.stride, whole=whole, index_intact=reading.index_intact)
    newest, generation = saved.newest()
    return Salvage(
        name, identity, saved,
        gaps=tuple(_below(layout, gap) for gap in chain.lost(meta.applied if meta else newest)),
        unread=chain.unread and _below(layout, chain.unread),
        applied=max(newest, chain.newest, meta.applied if meta is not None else 0),
        generation=max(generation, meta.checkpoints if meta is not None else 0) + 1,
        lost_without_id=_nameless(saved, meta, whole=whole, index_intact=reading.index_intact),
        meta_is_lost=meta is None,
        is_whole=whole,
        unclaimed=_unclaimed(layout, identity, saved, reading, name) if meta is None and not whole else (),
    )  # fmt: skip


def _chain(segments: Sequence[FoundSegment], identity: Identity, meta: Meta | None) -> Chain:
    found = [readable(segment, identity) for segment in segments]
    own = [segment for segment in found if segment.header is None or _is_of(segment, identity)]
    return without_unusable(chain_of(own, meta.applied if meta is not None else None), identity.stride)


def _is_of(segment: FoundSegment, identity: Identity) -> bool:
    header = segment.header
    return header is not None and dataclasses.replace(header.identity, name=identity.name) == identity


def _below(layout: Layout, gap: _Missing) -> _Missing:
    return dataclasses.replace(gap, file=os.path.relpath(gap.file, layout.data) if gap.file else "wal")


def _nameless(saved: Saved, meta: Meta | None, *, whole: bool, index_intact: bool) -> int:
    """Points that the meta row counts and of which no trace is left."""
    if meta is None or whole or index_intact:
        return 0
    return max(0, meta.points - saved.chosen_count() - saved.named_in_table())


def _unclaimed(
    layout: Layout, identity: Identity, saved: Saved, reading: TableReading, name: str
) -> tuple[tuple[int, int], ...]:
    """Without a meta row the rows alone say how many points there may have been, unless the index does."""
    path = layout.collection(name) / ROWS
    if reading.index_intact or not path.exists():
        return ()
    rows = max(0, path.stat().st_size - HEADER_BYTES) // identity.stride
    return tuple(saved.unclaimed(rows))
