"""Interleavings and crashes between the rules of the disk, each with what must come of it."""

import asyncio
import errno
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.unit.running_engine import RunningEngine
from tests.unit.store_on_disk import StoreOnDisk, upsert
from vecstow_engine.model.errors import NotFound, ReadOnly, StorageError
from vecstow_engine.storage import files
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.log.replay import read_log
from vecstow_engine.storage.points import writer
from vecstow_engine.storage.recovery import open_store
from vecstow_engine.storage.volume import Volume


@pytest.fixture
def notes(tmp_path):
    store = StoreOnDisk(tmp_path / "data")
    store.put(a=1)
    yield store
    store.close()


def tear_second_segment(notes, disk):
    """Two segments, of which the second ends with a cut record and a whole one behind it."""
    disk.fail("write vectors.bin")
    with pytest.raises(StorageError):
        notes.store.checkpoint()
    notes.put(b=2)
    notes.store.commit([upsert(cut=3), upsert(ghost=4)])
    [cut] = [record for record in read_log(notes.log_folder)[1].records() if record.sequence == 3]
    raw = bytearray(notes.segment(2).read_bytes())
    raw[cut.offset + 50] ^= 0xFF
    notes.segment(2).write_bytes(raw)


def test_torn_segment_that_comes_back_does_not_displace_what_was_written_since(notes, disk):
    """Its unlink was lost with the power: the sequences of its torn tail were given out anew."""
    tear_second_segment(notes, disk)
    torn = notes.segment(2).read_bytes()
    copy = notes.copied()
    copy.put(x=5)
    copy.put(y=6)
    copy.segment(2).write_bytes(torn)
    again = copy.copied("again")
    assert again.points() == {"a": 1, "b": 2, "x": 5, "y": 6}
    again.close()
    copy.close()


def test_found_segments_are_gone_durably_before_anything_is_appended(notes, disk):
    tear_second_segment(notes, disk)
    disk.clear()
    copy = notes.copied()
    assert disk.last("unlink *.log") < disk.last(f"sync {copy.manifest.collection_uid}/")
    copy.close()


def test_no_write_is_taken_beside_a_found_segment_that_cannot_be_removed(notes, disk):
    tear_second_segment(notes, disk)
    disk.fail("write *.log.tmp", errno.ENOSPC)
    copy = notes.copied()
    disk.fail("unlink *.log", times=2)
    for _ in range(2):
        with pytest.raises(StorageError, match="removing the log segments before this start failed"):
            copy.put(x=5)
    assert copy.points() == {"a": 1, "b": 2}
    copy.put(x=5)
    assert len(copy.segments()) == 1
    again = copy.copied("again")
    assert again.points() == {"a": 1, "b": 2, "x": 5}
    again.close()
    copy.close()


def test_reads_are_served_when_a_found_segment_cannot_be_removed_at_a_start(notes, disk):
    tear_second_segment(notes, disk)
    disk.fail("unlink *.log")
    copy = notes.copied()
    assert any("the first write that the disk takes" in warning for warning in copy.opened.warnings)
    assert copy.points() == {"a": 1, "b": 2}
    copy.put(x=5)
    assert len(copy.segments()) == 1
    copy.close()


def test_reads_are_served_when_the_removal_of_found_segments_cannot_be_synced(notes, disk):
    tear_second_segment(notes, disk)
    disk.fail("sync ????????????????????????????????/")
    copy = notes.copied()
    assert any("takes no writes" in warning for warning in copy.opened.warnings)
    assert copy.points() == {"a": 1, "b": 2}
    with pytest.raises(ReadOnly):
        copy.put(x=5)
    copy.close()


def test_data_directory_is_durable_with_all_folders_made_above_it(tmp_path, disk):
    Volume(Layout(tmp_path / "srv" / "data"), 0).close()
    assert {f"sync {tmp_path.name}/", "sync srv/", "sync data/"} <= set(disk.steps)


def test_folders_found_at_the_start_are_made_durable(notes, disk):
    """The process that made them may have been killed before it synced their parents."""
    disk.clear()
    Volume(notes.layout, 0).close()
    assert disk.matching("sync */") == ["sync data/", "sync wal/", "sync data/"]


