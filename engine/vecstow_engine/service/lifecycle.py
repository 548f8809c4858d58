"""The states of a collection and the transitions between them.

A collection is in exactly one of these states. The state alone decides the requests that are answered, the
name in the API and the event that opens the collection again. For `Serving` the name also depends on the
store, which records damage and the errors that end its writes.

    state          API               reads  writes  left by
    Opening        recovering        503    503     the end of the opening, a drop
    Postponed      recovering        503    503     a retry at `retry_at`, a repair, a drop
    Serving        ready, degraded   yes    yes     lost files, a repair, a drop
                   read_only         yes    503     lost files, a repair, a drop
    InQuarantine   quarantined       503    503     a changed manifest, returned files, a retry at `retry_at`,
                                                    a repair, a drop
    ForeignData    foreign           503    503     an import in its place, a repair, a drop
    Retired        recovering        503    503     a drop; another object has the name
    Dropping       as before         404    404     the manifest without the mark

In this table a drop is also the replacement by another object of the same name.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeAlias, TypeVar

from vecstow_engine.model.errors import Unavailable
from vecstow_engine.storage.handles import DataFiles


class State(StrEnum):
    """The state of a collection, as the API names it."""

    RECOVERING = "recovering"
    """No answers yet: 503 with Retry-After."""
    READY = "ready"
    """Reads and writes."""
    DEGRADED = "degraded"
    """Reads and writes; the points that fail their checks are withheld and listed."""
    READ_ONLY = "read_only"
    """Reads; no writes until the next start or a repair, mostly because a sync failed."""
    QUARANTINED = "quarantined"
    """Nothing: damage is not limited to single points, or the files are gone or cannot be opened."""
    FOREIGN = "foreign"
    """Nothing: another program wrote the data files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    failure: str | None = None
    """Why no writes are taken any more: a sync failed, and no store records it. None without one."""


@dataclass(frozen=True, slots=True)
class Opening(_Base):
    """The state in which the collection's files are read or made."""


@dataclass(frozen=True, slots=True)
class Postponed(_Base):
    """The state after a failed opening whose cause passes, for example a full disk. No damage is known."""

    error: Unavailable
    retry_at: float
    """time.monotonic of the next attempt."""


@dataclass(frozen=True, slots=True)
class Serving(_Base):
    """The state in which the collection answers reads, and takes writes unless it is `broken`."""


@dataclass(frozen=True, slots=True)
class InQuarantine(_Base):
    """The state of a collection whose files are damaged, gone, or cannot be opened."""

    error: Unavailable
    reopens: bool = False
    """Whether a change of the manifest, or the return of the files, is a reason to open them again."""
    awaited: DataFiles | None = None
    """The files that the collection lost, until they are back."""
    retry_at: float | None = None
    """time.monotonic of the next attempt, after an error of the engine itself."""


@dataclass(frozen=True, slots=True)
class ForeignData(_Base):
    """The state of a collection whose data files another program wrote."""

    error: Unavailable


@dataclass(frozen=True, slots=True)
class Retired(_Base):
    """The state of an object whose files a repair has taken; another object has the name."""

    error: Unavailable


@dataclass(frozen=True, slots=True)
class Dropping(_Base):
    """The state of a collection that is marked as dropped, or replaced; the folder may still be in place."""

    before: Undropped


Undropped: TypeAlias = Opening | Postponed | Serving | InQuarantine | ForeignData | Retired
Lifecycle: TypeAlias = Undropped | Dropping

TRANSITIONS: Final[Mapping[type[Lifecycle], frozenset[type[Lifecycle]]]] = {
    Opening: frozenset({Serving, Postponed, InQuarantine, ForeignData, Dropping}),
    Postponed: frozenset({Opening, Retired, Dropping}),
    Serving: frozenset({Serving, InQuarantine, Retired, Dropping}),
    InQuarantine: frozenset({Opening, InQuarantine, Retired, Dropping}),
    ForeignData: frozenset({Retired, Dropping}),
    Retired: frozenset({Dropping}),
    Dropping: frozenset({Dropping}),
}
"""The states that may follow each state. `without_drop` alone leads out of `Dropping`."""


