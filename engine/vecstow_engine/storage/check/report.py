"""What a check found: findings, bounded, and facts of each collection."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

FINDINGS_PER_FILE_MAX: Final = 1_000
"""More of one file are counted, not kept."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Gets the collection's name, the points read, and of how many."""


def no_progress(collection: str, done: int, total: int) -> None:
    """Tell nobody."""


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Something that was stored is not served, or not as it was."""
    WARNING = "warning"
    """Nothing that is served is wrong, but somebody should look."""
    INFO = "info"
    """Normal, and of use when one wonders."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it could be."""

    severity: Severity
    collection: str | None
    """None: it belongs to no collection."""
    file: str
    """Relative to the data directory."""
    offset: int | None
    """The byte in the file, where it is known."""
    message: str
    next_command: str | None = None
    """What to type, or to do, next."""


@dataclass(slots=True)
class CheckReport:
    """Findings in the order of reading, and what is known of each collection."""

    findings: list[Finding] = field(default_factory=list)
    collections: dict[str, dict[str, object]] = field(default_factory=dict)
    """By name: `state` (what a start makes of it), shape, points, log, index."""
    _counts: Counter[Severity] = field(default_factory=Counter)
    _files: Counter[str] = field(default_factory=Counter)
    _kept: set[Finding] = field(default_factory=set)

    def add(self, finding: Finding) -> None:
        """Keep a finding that is not there yet, or count it when its file has too many already."""
        if finding in self._kept:
            return
        self._counts[finding.severity] += 1
        self._files[finding.file] += 1
        if self._files[finding.file] <= FINDINGS_PER_FILE_MAX:
            self.findings.append(finding)
            self._kept.add(finding)

    @property
    def clean(self) -> bool:
        """No error was found."""
        return self._counts[Severity.ERROR] == 0

    @property
    def omitted(self) -> dict[str, int]:
        """Files with more findings than are kept, and how many more."""
        return {
            file: count - FINDINGS_PER_FILE_MAX
            for file, count in self._files.items()
            if count > FINDINGS_PER_FILE_MAX
        }

    def document(self) -> dict[str, object]:
        """The report as JSON would have it; the counts are of all findings, the omitted ones too."""
        return {
            "clean": self.clean,
            "errors": self._counts[Severity.ERROR],
            "warnings": self._counts[Severity.WARNING],
            "infos": self._counts[Severity.INFO],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "omitted": self.omitted,
            "collections": self.collections,
        }
