"""Drop, restore, hard delete and purge through the engine."""

import asyncio
import errno
import threading

import pytest
from structlog.testing import capture_logs

from tests.unit.running_engine import RunningEngine
from vecstow_engine.model.errors import (
    NotFound,
    ReadOnly,
)
from vecstow_engine.storage.manifests import mark_dropped


async def test_write_to_a_dropped_collection_is_not_found(engine):
    await engine.put(a=1)
    collection = engine.collection("notes")
    engine.drop("notes")
    with pytest.raises((NotFound, ReadOnly)):
        collection.commit([])
    with pytest.raises(NotFound):
        await engine.put(b=2)


async def test_drop_that_a_rescan_sees_is_made_once(engine, monkeypatch):
    """The mark is on the volume before the folder moves. A rescan between the two must not move it again."""
    await engine.put(a=1)
    real = mark_dropped

    def seen_by_a_rescan(*values):
        manifest = real(*values)
        thread = threading.Thread(target=engine.refresh, args=({},))
        thread.start()
        thread.join(0.2)
        waiting.append(thread)
        return manifest

    waiting = []
    monkeypatch.setattr("vecstow_engine.service.catalog.mark_dropped", seen_by_a_rescan)
    with capture_logs() as logs:
        engine.drop("notes")
        waiting[0].join()
    assert [line["event"] for line in logs if line["log_level"] == "error"] == []
    assert engine.collection_names() == []
    [gone] = engine.catalog.deleted()
    engine.catalog.restore(gone["path"], None)
    assert await engine.values("notes", "a") == [1]


async def test_two_drops_at_once_are_one_drop_and_one_not_found(engine, monkeypatch):
    await engine.put(a=1)
    both = threading.Barrier(2)
    real = engine.registry.get

    def get(name):
        collection = real(name)
        both.wait(20)
        return collection

    monkeypatch.setattr(engine.registry, "get", get)
    outcomes = await asyncio.gather(
        asyncio.to_thread(engine.drop, "notes"),
        asyncio.to_thread(engine.drop, "notes"),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "NotFound"]
    assert len(engine.catalog.deleted()) == 1


async def test_dropped_collection_is_restored_with_all_its_data_checkpointed_or_not(engine):
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    engine.drop("notes")
    engine.declare("notes", dimension=7)
    [gone] = engine.catalog.deleted()
    assert engine.catalog.restore(gone["path"], "old") == "old"
    assert await engine.values("old", "a", "b") == [1, 2]
    assert await engine.put("old", c=3) == ["c"]
    with engine.copied() as again:
        assert await again.values("old", "a", "b", "c") == [1, 2, 3]
        assert again.describe("notes")["dimension"] == 7


async def test_hard_deleted_collection_leaves_nothing(engine):
    await engine.put(a=1)
    uid = engine.collection("notes").manifest.collection_uid
    engine.hard_delete("notes")
    assert engine.catalog.deleted() == []
    assert not engine.layout.log(uid).exists()


async def test_purge_waits_for_its_retention(engine):
    await engine.put(a=1)
    engine.drop("notes")
    assert engine.catalog.cleanup(1.0) == []
    assert engine.catalog.cleanup(0) == ["notes"]
    assert engine.catalog.deleted() == []
    assert list(engine.layout.logs.iterdir()) == []


async def test_mark_of_a_drop_is_followed_at_the_next_start_and_by_a_running_engine(engine):
    engine.declare("other")
    await engine.put(a=1)
    mark_dropped(engine.layout, "other")
    engine.refresh({})
    assert engine.collection_names() == ["notes"]
    mark_dropped(engine.layout, "notes")
    engine.stop()
    with RunningEngine(engine.settings.data) as again:
        assert again.collection_names() == []
        assert {gone["name"] for gone in again.catalog.deleted()} == {"notes", "other"}


async def test_drop_that_cannot_be_followed_at_the_start_hides_no_other_collection(engine, disk):
    engine.declare("other")
    await engine.put("other", a=1)
    mark_dropped(engine.layout, "notes")
    engine.stop()
    disk.fail("rename notes -> *", errno.ENOSPC)
    with RunningEngine(engine.settings.data) as again:
        assert await again.values("other", "a") == [1]
