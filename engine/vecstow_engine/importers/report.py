"""What an importer hands out: points, and an account of what it read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

LISTED_MAX: Final = 1_000
"""Entries kept of each list; what is beyond is counted only, so that a ruined file needs no more memory."""


REMARKED_MAX: Final = 3
"""Doubtful fields that an import names in its answer; the log has all of them."""


@dataclass(frozen=True, slots=True)
class ForeignPoint:
    """One record: `vector` is float32 (dimension,), finite and read-only; the record begins at `offset`."""

    id: str
    vector: NDArray[np.float32]
    metadata: dict[str, Any] | None
    offset: int


class Skipped(NamedTuple):
    """Bytes from `offset` on that could not be read, and why."""

    offset: int
    reason: str


@dataclass(slots=True)
class Doubt:
    """A metadata field (dots for nested ones) whose bytes may be read in more than one way."""

    field: str
    reason: str
    offset: int
    """Where the first such record begins."""
    records: int = 1


@dataclass(slots=True)
class ImportReport:
    """What was read of a source so far; complete when the importer has finished."""

    format: str | None = None
    """`vecstow`; of d-vecDB `0.2.1`, `0.2.6` or `mixed`; None when no record was found."""
    size: int = 0
    """Bytes of the file; `position` runs up to it."""
    position: int = 0
    points: int = 0
    """Records handed out, an id that comes again included."""
    ends_at: int = 0
    """Where the last record that could be read ends."""
    skipped: list[Skipped] = field(default_factory=list)
    skipped_count: int = 0
    doubts: dict[tuple[str, str], Doubt] = field(default_factory=dict)

    def skip(self, offset: int, reason: str) -> None:
        """Note bytes that could not be read."""
        self.skipped_count += 1
        if len(self.skipped) < LISTED_MAX:
            self.skipped.append(Skipped(offset, reason))

    def remarks(self) -> tuple[str, ...]:
        """Return what an import of the file lacks, or may have wrong; a line for each kind."""
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
        """Note that a field of the record at `offset` may have been another value."""
        known = self.doubts.get((path, reason))
        if known is not None:
            known.records += 1
        elif len(self.doubts) < LISTED_MAX:
            self.doubts[path, reason] = Doubt(path, reason, offset)

    def count(self, record_format: str, end: int) -> None:
        """Note a record that was read."""
        self.points += 1
        self.ends_at = end
        if self.format != record_format:
            self.format = record_format if self.format is None else "mixed"
