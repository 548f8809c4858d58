"""Index settings that are changed in the manifest of a running engine, during a rebuild too."""

import dataclasses

import pytest

from tests.unit.running_engine import fill
from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.service.snapshotter import take_snapshot
from vecstow_engine.storage.manifests import update_manifest

ROWS = 1500
WIDE = IndexConfig(max_connections=24, ef_construction=80)
NARROW = IndexConfig(max_connections=8, ef_construction=50)


def change(engine, config):
    """As a sidecar does it: the manifest, and then the poke."""
    update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, index_config=config))
    engine.refresh({})


@pytest.fixture
async def filled(engine):
    """An engine whose collection `notes` has a graph."""
    await engine.put(**fill("p", ROWS))
    engine.indexed()
    return engine


@pytest.fixture
def paused(filled, monkeypatch):
    """The same, and its graph is built only where a test takes a step."""
    monkeypatch.setattr(filled.collection("notes").index, "advance", lambda **_: 0)
    return filled


def step(engine, rows=64):
    VectorIndex.advance(engine.collection("notes").index, rows)


def go_on(engine, monkeypatch):
    """Let the graph be built to its end."""
    monkeypatch.undo()
    engine._indexer.notify(engine.collection("notes"))
    return engine.indexed().index


def rebuild_of(engine):
    progress = engine.describe("notes")["progress"]
    return progress and (progress["task"], progress["done"], progress["total"])


async def test_searches_are_answered_and_progress_is_told_while_the_graph_is_rebuilt(paused):
    assert rebuild_of(paused) is None
    change(paused, NARROW)
    assert rebuild_of(paused) == ("rebuild", 0, ROWS)
    step(paused)
    task, done, total = rebuild_of(paused)
    assert (task, total) == ("rebuild", ROWS)
    assert 0 < done <= 64  # a slow machine makes shorter slices
    [row] = paused.state_document()["collections"]
    assert (row["state"], row["indexed"], row["rebuilt"]) == ("ready", ROWS, done)
    assert await paused.nearest("notes", 700) == ["p699"]
    await paused.put(fresh=9000)
    assert await paused.nearest("notes", 9000) == ["fresh"]


async def test_rebuild_is_told_of_no_later_than_its_settings(filled, monkeypatch):
    """The rebuild starts before the manifest changes: no client takes the new settings for done too early."""
    collection = filled.collection("notes")
    before = collection.manifest.index_config
    started = []

    def start(index, config):
        started.append((collection.manifest.index_config, config))

    monkeypatch.setattr(VectorIndex, "start_rebuild", start)
    change(filled, NARROW)
    assert started == [(before, NARROW)]
    assert collection.manifest.index_config == NARROW


async def test_settings_that_change_during_a_rebuild_begin_it_anew(paused, monkeypatch):
    change(paused, NARROW)
    step(paused)
    await paused.put(fresh=9000)
    change(paused, WIDE)
    assert rebuild_of(paused) == ("rebuild", 0, ROWS + 1)
    with go_on(paused, monkeypatch).fork_point() as graph:
        assert graph.hnsw.built_with(WIDE)
        assert graph.live_count == ROWS + 1
    assert rebuild_of(paused) is None
    assert await paused.nearest("notes", 9000) == ["fresh"]


async def test_settings_that_are_taken_back_during_a_rebuild_are_those_of_the_graph(paused, monkeypatch):
    before = paused.collection("notes").manifest.index_config
    change(paused, NARROW)
    step(paused)
    change(paused, before)
    with go_on(paused, monkeypatch).fork_point() as graph:
        assert graph.hnsw.built_with(before)


async def test_ef_search_changed_during_a_rebuild_takes_effect_at_once(paused, monkeypatch):
    """The rebuild goes on."""
    change(paused, NARROW)
    step(paused)
    change(paused, dataclasses.replace(NARROW, ef_search=77))
    task, done, _ = rebuild_of(paused)
    assert task == "rebuild"
    assert done > 0
    asked = []
    index = paused.collection("notes").index

    def search(queries, k, ef):
        asked.append(ef)
        return VectorIndex.search(index, queries, k, ef)

    monkeypatch.setattr(index, "search", search)
    assert await paused.nearest("notes", 700) == ["p699"]
    assert asked == [77]


async def test_settings_that_change_while_files_are_worked_on_are_followed_after_it(paused):
    with paused.collection("notes").upkeep_lock:
        change(paused, NARROW)
        assert rebuild_of(paused) is None
    paused.refresh({})
    assert rebuild_of(paused) == ("rebuild", 0, ROWS)


async def test_rebuild_that_a_kill_cut_is_made_by_the_next_start(paused):
    snapshot(paused)
    change(paused, NARROW)
    step(paused)
    with paused.copied() as restarted, restarted.indexed().index.fork_point() as graph:
        assert graph.hnsw.built_with(NARROW)


async def test_rebuilt_graph_is_saved_though_nothing_was_written_since(filled, monkeypatch):
    """Else each start would load the old one, and build it again."""
    snapshot(filled)
    change(filled, NARROW)
    filled.indexed()
    filled.stop()
    rebuilds = []
    monkeypatch.setattr(VectorIndex, "start_rebuild", lambda self, config: rebuilds.append(config))
    with filled.copied() as restarted, restarted.indexed().index.fork_point() as graph:
        assert graph.hnsw.built_with(NARROW)
        assert rebuilds == []


async def test_graph_that_a_start_rebuilt_is_saved_though_nothing_was_written_since(filled, monkeypatch):
    snapshot(filled)
    filled.stop()
    update_manifest(filled.layout, "notes", lambda found: dataclasses.replace(found, index_config=NARROW))
    with filled.copied("rebuilt") as rebuilt:
        rebuilt.indexed()
    rebuilds = []
    monkeypatch.setattr(VectorIndex, "start_rebuild", lambda self, config: rebuilds.append(config))
    with rebuilt.copied("again") as restarted:
        restarted.indexed()
    assert rebuilds == []


def snapshot(engine):
    collection = engine.collection("notes")
    with collection.upkeep_lock:
        assert take_snapshot(collection, lambda: engine._upkeep.checkpoint(collection))
