"""The gate of a hold: during a hold nothing on the volume changes but logs (rule 16 of the disk)."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from vecstow_engine.model.errors import Busy, Conflict
from vecstow_engine.storage.files import interruptible


class Gate:
    """The gate that every change of files passes: any number at once, none during a hold. Thread-safe."""

    def __init__(self, is_leaving: Callable[[], bool] = lambda: False) -> None:
        """Make an open gate. `is_leaving`: whether the engine has begun to stop."""
        self._is_leaving = is_leaving
        self._changed = threading.Condition()
        self._inside = 0
        self.closed = False
        """Whether no change passes any more, because the engine stops."""
        self._held_until: float | None = None
        """The end of the hold, time.monotonic; None without one."""

    def hold(self, seconds: float, wait_seconds: float = 60.0) -> datetime.datetime:
        """Begin (or replace) a hold once the changes under way are finished; return its end, UTC.

        Raises Busy, without a hold, when the changes do not finish in `wait_seconds`.
        """
        with self._changed:
            self._held_until = time.monotonic() + seconds + wait_seconds
            if not self._changed.wait_for(lambda: self._inside == 0, wait_seconds):
                self._held_until = None
                raise Busy("a checkpoint or snapshot is still running", retry_after_seconds=5)
            self._held_until = time.monotonic() + seconds
        return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)

    def release(self) -> None:
        """End the hold, if any."""
        with self._changed:
            self._held_until = None

    def close(self) -> None:
        """Let no more changes through, and wait until those under way have ended."""
        with self._changed:
            self.closed = True
            self._changed.wait_for(lambda: self._inside == 0)

    @property
    def is_ending(self) -> bool:
        """Whether the engine has begun to stop."""
        return self.closed or self._is_leaving()

    @property
    def remaining_seconds(self) -> float:
        """Return the seconds until the end of the hold; 0 without a hold."""
        until = self._held_until
        return 0.0 if until is None else max(0.0, until - time.monotonic())

    @contextmanager
    def passing(self) -> Iterator[bool]:
        """Yield True if the block may change files; a hold then waits for its end.

        Yields False during a hold and after `close`: the block must change nothing.
        """
        with self._changed:
            free = self.remaining_seconds == 0 and not self.closed
            if free:
                self._inside += 1
        try:
            yield free
        finally:
            if free:
                with self._changed:
                    self._inside -= 1
                    self._changed.notify_all()

    def interruptible(self, operation: str) -> AbstractContextManager[None]:
        """Return a context whose long work raises Busy once the engine stops."""

        def check() -> None:
            if self.is_ending:
                raise Busy(f"the engine is stopping; {operation} was given up", retry_after_seconds=5)

        return interruptible(check)

    @contextmanager
    def required(self, operation: str) -> Iterator[None]:
        """Enter the gate like `passing`, but raise Conflict during a hold and Busy while the engine stops."""
        with self.passing() as free:
            if self.closed and not free:
                raise Busy(f"the engine is stopping; {operation} was not begun", retry_after_seconds=5)
            if not free:
                raise Conflict(
                    f"{operation} must wait: the volume is held for {self.remaining_seconds:.0f} s more",
                    operation=operation,
                    hint="vecstow hold --release",
                )
            yield
