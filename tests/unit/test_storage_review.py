"""Interleavings and crashes between the rules of the disk, each with what must come of it."""

import asyncio
import errno
import sqlite3

import pytest

from tests.unit.recorded_disk import RecordedDisk
from tests.unit.running_engine import RunningEngine
from tests.unit.store_on_disk import StoreOnDisk, upsert
from vecstow_engine.model.errors import NotFound, ReadOnly, StorageError
from vecstow_engine.storage import point_commits
from vecstow_engine.storage.replay import read_log


@pytest.fixture
def disk(monkeypatch):
    return RecordedDisk(monkeypatch)


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
    [cut] = [record for record in read_log(notes.log_folder)[1].records if record.sequence == 3]
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
    disk.fail("unlink *.log")
    for _ in range(2):
        with pytest.raises(ReadOnly):
            copy.put(x=5)
    assert copy.points() == {"a": 1, "b": 2}
    copy.close()


@pytest.mark.parametrize("step", ["unlink *.log", "sync ????????????????????????????????/"])
def test_reads_are_served_when_the_log_cannot_go_on_after_a_start(notes, disk, step):
    tear_second_segment(notes, disk)
    disk.fail(step)
    copy = notes.copied()
    assert any("takes no writes" in warning for warning in copy.opened.warnings)
    assert copy.points() == {"a": 1, "b": 2}
    with pytest.raises(ReadOnly):
        copy.put(x=5)
    copy.close()


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

    monkeypatch.setattr(point_commits, "make_durable", fail)
    with pytest.raises(StorageError):
        notes.store.checkpoint()
    notes.close()
    assert (notes.folder / "points.db-wal").stat().st_size > 0
