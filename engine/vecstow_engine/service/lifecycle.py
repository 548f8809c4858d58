"""The states of a collection, and which may follow which. Pure.

A collection is in exactly one of these states. What clients may do, what the API calls it and what opens it
again follow from the state alone; `Serving` also looks at the store, which knows of damage and of syncs that
failed.

    state         API                              reads  writes  left by
    Opening       recovering                       503    503     the loader
    Postponed     recovering                       503    503     a retry at `retry_at`, a drop
    Serving       ready, degraded, read_only       yes    yes     lost files, a repair, a drop
    Quarantined   quarantined                      503    503     a changed manifest, returned files, a repair
    Foreign       foreign                          409    409     an import in its place, a repair, a drop
    Retired       recovering                       503    503     never: another object has the name
    Dropping      as before                        404    404     the manifest without the mark
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from vecstow_engine.model.errors import Unavailable
from vecstow_engine.storage.file_identity import DataFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class _Any:
    failure: str | None = None
    """Why no writes are taken until the process ends, though no store says so: a sync outside it failed."""


@dataclass(frozen=True, slots=True)
class Opening(_Any):
    """Its files are read, or made."""


@dataclass(frozen=True, slots=True)
class Postponed(_Any):
    """It could not be opened for a reason that passes. Nothing is known to be wrong with its files."""

    error: Unavailable
    retry_at: float
    """time.monotonic."""


@dataclass(frozen=True, slots=True)
class Serving(_Any):
    """It answers reads, and takes writes unless a sync failed."""


@dataclass(frozen=True, slots=True)
class Quarantined(_Any):
    """Its files are damaged or gone."""

    error: Unavailable
    reopens: bool = False
    """A change of its manifest, or the return of its files, is a reason to look at the files again."""
    awaited: DataFiles | None = None
    """The files that it lost."""
    retry_at: float | None = None
    """time.monotonic of the next attempt, when an error of the engine itself kept it closed."""


@dataclass(frozen=True, slots=True)
class Foreign(_Any):
    """Another program wrote its data files."""

    error: Unavailable


@dataclass(frozen=True, slots=True)
class Retired(_Any):
    """A repair has its files, and another object stands for it."""

    error: Unavailable


@dataclass(frozen=True, slots=True)
class Dropping(_Any):
    """It is marked as dropped, or replaced; its folder may not be moved yet."""

    before: Lasting


Lasting: TypeAlias = Opening | Postponed | Serving | Quarantined | Foreign | Retired
Lifecycle: TypeAlias = Lasting | Dropping

TRANSITIONS: Final[Mapping[type[Lifecycle], frozenset[type[Lifecycle]]]] = {
    Opening: frozenset({Serving, Postponed, Quarantined, Foreign, Dropping}),
    Postponed: frozenset({Opening, Dropping}),
    Serving: frozenset({Serving, Quarantined, Retired, Dropping}),
    Quarantined: frozenset({Opening, Quarantined, Retired, Dropping}),
    Foreign: frozenset({Retired, Dropping}),
    Retired: frozenset(),
    Dropping: frozenset({Dropping, Retired}),
}
"""Which states may follow which. A collection whose mark was removed goes back to the state before."""


class IllegalTransition(Exception):
    """Raised when a state cannot follow another one: a mistake of the caller."""


def transition(now: Lifecycle, to: Lifecycle) -> Lifecycle:
    """Return the state that follows `now`: `to`, with the failure that `now` carries.

    Raises IllegalTransition for a pair that TRANSITIONS does not have.
    """
    returns = isinstance(now, Dropping) and to == now.before
    if not returns and type(to) not in TRANSITIONS[type(now)]:
        raise IllegalTransition(f"{type(now).__name__} to {type(to).__name__}")
    if isinstance(now, Dropping) and isinstance(to, Dropping):
        return now
    return to if now.failure is None else replace(to, failure=now.failure)


def failed(now: Lifecycle, reason: str) -> Lifecycle:
    """Return the same state, without writes from now on."""
    return replace(now, failure=reason)
