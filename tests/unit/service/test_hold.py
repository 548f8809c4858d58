"""The hold: only logs change while it lasts (rule 16)."""

import asyncio
import functools
import shutil
import threading
from types import SimpleNamespace

import pytest

from tests.unit.interleaving import Slowed
from tests.unit.running_engine import RunningEngine, fill, wait_until
from vecstow_engine.model.errors import (
    Busy,
    Conflict,
    InvalidInput,
    Recovering,
)
from vecstow_engine.service import catalog, hold, loader
from vecstow_engine.storage import backup
from vecstow_engine.storage.log.replay import segment_paths
from vecstow_engine.storage.manifests import (
    drops_wait,
    manifests_locked,
)


def state_of(data):
    """Content and inode of every file but logs, locks, and what SQLite has while its file is open."""
    paths = [p for p in data.rglob("*") if p.is_file() and "wal" not in p.parts and p.name not in ("LOCK",)]
    return {
        p: (p.stat().st_ino, p.read_bytes()) for p in paths if not p.name.endswith((".lock", "-shm", "-wal"))
    }


async def test_rule_16_between_checkpoints_only_the_log_changes(engine):
    await engine.put(a=1)
    engine.checkpoint()
    before = state_of(engine.settings.data)
    await engine.put(a=2, b=3)
    await engine.delete_points("notes", ["a"])
    await engine.nearest("notes", 3)
    assert state_of(engine.settings.data) == before


async def test_rule_16_hold_postpones_checkpoints_snapshots_rotation_and_trims(tmp_path):
    with RunningEngine(tmp_path / "data", checkpoint_bytes=1, checkpoint_seconds=0.0) as engine:
        engine.declare()
        await engine.put(a=1)
        engine.hold.begin(60)
        collection = engine.collection("notes")
        before = state_of(engine.settings.data)
        segments = segment_paths(collection.store.log.folder)
        await engine.put(**fill("p", 1500))
        for _ in range(3):
            engine._upkeep._look_after(collection)
        assert state_of(engine.settings.data) == before
        assert segment_paths(collection.store.log.folder) == segments
        engine.hold.end()
        wait_until(lambda: collection.store.meta.points == 1501)


async def test_rule_16_copy_under_a_hold_is_exact(engine):
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    engine.hold.begin(60)
    await engine.put(c=3)
    with engine.copied() as copy:
        assert await copy.values("notes", "a", "b", "c") == [1, 2, 3]


def test_rule_16_hold_ends_by_itself(engine):
    engine.hold.begin(0.01)
    wait_until(lambda: engine.gate.remaining_seconds == 0)
    with engine.gate.passing() as free:
        assert free


def test_rule_16_hold_waits_for_the_change_under_way(engine):
    entered, goes_on = threading.Event(), threading.Event()

    def change():
        with engine.gate.passing():
            entered.set()
            goes_on.wait(20)

    changer = threading.Thread(target=change)
    changer.start()
    entered.wait(20)
    holder = threading.Thread(target=lambda: engine.hold.begin(60))
    holder.start()
    wait_until(lambda: engine.gate.remaining_seconds > 0)
    assert holder.is_alive()
    goes_on.set()
    changer.join()
    holder.join()


@pytest.mark.parametrize("operation", ["drop", "compact", "cleanup", "restore"])
def test_rule_16_what_would_change_files_is_refused_during_a_hold(engine, operation):
    engine.declare("gone")
    engine.drop("gone")
    [gone] = engine.catalog.deleted()
    engine.hold.begin(60)
    calls = {
        "drop": lambda: engine.drop("notes"),
        "compact": lambda: engine.compact("notes"),
        "cleanup": lambda: engine.catalog.cleanup(0),
        "restore": lambda: engine.catalog.restore(gone["path"], None),
    }
    with pytest.raises(Conflict, match="held"):
        calls[operation]()
    assert engine.collection_names() == ["notes"]


async def test_rule_16_stop_during_a_hold_leaves_the_files_and_loses_nothing(tmp_path):
    engine = RunningEngine(tmp_path / "data")
    with engine:
        engine.declare()
        await engine.put(a=1)
        engine.checkpoint()
        await engine.put(b=2)
        engine.hold.begin(60)
        before = state_of(tmp_path / "data")
    assert state_of(tmp_path / "data") == before
    with RunningEngine(tmp_path / "data") as again:
        assert await again.values("notes", "a", "b") == [1, 2]


