"""The hold, and the guards that changes of the volume pass (rules 5 and 16 of the disk).

During a hold only logs change, so that a copy of the volume is exact. Every other change of files passes the
gate. Changes of names also pass the change guard: after a failed sync, the names in the page cache may differ
from those on the disk, and a second sync would not show the difference.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import structlog

from vecstow_engine.model.errors import (
    Busy,
    Conflict,
    InvalidInput,
    OutcomeUnknown,
    ReadOnly,
    Recovering,
    as_storage_error,
    refused,
)
from vecstow_engine.service.registry import Registry
from vecstow_engine.storage import files
from vecstow_engine.storage.files import interruptible
from vecstow_engine.storage.layout import rfc3339
from vecstow_engine.storage.volume import Volume

UNKNOWN_NAMES: Final = "the outcome of an earlier change of a name is unknown, because a sync failed"
"""The reason without a collection's name, so that every client may read it."""

log = structlog.stdlib.get_logger(__name__)


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
        """Yield whether the block may change files; a hold that begins waits for the end of such a block.

        Yields False during a hold and after `close`. The block runs all the same, and must change nothing.
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
                message = f"{operation} must wait: the volume is held for {self.remaining_seconds:.0f} s more"
                raise Conflict(message, operation=operation, hint="vecstow hold --release")
            yield


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
            message = f"seconds is {seconds:g}; a hold lasts at most {self._seconds_max:g}"
            details = refused("seconds", seconds, self._seconds_max)
            raise InvalidInput(message, operation="hold", details=details)
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


class ChangeGuard:
    """The guard of changes that make or move folders; `changing` admits one change at a time."""

    def __init__(self, gate: Gate, changing: AbstractContextManager[object]) -> None:
        self._gate = gate
        self._changing = changing
        self.failure: str | None = None
        """Why this process changes no more names; None while it does. The text may name any collection."""

    @contextmanager
    def exclusive(self, operation: str, name: str | None = None) -> Iterator[None]:
        """Guard a change of more than a manifest: raise Conflict during a hold, and the errors of `names`."""
        with self._gate.required(operation), self._changing, self.names(operation, name):
            yield

    @contextmanager
    def names(self, operation: str, name: str | None) -> Iterator[None]:
        """Convert OS errors of the block: OutcomeUnknown for a failed sync, else DiskFull or StorageError.

        Raises ReadOnly when the outcome of an earlier change is unknown.
        """
        self.refuse_after_failure(operation, name)
        try:
            yield
        except OutcomeUnknown as error:
            self._end(error.message)
            raise
        except files.SyncFailed as error:
            reason = f"a sync failed during {operation}{f' of {name}' if name else ''}: {error}"
            self._end(reason)
            message, hint = f"outcome unknown: {reason}", "restart the engine, and look whether it happened"
            raise OutcomeUnknown(message, collection=name, operation=operation, hint=hint) from error
        except OSError as error:
            raise as_storage_error(error, operation) from error

    def refuse_after_failure(self, operation: str, name: str | None) -> None:
        """Raise ReadOnly when the outcome of an earlier change is unknown."""
        if self.failure is not None:
            message = f"{operation} was not begun: {UNKNOWN_NAMES}"
            hint = "restart the engine, which looks at what the disk has; its log names the change"
            raise ReadOnly(message, collection=name, operation=operation, hint=hint)

    def _end(self, reason: str) -> None:
        if self.failure is None:
            self.failure = reason
            log.error("no collection comes or goes until the next start", reason=reason)
