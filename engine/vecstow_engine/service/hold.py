"""The hold: for a limited time only logs change, so that a copy of the volume is exact (rule 16)."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vecstow_engine.model.errors import InvalidInput, Recovering, refused
from vecstow_engine.service.hold_gate import Gate
from vecstow_engine.service.registry import Registry
from vecstow_engine.storage.layout import rfc3339
from vecstow_engine.storage.volume import Volume


class Hold:
    """The gate for this engine's own work, and the lock that stops drops by other programs."""

    def __init__(
        self, gate: Gate, registry: Registry, volume: Callable[[], Volume | None], seconds_max: float
    ) -> None:
        self._gate = gate
        self._registry = registry
        self._volume = volume
        self._seconds_max = seconds_max
        self._lock = threading.Lock()
        """Held over the beginning and the end of a hold."""

    def begin(self, seconds: float) -> str:
        """Begin a hold of so many seconds; return its end, RFC 3339.

        Raises InvalidInput beyond the limit, Busy when changes under way do not finish, and Recovering while
        a collection is opened, which changes its files and its log.
        """
        if not self._registry.all_opened():
            raise Recovering("a hold must wait until every collection is opened", retry_after_seconds=1)
        if seconds > self._seconds_max:
            raise InvalidInput(
                f"seconds is {seconds:g}; a hold lasts at most {self._seconds_max:g}", operation="hold",
                details=refused("seconds", seconds, self._seconds_max),
            )  # fmt: skip
        with self._lock:
            volume = self._volume()
            assert volume is not None
            volume.keep_drops_off()
            return rfc3339(self._gate.hold(seconds))

    def end(self) -> None:
        """End the hold now."""
        with self._lock:
            self._gate.release()
            self._let_drops()

    def let_drops_if_over(self) -> None:
        """Allow drops again after a hold that ran out or failed to begin."""
        if self._lock.acquire(blocking=False):
            try:
                if self._gate.remaining_seconds == 0:
                    self._let_drops()
            finally:
                self._lock.release()

    def _let_drops(self) -> None:
        volume = self._volume()
        if volume is not None:
            volume.let_drops()
