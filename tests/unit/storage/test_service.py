"""Rules 4, 5 and 16 through the engine: group commit, failed syncs, holds; and who owns a folder."""

import asyncio
import dataclasses
import errno
import json
import math
import shutil
import threading

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.unit.running_engine import RunningEngine, fill, wait_until
from tests.unit.store_on_disk import MANIFEST, vector
from vecstow_engine.model.batch import PointBatch, SearchQuery
from vecstow_engine.model.errors import (
    Busy,
    Conflict,
    DamagedFile,
    DiskFull,
    NotFound,
    OutcomeUnknown,
    Quarantined,
    ReadOnly,
    Recovering,
    StorageError,
    VecstowError,
)
from vecstow_engine.model.filters import parse_filter
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.model.metrics import VectorType
from vecstow_engine.service import collection as collection_module
from vecstow_engine.service import loader, registry
from vecstow_engine.service.searcher import search_many
from vecstow_engine.storage import files
from vecstow_engine.storage.backup import make_backup
from vecstow_engine.storage.manifests import mark_dropped, read_manifest, update_manifest, write_manifest
from vecstow_engine.storage.recovery import observation
from vecstow_engine.storage.rows_header import HEADER_BYTES


class SlowSync:
    """`data_sync` waits until the test lets it go on."""

    def __init__(self, monkeypatch):
        self.entered = threading.Semaphore(0)
        self.goes_on = threading.Semaphore(0)
        self.count = 0
        real = files.data_sync

        def sync(fd):
            self.count += 1
            self.entered.release()
            assert self.goes_on.acquire(timeout=20)
            real(fd)

        monkeypatch.setattr(files, "data_sync", sync)

    async def under_way(self):
        assert await asyncio.to_thread(self.entered.acquire, timeout=20)


# Rule 4 --------------------------------------------------------------------------------------------------


async def test_rule_04_concurrent_writers_share_one_sync(engine, monkeypatch):
    await engine.put(a=1)
    slow = SlowSync(monkeypatch)
    first = asyncio.create_task(engine.put(b=2))
    await slow.under_way()
    others = [asyncio.create_task(engine.put(**{f"p{number}": number})) for number in range(1, 30)]
    await asyncio.sleep(0)
    assert not first.done()
    slow.goes_on.release(2)
    await asyncio.gather(first, *others)
    assert slow.count == 2


async def test_rule_04_no_writer_is_told_before_its_sync_returned(engine, monkeypatch):
    await engine.put(a=1)
    slow = SlowSync(monkeypatch)
    write = asyncio.create_task(engine.put(b=2))
    await slow.under_way()
    assert await engine.values("notes", "b") == [None]
    assert not write.done()
    slow.goes_on.release()
    assert await write == ["b"]
    assert await engine.values("notes", "b") == [2]


# Rule 5 --------------------------------------------------------------------------------------------------


async def test_rule_05_failed_sync_is_told_to_every_writer_of_its_group_and_neighbours_go_on(
    engine, disk, monkeypatch
):
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


CHANGES_OF_NAMES = {
    "create": (lambda engine: engine.declare("new"), "sync new/"),
    "create, its folder": (lambda engine: engine.declare("new"), "sync data/"),
    "drop, its mark": (lambda engine: engine.drop("notes"), "sync notes/"),
    "drop": (lambda engine: engine.drop("notes"), "sync .deleted/"),
    "cleanup": (lambda engine: engine.cleanup(0), "sync .deleted/"),
    "restore": (lambda engine: engine.restore(newest_deleted(engine), None), "sync data/"),
}


def newest_deleted(engine):
    return next((deleted["path"] for deleted in engine.deleted()), ".deleted/none")


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
        engine.restore(newest_deleted(engine), None)
    assert engine.restore(newest_deleted(engine), None) == "old"


