"""The report of a check: findings, bounded, and facts of each collection."""

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
    """Ignore the progress."""


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Something that was stored is not served, or not as it was."""
    WARNING = "warning"
    """Nothing that is served is wrong, but a person should look."""
    INFO = "info"
    """Normal, and of use when one wonders."""


class Link(StrEnum):
    """How a step belongs to the one before it."""

    NEXT = "next"
    """The first one."""
    THEN = "then"
    OR = "or"
    """It begins another way to the same end."""


@dataclass(frozen=True, slots=True)
class NextStep:
    """One thing to do: in words, as one command to type, or both."""

    does: str | None = None
    command: str | None = None
    link: Link = Link.NEXT

    def __str__(self) -> str:
        return "  # ".join(filter(None, [self.command, self.does]))


NextSteps: TypeAlias = tuple[NextStep, ...]


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
    next_steps: NextSteps = ()
    """The next steps, in order."""

    @property
    def next_command(self) -> str | None:
        """The first step that can be typed."""
        return next((step.command for step in self.next_steps if step.command is not None), None)

    def document(self) -> dict[str, object]:
        """The finding as a JSON-ready mapping, with `next_command`."""
        return dataclasses.asdict(self) | {"next_command": self.next_command}


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
            "findings": [finding.document() for finding in self.findings],
            "omitted": self.omitted,
            "collections": self.collections,
        }
