"""A part of the proof: batches of cases, and their outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

DEPTHS = ("smoke", "ci", "night")
"""The depths of pytest, of CI, and of a run over night."""


@dataclass(frozen=True)
class Finding:
    """A promise that was broken."""

    what: str
    """The problem, with the file, the id, the state."""
    repeat: str
    """The text that makes just this case again: `--only PART --repeat TEXT`."""


@dataclass
class Outcome:
    """The outcome of some cases."""

    cases: int = 0
    digests: set[bytes] = field(default_factory=set)
    """One per distinct case, where cases may be equal; else empty."""
    facts: Counter[str] = field(default_factory=Counter)
    """How many ended in which way."""
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Count the other's cases too."""
        self.cases += other.cases
        self.digests |= other.digests
        self.facts += other.facts
        self.findings += other.findings

    @property
    def count(self) -> int:
        """Distinct cases."""
        return len(self.digests) or self.cases


class Batch(Protocol):
    """Some cases of a part, made in another process: it must pickle."""

    def run(self, folder: Path) -> Outcome:
        """Work in `folder`, which is empty, in memory, and removed afterwards."""
        ...


@dataclass(frozen=True)
class Part:
    """One way to break the promises."""

    name: str
    unit: str
    """The thing that is counted, in the plural."""
    goals: Mapping[str, int | None]
    """How many by depth; None: as many as there are batches."""
    batches: Callable[[str, int], Iterator[Batch]]
    """The batches of a depth and a seed; may be endless."""
    again: Callable[[str], Batch] | None = None
    """The batch of one finding's `repeat`."""
    case_seconds: float = 0.1
    """About what a case takes with two processors, for the estimate."""
    missing: Callable[[], str | None] = lambda: None
    """Why the part cannot run here; None: it can."""