async def test_damage_that_comes_while_it_is_served_is_told_and_a_check_reports_it(tmp_path):
    with RunningEngine(tmp_path / "data", handles_max=1) as engine:
        engine.declare()
        await engine.put(**fill("p", 300))
        engine.checkpoint()
        engine.declare("other")
        await engine.put("other", a=1)  # closes the table, and with it SQLite's cache
        path = engine.layout.collection("notes") / "points.db"
        raw = bytearray(path.read_bytes())
        raw[4096:] = bytes(len(raw) - 4096)
        path.write_bytes(raw)
        with pytest.raises(StorageError):
            await engine.values("notes", "p1")
        facts = engine.describe("notes")
        assert facts["state"] == "degraded"
        assert "points.db" in facts["reason"]
        assert not engine.check("notes")["clean"]
        assert await engine.values("other", "a") == [1]


@pytest.mark.parametrize("file", ["vectors.bin", "points.db"])
async def test_what_a_check_finds_damaged_is_withheld_at_once(engine, file):
    await engine.put(**fill("p", 3))
    engine.checkpoint()
    path = engine.layout.collection("notes") / file
    raw = bytearray(path.read_bytes())
    raw[HEADER_BYTES + 1 if file == "vectors.bin" else raw.index(b'{"v"')] ^= 1
    path.write_bytes(raw)
    assert not engine.check("notes")["clean"]
    assert engine.describe("notes")["state"] == "degraded"
    assert len(engine.describe("notes")["withheld"]) == 1


async def test_log_that_is_removed_under_a_running_engine_ends_its_writes(tmp_path):
    with RunningEngine(tmp_path / "data", handles_max=1) as engine:
        engine.declare()
        await engine.put(a=1)
        engine.declare("other")
        await engine.put("other", a=1)
        shutil.rmtree(engine.layout.log(engine.collection("notes").manifest.collection_uid))
        with pytest.raises(ReadOnly, match=r"log segment .* is gone"):
            await engine.put(b=2)
        assert engine.describe("notes")["state"] == "read_only"
        assert await engine.values("notes", "a") == [1]


async def test_folder_with_data_that_lost_its_manifest_is_told_of(engine):
    await engine.put(a=1)
    (engine.layout.collection("notes") / "metadata.json").unlink()
    with engine.copied() as restarted:
        [row] = restarted.state_document()["collections"]
        assert (row["name"], row["state"]) == ("notes", "quarantined")
        assert row["reason"] == "metadata.json is missing beside data files"
        with pytest.raises(Quarantined, match=r"metadata\.json is missing"):
            restarted.collection("notes")


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
        engine.restore(newest_deleted(engine), None)
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
        engine.restore(newest_deleted(engine), None)
        wait_until(lambda: engine.describe("notes")["state"] == "quarantined")
        assert engine.collection("notes").retry_at is None


async def test_opening_that_was_postponed_waits_for_the_end_of_a_hold(engine, monkeypatch):
    await engine.put(a=1)
    engine.drop("notes")
    with monkeypatch.context() as patch:
        patch.setattr(loader, "open_store", raising(OSError(errno.EMFILE, "Too many open files")))
        engine.restore(newest_deleted(engine), None)
    engine.gate.hold(60)
    engine._opener.open_postponed(math.inf)
    assert engine.describe("notes")["state"] == "recovering"
    engine.gate.release()
    engine._opener.open_postponed(math.inf)
    assert engine.describe("notes")["state"] == "ready"


@pytest.fixture
async def postponed(engine, monkeypatch):
    """An engine whose collection `notes` waits to be opened; its point a has the value 1."""
    await engine.put(a=1)
    engine.drop("notes")
    with monkeypatch.context() as patch:
        patch.setattr(loader, "open_store", raising(OSError(errno.EMFILE, "Too many open files")))
        engine.restore(newest_deleted(engine), None)
    assert engine.describe("notes")["state"] == "recovering"
    return engine


