"""Which engines are missing, and for how long: by what each pass saw, and by nothing between two of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

ABSENCE_SECONDS: Final = 30.0
"""An engine must be missing for so long, in each pass, before resources are let go without a drop: a
StatefulSet may be deleted to be made anew."""
GAP_TICKS_MAX: Final = 5
"""Between two passes by which an engine was missing all the while. More may lie between them when another
manager had the Lease."""


class MissingEngines:
    """Times are monotonic seconds."""

    def __init__(self, tick_seconds: float) -> None:
        self._gap_seconds_max = GAP_TICKS_MAX * tick_seconds
        self._since: dict[str, float] = {}
        """By engine, while nothing was seen of it in any pass."""
        self._seen_at = float("-inf")

    def saw(self, missing: Iterable[str], now: float) -> None:
        """A pass saw nothing of these engines, and something of all others."""
        if now - self._seen_at > self._gap_seconds_max:
            self.forget()
        self._seen_at = now
        self._since = {name: self._since.get(name, now) for name in missing}

    def forget(self) -> None:
        """Nobody knows what is there."""
        self._since = {}

    def is_gone(self, engine: str, now: float) -> bool:
        """Whether it is missing for so long that it is not just being made anew."""
        return now - self._since.get(engine, now) >= ABSENCE_SECONDS
