"""A lock of turns that reports when a thread has queued for it, so that tests need not sleep."""

from __future__ import annotations

from collections import deque
from threading import Lock, Semaphore

from vecstow_engine.index.turns import FairLock


class _WatchedQueue(deque["Lock"]):
    def __init__(self, queued: Semaphore) -> None:
        super().__init__()
        self._queued = queued

    def append(self, gate: Lock, /) -> None:
        super().append(gate)
        self._queued.release()


class WatchedTurns(FairLock):
    """`queued` is released once for each thread that has to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.queued = Semaphore(0)
        self._waiting = _WatchedQueue(self.queued)