async def test_collection_that_waits_to_be_opened_can_be_held_around(postponed):
    postponed.hold(60)
    with postponed.copied() as copy:
        assert await copy.values("notes", "a") == [1]


def drop_by_call(engine):
    engine.drop("notes")


def drop_by_mark(engine):
    mark_dropped(engine.layout, "notes")
    engine.refresh({})


@pytest.mark.parametrize("drop", [drop_by_call, drop_by_mark])
async def test_collection_that_waits_to_be_opened_can_be_dropped(postponed, drop):
    waiting = postponed.collection("notes")
    drop(postponed)
    assert postponed.collection_names() == []
    postponed._opener.open_again(waiting)
    assert waiting.store is None
    postponed.restore(newest_deleted(postponed), None)
    assert await postponed.values("notes", "a") == [1]


async def test_settings_that_change_while_a_collection_waits_to_be_opened_are_followed_after_it(postponed):
    config = IndexConfig(ef_search=77)
    update_manifest(
        postponed.layout, "notes", lambda found: found and dataclasses.replace(found, index_config=config)
    )
    postponed.refresh({})
    assert postponed.describe("notes")["state"] == "recovering"
    postponed._opener.open_postponed(math.inf)
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
    opening = threading.Thread(target=postponed._opener.open_postponed, args=(math.inf,))
    opening.start()
    assert begun.wait(20)
    for attempt in (lambda: postponed.drop("notes"), lambda: postponed.hold(60)):
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
        engine.restore(newest_deleted(engine), None)
    assert engine.describe("notes")["state"] == "quarantined"


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


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
    with collection.upkeep:
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


# Rule 10 -------------------------------------------------------------------------------------------------


async def test_rule_10_filter_count_and_search_see_what_no_checkpoint_has(engine):
    await engine.put(a=1, b=2, c=3)
    engine.checkpoint()
    await engine.put(b=20, d=4)
    await engine.delete_points("notes", ["c"])
    assert engine.describe("notes")["vector_count"] == 3
    for value, wanted in ((2, []), (20, ["b"]), (3, []), (4, ["d"]), (1, ["a"])):
        query = SearchQuery.build(
            engine.collection("notes").manifest, np.zeros(4, np.float32), 10, None, parse_filter({"v": value})
        )
        assert [hit.id for hit in await engine.search("notes", query)] == wanted, value


@pytest.mark.parametrize(("change", "moved", "value"), [("update", "a", 1), ("compaction", "far", 1000)])
async def test_rule_10_point_is_found_at_every_moment_of_its(engine, monkeypatch, change, moved, value):
    """By its old row or by its new one."""
    await engine.put(gone=500, a=1, far=1000)
    engine.checkpoint()
    await engine.delete_points("notes", ["gone"])
    engine.checkpoint()
    collection = engine.collection("notes")
    query = SearchQuery.build(collection.manifest, np.array(vector(value), np.float32), 1)
    found = []

    def look():
        found.extend(hit.id for [hit] in search_many(collection, [query]))

    for name in ("add", "remove"):
        monkeypatch.setattr(collection.index, name, watched(getattr(collection.index, name), look))
    if change == "update":
        await engine.put(a=2)
    else:
        engine.compact("notes")
    assert found == [moved] * 4


def watched(method, look):
    """Looks before and after each call that is no part of a look."""
    looking = False

    def call(*values):
        nonlocal looking
        if looking:
            method(*values)
            return
        looking = True
        look()
        method(*values)
        look()
        looking = False

    return call


async def test_rule_10_reads_are_right_while_everything_else_goes_on(tmp_path):
    """Writers, checkpoints, compaction, backups and few open files: no read is ever older than an answer."""
    with RunningEngine(tmp_path / "data", handles_max=2, checkpoint_seconds=0.0) as engine:
        for name in ("one", "two", "three"):
            engine.declare(name)
        busy = threading.Event()
        upkeep = asyncio.create_task(asyncio.to_thread(keep_changing, engine, busy))
        await asyncio.gather(*(write_and_read(engine, name, 60) for name in ("one", "two", "three", "one")))
        busy.set()
        await upkeep
        with engine.copied() as again:
            for name in ("one", "two", "three"):
                assert again.describe(name)["state"] == "ready"
                assert again.describe(name)["vector_count"] == engine.describe(name)["vector_count"]


