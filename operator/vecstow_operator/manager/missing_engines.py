"""The engines that are missing, and since when. Only the observations of passes count."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

ABSENCE_SECONDS: Final = 30.0
"""How long every pass must miss an engine before its resources are released without a drop. A StatefulSet may
be deleted and created again."""
GAP_TICKS_MAX: Final = 5
"""The longest gap between two passes that prove an absence. The gap is longer when another manager had the
Lease."""


class MissingEngines:
    """Times are monotonic seconds."""

    def __init__(self, tick_seconds: float) -> None:
        self._gap_seconds_max = GAP_TICKS_MAX * tick_seconds
        self._since: dict[str, float] = {}
        """The start of each absence, by engine."""
        self._updated_at = float("-inf")

    def update(self, missing: Iterable[str], now: float) -> None:
        """Record that a pass missed these engines and saw all others."""
        if now - self._updated_at > self._gap_seconds_max:
            self.forget()
        self._updated_at = now
        self._since = {name: self._since.get(name, now) for name in missing}

    def forget(self) -> None:
        """Forget all absences: the present engines are unknown."""
        self._since = {}

    def is_gone(self, engine: str, now: float) -> bool:
        """Whether the engine is missing for too long to be just created again."""
        return now - self._since.get(engine, now) >= ABSENCE_SECONDS