async def test_hold_waits_until_every_collection_is_opened(engine, monkeypatch):
    """Recovery writes new logs and removes the found ones: a copy made meanwhile may have neither."""
    await engine.put(a=1)
    opening = Slowed(monkeypatch, loader, "open_store")
    copy = engine.copied()
    copy.start()
    try:
        with pytest.raises(Recovering, match="until every collection is opened"):
            copy.hold.begin(60)
        opening.goes_on.set()
        wait_until(copy.registry.all_opened)
        copy.hold.begin(60)
    finally:
        opening.goes_on.set()
        copy.stop()


async def test_volume_is_locked_until_a_restore_that_is_under_way_is_done(engine, monkeypatch):
    """Else another engine would have it, and two would write."""
    await engine.put(a=1)
    engine.drop("notes")
    slowed = Slowed(monkeypatch, backup, "restore_deleted")
    restore = asyncio.create_task(
        asyncio.to_thread(engine.catalog.restore, engine.catalog.deleted()[0]["path"], None)
    )
    await asyncio.to_thread(slowed.entered.wait, 20)
    stop = asyncio.create_task(asyncio.to_thread(engine.stop))
    await asyncio.to_thread(wait_until, lambda: engine.gate.closed)
    assert engine.volume is not None
    slowed.goes_on.set()
    assert await restore == "notes"
    await stop
    assert engine.volume is None
    with pytest.raises(Busy, match="stopping"):
        engine.catalog.cleanup(0)


async def test_purge_of_a_hard_delete_is_over_before_a_hold_begins(engine, monkeypatch):
    await engine.put(a=1)
    purging = Slowed(monkeypatch, catalog, "purge")
    delete = asyncio.create_task(asyncio.to_thread(engine.hard_delete, "notes"))
    await asyncio.to_thread(purging.entered.wait, 20)
    with pytest.raises(Busy):
        engine.gate.hold(60, wait_seconds=0.01)
    purging.goes_on.set()
    await delete
    engine.hold.begin(60)
    engine.hold.end()


def test_drops_of_others_wait_as_long_as_a_hold_lasts(engine, monkeypatch):
    seconds = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(hold, "time", SimpleNamespace(monotonic=lambda: seconds.now))
    assert not drops_wait(engine.layout)
    for _ in range(2):
        engine.hold.begin(30)
        assert drops_wait(engine.layout)
    engine.hold.end()
    assert not drops_wait(engine.layout)
    engine.hold.begin(30)
    seconds.now += 30
    wait_until(lambda: not drops_wait(engine.layout))


def test_hold_that_does_not_begin_keeps_no_drop_waiting(engine, monkeypatch):
    monkeypatch.setattr(engine.gate, "hold", functools.partial(engine.gate.hold, wait_seconds=0.01))
    with engine.gate.passing(), pytest.raises(Busy):
        engine.hold.begin(30)
    wait_until(lambda: not drops_wait(engine.layout))


def test_drop_that_is_being_marked_is_made_before_a_hold_begins(engine):
    held = threading.Thread(target=engine.hold.begin, args=(30,))
    with manifests_locked(engine.layout):
        held.start()
        held.join(0.05)
        assert held.is_alive()
    held.join()
    assert drops_wait(engine.layout)


def test_engine_that_ends_during_a_hold_keeps_no_drop_waiting(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        engine.hold.begin(30)
        assert drops_wait(engine.layout)
    assert not drops_wait(engine.layout)


async def test_first_write_during_a_hold_is_told_when_to_come_again(engine):
    """Not that the collection exists, which a 409 means: the clients of d-vecDB raise TypeError then."""
    engine.hold.begin(30)
    with pytest.raises(Busy, match="held for 30 s more") as refused:
        await engine.put(a=1)
    assert refused.value.retry_after_seconds == 30
    engine.hold.end()
    assert await engine.put(a=1) == ["a"]


async def test_folder_that_appears_during_a_hold_is_opened_after_it(engine):
    """Opening settles and rewrites files: a copy under the hold would be of two moments."""
    await engine.put(a=1)
    engine.checkpoint()
    with engine.copied("source") as source:
        source.hard_delete("notes")
        engine_folder = engine.settings.data / "notes"
        source.hold.begin(60)
        shutil.copytree(engine_folder, source.settings.data / "notes")
        source.refresh({})
        assert source.collection_names() == []
        source.hold.end()
        source.refresh({})
        assert await source.values("notes", "a") == [1]


def test_hold_above_the_limit_is_refused(engine):
    with pytest.raises(InvalidInput, match="at most 3600"):
        engine.hold.begin(3601)
    assert engine.gate.remaining_seconds == 0
