"""Changes of names on a volume: one at a time, none during a hold, none after an unknown outcome.

After a failed sync, the names in the page cache may differ from those on the disk. A second sync would not
show the difference (rule 5 of the disk).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import structlog

from vecstow_engine.model.errors import OutcomeUnknown, ReadOnly, as_storage_error
from vecstow_engine.service.hold_gate import Gate
from vecstow_engine.storage import files

UNKNOWN_NAMES: Final = "the outcome of an earlier change of a name is unknown, because a sync failed"
"""The reason without a collection's name, so that every client may read it."""

log = structlog.stdlib.get_logger(__name__)


class ChangeGuard:
    """The guard of changes that make or move folders; `changing` admits one change at a time."""

    def __init__(self, gate: Gate, changing: AbstractContextManager[object]) -> None:
        self._gate = gate
        self._changing = changing
        self.failure: str | None = None
        """Why this process changes no more names; None while it does. The text may name any collection."""

    @contextmanager
    def lasting(self, operation: str, name: str | None = None) -> Iterator[None]:
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
            raise OutcomeUnknown(
                f"outcome unknown: {reason}", collection=name, operation=operation,
                hint="restart the engine, and look whether it happened",
            ) from error  # fmt: skip
        except OSError as error:
            raise as_storage_error(error, operation) from error

    def refuse_after_failure(self, operation: str, name: str | None) -> None:
        """Raise ReadOnly when the outcome of an earlier change is unknown."""
        if self.failure is not None:
            raise ReadOnly(
                f"{operation} was not begun: {UNKNOWN_NAMES}", collection=name, operation=operation,
                hint="restart the engine, which looks at what the disk has; its log names the change",
            )  # fmt: skip

    def _end(self, reason: str) -> None:
        if self.failure is None:
            self.failure = reason
            log.error("no collection comes or goes until the next start", reason=reason)
