"""The base of every rule: the engine, the content that must be there, and the check after each step."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis.stateful import RuleBasedStateMachine, invariant
from numpy.typing import NDArray

from tests.crash.ledger import Points
from tests.crash.model.site import Site
from tests.crash.model.world import IDS, Kept, Rested, stored, vector_of
from tests.crash.nearest import wrong_distances, wrong_hits
from vecstow_engine.model.filters import Filter
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.model.points import PointBatch
from vecstow_engine.model.scrolls import ScrollQuery
from vecstow_engine.model.searches import Hit, SearchQuery
from vecstow_engine.query.scroll import ScrolledPoint
from vecstow_engine.service.collection import Collection
from vecstow_engine.service.lifecycle import State
from vecstow_engine.service.selections import PageReader

EF_SEARCH = 200
NO_DISTANCE = 1e-4
PAGE_POINTS = 7


class Machine(RuleBasedStateMachine):
    """`live`, `dropped` and `backups` say what there must be."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.site = Site(self.folder)
        self.live: dict[str, Kept] = {}
        self.dropped: list[Rested] = []
        self.backups: list[Rested] = []
        self.held = False

    def teardown(self) -> None:
        self.site.close()
        shutil.rmtree(self.folder)

    @invariant()
    def tells_what_a_dictionary_would(self) -> None:
        self.site.did["steps"] += 1
        assert self.site.engine.collection_names() == sorted(self.live)
        deleted = sorted(str(row["path"]) for row in self.site.engine.catalog.deleted())
        assert deleted == sorted(rested.path for rested in self.dropped)
        for name, kept in self.live.items():
            self.holds(name, kept.points)
            for data, _ in list(kept.points.values())[:1]:
                hits = self.finds(name, np.frombuffer(data, "<f4"), 5, kept.points)
                if kept.metric is not DistanceMetric.DOT_PRODUCT and self.leads_to_all(name):
                    assert hits[0].distance < NO_DISTANCE, f"a point is not at its own place: {hits}"

    def leads_to_all(self, name: str) -> bool:
        """hnswlib links new rows to no deleted ones: among many of those, some rows are out of reach.

        Above a quarter deleted the engine builds the graph again, in its time; here it does not.
        """
        index = self.collection(name).index
        return index is None or index.deleted_share == 0

    def finds(
        self, name: str, vector: NDArray[np.float32], limit: int, points: Points, filter: Filter | None = None
    ) -> list[Hit]:
        """Exactly the nearest; with a graph as many, each as far as it says."""
        collection, metric = self.collection(name), self.live[name].metric.value
        query = SearchQuery.build(collection.manifest, vector, limit, EF_SEARCH, filter)
        hits = self.site.do(self.site.engine.search(name, query))
        if collection.index is None or collection.index.graph_rows == 0:
            assert wrong_hits(metric, vector, limit, hits, points) is None
        else:
            assert wrong_distances(metric, vector, hits, points) is None
            assert len(hits) == min(limit, len(points))
        return hits

    def holds(self, name: str, points: Points) -> None:
        collection = self.collection(name)
        assert collection.state is State.READY, f"{name} is {collection.state}: {collection.reason}"
        assert collection.count == len(points), f"{name} counts {collection.count} points, not {len(points)}"
        found = [p for p in self.site.do(self.site.engine.get_points(name, IDS)) if p is not None]
        told = {p.id: (p.vector.astype("<f4").tobytes(), p.payload and json.loads(p.payload)) for p in found}
        wrong = [i for i in IDS if told.get(i) != points.get(i)]
        assert not wrong, f"{name}: {wrong} are lost, changed or back again"
        scanned = [] if collection.store is None else list(collection.store.view.scan())
        assert sorted(point_id for _, point_id, _ in scanned) == sorted(points), f"{name} is scanned wrongly"
        assert {i: raw for _, i, raw in scanned} == {p.id: p.payload for p in found}
        listed = self.site.do(everything(self.site.engine.selections.scroll(collection, ScrollQuery(""))))
        assert [p.position.id for p in listed] == sorted(points), f"{name} is listed wrongly"
        assert {p.position.id: p.payload for p in listed} == {p.id: p.payload for p in found}

    def write(self, name: str, values: dict[str, int]) -> None:
        self.site.do(self.upsert(name, values))

    def remove(self, name: str, ids: set[str]) -> Coroutine[Any, Any, list[bool]]:
        return self.site.engine.delete_points(name, sorted(ids))

    def upsert(self, name: str, values: dict[str, int]) -> Coroutine[Any, Any, list[str]]:
        return self.site.engine.upsert(name, self.batch(name, values))

    def batch(self, name: str, values: dict[str, int]) -> PointBatch:
        vectors = np.stack([vector_of(value) for value in values.values()])
        payloads = [stored(value)[1] for value in values.values()]
        return PointBatch.build(self.collection(name).manifest, list(values), vectors, payloads)

    def named(self, pick: int) -> str:
        names = sorted(self.live)
        return names[pick % len(names)]

    def points(self, pick: int) -> Points:
        return self.live[self.named(pick)].points

    def collection(self, name: str) -> Collection:
        return self.site.engine.collection(name)

    def sequence(self, name: str) -> int:
        store = self.collection(name).store
        return store.last_sequence if store is not None else 0

    def refused(self, kind: type[Exception], call: Callable[[], object]) -> None:
        """It raises this, and nothing is changed."""
        try:
            call()
        except kind:
            return
        raise AssertionError(f"no {kind.__name__}")


async def everything(reader: PageReader) -> list[ScrolledPoint]:
    """The points of all pages."""
    found: list[ScrolledPoint] = []
    while not reader.is_done:
        found += await reader.read(PAGE_POINTS)
    return found
