"""Openings and first writes that find no room are tried again."""

import asyncio
import dataclasses
import errno
import math
import threading

import pytest

from tests.unit.running_engine import wait_until
from vecstow_engine.model.errors import (
    DamagedFile,
    DiskFull,
    Recovering,
)
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.service import collection as collection_module
from vecstow_engine.service import loader
from vecstow_engine.storage import files
from vecstow_engine.storage.manifests import mark_dropped, update_manifest


@pytest.fixture
async def postponed(engine, monkeypatch):
    """An engine whose collection `notes` waits to be opened; its point a has the value 1."""
    await engine.put(a=1)
    engine.drop("notes")
    with monkeypatch.context() as patch:
        patch.setattr(loader, "open_store", raising(OSError(errno.EMFILE, "Too many open files")))
        engine.catalog.restore(engine.newest_deleted(), None)
    assert engine.describe("notes")["state"] == "recovering"
    return engine


def drop_by_call(engine):
    engine.drop("notes")


def drop_by_mark(engine):
    mark_dropped(engine.layout, "notes")
    engine.refresh({})


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(OSError(errno.EMFILE, "Too many open files"), id="no descriptors"),
        pytest.param(DiskFull("the volume is full"), id="no room"),
    ],
)
async def test_opening_that_finds_no_room_is_tried_again_and_nothing_is_quarantined(
    engine, monkeypatch, error
):
    await engine.put(a=1)
    engine.drop("notes")
    monkeypatch.setattr(collection_module, "OPEN_AGAIN_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(loader, "open_store", raising(error))
        engine.catalog.restore(engine.newest_deleted(), None)
        with pytest.raises(Recovering, match="waits to be opened: "):
            await engine.values("notes", "a")
        assert engine.describe("notes")["state"] == "recovering"
    wait_until(lambda: engine.describe("notes")["state"] == "ready")
    assert await engine.values("notes", "a") == [1]
    assert engine.describe("notes")["reason"] is None
    assert await engine.put(b=2) == ["b"]


async def test_opening_that_finds_damage_at_the_second_try_is_not_tried_a_third_time(engine, monkeypatch):
    await engine.put(a=1)
    engine.drop("notes")
    monkeypatch.setattr(collection_module, "OPEN_AGAIN_SECONDS", 0.0)
    errors = [OSError(errno.EMFILE, "Too many open files"), DamagedFile("it is torn", file="points.db")]
    with monkeypatch.context() as patch:
        patch.setattr(loader, "open_store", lambda *args, **kwargs: raising(errors.pop(0))())
        engine.catalog.restore(engine.newest_deleted(), None)
        wait_until(lambda: engine.describe("notes")["state"] == "quarantined")
        assert engine.collection("notes").retry_at is None


async def test_opening_that_was_postponed_waits_for_the_end_of_a_hold(engine, monkeypatch):
    await engine.put(a=1)
    engine.drop("notes")
    with monkeypatch.context() as patch:
        patch.setattr(loader, "open_store", raising(OSError(errno.EMFILE, "Too many open files")))
        engine.catalog.restore(engine.newest_deleted(), None)
    engine.gate.hold(60)
    engine._loader.open_postponed(math.inf)
    assert engine.describe("notes")["state"] == "recovering"
    engine.gate.release()
    engine._loader.open_postponed(math.inf)
    assert engine.describe("notes")["state"] == "ready"


async def test_collection_that_waits_to_be_opened_can_be_held_around(postponed):
    postponed.hold.begin(60)
    with postponed.copied() as copy:
        assert await copy.values("notes", "a") == [1]


@pytest.mark.parametrize("drop", [drop_by_call, drop_by_mark])
async def test_collection_that_waits_to_be_opened_can_be_dropped(postponed, drop):
    waiting = postponed.collection("notes")
    drop(postponed)
    assert postponed.collection_names() == []
    postponed._loader.open_again(waiting)
    assert waiting.store is None
    postponed.catalog.restore(postponed.newest_deleted(), None)
    assert await postponed.values("notes", "a") == [1]


async def test_settings_changed_before_a_postponed_opening_are_followed_after_it(postponed):
    config = IndexConfig(ef_search=77)
    update_manifest(
        postponed.layout, "notes", lambda found: found and dataclasses.replace(found, index_config=config)
    )
    postponed.refresh({})
    assert postponed.describe("notes")["state"] == "recovering"
    postponed._loader.open_postponed(math.inf)
    postponed.refresh({})
    assert postponed.collection("notes").manifest.index_config == config
    assert await postponed.values("notes", "a") == [1]


async def test_collection_that_is_opened_again_is_neither_dropped_nor_held_around(postponed, monkeypatch):
    """Its loader writes the files."""
    begun, goes_on = threading.Event(), threading.Event()
    real = loader.open_store

    def open_slowly(*args, **kwargs):
        begun.set()
        assert goes_on.wait(20)
        return real(*args, **kwargs)

    monkeypatch.setattr(loader, "open_store", open_slowly)
    opening = threading.Thread(target=postponed._loader.open_postponed, args=(math.inf,))
    opening.start()
    assert begun.wait(20)
    for attempt in (lambda: postponed.drop("notes"), lambda: postponed.hold.begin(60)):
        with pytest.raises(Recovering):
            attempt()
    goes_on.set()
    opening.join()
    assert await postponed.values("notes", "a") == [1]


async def test_opening_whose_sync_failed_is_not_tried_again(engine, monkeypatch):
    await engine.put(a=1)
    engine.drop("notes")
    with monkeypatch.context() as patch:
        patch.setattr(loader, "open_store", raising(files.SyncFailed(errno.ENOSPC, "No space left (sync)")))
        engine.catalog.restore(engine.newest_deleted(), None)
    assert engine.describe("notes")["state"] == "quarantined"


async def test_first_write_that_found_no_room_is_tried_again(engine, disk):
    for step in ("write vectors.bin.tmp", "write metadata.json.tmp", "write *.log.tmp", "write *.log"):
        disk.fail(step, errno.ENOSPC)
        with pytest.raises(DiskFull):
            await engine.put(a=1)
    assert await engine.put(a=1) == ["a"]
    with engine.copied() as restarted:
        assert await restarted.values("notes", "a") == [1]


async def test_first_writes_that_wait_together_all_hear_that_there_is_no_room(engine, disk):
    collection = engine.collection("notes")
    disk.fail("write vectors.bin.tmp", errno.ENOSPC, times=2)
    with collection.upkeep_lock:
        first = asyncio.create_task(engine.put(a=1))
        others = []
        queues = engine._committer._queues
        await asyncio.to_thread(wait_until, lambda: collection in queues and not queues[collection].waiting)
        for number in range(1, 6):
            others.append(asyncio.create_task(engine.put(**{f"p{number}": number})))
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(first, *others, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {DiskFull}
    assert await engine.put(a=1) == ["a"]
