"""What the evidence amounts to: the points that are saved, from where, and those that are lost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final, NamedTuple

from vecstow_engine.doctor.repair.evidence import Evidence
from vecstow_engine.doctor.repair.plan import Loss
from vecstow_engine.storage.layout import POINTS, ROWS
from vecstow_engine.storage.rows_header import HEADER_BYTES

KEPT: Final = (
    "SELECT c.slot, c.id, c.sequence, s.row_checksum, s.payload"
    " FROM chosen AS c JOIN sightings AS s ON s.n = c.n WHERE c.flaw IS NULL AND NOT EXISTS"
    " (SELECT 1 FROM effects AS e WHERE e.id = c.id AND e.sequence > c.sequence) ORDER BY c.slot"
)
"""Points that table and rows prove, and that the log does not change."""

RESTORED: Final = (
    "SELECT e.id, e.sequence, e.row, e.payload FROM effects AS e LEFT JOIN chosen AS c ON c.id = e.id"
    " WHERE e.row IS NOT NULL AND e.flaw IS NULL AND ("
    " (e.decisive AND (c.n IS NULL OR e.sequence > c.sequence))"
    " OR (e.sequence = c.sequence AND c.flaw IS NOT NULL)) ORDER BY e.id"
)
"""Points that the log has the last word on: written after the table, or damaged in it."""

_FLAWED: Final = (
    "SELECT c.id, c.slot, s.payload, c.flaw, s.offset FROM chosen AS c JOIN sightings AS s ON s.n = c.n"
    " WHERE c.flaw IS NOT NULL AND NOT EXISTS (SELECT 1 FROM effects AS e WHERE e.id = c.id AND"
    " (e.sequence > c.sequence OR (e.sequence = c.sequence AND e.row IS NOT NULL AND e.flaw IS NULL)))"
)
_UNUSABLE: Final = (
    "SELECT e.id, e.payload, e.flaw, e.file, e.offset FROM effects AS e LEFT JOIN chosen AS c ON c.id = e.id"
    " WHERE e.row IS NOT NULL AND e.flaw IS NOT NULL AND (c.n IS NULL OR e.sequence > c.sequence)"
)
_OVERTAKEN: Final = (
    "SELECT e.id, e.payload, e.sequence, e.file, e.offset"
    " FROM effects AS e LEFT JOIN chosen AS c ON c.id = e.id"
    " WHERE NOT e.decisive AND e.flaw IS NULL"
    " AND ((c.n IS NULL AND e.row IS NOT NULL) OR e.sequence > c.sequence)"
)
_UNRESOLVED: Final = "NOT EXISTS (SELECT 1 FROM effects AS e WHERE e.id = {id} AND e.decisive)"
_LISTED: Final = (
    "SELECT l.id, l.slot, d.payload, d.offset FROM listed AS l LEFT JOIN damaged AS d"
    " ON d.slot = l.slot AND d.standing >= 1 WHERE NOT EXISTS"
    " (SELECT 1 FROM chosen AS c WHERE c.id = l.id AND c.slot = l.slot) AND "
    + _UNRESOLVED.format(id="l.id")
    + " GROUP BY l.slot"
)
"""Ids that the index of ids knows, and no readable point of the table is theirs."""
_DAMAGED: Final = (
    "SELECT d.id, d.slot, d.payload, d.offset FROM damaged AS d WHERE d.standing >= 1"
    " AND NOT EXISTS (SELECT 1 FROM chosen AS c WHERE c.slot = d.slot OR c.id = d.id)"
    " AND " + _UNRESOLVED.format(id="d.id") + " GROUP BY d.slot"
)
_DOUBTFUL: Final = (
    "SELECT s.id, s.slot, s.payload, s.offset FROM sightings AS s WHERE s.standing < 2"
    " AND NOT EXISTS (SELECT 1 FROM chosen AS c WHERE c.slot = s.slot)"
    " AND NOT EXISTS (SELECT 1 FROM chosen AS c WHERE c.id = s.id) AND "
    + _UNRESOLVED.format(id="s.id")
    + " GROUP BY s.id"
)


_CLAIMED: Final = (
    f"SELECT slot FROM chosen UNION SELECT slot FROM ({_DAMAGED}) UNION SELECT slot FROM ({_DOUBTFUL})"
    " ORDER BY slot"
)
"""Slots of the points that are kept or told as lost."""


class KeptPoint(NamedTuple):
    """A point whose row stands in the old rows file."""

    slot: int
    id: str
    sequence: int
    row_checksum: int
    payload: bytes | None


class RestoredPoint(NamedTuple):
    """A point whose row stood in the log."""

    id: str
    sequence: int
    row: bytes
    payload: bytes | None


class Saved:
    """Reads the evidence once everything is in it."""

    def __init__(
        self, evidence: Evidence, name: str, stride: int, *, whole: bool, index_intact: bool
    ) -> None:
        self._evidence = evidence
        self._name = name
        self._stride = stride
        self._whole = whole
        """All points that there were are among the chosen."""
        self._index_intact = index_intact

    def kept(self) -> Iterator[KeptPoint]:
        """Ascending by slot."""
        return (KeptPoint(*row) for row in self._evidence.stream(KEPT))

    def restored(self) -> Iterator[RestoredPoint]:
        """Ascending by id."""
        return (RestoredPoint(*row) for row in self._evidence.stream(RESTORED))

    def kept_count(self) -> int:
        """How many points table and rows prove."""
        return self._evidence.count(KEPT)

    def restored_count(self) -> int:
        """How many points come from the log."""
        return self._evidence.count(RESTORED)

    def lost_count(self) -> int:
        """How many points are lost of which something is known."""
        statements = [_FLAWED, _UNUSABLE, _OVERTAKEN, *self._table_statements()]
        return sum(self._evidence.count(statement) for statement in statements)

    def lost(self) -> Iterator[Loss]:
        """Each of them."""
        yield from self._flawed()
        yield from self._of_log()
        if not self._whole:
            yield from self._of_table()

    def chosen_count(self) -> int:
        """How many points of the table are live, flawed ones among them."""
        return self._evidence.count("SELECT 1 FROM chosen")

    def named_in_table(self) -> int:
        """How many points of the table are lost of which something is known."""
        return sum(self._evidence.count(statement) for statement in self._table_statements())

    def unclaimed(self, rows: int) -> Iterator[tuple[int, int]]:
        """Runs, first and last, of the slots below `rows` that no point has, be it a lost one."""
        start = 0
        for (slot,) in chain(self._evidence.stream(_CLAIMED), [(rows,)]):
            if start < min(slot, rows):
                yield start, min(slot, rows) - 1
            start = max(start, slot + 1)

    def newest(self) -> tuple[int, int]:
        """The highest sequence and generation of any point that was met."""
        [(sequence, generation)] = self._evidence.rows(
            "SELECT coalesce(max(sequence), 0), coalesce(max(generation), 0) FROM sightings"
        )
        return sequence, generation

    def _table_statements(self) -> list[str]:
        if self._whole:
            return []
        return [_LISTED] if self._index_intact else [_DAMAGED, _DOUBTFUL]

    def _flawed(self) -> Iterator[Loss]:
        for point_id, slot, payload, flaw, offset in self._evidence.stream(_FLAWED):
            if "row" in flaw or ROWS in flaw:
                place = f"{self._name}/{ROWS}", HEADER_BYTES + slot * self._stride
            else:
                place = f"{self._name}/{POINTS}", offset
            yield Loss(flaw, *place, point_id, slot, payload, proven=True)

    def _of_log(self) -> Iterator[Loss]:
        for point_id, payload, flaw, file, offset in self._evidence.stream(_UNUSABLE):
            yield Loss(flaw, file, offset, point_id, None, payload, proven=True)
        for point_id, payload, sequence, file, offset in self._evidence.stream(_OVERTAKEN):
            reason = f"record {sequence} writes or deletes it, and later records are lost"
            yield Loss(reason, file, offset, point_id, None, payload)

    def _of_table(self) -> Iterator[Loss]:
        file = f"{self._name}/{POINTS}"
        reasons = {
            _LISTED: "the index of ids has it, and its point cannot be read",
            _DAMAGED: "its point fails its checksum",
            _DOUBTFUL: "its point stands where no tree leads: it may have been deleted",
        }
        for statement in self._table_statements():
            for point_id, slot, payload, offset in self._evidence.stream(statement):
                yield Loss(reasons[statement], file, offset, point_id, slot, payload)
