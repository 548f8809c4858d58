"""The explanation of one search: its plan, why, the counts behind it, and the time of each step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Explanation:
    """The record of one search, filled while the search runs."""

    plan: str = ""
    reason: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)
    """Milliseconds of each step; a step that ran several times counts as one."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of a with block to a step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - began)

    def add(self, name: str, seconds: float) -> None:
        """Add a time to a step."""
        self.steps[name] = round(self.steps.get(name, 0.0) + 1000 * seconds, 3)

    def document(self) -> dict[str, object]:
        """Return the explanation as a JSON-ready mapping."""
        return {
            "plan": self.plan,
            "reason": self.reason,
            "counts": self.counts,
            "warnings": self.warnings,
            "milliseconds": self.steps,
        }
