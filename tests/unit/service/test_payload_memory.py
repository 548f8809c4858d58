"""Payload indexes count as data of the memory limit; cached rows and candidates take what data leaves."""

import numpy as np
import pytest

from tests.unit.indexed_points import IndexedPoints
from tests.unit.running_engine import wait_until
from tests.unit.service.test_memory_admission import limit, room
from vecstow_engine.model.errors import OutOfMemory
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.points import PointBatch
from vecstow_engine.query.matching import find_candidates
from vecstow_engine.service.attempts import Work
from vecstow_engine.service.memory_accounts import ROOMY_BYTES, figures_of
from vecstow_engine.service.memory_plan import MIB

COUNT = 2000


@pytest.fixture
async def points(engine):
    made = IndexedPoints(engine)
    await made.put(range(COUNT))
    engine.indexed()
    return made


def memory(engine):
    engine.accounts.count_all(engine.registry.collections())
    return engine.accounts.parts()


async def test_indexes_are_data_of_the_account(points):
    engine = points.engine
    before, parts = engine.accounts.data_bytes, memory(engine)
    assert parts["payload_indexes"] == 0
    points.declare()
    points.complete()
    taken = points.collection.payload_indexes.memory_bytes
    assert memory(engine)["payload_indexes"] == taken > COUNT * 40
    assert figures_of(points.collection).payload_indexes == taken
    assert engine.accounts.data_bytes == before + taken
    points.declare(())
    assert memory(engine)["payload_indexes"] == 0
    assert engine.accounts.data_bytes == before


async def test_build_without_memory_says_so_and_is_made_when_there_is_some(points):
    """Filters read payloads meanwhile, and the build is no reason to refuse a write."""
    engine = points.engine
    room(engine, more=50_000)
    points.declare()
    wait_until(lambda: Work.PAYLOAD_INDEXES in points.collection.troubles)
    reason = points.collection.reason
    assert reason.startswith(f"payload indexes fails, and is tried again: payload indexes of {COUNT} points")
    assert "are left of the limit" in reason
    assert "filters read payloads meanwhile" in reason
    assert engine.describe("notes")["state"] == "ready"
    assert not any(each["ready"] for each in engine.describe("notes")["payload_index_state"])
    assert engine.attempts.failures[Work.PAYLOAD_INDEXES] >= 1
    points.check()
    await points.put(range(50), shift=1)
    points.check()
    limit(engine)
    points.collection.troubles.clear()
    points.complete()
    assert points.collection.reason is None
    assert points.are_certain()
    points.check()


async def test_write_whose_values_do_not_fit_is_accepted_and_its_points_are_indexed_later(points):
    """An array of short numbers takes many times its bytes."""
    engine = points.engine
    points.declare()
    points.complete()
    manifest = points.collection.manifest
    payloads = [{"n": [*range(5000)], "word": f"word {number}"} for number in range(40)]
    ids, vectors = [f"long{number}" for number in range(40)], np.ones((40, 4), np.float32)
    room(engine, more=1_500_000)
    await engine.upsert("notes", PointBatch.build(manifest, ids, vectors, payloads))
    points.points |= dict(zip(ids, payloads, strict=True))
    assert points.collection.payload_indexes.memory_bytes < 1_500_000
    points.check()
    wait_until(lambda: Work.PAYLOAD_INDEXES in points.collection.troubles)
    assert "payload indexes take" in points.collection.reason
    limit(engine)
    points.collection.troubles.clear()
    points.complete()
    assert points.collection.payload_indexes.memory_bytes > 40 * 5000 * 12
    assert points.are_certain()
    points.check()


async def test_indexes_that_take_the_room_refuse_new_points(points):
    engine = points.engine
    points.declare()
    points.complete()
    room(engine)
    with pytest.raises(OutOfMemory, match="takes no more points"):
        await engine.put("notes", **{f"q{number}": 1.0 for number in range(10)})
    points.declare(())
    engine.accounts.count_all(engine.registry.collections())
    assert len(await engine.put("notes", **{f"q{number}": 1.0 for number in range(10)})) == 10


# Caches --------------------------------------------------------------------------------------------------


def cache(points):
    """Read rows and candidates of a filter into the caches."""
    collection = points.collection
    source = collection.source()
    labels = source.view.labels()
    collection.index.search_among(np.zeros((1, 4), np.float32), labels, 10)
    find_candidates(source, parse_filter({"n": {"$gte": 3}}))
    return collection.cached_bytes


async def test_caches_grow_only_into_what_data_leaves(points):
    engine = points.engine
    points.declare()
    points.complete()
    points.collection.drop_caches()
    assert points.collection.cached_bytes == 0
    room(engine, more=ROOMY_BYTES - 1)
    assert cache(points) == 0
    room(engine, more=ROOMY_BYTES + 100 * MIB)
    taken = cache(points)
    assert taken > 0
    assert engine.accounts.parts()["caches"] == taken
    data = engine.accounts.data_bytes
    limit(engine, data=data + taken + ROOMY_BYTES + 999)
    assert engine.accounts.may_cache(999)
    assert not engine.accounts.may_cache(1000)
    points.check()


async def test_caches_give_way_to_data_and_refuse_no_write(points):
    engine = points.engine
    points.declare()
    points.complete()
    limit(engine, data=200 * MIB)
    taken = cache(points)
    engine.accounts.count_all(engine.registry.collections())
    limit(engine, data=engine.accounts.data_bytes + 100_000)
    assert taken > 100_000
    await points.put(range(COUNT, COUNT + 20))
    engine.accounts.count_all(engine.registry.collections())
    assert points.collection.cached_bytes == 0
    points.check()
