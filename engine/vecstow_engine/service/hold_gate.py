"""The hold: while it lasts, nothing on the volume changes but logs (rule 16 of the disk)."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from vecstow_engine.model.errors import Busy, Conflict
from vecstow_engine.storage.interruption import interruptible


class Gate:
    """Lets changes of files through one beside the other, and none during a hold. Thread-safe."""

    def __init__(self, is_leaving: Callable[[], bool] = lambda: False) -> None:
        """`is_leaving`: whether the engine has begun to stop, though the gate may be open still."""
        self._is_leaving = is_leaving
        self._changed = threading.Condition()
        self._inside = 0
        self.closed = False
        """Nothing passes any more: the engine stops."""
        self._held_until: float | None = None
        """time.monotonic."""

    def hold(self, seconds: float, wait_seconds: float = 60.0) -> datetime.datetime:
        """Begin (or replace) a hold once the changes under way are finished; returns its end, UTC.

        Raises Busy when they do not finish in `wait_seconds`; then there is no hold.
        """
        with self._changed:
            self._held_until = time.monotonic() + seconds + wait_seconds
            if not self._changed.wait_for(lambda: self._inside == 0, wait_seconds):
                self._held_until = None
                raise Busy("a checkpoint or snapshot is still running", retry_after_seconds=5)
            self._held_until = time.monotonic() + seconds
        return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)

    def release(self) -> None:
        """End the hold, if there is one."""
        with self._changed:
            self._held_until = None

    def close(self) -> None:
        """Let nothing through any more, and wait for the changes under way: then nobody writes the volume."""
        with self._changed:
            self.closed = True
            self._changed.wait_for(lambda: self._inside == 0)

    @property
    def is_ending(self) -> bool:
        """Whether the engine has begun to stop."""
        return self.closed or self._is_leaving()

    @property
    def remaining_seconds(self) -> float:
        """How long the hold lasts; 0 when there is none."""
        until = self._held_until
        return 0.0 if until is None else max(0.0, until - time.monotonic())

    @contextmanager
    def passing(self) -> Iterator[bool]:
        """True, and a hold waits for the end of the block; False during a hold: change nothing."""
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
        """Raise Busy from the long work inside once the engine stops."""

        def check() -> None:
            if self.is_ending:
                raise Busy(f"the engine is stopping; {operation} was given up", retry_after_seconds=5)

        return interruptible(check)

    @contextmanager
    def required(self, operation: str) -> Iterator[None]:
        """As `passing`, but raises Conflict during a hold."""
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
