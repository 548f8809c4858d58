"""Self-recall: what share of a sample the search for its own vectors finds."""

import pytest

from tests.unit.running_engine import RunningEngine, wait_until
from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.service import stats, upkeep
from vecstow_engine.service.stats import self_recall

ROWS = 1500


def points(count):
    """Rising values, and 0.5 in every third place."""
    return {f"p{number}": 0.5 if number % 3 == 0 else number + 1.0 for number in range(count)}


@pytest.fixture
def engine(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        yield engine


async def test_a_third_of_equal_rows_leaves_every_point_to_be_found(engine):
    await engine.put(**points(ROWS))
    engine.indexed()
    report = engine.check("notes", recall=True)
    measured = report["collections"]["notes"]["recall"]
    assert (measured["sample"], measured["found"], measured["share"]) == (1000, 1000, 1.0)
    [row] = [row for row in engine.state_document()["collections"] if row["name"] == "notes"]
    assert row["self_recall"] == 1.0


async def test_points_that_no_search_finds_lower_the_share(engine, monkeypatch):
    await engine.put(**points(400))
    collection = engine.indexed()
    real = collection.index.search

    def blind(queries, k, ef):
        return real(queries + 100, k, ef)

    monkeypatch.setattr(collection.index, "search", blind)
    assert self_recall(collection)["share"] < 0.5


async def test_an_empty_collection_has_no_share(engine):
    measured = engine.check("notes", recall=True)["collections"]["notes"]["recall"]
    assert (measured["sample"], measured["share"]) == (0, None)


async def test_the_sample_is_bounded(engine, monkeypatch):
    await engine.put(**points(200))
    assert self_recall(engine.indexed(), 50)["sample"] == 50


def with_unchecked_graphs(engine, monkeypatch):
    """Let only the test look for graphs to check, and every graph have something; the names that it finds."""
    engine._upkeep.stop()
    notified = []
    monkeypatch.setattr(VectorIndex, "unchecked", 1)
    monkeypatch.setattr(VectorIndex, "pending", 0)
    monkeypatch.setattr(engine._indexer, "notify", lambda collection: notified.append(collection.name))
    return notified


async def test_collections_take_turns_to_be_checked_at_leisure(engine, monkeypatch):
    engine.declare("others")
    for name in ("notes", "others"):
        await engine.put(name, a=1)
    notified = with_unchecked_graphs(engine, monkeypatch)
    for _ in range(4):
        engine._upkeep._check_at_leisure()
    assert sorted(notified) == ["notes", "notes", "others", "others"]


async def test_reason_says_how_many_points_searches_may_not_find(engine, monkeypatch):
    await engine.put(a=1)
    assert engine.describe("notes")["reason"] is None
    monkeypatch.setattr(VectorIndex, "unreached", 7)
    assert "searches may not find 7 points" in engine.describe("notes")["reason"]


async def test_graph_that_is_searched_has_leisure_once_in_a_while(engine, monkeypatch):
    await engine.put(a=1)
    notified = with_unchecked_graphs(engine, monkeypatch)
    monkeypatch.setattr(upkeep, "LEISURE_SECONDS", 1e9)
    await engine.nearest("notes", 1)
    for _ in range(2 * upkeep.BUSY_LOOKS):
        engine._upkeep._check_at_leisure()
    assert len(notified) == 2


async def test_graph_that_is_searched_has_leisure_though_another_waits_each_time(engine, monkeypatch):
    engine.declare("others")
    for name in ("notes", "others"):
        await engine.put(name, a=1)
    notified = with_unchecked_graphs(engine, monkeypatch)
    for name in ("notes", "others"):
        with monkeypatch.context() as searched:
            searched.setattr(engine.registry.find(name).index, "searched_at", 1e18)
            searched.setattr(upkeep, "LEISURE_SECONDS", 0)
            notified.clear()
            for _ in range(4 * upkeep.BUSY_LOOKS):
                engine._upkeep._check_at_leisure()
            assert name in notified


async def test_what_a_sample_left_out_is_checked_at_leisure(engine, monkeypatch):
    from vecstow_engine.index import nodes

    monkeypatch.setattr(nodes, "SAMPLE_NODES", 100)
    await engine.put(**points(ROWS))
    collection = engine.indexed()
    wait_until(lambda: collection.index.unchecked == 0)
    assert stats.self_recall(collection)["share"] == 1.0
