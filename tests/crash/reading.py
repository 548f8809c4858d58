"""The content that a volume serves, as the engine's own service in this process finds it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tests.crash.ledger import Content, Points, alias_content
from tests.unit.running_engine import RunningEngine
from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.points import Point
from vecstow_engine.model.searches import SearchQuery
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.lifecycle import State
from vecstow_engine.storage.store import Store

SERVED = (State.READY, State.DEGRADED, State.READ_ONLY)
SEARCHED_MAX = 8
"""Points of a collection that are looked for by their own vectors."""
HOLD_SECONDS = 3600.0
"""The longest that an engine grants: a hold must not end while an example still counts on it."""


@dataclass
class Recovery:
    """The result of one start on a volume."""

    content: Content = field(default_factory=dict)
    """The served points, of the collections that serve."""
    states: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str | None] = field(default_factory=dict)
    withheld: dict[str, int] = field(default_factory=dict)
    """How many points each collection says that it withholds, after all were read."""
    wrong: list[str] = field(default_factory=list)
    """Answers that contradict each other: a point twice, one that is scanned and not found, a wrong hit."""
    deleted: list[dict[str, object]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Folders whose manifest cannot be read."""


@contextmanager
def killed(data: Path, **storage: Any) -> Iterator[RunningEngine]:
    """A started engine that ends as if it were killed: it writes nothing at its end.

    Its descriptors are closed, which lets SQLite move what its `-wal` has.
    """
    with RunningEngine(data, **storage) as engine:
        try:
            yield engine
        finally:
            engine.hold.begin(HOLD_SECONDS)


def recovered(data: Path, searches: int = SEARCHED_MAX, **storage: Any) -> Recovery:
    """Start on `data`, read everything in three ways, and end as if killed. Raises what a start raises."""
    with killed(data, **storage) as engine:
        return read(engine, searches)


def read(engine: RunningEngine, searches: int = SEARCHED_MAX) -> Recovery:
    """Everything that a running engine serves; so many points of each collection are searched."""
    found = Recovery(deleted=engine.catalog.deleted(), broken=sorted(engine.registry.broken()))
    for collection in engine.registry.collections():
        found.states[collection.name] = collection.state.value
        if collection.state in SERVED:
            found.content[collection.name] = _read_collection(engine, collection, found)
            found.states[collection.name] = collection.state.value
            store = collection.store
            found.withheld[collection.name] = len(store.layers.withheld) if store is not None else 0
        found.reasons[collection.name] = collection.reason
    for alias in engine.aliases.listed():
        found.content |= alias_content(alias.name, alias.collection)
        if engine.collection(alias.name).name != alias.collection:
            found.wrong.append(f"alias {alias.name} is listed for {alias.collection}, and leads elsewhere")
    if searches:
        asyncio.run(_search_all(engine, found, searches))
    return found


def _read_collection(engine: RunningEngine, collection: Collection, found: Recovery) -> Points:
    store = collection.store
    if store is None:
        return {}
    try:
        scanned = {point_id: payload for _, point_id, payload in _once(store.view.scan(), found)}
        points: Points = {}
        for point_id, point in _points(store, list(scanned)):
            payload = scanned[point_id]
            if point is None or point.payload != payload:
                found.wrong.append(f"{collection.name}: {point_id} is scanned, but by its id it is {point}")
                continue
            decoded = None if payload is None else msgspec.json.decode(payload)
            points[point_id] = point.vector.astype("<f4").tobytes(), decoded
    except VecstowError as error:
        found.wrong.append(f"{collection.name} is {collection.state}, but cannot be read: {error}")
        return {}
    if store.count != len(points) + len(store.layers.withheld):
        found.wrong.append(f"{collection.name} counts {store.count} points, but has {len(points)}")
    return points


def _points(store: Store, ids: list[str]) -> Iterator[tuple[str, Point | None]]:
    """All but the withheld, whose rows fail; these make a read of many fail."""
    try:
        yield from zip(ids, store.view.get(ids), strict=True)
    except VecstowError:
        for point_id in ids:
            with suppress(VecstowError):
                yield point_id, store.view.get([point_id])[0]


def _once(scan: Iterator[tuple[int, str, bytes | None]], found: Recovery) -> list[Any]:
    scanned = list(scan)
    twice = [point_id for point_id, n in Counter(point_id for _, point_id, _ in scanned).items() if n > 1]
    if twice:
        found.wrong.append(f"{twice[:3]} stand twice")
    return scanned


async def _search_all(engine: RunningEngine, found: Recovery, searches: int) -> None:
    collections = [c for c in engine.registry.collections() if c.name in found.content]
    await asyncio.gather(*(_search(engine, c, found, searches) for c in collections))


async def _search(engine: RunningEngine, collection: Collection, found: Recovery, searches: int) -> None:
    """A point's own vector finds a point that has it, each point is found once, and nothing else is."""
    points = found.content[collection.name]
    for point_id in sorted(points)[:: len(points) // searches + 1]:
        vector = np.frombuffer(points[point_id][0], "<f4")
        query = SearchQuery.build(collection.manifest, vector, min(len(points), 10), ef_search=200)
        hits = [hit.id for hit in await engine.search(collection.name, query)]
        if len(set(hits)) != len(hits) or not set(hits) <= points.keys():
            found.wrong.append(f"{collection.name}: a search finds {hits}")
        if not any(points[hit][0] == points[point_id][0] for hit in hits if hit in points):
            if collection.manifest.distance_metric.value == "DotProduct":
                continue  # longer vectors may come before itself
            found.wrong.append(f"{collection.name}: {point_id} is not found by its own vector: {hits}")
