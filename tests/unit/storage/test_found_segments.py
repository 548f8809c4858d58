"""The segments that recovery finds: nothing is appended to them, and they go durably."""

import errno

import pytest

from tests.unit.store_on_disk import StoreOnDisk, upsert
from vecstow_engine.model.errors import (
    ReadOnly,
    StorageError,
)
from vecstow_engine.storage.handles import HandleCache
from vecstow_engine.storage.log.replay import read_log
from vecstow_engine.storage.recovery import open_store


@pytest.fixture
def notes(tmp_path):
    store = StoreOnDisk(tmp_path / "data")
    store.put(a=1)
    yield store
    store.close()


def tear_second_segment(notes, disk):
    """Make two segments; the second one ends with a cut record and a whole one behind it."""
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
    """Its unlink was lost with the power: the sequences of its torn tail were given out again."""
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
