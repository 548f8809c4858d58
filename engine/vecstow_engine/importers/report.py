"""The report of an importer on its source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

LISTED_MAX: Final = 1_000
"""The limit of entries in each list, which bounds memory for a ruined file. Later skips are only counted."""

REMARKED_MAX: Final = 3
"""The number of doubtful fields that an import names in its answer; the log has all of them."""


class Skipped(NamedTuple):
    """Bytes from `offset` on that could not be read, and the reason."""

    offset: int
    reason: str


@dataclass(slots=True)
class Doubt:
    """A metadata field (dots for nested ones) whose bytes can be read in more than one way."""

    field: str
    reason: str
    offset: int
    """The offset of the first such record."""
    records: int = 1


@dataclass(slots=True)
class ImportReport:
    """The report on a source; complete when the importer has finished."""

    format: str | None = None
    """`vecstow`, or `0.2.1`, `0.2.6` or `mixed` for d-vecDB; None when no record was found."""
    points: int = 0
    """The number of records read, repeated ids included."""
    skipped: list[Skipped] = field(default_factory=list)
    skipped_count: int = 0
    doubts: dict[tuple[str, str], Doubt] = field(default_factory=dict)

    def skip(self, offset: int, reason: str) -> None:
        """Record bytes that could not be read."""
        self.skipped_count += 1
        if len(self.skipped) < LISTED_MAX:
            self.skipped.append(Skipped(offset, reason))

    def remarks(self) -> tuple[str, ...]:
        """Return one line for each kind of loss or doubt in the import."""
        lines = []
        if self.skipped_count:
            first = self.skipped[0]
            count = "1 record was" if self.skipped_count == 1 else f"{self.skipped_count:,} records were"
            lines.append(f"{count} not imported, the first at byte {first.offset}: {first.reason}")
        lines += [
            f"field {doubt.field} of {doubt.records:,} records could be read in more than one way, the first "
            f"at byte {doubt.offset}: {doubt.reason}"
            for doubt in list(self.doubts.values())[:REMARKED_MAX]
        ]
        return tuple(lines)

    def doubt(self, path: str, reason: str, offset: int) -> None:
        """Record that a field of the record at `offset` may have had another value."""
        known = self.doubts.get((path, reason))
        if known is not None:
            known.records += 1
        elif len(self.doubts) < LISTED_MAX:
            self.doubts[path, reason] = Doubt(path, reason, offset)

    def count(self, record_format: str) -> None:
        """Record a readable record of this format."""
        self.points += 1
        if self.format != record_format:
            self.format = record_format if self.format is None else "mixed"
