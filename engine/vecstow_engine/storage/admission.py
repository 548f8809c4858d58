"""The guards of a group of effects, checked before the group is logged.

An id whose guard fails is left out of its effect; the other ids of the effect stay. Replay needs no guards:
the log contains what was left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vecstow_engine.model.conditions import Presence
from vecstow_engine.storage.log.segment import Delete, Effect, Guard, Upsert


@dataclass(frozen=True, slots=True)
class Admitted:
    """An effect without the ids whose guards fail."""

    effect: Effect
    rejected: tuple[int, ...] = ()
    """The positions of these ids in the effect that was asked for."""


def admit(
    effects: Sequence[Effect],
    live: Mapping[str, int],
    label_of: Callable[[int], int],
    version_of: Callable[[str], str | None],
) -> list[Admitted]:
    """Return what each effect may do at its turn.

    `live`: the slots of the ids that exist before the first effect. `label_of` returns the label of the point
    at a live slot, `version_of` the version of a live id, None for a damaged point. A point that an earlier
    effect of the group writes has a label and a version that no guard can name.
    """
    if all(effect.guards is None for effect in effects):
        return [Admitted(effect) for effect in effects]
    changed: dict[str, bool] = {}

    def holds(point_id: str, guard: Guard) -> bool:
        is_present = changed.get(point_id, point_id in live)
        if isinstance(guard, Presence):
            return is_present is (guard is Presence.PRESENT)
        if not is_present or point_id in changed:
            return False
        if isinstance(guard, frozenset):
            return version_of(point_id) in guard
        return label_of(live[point_id]) == guard

    admitted = []
    for effect in effects:
        guards = zip(effect.ids, effect.guards or (), strict=effect.guards is not None)
        rejected = tuple(at for at, guarded in enumerate(guards) if not holds(*guarded))
        left = _without(effect, rejected) if rejected else effect
        admitted.append(Admitted(left, rejected))
        changed.update(dict.fromkeys(left.ids, isinstance(left, Upsert)))
    return admitted


def _without(effect: Effect, positions: Sequence[int]) -> Effect:
    """Return an effect without the ids at these positions."""
    dropped = set(positions)
    kept = [at for at in range(len(effect.ids)) if at not in dropped]
    ids = [effect.ids[at] for at in kept]
    if isinstance(effect, Delete):
        return Delete(ids)
    payloads = [effect.payloads[at] for at in kept]
    return replace(effect, ids=ids, rows=effect.rows[np.array(kept, int)], payloads=payloads, guards=None)
