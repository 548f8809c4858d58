"""A volume that is written to after it was damaged: what it takes then is there after the next start."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

import numpy as np

from tests.crash.damage.reading import Seen
from tests.crash.damage.volume import new_points, put
from tests.crash.ledger import Points
from tests.unit.running_engine import RunningEngine
from vecstow_engine.model.errors import VecstowError

TAKEN_MAX = 2


@dataclass
class Written:
    """The content that one collection must have after the next start."""

    points: Points
    withheld: set[str]
    """Points that were withheld, and still are."""
    refused: list[str] = field(default_factory=list)
    """The errors of refused writes, and of a refused checkpoint."""


async def write_on(engine: RunningEngine, name: str, seen: Seen, chance: Random) -> Written:
    """Update, delete and add points, served ones and withheld ones, and make a checkpoint."""
    written = Written(dict(seen.points), set(seen.withheld))
    served, withheld = _some(seen.points, chance), _some(seen.withheld, chance)
    dimension = engine.collection(name).manifest.dimension
    rng = np.random.default_rng(chance.randrange(1 << 32))
    for ids in (served[:1], withheld[:1], [f"{name}-new-{number}" for number in range(3)]):
        points = new_points(rng, ids, dimension)
        if points and await _taken(put(engine, name, points), written):
            written.points |= points
            written.withheld -= set(points)
    for ids in (served[1:], withheld[1:]):
        if ids and await _taken(engine.delete_points(name, ids), written):
            written.points = {i: point for i, point in written.points.items() if i not in ids}
            written.withheld -= set(ids)
    try:
        await asyncio.to_thread(engine.checkpoint, name)
    except VecstowError as error:
        written.refused.append(f"checkpoint: {error.message}")
    return written


def judge_refusals(engine: RunningEngine, name: str, written: Written) -> list[str]:
    """A failed checkpoint makes it read-only, and it says why."""
    failed = [told for told in written.refused if told.startswith("checkpoint")]
    described = engine.describe(name)
    if failed and (described["state"] != "read_only" or "points.db" not in str(described["reason"])):
        return [f"{name} is {described['state']}, {described['reason']} after: {failed}"]
    return []


def judge_after(name: str, written: Written, seen: Seen, *, was_damaged: bool) -> list[str]:
    """After the next start."""
    if not seen.served and was_damaged:
        return []
    wrong = list(seen.wrong)
    wanted = {i: point for i, point in written.points.items() if i not in seen.withheld or not was_damaged}
    if seen.points != wanted or not (seen.withheld.keys() <= written.withheld or was_damaged):
        changed = sorted(i for i in wanted.keys() | seen.points if wanted.get(i) != seen.points.get(i))
        wrong.append(
            f"after writes and a restart {name} differs in {changed[:5]}; it withholds {seen.withheld}"
        )
    if written.refused and not was_damaged:
        wrong.append(f"{name} refused writes: {written.refused}")
    return wrong


async def _taken(call: object, written: Written) -> bool:
    try:
        await call  # type: ignore[misc]
    except VecstowError as error:
        written.refused.append(error.message)
        return False
    return True


def _some(ids: object, chance: Random) -> list[str]:
    known = sorted(ids)  # type: ignore[call-overload]
    return chance.sample(known, min(TAKEN_MAX, len(known)))