def keep_changing(engine, busy):
    while not busy.is_set():
        for name in ("one", "two", "three"):
            engine.compact(name)
            with engine.collection(name).upkeep:
                shutil.rmtree(make_backup(engine.layout, engine.collection(name).manifest))


async def write_and_read(engine, name, rounds):
    """Three points in turn, each written, updated, read, found and deleted; ids are this writer's alone."""
    mine = f"{id(asyncio.current_task())}-"
    for round_ in range(1, rounds + 1):
        point_id = f"{mine}{round_ % 3}"
        value = 1000 * round_ + int(mine[:-1]) % 997
        await engine.put(name, **{point_id: value})
        assert await engine.values(name, point_id) == [value]
        assert await engine.nearest(name, value) == [point_id]
        if round_ % 4 == 0:
            assert await engine.delete_points(name, [point_id]) == [True]
            assert await engine.values(name, point_id) == [None]
            assert point_id not in await engine.nearest(name, value, 50)


# Rule 16: holds ------------------------------------------------------------------------------------------


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
        engine.hold(60)
        collection = engine.collection("notes")
        before = state_of(engine.settings.data)
        segments = collection.store.log.segments()
        await engine.put(**fill("p", 1500))
        for _ in range(3):
            engine._upkeep._look_after(collection)
        assert state_of(engine.settings.data) == before
        assert collection.store.log.segments() == segments
        engine.release_hold()
        wait_until(lambda: collection.store.meta.points == 1501)


async def test_rule_16_copy_under_a_hold_is_exact(engine):
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    engine.hold(60)
    await engine.put(c=3)
    with engine.copied() as copy:
        assert await copy.values("notes", "a", "b", "c") == [1, 2, 3]


