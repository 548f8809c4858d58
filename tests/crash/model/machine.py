"""What may be done to an engine, in any order, and what must be found after each step."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from tests.crash.ledger import Points
from tests.crash.model.site import CALLS_OF_A_START, MOMENTS, Site
from tests.crash.model.world import DIMENSION, VALUES, Kept, Rested, stored, vector_of, with_even
from tests.crash.nearest import wrong_distances, wrong_hits
from tests.crash.reading import HOLD_SECONDS
from vecstow_engine.model.batch import Hit, PointBatch, SearchQuery
from vecstow_engine.model.errors import Busy, Conflict, DiskFull
from vecstow_engine.model.filters import Filter, parse_filter
from vecstow_engine.model.manifest import IndexConfig, Manifest
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.service.collection import Collection, State
from vecstow_engine.service.snapshotter import take_snapshot
from vecstow_engine.storage.layout import Layout

FLAT_ROWS_MAX = 12
"""For these examples: more rows than that make a graph."""
NAMES = ("a", "b", "c")
IDS = [f"p{number}" for number in range(24)]
CONFIG = IndexConfig(max_connections=6, ef_construction=60)
EF_SEARCH = 200
NO_DISTANCE = 1e-4

METRIC = st.sampled_from(list(DistanceMetric))
KIND = st.sampled_from(list(VectorType))
NAME = st.sampled_from(NAMES)
PICK = st.integers(0, 11)
"""One of those that there are."""
VALUE = st.integers(0, VALUES - 1)
POINTS = st.dictionaries(st.sampled_from(IDS), VALUE, min_size=1, max_size=16)
MANY = st.dictionaries(st.sampled_from(IDS), VALUE, min_size=6, max_size=20)
SOME_IDS = st.sets(st.sampled_from(IDS), min_size=1, max_size=6)
SHARE = st.floats(0, 1)

has_collections = precondition(lambda self: self.live)
is_free = precondition(lambda self: not self.held)


class EngineMachine(RuleBasedStateMachine):
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

    # Collections ------------------------------------------------------------------------------------------

    @initialize(metric=METRIC, kind=KIND, values=MANY)
    def begin(self, metric: DistanceMetric, kind: VectorType, values: dict[str, int]) -> None:
        """Most of what can be done needs points."""
        self.create(NAMES[0], metric, kind)
        self.put(0, values)

    @precondition(lambda self: len(self.live) < len(NAMES))
    @rule(name=NAME, metric=METRIC, kind=KIND)
    def create(self, name: str, metric: DistanceMetric, kind: VectorType) -> None:
        manifest = Manifest(name, DIMENSION, metric, kind, CONFIG)
        if name in self.live:
            self.refused(Conflict, lambda: self.site.engine.create(manifest))
        else:
            self.site.engine.create(manifest)
            self.live[name] = Kept(metric, kind)

    @has_collections
    @rule(pick=PICK)
    def drop(self, pick: int) -> None:
        name = self.named(pick)
        if self.held:
            self.refused(Conflict, lambda: self.site.engine.drop(name))
            return
        before = {str(row["path"]) for row in self.site.engine.deleted()}
        self.site.engine.drop(name)
        [path] = {str(row["path"]) for row in self.site.engine.deleted()} - before
        self.dropped.append(Rested(path, name, self.live.pop(name)))

    @precondition(lambda self: self.dropped)
    @rule(pick=PICK, new_name=st.none() | NAME)
    def restore(self, pick: int, new_name: str | None) -> None:
        rested = self.dropped[pick % len(self.dropped)]
        name = new_name or rested.name
        restore = partial(self.site.engine.restore, rested.path, new_name)
        if self.held or name in self.live:
            self.refused(Conflict, restore)
            return
        assert restore() == name
        self.dropped.remove(rested)
        self.live[name] = rested.kept

    @is_free
    @has_collections
    @rule(pick=PICK)
    def hard_delete(self, pick: int) -> None:
        name = self.named(pick)
        self.site.engine.hard_delete(name)
        del self.live[name]

    @is_free
    @precondition(lambda self: self.dropped)
    @rule()
    def cleanup(self) -> None:
        purged = self.site.engine.cleanup(0)
        assert sorted(purged) == sorted(rested.name for rested in self.dropped)
        self.dropped = []

    @has_collections
    @rule(pick=PICK)
    def backup(self, pick: int) -> None:
        name = self.named(pick)
        try:
            path = self.site.engine.backup(name)
        except Conflict as error:  # a backup is named by the second
            if "wait a second" in (error.hint or ""):
                return
            raise
        kept = self.live[name]
        self.backups.append(Rested(path, name, Kept(kept.metric, kept.vector_type, kept.points)))

    @precondition(lambda self: self.backups)
    @rule(pick=PICK, name=NAME)
    def restore_backup(self, pick: int, name: str) -> None:
        rested = self.backups[pick % len(self.backups)]
        restore = partial(self.site.engine.restore, rested.path, name)
        if self.held or name in self.live:
            self.refused(Conflict, restore)
            return
        restore()
        self.live[name] = kept = Kept(rested.kept.metric, rested.kept.vector_type, rested.kept.points)
        kept.history = {self.sequence(name): kept.points}

    # Points -----------------------------------------------------------------------------------------------

    @has_collections
    @rule(pick=PICK, values=POINTS)
    def put(self, pick: int, values: dict[str, int]) -> None:
        name = self.named(pick)
        points = {point_id: stored(value) for point_id, value in values.items()}
        if self.held and self.collection(name).store is None:
            self.refused(Busy, lambda: self.write(name, values))
            return
        self.write(name, values)
        self.live[name].became(self.live[name].points | points, self.sequence(name))

    @has_collections
    @rule(pick=PICK, values=POINTS)
    def put_more(self, pick: int, values: dict[str, int]) -> None:
        """A second time, so that it is chosen more often."""
        self.put(pick, values)

    @has_collections
    @rule(pick=PICK, shift=VALUE)
    def update_all(self, pick: int, shift: int) -> None:
        """Every point gets another vector, in one batch."""
        values = {point_id: (shift + place) % VALUES for place, point_id in enumerate(self.points(pick))}
        if values:
            self.put(pick, values)

    @has_collections
    @rule(pick=PICK, ids=SOME_IDS)
    def delete(self, pick: int, ids: set[str]) -> None:
        name = self.named(pick)
        points = self.live[name].points
        existed = self.site.do(self.site.engine.delete_points(name, sorted(ids)))
        assert existed == [point_id in points for point_id in sorted(ids)]
        left = {point_id: point for point_id, point in points.items() if point_id not in ids}
        self.live[name].became(left, self.sequence(name))

    @has_collections
    @rule(pick=PICK, value=VALUE, limit=st.integers(1, 30), even=st.none() | st.booleans())
    def search(self, pick: int, value: int, limit: int, even: bool | None) -> None:
        name = self.named(pick)
        points = self.live[name].points
        matching = points if even is None else with_even(points, even=even)
        condition = None if even is None else parse_filter({"even": even})
        self.finds(name, vector_of(value), limit, matching, condition)

    # Upkeep -----------------------------------------------------------------------------------------------

    @is_free
    @has_collections
    @rule(pick=PICK)
    def checkpoint(self, pick: int) -> None:
        name = self.named(pick)
        if self.collection(name).store is not None:
            self.site.engine.checkpoint(name)

    @is_free
    @has_collections
    @rule(pick=PICK)
    def checkpoint_without_room(self, pick: int) -> None:
        """What is written from now on comes to a second layer, and to a second segment."""
        name = self.named(pick)
        store = self.collection(name).store
        if store is not None and (store.layers.frozen is not None or store.layers.active.last_sequence):
            with self.site.without_room():
                self.refused(DiskFull, lambda: self.site.engine.checkpoint(name))

    @is_free
    @has_collections
    @rule(pick=PICK)
    def compact(self, pick: int) -> None:
        name = self.named(pick)
        self.site.engine.compact(name)
        self.live[name].became(self.live[name].points, self.sequence(name))

    @has_collections
    @rule(pick=PICK, rebuilds=st.booleans())
    def move_to_graph(self, pick: int, rebuilds: bool) -> None:
        collection = self.collection(self.named(pick))
        if collection.index is not None:
            if rebuilds:
                collection.index.start_rebuild(CONFIG)
                self.site.engine._indexer.notify(collection)
            self.site.engine.indexed(collection.name)

    @is_free
    @has_collections
    @rule(pick=PICK)
    def snapshot(self, pick: int) -> None:
        name = self.named(pick)
        if self.collection(name).store is not None:
            collection = self.site.engine.indexed(name)
            with collection.upkeep:
                take_snapshot(collection, lambda: self.site.engine._upkeep.checkpoint(collection))

    @is_free
    @has_collections
    @rule()
    def hold(self) -> None:
        self.site.engine.hold(HOLD_SECONDS)
        self.held = True

    @precondition(lambda self: self.held)
    @rule()
    def release(self) -> None:
        self.site.engine.release_hold()
        self.held = False

    # Starts -----------------------------------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        self.site.restart()
        self.held = False

    @rule()
    def kill(self) -> None:
        self.site.kill()
        self.held = False

    @has_collections
    @rule(pick=PICK, values=POINTS, call=st.sampled_from(CALLS_OF_A_START))
    def kill_in_start(self, pick: int, values: dict[str, int], call: str) -> None:
        """What was replayed is replayed again."""
        self.put(pick, values)
        self.site.kill_in_start(call)
        self.held = False

    @is_free
    @has_collections
    @rule(pick=PICK, values=POINTS, moment=st.sampled_from(list(MOMENTS)), loses_log=st.booleans())
    def kill_in_checkpoint(self, pick: int, values: dict[str, int], moment: str, loses_log: bool) -> None:
        """Whatever it was in the middle of, what the last checkpoint has is there without the log.

        Of two updates the second must not take the slots that the first gave up.
        """
        self.put(pick, values)
        self.put(pick, values)
        name = self.named(pick)
        store = self.collection(name).store
        if store is None:
            return
        uid, kept = store.identity.uid, self.live[name]
        kept.applied = store.meta.applied

        def change(layout: Layout) -> None:
            if loses_log:
                shutil.rmtree(layout.log(uid), ignore_errors=True)

        if moment == "idle" or not self.site.kill_in_checkpoint(name, moment, change):
            self.site.kill(change)
        if loses_log:
            found = self.collection(name).store
            assert found is not None
            kept.fell_back(found.meta.applied)

    @has_collections
    @rule(pick=PICK, values=POINTS, share=SHARE, grown=st.booleans())
    def kill_in_write(self, pick: int, values: dict[str, int], share: float, grown: bool) -> None:
        """Its record is cut at any byte; the file's length may have grown before its content did."""
        name = self.named(pick)
        store, kept = self.collection(name).store, self.live[name]
        if store is None:
            return
        store.log.resume()
        begin = store.log.size
        self.write(name, values)
        end = store.log.size
        stop = begin + round(share * (end - begin))
        uid = store.identity.uid
        if stop == end:
            points = {point_id: stored(value) for point_id, value in values.items()}
            kept.became(kept.points | points, self.sequence(name))
        self.site.kill(lambda layout: cut_newest(layout.log(uid), stop, end if grown else stop))
        self.held = False

    # What must be found -----------------------------------------------------------------------------------

    @invariant()
    def tells_what_a_dictionary_would(self) -> None:
        self.site.did["steps"] += 1
        assert self.site.engine.collection_names() == sorted(self.live)
        deleted = sorted(str(row["path"]) for row in self.site.engine.deleted())
        assert deleted == sorted(rested.path for rested in self.dropped)
        for name, kept in self.live.items():
            self.holds(name, kept.points)
            for data, _ in list(kept.points.values())[:1]:
                hits = self.finds(name, np.frombuffer(data, "<f4"), 5, kept.points)
                if kept.metric is not DistanceMetric.DOT_PRODUCT:
                    assert hits[0].distance < NO_DISTANCE, f"a point is not at its own place: {hits}"

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

    # Words for the above ----------------------------------------------------------------------------------

    def write(self, name: str, values: dict[str, int]) -> None:
        vectors = np.stack([vector_of(value) for value in values.values()])
        payloads = [stored(value)[1] for value in values.values()]
        batch = PointBatch.build(self.collection(name).manifest, list(values), vectors, payloads)
        self.site.do(self.site.engine.upsert(name, batch))

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


def cut_newest(folder: Path, length: int, grown_to: int) -> None:
    """Of the newest segment no more is left than this, and zeros."""
    path = max(folder.glob("*.log"))
    raw = path.read_bytes()[:length]
    path.write_bytes(raw + bytes(grown_to - length))