def test_folder_whose_name_could_not_be_made_durable_is_not_taken_for_one_that_is(tmp_path, disk):
    disk.fail(f"sync {tmp_path.name}/")
    with pytest.raises(files.SyncFailed):
        files.make_folder(tmp_path / "wal")
    assert not (tmp_path / "wal").exists()
    disk.clear()
    files.make_folder(tmp_path / "wal")
    assert disk.steps == [f"sync {tmp_path.name}/"]


def test_nobody_relies_on_a_folder_before_its_name_is_durable(tmp_path, monkeypatch):
    """Of two first writes on a new volume only one makes `wal/`; both are acknowledged."""
    syncing, goes_on = threading.Event(), threading.Event()
    real = files.sync_folder

    def slow_sync(folder):
        syncing.set()
        assert goes_on.wait(20)
        real(folder)

    monkeypatch.setattr(files, "sync_folder", slow_sync)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(files.make_folder, tmp_path / "wal")
        assert syncing.wait(20)
        second = threads.submit(files.make_folder, tmp_path / "wal")
        with pytest.raises(TimeoutError):
            second.result(timeout=0.05)
        goes_on.set()
        first.result(20)
        second.result(20)


@pytest.mark.parametrize("checkpoints", [0, 1, 2, 3])
def test_scan_meets_every_point_that_is_there_throughout(notes, checkpoints):
    """One that is written anew goes to a slot that the scan has passed, or whose layer it has left behind."""
    notes.put(b=2, c=3, d=4)
    notes.delete("a")
    notes.checkpoint()
    scan = notes.store.view.scan()
    met = [next(scan)]
    notes.put(d=5)
    for number in range(checkpoints):
        notes.checkpoint()
        notes.put(**{f"more{number}": 6})
    met += scan
    labels = np.array([label for label, _, _ in met], np.uint64)
    assert len(set(labels.tolist())) == len(labels)
    live = [point for point in notes.store.view.resolve(labels) if point is not None]
    assert sorted(point for point in live if not point[0].startswith("more")) == [
        ("b", b'{"v":2}'), ("c", b'{"v":3}'), ("d", b'{"v":5}'),
    ]  # fmt: skip


def test_read_that_a_drop_overtook_opens_no_files_of_the_next_collection(tmp_path):
    """Neither does it see them, nor does the dropped one when it is restored beside them."""

    async def drop_and_restore(engine):
        engine.declare()
        await engine.put(a=1, b=2)
        engine.checkpoint()
        dropped = engine.collection("notes")
        engine.drop("notes")
        engine.declare()
        await engine.put(a=100, b=200)
        engine.checkpoint()
        with pytest.raises(NotFound):
            dropped.store.view.get(["a"])
        engine.restore(engine.deleted()[0]["path"], "back")
        assert await engine.values("back", "a", "b") == [1, 2]
        assert await engine.values("notes", "a", "b") == [100, 200]

    with RunningEngine(tmp_path / "data") as engine:
        asyncio.run(drop_and_restore(engine))


def test_rule_11_connection_of_a_failed_sync_is_never_closed(notes, monkeypatch):
    """SQLite syncs once more when the last connection is closed, and then unlinks the only sure copy."""

    def fail(connection, path):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise error

    monkeypatch.setattr(writer, "make_durable", fail)
    with pytest.raises(StorageError):
        notes.store.checkpoint()
    notes.close()
    assert (notes.folder / "points.db-wal").stat().st_size > 0


def test_opening_that_fails_while_it_follows_the_log_leaves_nothing_open(notes):
    """It has looked for the point in the table by then."""
    notes.checkpoint()
    notes.put(a=2)
    notes.close()
    handles = HandleCache(8)

    def fail(_done, _total):
        assert len(handles) == 1
        raise MemoryError

    with pytest.raises(MemoryError):
        open_store(notes.layout, notes.manifest, handles, progress=fail)
    assert len(handles) == 0
