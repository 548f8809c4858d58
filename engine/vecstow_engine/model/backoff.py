"""The pauses between attempts that fail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double with each failure in a row, up to a bound."""

    first_seconds: float
    seconds_max: float

    def after(self, pause_seconds: float | None) -> float:
        """Return the pause that follows one of `pause_seconds`; None: this failure is the first in a row."""
        if pause_seconds is None:
            return self.first_seconds
        return min(2 * pause_seconds, self.seconds_max)