def test_rule_16_hold_ends_by_itself(engine):
    engine.hold(0.01)
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
    holder = threading.Thread(target=lambda: engine.hold(60))
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
    [gone] = engine.deleted()
    engine.hold(60)
    calls = {
        "drop": lambda: engine.drop("notes"),
        "compact": lambda: engine.compact("notes"),
        "cleanup": lambda: engine.cleanup(0),
        "restore": lambda: engine.restore(gone["path"], None),
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
        engine.hold(60)
        before = state_of(tmp_path / "data")
    assert state_of(tmp_path / "data") == before
    with RunningEngine(tmp_path / "data") as again:
        assert await again.values("notes", "a", "b") == [1, 2]


# Bounds --------------------------------------------------------------------------------------------------


def bounded(data, *, wait_seconds=0.02, **index):
    engine = RunningEngine(data, overlay_bytes_max=10_000)
    limits = dataclasses.replace(engine.settings.limits, write_wait_seconds=wait_seconds)
    engine.settings = dataclasses.replace(engine.settings, limits=limits, **index)
    return engine


async def test_writer_that_outruns_the_checkpoints_waits_and_is_told_at_the_limit_before_anything_is_logged(
    tmp_path,
):
    with bounded(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(**fill("p", 20))
        last = engine.collection("notes").store.last_sequence
        with pytest.raises(Busy, match="wait for a checkpoint") as told:
            await engine.put(**fill("q", 20))
        assert told.value.retry_after_seconds == 5
        assert engine.collection("notes").store.last_sequence == last
        engine.checkpoint()
        assert len(await engine.put(**fill("q", 20))) == 20


async def test_writer_that_waits_goes_on_when_there_is_room(tmp_path):
    with bounded(tmp_path / "data", wait_seconds=20.0) as engine:
        engine.declare()
        await engine.put(**fill("p", 20))
        write = asyncio.create_task(engine.put(**fill("q", 20)))
        await asyncio.sleep(0.05)
        assert not write.done()
        await asyncio.to_thread(engine.checkpoint)
        assert len(await write) == 20


async def test_one_batch_above_the_bound_is_taken_alone(tmp_path):
    """A limit on what waits must not refuse for ever what a client may send."""
    with bounded(tmp_path / "data") as engine:
        engine.declare()
        assert len(await engine.put(**fill("p", 500))) == 500


async def test_write_that_comes_while_the_engine_stops_is_refused_not_lost(engine):
    await engine.put(a=1)
    collection = engine.collection("notes")
    engine._committer.stop()
    with pytest.raises(Busy, match="stopping"):
        await engine.put(b=2)
    assert collection.store.last_sequence == 1


async def test_client_that_goes_away_does_not_take_its_write_back(engine, monkeypatch):
    await engine.put(a=1)
    slow = SlowSync(monkeypatch)
    write = asyncio.create_task(engine.put(b=2))
    await slow.under_way()
    write.cancel()
    slow.goes_on.release(100)
    await engine.put(c=3)
    assert await engine.values("notes", "b", "c") == [2, 3]


# Settings ------------------------------------------------------------------------------------------------


async def test_changed_graph_settings_rebuild_the_graph_in_the_background(engine):
    await engine.put(**fill("p", 1500))
    engine.indexed()
    config = IndexConfig(max_connections=8, ef_construction=50, ef_search=77)
    update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, index_config=config))
    engine.refresh({})
    collection = engine.indexed()
    assert engine.describe("notes")["index_config"]["ef_search"] == 77
    with collection.index.fork_point() as graph:
        assert graph.built_with(config)
    assert await engine.nearest("notes", 700) == ["p699"]


# Coming and going ----------------------------------------------------------------------------------------