class IllegalTransition(Exception):
    """Raised when a state cannot follow another one: a mistake of the caller."""


def transition(now: Lifecycle, to: Lifecycle) -> Lifecycle:
    """Return the state that follows `now`: `to`, with the failure that `now` carries.

    During a drop the state before it changes: a thread may still open the collection, and the drop goes on.
    Raises IllegalTransition for a pair that TRANSITIONS does not have.
    """
    if not isinstance(now, Dropping):
        return _next(now, to)
    return now if isinstance(to, Dropping) else replace(now, before=_next(now.before, to))


def dropped(now: Lifecycle) -> Lifecycle:
    """Return the state of a collection that is dropped or replaced from now on."""
    return now if isinstance(now, Dropping) else _next(now, Dropping(now))


def without_drop(now: Lifecycle) -> Lifecycle:
    """Return the state without the drop, whose mark was removed before the folder moved."""
    return replace(now.before, failure=now.failure) if isinstance(now, Dropping) else now


def failed(now: Lifecycle, reason: str) -> Lifecycle:
    """Return the same state, without writes from now on."""
    return replace(now, failure=reason)


_To = TypeVar("_To", bound=Lifecycle)


def _next(now: Lifecycle, to: _To) -> _To:
    if type(to) not in TRANSITIONS[type(now)]:
        raise IllegalTransition(f"{type(now).__name__} to {type(to).__name__}")
    return to if now.failure is None else replace(to, failure=now.failure)


class Stateful:
    """A thing with one of the states. Other threads may change the state at any moment."""

    def __init__(self) -> None:
        self.lifecycle: Lifecycle = Opening()
        """The state; only the methods below assign it, under `_moving`."""
        self.progress: dict[str, object] | None = None
        """The long work that is under way: `{"task", "done", "total"}`; None without any."""
        self._moving = threading.Lock()

    def move_to(self, state: Lifecycle) -> None:
        """Change the state; raise IllegalTransition when `state` cannot follow."""
        with self._moving:
            self.progress = None
            self.lifecycle = transition(self.lifecycle, state)

    def fail(self, reason: str) -> None:
        """Take no more writes: only another process, or the object after a repair, does."""
        with self._moving:
            self.lifecycle = failed(self.lifecycle, reason)

    def drop(self) -> None:
        """Answer no more requests: the collection is being dropped, or was replaced."""
        with self._moving:
            self.lifecycle = dropped(self.lifecycle)

    def stop_dropping(self) -> None:
        """Return to the state before a drop; do nothing without one."""
        with self._moving:
            self.lifecycle = without_drop(self.lifecycle)

    @property
    def undropped(self) -> Undropped:
        """Return the state; during a drop, the state before the drop."""
        now = self.lifecycle
        return now.before if isinstance(now, Dropping) else now

    def serves(self) -> bool:
        """Whether the collection answers reads."""
        return isinstance(self.lifecycle, Serving)

    @property
    def dropping(self) -> bool:
        """Whether the collection is being dropped, or was replaced."""
        return isinstance(self.lifecycle, Dropping)

    @property
    def is_being_opened(self) -> bool:
        """Whether the loader or a repair works on the files; False while the opening is postponed."""
        return isinstance(self.undropped, Opening | Retired)

    @property
    def reopens(self) -> bool:
        """Whether a change of the manifest is a reason to open the files again.

        After a failed sync only a new process sees which bytes the disk has.
        """
        now = self.undropped
        return isinstance(now, InQuarantine) and now.reopens and self.lifecycle.failure is None

    @property
    def retry_at(self) -> float | None:
        """Return the time.monotonic of the next attempt to open the collection; None without one."""
        now = self.undropped
        return now.retry_at if isinstance(now, Postponed | InQuarantine) else None

    @property
    def error(self) -> Unavailable | None:
        """Return the error that requests to a closed collection get; None while it opens or serves."""
        now = self.undropped
        return None if isinstance(now, Opening | Serving) else now.error
