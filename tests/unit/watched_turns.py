"""A lock of turns that tells when somebody has queued for it, so that tests need not sleep."""

from collections import deque
from threading import Semaphore

from vecstow_engine.index.turns import FairLock


class _WatchedQueue(deque):
    def __init__(self, queued):
        super().__init__()
        self._queued = queued

    def append(self, gate):
        super().append(gate)
        self._queued.release()


class WatchedTurns(FairLock):
    """`queued` is released once for each thread that has to wait."""

    def __init__(self):
        super().__init__()
        self.queued = Semaphore(0)
        self._waiting = _WatchedQueue(self.queued)