async def test_clean_stop_leaves_nothing_to_replay(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(a=1)
    with capture_logs() as logs, RunningEngine(tmp_path / "data") as again:
        assert await again.values("notes", "a") == [1]
    [line] = [line for line in logs if line["event"] == "collection loaded"]
    assert (line["replayed"], line["vectors"]) == (0, 1)


async def test_write_to_a_dropped_collection_is_not_found(engine):
    await engine.put(a=1)
    collection = engine.collection("notes")
    engine.drop("notes")
    with pytest.raises((NotFound, ReadOnly)):
        collection.commit([])
    with pytest.raises(NotFound):
        await engine.put(b=2)


async def test_drop_that_a_rescan_sees_is_made_once(engine, monkeypatch):
    """The mark is on the volume before the folder moves; whoever looks then must not move it again."""
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
    [gone] = engine.deleted()
    engine.restore(gone["path"], None)
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
    assert len(engine.deleted()) == 1


async def test_dropped_collection_is_restored_with_all_its_data_checkpointed_or_not(engine):
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    engine.drop("notes")
    engine.declare("notes", dimension=7)
    [gone] = engine.deleted()
    assert engine.restore(gone["path"], "old") == "old"
    assert await engine.values("old", "a", "b") == [1, 2]
    assert await engine.put("old", c=3) == ["c"]
    with engine.copied() as again:
        assert await again.values("old", "a", "b", "c") == [1, 2, 3]
        assert again.describe("notes")["dimension"] == 7


async def test_hard_deleted_collection_leaves_nothing(engine):
    await engine.put(a=1)
    uid = engine.collection("notes").manifest.collection_uid
    engine.hard_delete("notes")
    assert engine.deleted() == []
    assert not engine.layout.log(uid).exists()


async def test_purge_waits_for_its_retention(engine):
    await engine.put(a=1)
    engine.drop("notes")
    assert engine.cleanup(1.0) == []
    assert engine.cleanup(0) == ["notes"]
    assert engine.deleted() == []
    assert list(engine.layout.logs.iterdir()) == []


async def test_backup_becomes_a_collection_with_a_uid_of_its_own(engine):
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    path = engine.backup("notes")
    await engine.put(a=9)
    assert engine.restore(path, "copy") == "copy"
    assert await engine.values("copy", "a", "b") == [1, 2]
    assert await engine.values("notes", "a") == [9]
    uids = {engine.collection(name).manifest.collection_uid for name in ("notes", "copy")}
    assert len(uids) == 2
    await engine.put("copy", c=3)
    with engine.copied() as again:
        assert await again.values("copy", "a", "b", "c") == [1, 2, 3]
        assert await again.values("notes", "a", "b", "c") == [9, 2, None]


async def test_backup_is_not_touched_by_what_comes_after(engine):
    """Its hard links are of files that are never written again."""
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    path = engine.settings.data / engine.backup("notes")
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    await engine.put(a=3, c=4)
    engine.checkpoint()
    await engine.delete_points("notes", ["b"])
    engine.checkpoint()
    engine.compact("notes")
    engine.drop("notes")
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


# Who owns a folder ---------------------------------------------------------------------------------------


async def test_copy_of_a_served_folder_is_not_served_beside_it(engine):
    """Two collections on one log would destroy it; only the folder that the log names serves."""
    await engine.put(a=1)
    shutil.copytree(engine.layout.collection("notes"), engine.layout.collection("twin"))
    write_manifest(
        engine.layout.collection("twin"),
        dataclasses.replace(engine.collection("notes").manifest, name="twin"),
    )
    engine.refresh({})
    assert engine.describe("twin")["state"] == "quarantined"
    assert await engine.put(b=2) == ["b"]
    with engine.copied() as again:
        assert await again.values("notes", "a", "b") == [1, 2]
        assert again.describe("twin")["state"] == "quarantined"


async def test_copy_of_a_served_folder_with_a_manifest_by_hand_is_not_served_beside_it(engine):
    """Its manifest has no uid, but its rows have."""
    await engine.put(a=1)
    engine.checkpoint()
    shutil.copytree(engine.layout.collection("notes"), engine.layout.collection("twin"))
    write_manifest(engine.layout.collection("twin"), dataclasses.replace(MANIFEST, name="twin"))
    with engine.copied() as again:
        assert again.describe("twin")["state"] == "quarantined"
        assert await again.values("notes", "a") == [1]
    engine.refresh({})
    assert engine.describe("twin")["state"] == "quarantined"
    assert await engine.put(b=2) == ["b"]
    assert engine.describe("notes")["state"] == "ready"


async def test_start_does_not_compare_each_collection_with_all_the_others(engine, monkeypatch):
    """With 1,000 of them it would be a million comparisons; one over all manifests does."""
    await engine.put(a=1)
    asked = []
    monkeypatch.setattr(registry.Registry, "is_claimed", lambda self, manifest: asked.append(manifest.name))
    with engine.copied() as again:
        assert again.describe("notes")["state"] == "ready"
    assert asked == []


async def test_rival_whose_header_could_not_be_read_at_first_is_found_when_it_is_opened(engine, monkeypatch):
    await engine.put(a=1)
    shutil.copytree(engine.layout.collection("notes"), engine.layout.collection("twin"))
    write_manifest(engine.layout.collection("twin"), dataclasses.replace(MANIFEST, name="twin"))
    monkeypatch.setattr(registry, "rivals", lambda layout, found: set())
    with engine.copied() as again:
        assert again.describe("twin")["state"] == "quarantined"
        assert await again.values("notes", "a") == [1]
        assert again.registry.is_rival(again.collection("twin"))


async def test_collection_is_not_created_over_data_that_lost_its_manifest(engine):
    await engine.put(a=1)
    engine.checkpoint()
    engine.stop()
    (engine.layout.collection("notes") / "metadata.json").unlink()
    with RunningEngine(engine.settings.data) as again:
        assert again.collection_names() == []
        with pytest.raises(Conflict, match="holds data"):
            again.declare("notes")
        write_manifest(again.layout.collection("notes"), MANIFEST)
        again.refresh({})
        assert await again.values("notes", "a") == [1]


async def test_manifest_whose_shape_changed_beside_data_is_not_followed(engine):
    await engine.put(a=1)
    update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, dimension=8))
    with capture_logs() as logs:
        engine.refresh({})
    assert [line["log_level"] for line in logs if "shape" in line["event"]] == ["error"]
    assert engine.describe("notes")["dimension"] == 4
    assert await engine.put(b=2) == ["b"]


