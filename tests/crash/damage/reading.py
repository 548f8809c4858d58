"""All that an engine tells of one collection: by id, by a scan, by searches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from random import Random

import msgspec
import numpy as np

from tests.crash.ledger import Points
from tests.crash.nearest import wrong_distances, wrong_hits
from tests.unit.running_engine import RunningEngine
from vecstow_engine.index.vector_index import FLAT_ROWS_MAX
from vecstow_engine.model.errors import Unavailable, VecstowError
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.points import Point
from vecstow_engine.model.searches import SearchQuery
from vecstow_engine.service.lifecycle import State
from vecstow_engine.service.stats import description

SERVED = (State.READY, State.DEGRADED, State.READ_ONLY)
SEARCHES = 4
SEARCHES_OF_A_GRAPH = 20
"""A graph that is damaged answers most of them rightly."""
NO_DISTANCE = 1e-4


@dataclass
class Seen:
    """One collection as its clients see it."""

    state: str
    reason: str | None = None
    points: Points = field(default_factory=dict)
    withheld: dict[str, str] = field(default_factory=dict)
    """The error that a reader of the point gets, by id."""
    listed: int = 0
    """How many it says that it withholds."""
    rebuilt: bool = False
    """Its index, or its table, was rebuilt."""
    wrong: list[str] = field(default_factory=list)
    """Answers that contradict each other, and errors where there should be none."""

    @property
    def served(self) -> bool:
        """It answers."""
        return self.state in SERVED


async def see(engine: RunningEngine, name: str, ids: Iterable[str], chance: Random) -> Seen:
    """Read all that it tells of `ids` and of whatever else it has."""
    try:
        collection = engine.collection(name)
        collection.readable()
    except VecstowError as error:
        return Seen(type(error).__name__.lower(), error.message)
    seen = Seen(collection.state.value)
    reads = [_read_points, _read_scan]
    chance.shuffle(reads)
    try:
        for read in reads:
            await read(engine, name, sorted(ids), seen)
        await _search(engine, name, seen, chance)
    except VecstowError as error:
        seen.wrong.append(f"a read of {name}, which is {collection.state}, fails: {error!r}")
    described = description(collection, engine.registry)
    seen.state, seen.reason = described["state"], described["reason"]
    seen.listed = len(described["withheld"])
    has_graph = collection.count <= FLAT_ROWS_MAX or collection.snapshot_sequence > 0
    seen.rebuilt = "rebuilt" in (seen.reason or "") or not has_graph
    if collection.count != len(seen.points) + len(seen.withheld):
        told = f"{len(seen.points)} served and {len(seen.withheld)} withheld"
        seen.wrong.append(f"{name} counts {collection.count} points: {told}")
    return seen


async def _read_points(engine: RunningEngine, name: str, ids: list[str], seen: Seen) -> None:
    """All at once, and where that is refused one half and then the other."""
    try:
        points = await engine.get_points(name, ids)
    except Unavailable as error:
        if len(ids) == 1:
            seen.withheld[ids[0]] = error.message
            return
        for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
            await _read_points(engine, name, half, seen)
    else:
        found = (point for point in points if point is not None)
        seen.points |= {point.id: (point.vector.astype("<f4").tobytes(), _decoded(point)) for point in found}


def _decoded(point: Point) -> dict[str, object] | None:
    return None if point.payload is None else msgspec.json.decode(point.payload)


async def _read_scan(engine: RunningEngine, name: str, ids: list[str], seen: Seen) -> None:
    """Every point once, and of each what its id gives too."""
    store = engine.collection(name).store
    scanned = [] if store is None else list(store.view.scan())
    counts = Counter(point_id for _, point_id, _ in scanned)
    if twice := [point_id for point_id, count in counts.items() if count > 1]:
        seen.wrong.append(f"{twice[:3]} stand twice in {name}")
    if strangers := counts.keys() - set(ids):
        seen.wrong.append(f"{sorted(strangers)[:3]} in {name} were never written")


async def _search(engine: RunningEngine, name: str, seen: Seen, chance: Random) -> None:
    """A graph may miss a point now and then; whatever else is there is exact."""
    index = engine.collection(name).index
    is_flat = index is None or index.graph_rows == 0
    missed = []
    for _ in range(SEARCHES if is_flat else SEARCHES_OF_A_GRAPH):
        own, wrong = await _search_once(engine, name, seen.points, chance)
        missed += [own] if own is not None else []
        seen.wrong += [] if wrong is None else [f"a search of {name} for {wrong}"]
    if len(missed) > (0 if is_flat else SEARCHES_OF_A_GRAPH // 5):
        seen.wrong.append(f"searches of {name} find nothing at the places of {missed}")


async def _search_once(
    engine: RunningEngine, name: str, points: Points, chance: Random
) -> tuple[str | None, str | None]:
    """For a point's own vector, or where there is none; filtered or not.

    Returns whether a point was not found by its own vector, and what is wrong with the answer.
    """
    manifest = engine.collection(name).manifest
    is_exact = len(points) <= FLAT_ROWS_MAX
    vector = np.array([chance.randint(-127, 127) for _ in range(manifest.dimension)], np.float32)
    own = chance.choice([*sorted(points), None])
    if own is not None:
        vector = np.frombuffer(points[own][0], "<f4")
    kind = chance.choice((None, None, chance.randrange(30)))
    limit = chance.choice((1, 5, len(points) + 3 if is_exact else 20))
    query = SearchQuery.build(
        manifest, vector, limit, ef_search=200, filter=None if kind is None else parse_filter({"kind": kind})
    )
    hits = await engine.search(name, query)
    wanted = points if kind is None else _of_kind(points, kind)
    judge = partial(wrong_hits, limit=limit) if is_exact else wrong_distances
    wrong = judge(manifest.distance_metric.value, vector, hits=hits, points=wanted)
    is_missed = own is not None and kind is None and not (hits and hits[0].distance < NO_DISTANCE)
    return own if is_missed else None, wrong and f"{vector.tolist()}, filter {kind}: {wrong}"


def _of_kind(points: Points, kind: int) -> Points:
    return {i: point for i, point in points.items() if (point[1] or {}).get("kind") == kind}
