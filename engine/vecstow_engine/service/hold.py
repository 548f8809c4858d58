"""A hold: for a limited time only logs change, so that a copy of the volume is exact."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vecstow_engine.model.errors import InvalidInput, Recovering, refused
from vecstow_engine.service.hold_gate import Gate
from vecstow_engine.service.registry import Registry
from vecstow_engine.storage.layout import rfc3339
from vecstow_engine.storage.volume import Volume


class Hold:
    """The gate of this engine's own work, and the lock that keeps the drops of others off."""

    def __init__(
        self, gate: Gate, registry: Registry, volume: Callable[[], Volume | None], seconds_max: float
    ) -> None:
        self._gate = gate
        self._registry = registry
        self._volume = volume
        self._seconds_max = seconds_max
        self._lock = threading.Lock()
        """Over the beginning and the end of a hold."""

    def begin(self, seconds: float) -> str:
        """Change nothing but logs for so long; returns the end, RFC 3339.

        Raises Recovering while a collection is opened, which changes its files and its log's; Busy.
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
        """End it now."""
        with self._lock:
            self._gate.release()
            self._let_drops()

    def let_drops_if_over(self) -> None:
        """Let drops go on after a hold that ended by itself, or never began."""
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
