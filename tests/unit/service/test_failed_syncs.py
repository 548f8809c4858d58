"""A failed sync ends what relied on it, and nothing else (rule 5)."""

import asyncio
import dataclasses

import pytest

from tests.unit.interleaving import SlowSync
from vecstow_engine.model.errors import (
    NotFound,
    OutcomeUnknown,
    ReadOnly,
    StorageError,
    VecstowError,
)
from vecstow_engine.storage.manifests import update_manifest

CHANGES_OF_NAMES = {
    "create": (lambda engine: engine.declare("new"), "sync new/"),
    "create, its folder": (lambda engine: engine.declare("new"), "sync data/"),
    "drop, its mark": (lambda engine: engine.drop("notes"), "sync notes/"),
    "drop": (lambda engine: engine.drop("notes"), "sync .deleted/"),
    "cleanup": (lambda engine: engine.catalog.cleanup(0), "sync .deleted/"),
    "restore": (lambda engine: engine.catalog.restore(engine.newest_deleted(), None), "sync data/"),
}


async def test_rule_05_failed_sync_fails_every_writer_of_its_group(engine, disk, monkeypatch):
    """Writers of other collections go on."""
    engine.declare("neighbour")
    await engine.put(a=1)
    await engine.put("neighbour", a=1)
    slow = SlowSync(monkeypatch)
    first = asyncio.create_task(engine.put(b=2))
    await slow.under_way()
    group = [asyncio.create_task(engine.put(**{f"p{number}": 1})) for number in range(5)]
    await asyncio.sleep(0)
    slow.goes_on.release()
    await first
    await slow.under_way()
    disk.fail("data_sync *.log")
    slow.goes_on.release(100)
    outcomes = await asyncio.gather(*group, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown] * 5
    with pytest.raises(ReadOnly):
        await engine.put(c=3)
    assert engine.describe("notes")["state"] == "read_only"
    assert "sync" in engine.describe("notes")["reason"]
    assert engine.not_ready() == {"notes": "read_only"}
    assert await engine.values("notes", "a", "b", "p0") == [1, 2, None]
    assert await engine.nearest("notes", 2) == ["b"]
    assert await engine.put("neighbour", b=2) == ["b"]
    assert engine.describe("neighbour")["state"] == "ready"


async def test_rule_05_collection_comes_back_by_replay_in_a_new_process(engine, disk):
    await engine.put(a=1)
    disk.fail("data_sync *.log")
    with pytest.raises(OutcomeUnknown):
        await engine.put(b=2)
    with engine.copied() as restarted:
        assert restarted.describe("notes")["state"] == "ready"
        assert await restarted.values("notes", "a") == [1]
        assert await restarted.put(c=3) == ["c"]


@pytest.mark.parametrize("step", ["sync notes/", "sync data/", "sync wal/"])
async def test_rule_05_failed_sync_at_the_first_write_is_not_tried_again(engine, disk, step):
    """The files have their names by then, so a second sync that succeeds would prove nothing."""
    disk.fail(step)
    with pytest.raises(VecstowError):
        await engine.put(a=1)
    failed = disk.last("FAILED *")
    with pytest.raises(ReadOnly):
        await engine.put(a=1)
    assert engine.describe("notes")["state"] == "read_only"
    assert disk.steps[failed + 1 :] == []
    with engine.copied() as restarted:
        assert await restarted.put(a=2) == ["a"]
        assert await restarted.values("notes", "a") == [2]


@pytest.mark.parametrize(("change", "step"), CHANGES_OF_NAMES.values(), ids=CHANGES_OF_NAMES)
async def test_rule_05_after_a_failed_sync_of_names_none_is_changed_until_the_next_start(
    engine, disk, change, step
):
    engine.declare("old")
    engine.drop("old")
    await engine.put(a=1)
    disk.fail(step)
    with pytest.raises(OutcomeUnknown, match="outcome unknown: a sync failed during"):
        change(engine)
    disk.clear()
    for refused, _ in CHANGES_OF_NAMES.values():
        with pytest.raises((ReadOnly, NotFound)):
            refused(engine)
    assert disk.steps == []
    assert "sync" in engine.state_document()["failure"]
    with engine.copied() as restarted:
        assert restarted.state_document()["failure"] is None
        restarted.declare("later")


async def test_failed_step_of_a_change_of_names_is_an_error_that_names_it(engine, disk):
    engine.declare("old")
    engine.drop("old")
    disk.fail("rename *")
    with pytest.raises(StorageError, match="restore failed"):
        engine.catalog.restore(engine.newest_deleted(), None)
    assert engine.catalog.restore(engine.newest_deleted(), None) == "old"


async def test_rule_05_failed_sync_of_a_manifest_that_was_put_right_is_not_tried_again(engine, disk):
    """The page cache has the new manifest by then, so a second look would take it for durable."""
    await engine.put(a=1)
    update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, collection_uid=None))
    disk.fail("sync notes/")
    engine.refresh({})
    failed = disk.last("FAILED *")
    with pytest.raises(ReadOnly):
        engine.declare("new")
    engine.refresh({})
    assert disk.steps[failed + 1 :] == []
