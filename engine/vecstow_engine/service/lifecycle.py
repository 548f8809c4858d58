"""The states of a collection and the transitions between them. Pure.

A collection is in exactly one of these states. The state alone decides the requests that are answered, the
name in the API and the event that opens the collection again. For `Serving` the name also depends on the
store, which records damage and failed syncs.

    state         API                              reads  writes  left by
    Opening       recovering                       503    503     the loader
    Postponed     recovering                       503    503     a retry at `retry_at`, a drop
    Serving       ready, degraded                  yes    yes     lost files, a repair, a drop
                  read_only                        yes    503     lost files, a repair, a drop
    Quarantined   quarantined                      503    503     a changed manifest, returned files, a repair
    Foreign       foreign                          503    503     an import in its place, a repair, a drop
    Retired       recovering                       503    503     never: another object has the name
    Dropping      as before                        404    404     the manifest without the mark
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, TypeVar

from vecstow_engine.model.errors import Unavailable
from vecstow_engine.storage.handles import DataFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class _Any:
    failure: str | None = None
    """Why the collection takes no writes until the process ends: a sync failed, and no store says so."""


@dataclass(frozen=True, slots=True)
class Opening(_Any):
    """The state in which the collection's files are read or made."""


@dataclass(frozen=True, slots=True)
class Postponed(_Any):
    """The state after a failed opening whose cause passes, for example a full disk. No damage is known."""

    error: Unavailable
    retry_at: float
    """time.monotonic of the next attempt."""


@dataclass(frozen=True, slots=True)
class Serving(_Any):
    """The state in which the collection answers reads, and takes writes unless a sync failed."""


@dataclass(frozen=True, slots=True)
class Quarantined(_Any):
    """The state of a collection whose files are damaged, gone, or cannot be opened."""

    error: Unavailable
    reopens: bool = False
    """Whether a change of the manifest, or the return of the files, is a reason to open them again."""
    awaited: DataFiles | None = None
    """The files that the collection lost, until they are back."""
    retry_at: float | None = None
    """time.monotonic of the next attempt, after an error of the engine itself."""


@dataclass(frozen=True, slots=True)
class Foreign(_Any):
    """The state of a collection whose data files another program wrote."""

    error: Unavailable


@dataclass(frozen=True, slots=True)
class Retired(_Any):
    """The state of an object whose files a repair has taken; another object has the name."""

    error: Unavailable


@dataclass(frozen=True, slots=True)
class Dropping(_Any):
    """The state of a collection that is marked as dropped, or replaced; the folder may still be in place."""

    before: Lasting


Lasting: TypeAlias = Opening | Postponed | Serving | Quarantined | Foreign | Retired
Lifecycle: TypeAlias = Lasting | Dropping

TRANSITIONS: Final[Mapping[type[Lifecycle], frozenset[type[Lifecycle]]]] = {
    Opening: frozenset({Serving, Postponed, Quarantined, Foreign, Dropping}),
    Postponed: frozenset({Opening, Retired, Dropping}),
    Serving: frozenset({Serving, Quarantined, Retired, Dropping}),
    Quarantined: frozenset({Opening, Quarantined, Retired, Dropping}),
    Foreign: frozenset({Retired, Dropping}),
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
