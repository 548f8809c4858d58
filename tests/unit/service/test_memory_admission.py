"""An engine at its memory limit refuses or postpones what exceeds it, and serves the rest."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import pytest

from tests.unit.running_engine import RunningEngine, fill, wait_until
from vecstow_engine.model.errors import Busy, OutOfMemory, TooLarge
from vecstow_engine.service import memory_accounts, upkeep
from vecstow_engine.service.memory_accounts import COLLECTION_BYTES, figures_of
from vecstow_engine.service.memory_plan import MIB, fitted, plan
from vecstow_engine.service.settings import IndexSettings, Settings, StorageSettings

ROWS = 1500
"""Enough for a graph."""


def limit(engine, *, data=100 * MIB, changes=100 * MIB):
    """Give an engine so many bytes for data and for changes."""
    parts = {"base_bytes": 0, "request_bytes": 0, "work_bytes": 0, "change_bytes": changes}
    engine.accounts.plan = dataclasses.replace(
        engine.accounts.plan, limit_bytes=1 << 40, **parts | {"work_bytes": (1 << 40) - data - changes}
    )


def room(engine, more=0):
    """Leave just `more` bytes for data beyond what there is."""
    engine.accounts.count_all(engine.registry.collections())
    limit(engine, data=engine.accounts.data_bytes + more)


def impatient(engine, seconds=0.02):
    limits = dataclasses.replace(engine.settings.limits, write_wait_seconds=seconds)
    engine._committer._settings = dataclasses.replace(engine.settings, limits=limits)


# Data ----------------------------------------------------------------------------------------------------


async def test_a_write_beyond_the_limit_is_refused_and_changes_nothing(engine):
    await engine.put(**fill("p", 10))
    room(engine, more=500)
    store = engine.collection("notes").store
    before = store.last_sequence, store.overlay_bytes
    with pytest.raises(OutOfMemory, match=r"'notes' takes no more points: .* with 10 more points") as refused:
        await engine.put(**fill("q", 10))
    details = refused.value.details
    assert details["field"] == "memory_limit"
    assert details["value"] > details["limit"] == engine.accounts.plan.data_bytes
    assert "compact" in refused.value.hint
    assert (store.last_sequence, store.overlay_bytes) == before


async def test_reads_and_deletes_go_on_at_the_limit(engine):
    await engine.put(**fill("p", 10))
    room(engine)
    assert await engine.delete_points("notes", ["p0"]) == [True]
    assert await engine.values("notes", "p0", "p1") == [None, 2]
    assert await engine.nearest("notes", 3) == ["p2"]


async def test_writes_resume_after_a_drop(engine):
    engine.declare("large")
    await engine.put("large", **fill("p", 200))
    room(engine)
    with pytest.raises(OutOfMemory):
        await engine.put(**fill("q", 10))
    engine.drop("large")
    engine.accounts.count_all(engine.registry.collections())
    assert len(await engine.put(**fill("q", 10))) == 10


async def test_writes_resume_after_deletes_and_a_compaction(engine):
    """The compaction has no room for two graphs."""
    await engine.put(**fill("p", ROWS))
    engine.indexed()
    await engine.delete_points("notes", [f"p{number}" for number in range(400)])
    room(engine)
    with pytest.raises(OutOfMemory):
        await engine.put(q=1)
    await asyncio.to_thread(engine.compact, "notes")
    assert await engine.nearest("notes", 1200) == ["p1199"]
    collection = engine.indexed()
    assert collection.index.deleted_share == 0
    await engine.put(q=1)
    assert await engine.nearest("notes", 1200) == ["p1199"]


async def test_a_first_write_beyond_the_limit_is_refused_before_it_makes_files(engine):
    room(engine)
    with pytest.raises(OutOfMemory):
        await engine.put(a=1)
    assert engine.collection("notes").store is None


async def test_writes_that_wait_for_the_log_are_charged(engine):
    """Many writes at once may not all be admitted for the room that one of them needs."""
    await engine.put(a=1)
    room(engine, more=50 * 145)
    outcomes = await asyncio.gather(
        *(engine.put(**fill(f"w{number}-", 20)) for number in range(10)), return_exceptions=True
    )
    assert [type(each) for each in outcomes].count(OutOfMemory) == 8
    assert figures_of(engine.collection("notes")).data <= engine.accounts.plan.data_bytes


async def test_writes_wait_while_a_rebuild_takes_the_room(engine, monkeypatch):
    await engine.put(**fill("p", ROWS))
    collection = engine.indexed()
    monkeypatch.setattr(collection.index, "advance", lambda **_: 0)
    collection.index.start_rebuild(collection.manifest.index_config)
    room(engine)
    impatient(engine)
    with pytest.raises(Busy, match="while one is rebuilt"):
        await engine.put(q=1)
    impatient(engine, 20)
    write = asyncio.create_task(engine.put(q=1))
    monkeypatch.undo()
    engine._indexer.notify(collection)
    assert await write == ["q"]


# Rebuilds ------------------------------------------------------------------------------------------------


async def test_a_rebuild_without_room_is_postponed_told_and_begun_later(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(**fill("p", ROWS))
        collection = engine.indexed()
        room(engine)
        settings = dataclasses.replace(engine.settings.index, rebuild_deleted_ratio=0.25)
        engine._upkeep._settings = dataclasses.replace(engine.settings, index=settings)
        await engine.delete_points("notes", [f"p{number}" for number in range(600)])
        wait_until(lambda: collection.postponed_rebuild is not None)
        assert not collection.index.rebuilding
        assert "its graph is not rebuilt" in engine.describe("notes")["reason"]
        assert await engine.nearest("notes", 1200) == ["p1199"]
        limit(engine)
        wait_until(lambda: collection.index.deleted_share == 0 and not collection.index.rebuilding)
        assert engine.describe("notes")["reason"] is None


async def test_a_rebuild_is_charged_so_that_a_second_one_waits(engine, monkeypatch):
    collections = []
    for name in ("notes", "other"):
        if name != "notes":
            engine.declare(name)
        await engine.put(name, **fill("p", ROWS))
        collections.append(engine.indexed(name))
        monkeypatch.setattr(collections[-1].index, "advance", lambda **_: 0)
    first, second = collections
    room(engine, more=int(1.5 * first.index.rebuild_bytes))
    assert engine._indexer.rebuild(first, first.manifest.index_config)
    assert not engine._indexer.rebuild(second, second.manifest.index_config)
    monkeypatch.undo()
    engine._indexer.notify(first)
    engine.indexed("notes")
    wait_until(lambda: second.postponed_rebuild is None)
    engine.indexed("other")


async def test_no_row_moves_while_a_snapshot_is_saved_without_room_for_pages_kept_twice(engine, monkeypatch):
    await engine.put(**fill("p", ROWS))
    collection = engine.indexed()
    seen = []

    def saving(collection, checkpoint):
        collection.index.add(*new_rows())
        engine._indexer.notify(collection)
        engine._indexer._advance(collection)
        seen.append(collection.index.graph_rows)

    def new_rows():
        import numpy as np

        from vecstow_engine.model.points import make_labels

        return 2 * np.eye(3, 4, dtype=np.float32), make_labels(np.arange(5000, 5003), 1)

    monkeypatch.setattr(upkeep, "take_snapshot", saving)
    limit(engine, data=0)
    engine._upkeep._snapshot(collection, collection.index)
    assert seen == [ROWS]
    wait_until(lambda: collection.index.graph_rows == ROWS + 3)


# A start -------------------------------------------------------------------------------------------------


@pytest.fixture
async def large(tmp_path):
    """A volume with a small collection and one that has a graph and its snapshot."""
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare("small")
        await engine.put("small", **fill("s", 10))
        engine.declare("large")
        await engine.put("large", **fill("p", ROWS))
        engine.indexed("large")
    return tmp_path / "data"


async def test_a_graph_that_does_not_fit_is_left_on_the_volume_and_searched_exactly(large):
    engine = RunningEngine(large)
    limit(engine, data=3 * COLLECTION_BYTES)
    with engine:
        collection = engine.collection("large")
        assert engine.describe("large")["state"] == "ready"
        assert "its graph is not in memory: it needs" in engine.describe("large")["reason"]
        assert collection.index.graph_rows == 0
        assert await engine.nearest("large", 1200) == ["p1199"]
        assert await engine.nearest("small", 3) == ["s2"]
        assert await engine.delete_points("large", ["p7"]) == [True]
        with pytest.raises(OutOfMemory, match="'large' takes no more points: its graph is not in") as refused:
            await engine.put("large", q=1)
        details = refused.value.details
        assert details["value"] > details["limit"]
        needs = f"needs {details['value']} bytes, and {details['limit']} are left"
        assert needs in refused.value.message
        assert needs in engine.describe("large")["reason"]
        assert len(await engine.put("small", q=1)) == 1


async def test_a_graph_that_is_left_out_shows_no_progress(large):
    engine = RunningEngine(large)
    limit(engine, data=3 * COLLECTION_BYTES)
    with engine:
        assert engine.collection("large").index.pending
        assert engine.describe("large")["progress"] is None


async def test_a_graph_that_was_left_out_is_built_when_there_is_room(large):
    engine = RunningEngine(large)
    limit(engine, data=3 * COLLECTION_BYTES)
    with engine:
        collection = engine.collection("large")
        limit(engine)
        wait_until(lambda: collection.held_out is None)
        assert engine.indexed("large").index.graph_rows == ROWS
        assert engine.describe("large")["reason"] is None
        await engine.put("large", q=1)


async def test_a_log_of_a_collection_that_is_left_out_takes_no_tail(large):
    with RunningEngine(large) as engine:
        await engine.put("large", **fill("late", 50, 10_000.0))
        again = engine.copied()
    limit(again, data=3 * COLLECTION_BYTES)
    with again:
        index = again.collection("large").index
        assert index.tail_bytes == 0
        assert await again.nearest("large", 10_020) == ["late19"]


# Changes -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held(engine):
    """A hold: no checkpoint makes room."""
    engine.hold.begin(60)
    yield
    engine.hold.end()


async def fill_up(engine, name):
    """Write points until no more are taken; returns how many were."""
    for number in range(10_000):
        try:
            await engine.put(name, **fill(f"{name}{number}-", 5))
        except Busy:
            return number
    raise AssertionError("there is no limit")


async def test_all_changes_together_have_one_limit_under_a_hold_too(engine):
    names = ["notes", *(f"c{number}" for number in range(6))]
    for name in names[1:]:
        engine.declare(name)
    for name in names:
        await engine.put(name, a=1)
    impatient(engine)
    limit(engine, changes=300_000)
    with held(engine):
        taken = [await fill_up(engine, name) for name in names]
        engine.accounts.count_all(engine.registry.collections())
        assert engine.accounts.document()["change_bytes"] <= 300_000
        assert all(taken), "one collection left nothing to another"
        assert await engine.delete_points("notes", ["a"]) == [True]
    wait_until(lambda: not engine.accounts.presses)
    assert len(await engine.put("notes", b=1)) == 1


async def test_one_collection_takes_at_most_half(engine):
    impatient(engine)
    await engine.put(a=1)
    limit(engine, changes=300_000)
    with held(engine):
        await fill_up(engine, "notes")
        assert 120_000 < figures_of(engine.collection("notes")).changes <= 150_000


async def test_the_largest_overlays_are_written_first_when_they_take_much_of_their_memory(engine):
    engine.declare("large")
    with held(engine):
        engine.hold.end()
        await engine.put(**fill("p", 10))
        await engine.put("large", **fill("p", 300))
        limit(engine, changes=4 * figures_of(engine.collection("large")).overlay)
        large, small = engine.collection("large").store, engine.collection("notes").store
        wait_until(lambda: large.overlay_bytes == 0)
        assert small.overlay_bytes > 0


async def test_pressure_makes_no_work_for_a_collection_without_changes(engine, monkeypatch):
    """Its snapshot and its rebuild have their turn."""
    await engine.put(**fill("p", 10))
    collection = engine.collection("notes")
    monkeypatch.setattr(memory_accounts.Accounts, "presses", True)
    wait_until(lambda: collection.store.overlay_bytes == 0 and collection.store.layers.frozen is None)
    with collection.upkeep_lock:
        assert list(engine._upkeep._due(collection)) == []


async def test_a_batch_that_never_fits_is_refused_at_once(engine):
    limit(engine, changes=100_000)
    with pytest.raises(TooLarge, match="at most 46875") as refused:
        await engine.put(**fill("p", 200))
    assert refused.value.hint.startswith("send smaller batches")


async def test_writers_wait_when_the_kernel_counts_more_than_the_account(engine, monkeypatch):
    await engine.put(a=1)
    impatient(engine)
    monkeypatch.setattr(memory_accounts, "anonymous_bytes", lambda: 1 << 40)
    engine.accounts.count_all(engine.registry.collections())
    engine.accounts.plan = plan(1 << 30)
    with pytest.raises(Busy, match="the process takes"):
        await engine.put(b=1)
    assert await engine.delete_points("notes", ["a"]) == [True]
    monkeypatch.undo()
    engine.accounts.count_all(engine.registry.collections())
    assert await engine.put(b=1) == ["b"]


# Settings ------------------------------------------------------------------------------------------------


def test_settings_fit_the_plan(tmp_path, capsys):
    small = fitted(Settings(data=tmp_path), plan(512 * MIB))
    assert small.storage.overlay_bytes_max == plan(512 * MIB).change_bytes // 2
    assert small.index.tail_bytes_max <= plan(512 * MIB).change_bytes // 4
    assert small.limits.queue_bytes_max <= plan(512 * MIB).change_bytes // 4
    assert "exceeds" not in capsys.readouterr().out
    large = Settings(data=tmp_path)
    assert fitted(large, plan(64 << 30)) == large


def test_a_chosen_setting_that_does_not_fit_is_lowered_with_a_warning(tmp_path, capsys):
    chosen = Settings(data=tmp_path, storage=StorageSettings(overlay_bytes_max=MIB << 10),
                      index=IndexSettings(tail_bytes_max=MIB))  # fmt: skip
    made = fitted(chosen, plan(512 * MIB))
    assert made.storage.overlay_bytes_max == plan(512 * MIB).change_bytes // 2
    assert made.index.tail_bytes_max == MIB
    told = capsys.readouterr().out
    assert "overlay_bytes_max" in told
    assert "tail_bytes_max" not in told
