"""The decision of recovery: what is replayed, or why the collection must not be opened. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.storage.collection_identity import Identity
from vecstow_engine.storage.layout import POINTS, ROWS
from vecstow_engine.storage.log.replay import FoundSegment, Replayable, select_records
from vecstow_engine.storage.recovery.observation import Observation
from vecstow_engine.storage.rows_header import HEADER_BYTES


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision about one collection."""

    found: Observation
    replayable: Replayable
    begins_segment: bool
    """Whether the log continues in a new segment: after records, a torn tail, or a rename of the folder."""


def make_plan(found: Observation, name: str, *, is_rival: bool) -> Plan:
    """Return the plan for the folder `name`. `is_rival`: whether another folder claims the same uid.

    Raises DamagedFile when the files do not belong together, or records of the log are lost.
    """
    identity, meta = found.identity, found.meta
    if meta.uid != identity.uid:
        raise DamagedFile(
            f"it belongs to incarnation {meta.uid}, but {ROWS} to {identity.uid}",
            file=str(found.folder / POINTS),
        )
    _refuse_short_rows(found)
    refuse_strangers(found.segments, identity, name if is_rival else None)
    replayable = select_records(found.segments, meta.applied)
    begins = bool(replayable.extents or replayable.torn) or _is_renamed(found.segments, name)
    return Plan(found, replayable, begins)


def _refuse_short_rows(found: Observation) -> None:
    slots = found.slots.slots
    capacity = (found.rows_bytes - HEADER_BYTES) // found.identity.stride
    if len(slots) and slots[-1] >= capacity:
        raise DamagedFile(
            f"it ends at byte {found.rows_bytes}, but a live row stands at slot {slots[-1]}",
            file=str(found.folder / ROWS), offset=found.rows_bytes,
        )  # fmt: skip


def refuse_strangers(segments: Sequence[FoundSegment], identity: Identity, rival: str | None) -> None:
    """Raise DamagedFile for a segment of another incarnation, or for a rival that does not own the log.

    `rival` is the name of this folder when another folder claims its uid too. The newest segment names the
    owner.
    """
    headed = [segment for segment in segments if segment.header is not None]
    for segment in headed:
        if segment.header is not None and segment.header.identity.uid != identity.uid:
            raise DamagedFile(
                f"it belongs to incarnation {segment.header.identity.uid}, not {identity.uid}",
                file=str(segment.path), offset=12,
            )  # fmt: skip
    newest = headed[-1].header if headed else None
    owner = newest.identity.name if newest is not None else identity.name
    if rival is not None and owner != rival:
        raise DamagedFile(
            f"its uid {identity.uid} is also claimed by another folder, to which the log belongs",
            file=rival,
        )


def _is_renamed(segments: Sequence[FoundSegment], name: str) -> bool:
    """Whether the newest segment has another name than the folder."""
    newest = segments[-1].header if segments else None
    return newest is not None and newest.identity.name != name
