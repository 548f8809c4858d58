"""The life of payload indexes: declared and changed while the engine serves, built in the background."""

import asyncio
import dataclasses
import threading

import pytest
from structlog.testing import capture_logs

from tests.unit.indexed_points import INDEXES, IndexedPoints, Reads
from tests.unit.running_engine import wait_until
from vecstow_engine.index.payload.column import Column
from vecstow_engine.index.payload.payload_columns import PayloadColumns
from vecstow_engine.model.errors import Conflict, NotFound, ReadOnly
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.manifest import ManagedBy, PayloadIndex
from vecstow_engine.query.matching import find_candidates
from vecstow_engine.query.reading import matching_count
from vecstow_engine.service import payload_indexer
from vecstow_engine.storage.manifests import read_manifest, update_manifest

COUNT = 700


@pytest.fixture
async def points(engine):
    """Points, half of them in the table, without payload indexes."""
    made = IndexedPoints(engine)
    await made.put(range(COUNT // 2))
    engine.checkpoint()
    await made.put(range(COUNT // 2, COUNT))
    return made


class Steps:
    """The payload indexer, which works only where a test takes a step."""

    def __init__(self, points, monkeypatch):
        self.points = points
        self.indexer = points.engine._payload_indexer
        self._build = None
        monkeypatch.setattr(self.indexer, "notify", lambda collection: None)

    def step(self):
        """Read one slice; return whether there is more to do."""
        self._build = self.indexer._advance(self.points.collection, self._build)
        return self._build is not None

    def run(self):
        while self.step():
            pass


@pytest.fixture
def steps(points, monkeypatch):
    return Steps(points, monkeypatch)


@pytest.fixture
def reads(monkeypatch):
    return Reads(monkeypatch)


def state(points):
    return {
        each["field"]: each["ready"] for each in points.engine.describe(points.name)["payload_index_state"]
    }


def progress(points):
    return points.engine.describe(points.name)["progress"]


# Building ------------------------------------------------------------------------------------------------


async def test_declared_indexes_are_built_in_the_background(points):
    points.declare()
    points.complete()
    assert points.are_certain()
    points.check()
    await points.put(range(COUNT, COUNT + 50))
    await points.delete(range(0, 100, 3))
    await points.put(range(200, 300), shift=7)
    assert points.are_certain()
    points.check()


async def test_filters_are_right_before_during_and_after_a_build_that_tells_its_progress(
    points, steps, reads
):
    points.check()
    assert points.engine.describe("notes")["payload_index_state"] == []
    points.declare()
    assert progress(points) == {"task": "payload indexes", "done": 0, "total": COUNT}
    done = [0]
    while steps.step():
        points.check()
        assert not any(state(points).values())
        done.append(progress(points)["done"])
        await points.put([COUNT + len(done)])
        await points.delete([len(done)])
    assert done == sorted(done)
    assert len(done) >= COUNT // payload_indexer.SLICE_POINTS
    assert progress(points) is None
    assert all(state(points).values())
    assert points.are_certain()
    scans = reads.scans
    points.check()
    assert reads.scans == scans


async def test_indexes_of_a_collection_without_data_answer_at_once(engine):
    engine.declare("fresh", payload_indexes=INDEXES)
    points = IndexedPoints(engine, "fresh")
    assert all(state(points).values())
    await points.put(range(20))
    assert points.are_certain()
    points.check()
    engine.declare("later")
    later = IndexedPoints(engine, "later")
    later.declare()
    assert all(state(later).values())


async def test_points_that_become_visible_while_a_build_ends_are_found(points, steps, monkeypatch):
    """The build ends between the write into the columns and the moment when the point is live."""
    points.declare(INDEXES[:1])
    steps.run()
    announce = points.collection.announce

    def overtaken(*values):
        announce(*values)
        points.collection.payload_indexes.declare(INDEXES)
        steps.run()
        assert points.collection.payload_indexes.complete.declared == INDEXES

    monkeypatch.setattr(points.collection, "announce", overtaken)
    await points.put(range(COUNT, COUNT + 3))
    points.check()
    assert not any(state(points).values())
    steps.run()
    assert points.are_certain()
    points.check()


async def test_points_that_become_visible_after_the_last_look_of_a_build_are_found(
    points, steps, monkeypatch
):
    points.declare()
    finish = points.collection.payload_indexes.finish
    late = []

    def overtaken(columns):
        if not late:
            late.append(COUNT)
            with monkeypatch.context() as planted:
                planted.setattr(PayloadColumns, "put", lambda *_: None)
                asyncio.run(points.put(late))
        finish(columns)

    monkeypatch.setattr(points.collection.payload_indexes, "finish", overtaken)
    await asyncio.to_thread(steps.run)
    points.check()
    assert points.collection.payload_indexes.complete is None
    steps.run()
    assert points.are_certain()
    points.check()


# Changing ------------------------------------------------------------------------------------------------


async def test_complete_columns_answer_while_those_of_a_newer_declaration_are_built(points, steps, reads):
    points.declare(INDEXES[:3])
    steps.run()
    points.declare((*INDEXES[1:], PayloadIndex("extra", "keyword")))
    assert {field for field, ready in state(points).items() if ready} == {"word", "tags"}
    source, resolved = points.collection.source(), reads.points
    assert matching_count(source, parse_filter({"word": "w1", "n": {"$lt": 3}})) > 0
    assert (reads.points, reads.scans) == (resolved, 0)
    steps.step()
    await points.put(range(COUNT, COUNT + 20))
    points.check()
    assert not points.collection.source().columns.unindexed(parse_filter({"n": 1}))
    steps.run()
    assert all(state(points).values())
    assert points.collection.source().columns.unindexed(parse_filter({"n": 1})) == ["n"]
    points.check()


async def test_fewer_fields_in_another_order_need_no_build(points, steps, reads):
    points.declare()
    steps.run()
    before, resolved = points.collection.payload_indexes.memory_bytes, reads.points
    points.declare(INDEXES[3:0:-1])
    assert list(state(points)) == ["place.lat", "tags", "word"]
    assert all(state(points).values())
    assert points.collection.payload_indexes.memory_bytes < before
    assert matching_count(points.collection.source(), parse_filter({"word": "w1"})) > 0
    assert reads.points == resolved
    await points.put(range(COUNT, COUNT + 20))
    points.check()


async def test_declaration_that_is_taken_back_keeps_the_columns_in_use(points, steps, reads):
    points.declare(INDEXES[:2])
    steps.run()
    points.declare(INDEXES)
    steps.step()
    resolved = reads.points
    points.declare(INDEXES[:2])
    assert all(state(points).values())
    assert not steps.step()
    assert reads.points == resolved
    await points.put(range(5), shift=1)
    points.check()


async def test_build_goes_on_when_a_field_is_taken_back(points, steps):
    points.declare()
    steps.step()
    done = progress(points)["done"]
    points.declare(INDEXES[1:])
    assert progress(points)["done"] == done > 0
    steps.run()
    assert all(state(points).values())
    points.check()


async def test_no_indexes_take_no_memory(points):
    points.declare()
    points.complete()
    points.declare(())
    assert points.collection.source().columns is None
    assert points.collection.payload_indexes.memory_bytes == 0
    points.check()


async def test_type_of_a_field_can_change(points):
    points.declare((PayloadIndex("n", "keyword"),))
    points.complete()
    assert not points.are_certain()
    points.check()
    points.declare((PayloadIndex("n", "float"),))
    points.complete()
    points.check()


# By REST, file and resource ------------------------------------------------------------------------------


async def test_declaration_over_rest_stands_in_the_manifest_and_survives_a_restart(points):
    points.declare()
    manifest = read_manifest(points.engine.layout.collection("notes"))
    assert manifest.payload_indexes == INDEXES
    assert manifest.schema_version == 2
    described = points.engine.describe("notes")
    assert described["updated_at"] == manifest.updated_at
    points.engine.refresh({})
    assert points.collection.manifest == manifest
    with points.engine.copied() as again:
        assert again.collection("notes").manifest.payload_indexes == INDEXES
        wait_until(lambda: again.collection("notes").payload_indexes.unfinished is None)
        assert points.are_certain(again)
        points.check(again)


async def test_declaration_in_the_manifest_is_followed(points):
    change = lambda found: dataclasses.replace(found, payload_indexes=INDEXES)  # noqa: E731
    update_manifest(points.engine.layout, "notes", change)
    assert state(points) == {}
    points.engine.refresh({})
    points.complete()
    assert points.are_certain()
    points.check()


@pytest.mark.parametrize(
    ("owner", "hint"),
    [
        pytest.param(ManagedBy.KUBERNETES, "spec.payloadIndexes of the VectorCollection", id="resource"),
        pytest.param(ManagedBy.FILE, "vecstow apply", id="file"),
    ],
)
async def test_declaration_that_another_owner_has_is_not_changed(points, owner, hint):
    """The owner may be newer than what the engine has followed."""
    update_manifest(points.engine.layout, "notes", lambda found: dataclasses.replace(found, managed_by=owner))
    with pytest.raises(Conflict, match="the declaration of collection 'notes' belongs to a") as refused:
        points.declare()
    assert hint in refused.value.hint
    assert state(points) == {}
    assert read_manifest(points.engine.layout.collection("notes")).payload_indexes == ()


async def test_declaration_waits_for_the_end_of_a_hold(points):
    points.engine.hold.begin(30)
    with pytest.raises(Conflict, match="the volume is held"):
        points.declare()
    points.engine.hold.end()
    points.declare()
    points.complete()


async def test_declaration_of_a_dropped_collection_is_refused(points):
    collection = points.collection
    points.engine.drop("notes")
    with pytest.raises(NotFound):
        points.engine.declarations.declare_payload_indexes(collection, INDEXES)
    points.engine.declare("notes")
    with pytest.raises(Conflict, match="was replaced"):
        points.engine.declarations.declare_payload_indexes(collection, INDEXES)


async def test_same_declaration_writes_nothing(points, disk):
    points.declare()
    points.complete()
    disk.clear()
    points.declare()
    assert disk.steps == []


async def test_failed_sync_of_a_declaration_ends_the_changes_of_names(points, disk):
    """The content of the disk is unknown until the next start."""
    disk.fail("sync notes/")
    with pytest.raises(Exception, match="outcome unknown"):
        points.declare()
    assert state(points) == {}
    with pytest.raises(ReadOnly):
        points.declare()
    await points.put([COUNT])
    points.check()


# Errors --------------------------------------------------------------------------------------------------


def fail_once(monkeypatch, error):
    """Let the next write into a column of keywords fail."""
    real = Column.put

    def put(column, slots, values):
        if column.coder.dtype == "int32":
            monkeypatch.setattr(Column, "put", real)
            raise error
        real(column, slots, values)

    monkeypatch.setattr(Column, "put", put)


async def test_columns_that_cannot_be_written_are_built_again(points, steps, monkeypatch):
    """The write is logged, so it counts. No result is wrong meanwhile."""
    points.declare()
    steps.run()
    torn = points.complete()
    fail_once(monkeypatch, MemoryError("planted"))
    with capture_logs() as logs:
        await points.put(range(20), shift=1)
        await points.put(range(20, 40), shift=1)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["payloads are indexed later"]
    assert points.collection.payload_indexes.unfinished is not torn
    assert not any(state(points).values())
    points.check()
    steps.step()
    points.check()
    steps.run()
    assert points.are_certain()
    points.check()


async def test_build_that_fails_says_why_and_begins_again(points, monkeypatch):
    fail_once(monkeypatch, MemoryError("planted"))
    points.declare()
    wait_until(lambda: points.collection.reason is not None)
    assert points.collection.reason == "payload indexes fails, and is tried again: MemoryError: planted"
    points.check()
    points.complete()
    assert points.collection.reason is None
    points.check()


async def test_newer_columns_that_cannot_be_written_leave_those_in_use(points, steps, monkeypatch):
    points.declare(INDEXES[:1])
    steps.run()
    points.declare(INDEXES)
    fail_once(monkeypatch, MemoryError("planted"))
    await points.put(range(30), shift=1)
    assert state(points) == {"n": True} | {each.field: False for each in INDEXES[1:]}
    points.check()
    steps.run()
    assert points.are_certain()
    points.check()


# While other requests run --------------------------------------------------------------------------------


async def test_columns_follow_the_moves_of_a_compaction(points):
    points.declare()
    await points.delete(range(0, COUNT, 2))
    points.complete()
    await asyncio.to_thread(points.engine.compact, "notes")
    assert points.collection.store.layers.slots.free_count == 0
    assert points.are_certain()
    points.check()
    await points.put(range(0, 100, 2), shift=3)
    points.check()


async def test_query_that_began_before_the_columns_were_replaced_misses_nothing(points, steps):
    points.declare()
    steps.run()
    before = points.collection.source()
    points.declare((*INDEXES, PayloadIndex("extra", "keyword")))
    steps.run()
    await points.put(range(COUNT, COUNT + 2000), shift=4)
    await points.put(range(50), shift=1)
    wanted = parse_filter({"word": "w0"})
    expected = matching_count(points.collection.source(), wanted)
    assert matching_count(before, wanted) == expected
    assert find_candidates(before, wanted).possible_count > find_candidates(before, wanted).sure_count


async def test_batch_that_is_about_to_become_visible_disturbs_no_filter(points, monkeypatch):
    """Its slots are given, and columns and live points have not the same length."""
    points.declare()
    points.complete()
    counts = []
    wanted = parse_filter({"n": {"$gte": 0}})
    source = points.collection.source()
    announce = points.collection.announce

    def overtaken(*values):
        counts.append(matching_count(source, wanted))
        announce(*values)
        counts.append(matching_count(source, wanted))

    before = matching_count(source, wanted)
    monkeypatch.setattr(points.collection, "announce", overtaken)
    await points.put(range(COUNT, COUNT + 3000))
    assert counts == [before, before]
    assert matching_count(source, wanted) > before


async def test_counts_of_untouched_points_stay_constant_while_others_come_and_go(points):
    points.declare()
    points.complete()
    wanted = [parse_filter({"n": 4, "word": each}) for each in ("w0", "w3")]
    kept = [point_id for point_id, each in points.points.items() if each and each["n"] == 4]
    counts = [matching_count(points.collection.source(), each) for each in wanted]
    others = [number for number in range(COUNT) if f"p{number}" not in kept]
    ended = threading.Event()
    found = set()

    def read():
        while not ended.is_set():
            source = points.collection.source()
            found.add(tuple(matching_count(source, each) for each in wanted))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(40):
            some = [number for number in others[turn % 3 :: 3] if (number + turn) % 9 != 4]
            await points.put(some, shift=turn)
            if turn % 2:
                points.engine.checkpoint()  # the slots of replaced points are used again
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert found == {tuple(counts)}