async def test_write_checked_against_a_shape_that_changed_meanwhile_is_refused(engine):
    """Until the first write an empty collection may change its shape; what waits was made for the old one."""
    manifest = engine.collection("notes").manifest
    batch = PointBatch.build(manifest, ["a"], np.ones((1, 4), np.float32), None)
    changed = {"dimension": 8, "vector_type": VectorType.FLOAT16}
    update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, **changed))
    with pytest.raises(VecstowError):
        await engine.upsert("notes", batch)
    engine.refresh({})
    assert engine.describe("notes")["dimension"] == 8
    assert engine.describe("notes")["vector_count"] == 0


async def test_collections_of_a_lost_collection_leave_the_others_alone(engine):
    """Damage stays inside the one collection it hit."""
    engine.declare("other")
    await engine.put(a=1)
    await engine.put("other", a=2)
    engine.stop()
    (engine.layout.collection("notes") / "vectors.bin").unlink()
    with RunningEngine(engine.settings.data) as again:
        with pytest.raises(Quarantined, match=r"vectors\.bin: it is missing"):
            await again.values("notes", "a")
        assert await again.values("other", "a") == [2]
        assert again.all_ready


async def test_unexpected_error_while_opening_one_collection_quarantines_that_one(engine, monkeypatch):
    """Not even a mistake of ours leaves a collection in recovery for ever."""
    engine.declare("other")
    await engine.put(a=1)
    await engine.put("other", a=2)
    engine.stop()
    real = observation.read_log

    def broken(folder):
        if folder.name == engine_uid:
            raise ValueError("a mistake")
        return real(folder)

    engine_uid = read_manifest(engine.layout.collection("notes")).collection_uid
    monkeypatch.setattr(observation, "read_log", broken)
    with capture_logs() as logs, RunningEngine(engine.settings.data) as again:
        assert again.describe("notes")["state"] == "quarantined"
        assert await again.values("other", "a") == [2]
    assert any(line["log_level"] == "error" and "notes" in str(line) for line in logs)


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
        assert {gone["name"] for gone in again.deleted()} == {"notes", "other"}


async def test_drop_that_cannot_be_followed_at_the_start_hides_no_other_collection(engine, disk):
    engine.declare("other")
    await engine.put("other", a=1)
    mark_dropped(engine.layout, "notes")
    engine.stop()
    disk.fail("rename notes -> *", errno.ENOSPC)
    with RunningEngine(engine.settings.data) as again:
        assert await again.values("other", "a") == [1]


async def test_failed_checkpoint_of_one_collection_is_told_and_the_log_kept(engine, disk):
    await engine.put(a=1)
    disk.fail("write vectors.bin", errno.EIO)
    with pytest.raises(StorageError):
        engine.checkpoint()
    assert await engine.values("notes", "a") == [1]
    with engine.copied() as again:
        assert await again.values("notes", "a") == [1]


def test_manifest_on_the_volume_is_what_the_api_describes(engine):
    engine.declare("docs", owner="me")
    written = json.loads((engine.layout.collection("docs") / "metadata.json").read_text())
    described = engine.describe("docs")
    assert {key: described[key] for key in written} == written
