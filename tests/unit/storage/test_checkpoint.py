"""Rules 8 to 10: the order of a checkpoint, live rows never overwritten, reads through the overlay."""

import errno
import sqlite3

import numpy as np
import pytest

from tests.unit.recorded_disk import PowerOff
from tests.unit.store_on_disk import STRIDE, StoreOnDisk, upsert, vector
from vecstow_engine.model.errors import DiskFull, ReadOnly, StorageError, Unavailable
from vecstow_engine.storage.identity import HEADER_BYTES
from vecstow_engine.storage.log.segment import Delete
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.rows import SlotTable


@pytest.fixture
def notes(tmp_path):
    """A collection with the points a and b in its files, and an update of a in its log."""
    opened = StoreOnDisk(tmp_path / "data")
    opened.put(a=1, b=2)
    opened.checkpoint()
    opened.put(a=3)
    yield opened
    opened.close()


def row_at(notes, slot):
    raw = (notes.folder / "vectors.bin").read_bytes()[HEADER_BYTES + slot * STRIDE :][:STRIDE]
    return np.frombuffer(raw, "<f4").tolist()


def slot_of(notes, point_id):
    return notes.store.layers.live_slots([point_id])[point_id]


def table_of(notes):
    """Id to slot, as points.db alone says, without what only SQLite's log has."""
    table = PointTable(notes.folder / "points.db", at_rest=True)
    try:
        return {point.id: point.slot for _, point in table.scan()}, table.meta()
    finally:
        table.close()


# Rule 8: the order ---------------------------------------------------------------------------------------


def test_rule_08_checkpoint_has_its_order(notes, disk):
    """Segment, rows, fsync, points durable, and only then the old segments go."""
    notes.checkpoint()
    assert disk.matching("rename *", "write vectors.bin", "sync vectors.bin", "*points.db", "unlink *") == [
        f"rename {3:020d}.log.tmp -> {3:020d}.log",
        "write vectors.bin",
        "sync vectors.bin",
        "commit points.db",
        "durable points.db",
        f"unlink {2:020d}.log",
    ]


def test_rule_08_segments_wholly_below_go_oldest_first(notes, disk):
    """Those that could not be removed before; never the newest."""
    for value in (4, 5):
        disk.fail("unlink *.log")
        with pytest.raises(OSError, match="Input/output"):
            notes.store.checkpoint()
        notes.put(a=value)
    assert notes.segments() == [2, 3, 4]
    disk.clear()
    notes.checkpoint()
    assert disk.matching("unlink *.log") == [f"unlink {number:020d}.log" for number in (2, 3, 4)]
    assert notes.segments() == [5]


def test_rule_08_segment_with_newer_records_stays(notes, disk):
    disk.fail("unlink *.log")
    with pytest.raises(OSError, match="Input/output"):
        notes.store.checkpoint()
    notes.put(a=4)
    assert notes.segments() == [2, 3]
    notes.store.log.trim(1)
    assert notes.segments() == [2, 3]
    notes.store.log.trim(2)
    assert notes.segments() == [3]
    notes.store.log.trim(99)
    assert notes.segments() == [3]


CHECKPOINT_STEPS = [
    "create *.log.tmp", "write *.log.tmp", "sync *.log.tmp", "rename *.log.tmp -> *", "write vectors.bin",
    "sync vectors.bin", "commit points.db",
]  # fmt: skip


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("step", CHECKPOINT_STEPS)
def test_rule_08_error_at_any_step_keeps_the_log(notes, disk, step, number):
    segment = notes.segment(2).read_bytes()
    disk.fail(step, number)
    with pytest.raises((DiskFull, StorageError)):
        notes.store.checkpoint()
    assert notes.segment(2).read_bytes() == segment
    assert notes.points() == {"a": 3, "b": 2}, "reads go on"
    copy = notes.copied()
    assert copy.points() == {"a": 3, "b": 2}
    copy.close()


@pytest.mark.parametrize("step", [step for step in CHECKPOINT_STEPS if not step.startswith("sync vec")])
def test_rule_08_checkpoint_that_found_no_room_is_made_again(notes, disk, step):
    disk.fail(step, errno.ENOSPC)
    with pytest.raises(DiskFull):
        notes.store.checkpoint()
    notes.put(c=4)
    while notes.store.checkpoint():
        pass
    assert notes.points() == {"a": 3, "b": 2, "c": 4}
    assert table_of(notes)[0].keys() == {"a", "b", "c"}
    assert notes.segments() == [4]


def test_rule_08_failed_sync_of_rows_is_not_tried_again(notes, disk):
    disk.fail("sync vectors.bin")
    with pytest.raises(StorageError):
        notes.store.checkpoint()
    disk.clear()
    with pytest.raises((ReadOnly, StorageError)):
        notes.store.checkpoint()
    with pytest.raises(ReadOnly):
        notes.put(c=4)
    assert disk.matching("sync *", "data_sync *", "commit *") == []
    assert notes.points() == {"a": 3, "b": 2}


def test_rule_08_power_off_at_any_step_of_a_checkpoint_loses_nothing(notes, disk):
    """Each step in turn is the last: the copy that a new process finds has everything."""
    disk.clear()
    whole = notes.copied("whole")
    whole.put(c=4)
    disk.clear()
    whole.checkpoint()
    steps = list(disk.steps)
    whole.close()
    assert len(steps) > 8
    for stop in range(len(steps)):
        cut = notes.copied("cut")
        cut.put(c=4)
        disk.clear()
        disk.stop_before = stop
        with pytest.raises(PowerOff):
            cut.store.checkpoint()
        disk.stop_before = None
        found = cut.copied("found")
        assert found.points() == {"a": 3, "b": 2, "c": 4}, steps[stop]
        found.checkpoint() if found.store.layers.active.last_sequence else None
        assert table_of(found)[0].keys() == {"a", "b", "c"}
        found.close()
        cut.close()


def test_rule_08_checkpoint_of_nothing_does_nothing(notes, disk):
    notes.checkpoint()
    disk.clear()
    assert notes.store.checkpoint() is False
    assert disk.steps == []


def test_rule_08_commit_that_was_made_but_not_yet_durable_is_not_made_twice(notes, disk):
    """The same checkpoint again: the points are counted once."""
    disk.fail("commit points.db", errno.ENOSPC)
    with pytest.raises(DiskFull):
        notes.store.checkpoint()
    notes.checkpoint()
    assert table_of(notes)[1].points == 2


# Rule 9: slots -------------------------------------------------------------------------------------------


def test_rule_09_update_takes_a_new_slot(notes):
    before = slot_of(notes, "b")
    notes.put(b=5)
    assert slot_of(notes, "b") != before


def test_rule_09_live_row_is_never_overwritten_in_place(notes, disk):
    """Through many updates, deletes and checkpoints, no row that the table knows changes."""
    rng = np.random.default_rng(9)
    checkpointed = {"a": 1, "b": 2}
    for round_ in range(60):
        ids = [f"p{number}" for number in rng.choice(12, size=4, replace=False)]
        if round_ % 3 == 2:
            notes.delete(*ids)
        else:
            notes.put(**{point_id: 10 * round_ + n + 1 for n, point_id in enumerate(ids)})
        assert {i: row_at(notes, slot) for i, slot in table_of(notes)[0].items()} == {
            i: vector(value) for i, value in checkpointed.items()
        }
        if round_ % 4 == 3:
            disk.stop_at = "commit points.db"
            with pytest.raises(PowerOff):
                notes.store.checkpoint()
            disk.stop_at = disk.stop_before = None
            assert {i: row_at(notes, slot) for i, slot in table_of(notes)[0].items()} == {
                i: vector(value) for i, value in checkpointed.items()
            }
            notes.checkpoint()
            checkpointed = notes.points()


def test_rule_09_rows_of_the_last_checkpoint_stay_until_the_next_is_durable(notes, disk):
    """Power goes off after the new rows were written: the old table still has its rows."""
    notes.delete("b")
    notes.put(c=4, d=5, e=6)
    known = {point_id: row_at(notes, slot) for point_id, slot in table_of(notes)[0].items()}
    assert known == {"a": vector(1), "b": vector(2)}
    disk.stop_at = "commit points.db"
    with pytest.raises(PowerOff):
        notes.store.checkpoint()
    assert "write vectors.bin" in disk.steps
    assert {i: row_at(notes, s) for i, s in table_of(notes)[0].items()} == known


def test_rule_09_freed_slot_is_reused_only_after_the_checkpoint_that_freed_it(notes):
    freed = slot_of(notes, "b")
    notes.delete("b")
    notes.put(c=4)
    assert slot_of(notes, "c") != freed
    notes.checkpoint()
    notes.put(d=5, e=6, f=7)
    assert freed in {slot_of(notes, point_id) for point_id in "def"}


def test_rule_09_slot_freed_while_a_checkpoint_is_under_way_waits_for_the_next(notes, disk):
    freed = slot_of(notes, "b")
    disk.fail("write vectors.bin", errno.ENOSPC)
    with pytest.raises(DiskFull):
        notes.store.checkpoint()
    notes.delete("b")
    notes.checkpoint()
    notes.put(**{f"p{number}": 1 for number in range(8)})
    assert freed not in {slot_of(notes, f"p{number}") for number in range(8)}
    notes.checkpoint()
    notes.put(**{f"q{number}": 1 for number in range(8)})
    assert freed in {slot_of(notes, f"q{number}") for number in range(8)}


def test_rule_09_reused_slot_has_a_higher_epoch(notes):
    [old] = [n for n in notes.store.view.labels().tolist() if n & 0xFFFFFFFF == slot_of(notes, "b")]
    notes.delete("b")
    notes.checkpoint()
    labels = notes.put(c=4, d=5, e=6).added.tolist()
    [new] = [label for label in labels if label & 0xFFFFFFFF == old & 0xFFFFFFFF]
    assert new > old


# Rule 10: the overlay ------------------------------------------------------------------------------------


def test_rule_10_every_read_sees_the_table_through_the_overlay(notes):
    """An update, an insert and a delete that no checkpoint has: get, scan, resolve, vectors, count."""
    notes.put(c=4)
    notes.delete("b")
    assert table_of(notes)[0].keys() == {"a", "b"}
    view = notes.store.view
    assert notes.points() == {"a": 3, "c": 4}
    assert view.get(["a", "b", "c"])[1] is None
    assert notes.store.count == 2
    labels = view.labels()
    assert view.resolve(labels) == [("a", b'{"v":3}'), ("c", b'{"v":4}')]
    assert view.vectors(labels).tolist() == [vector(3), vector(4)]


def test_rule_10_reads_see_both_overlays_while_a_checkpoint_is_under_way(notes, disk):
    disk.fail("write vectors.bin", errno.ENOSPC)
    with pytest.raises(DiskFull):
        notes.store.checkpoint()
    assert notes.store.layers.frozen is not None
    notes.put(b=5, c=6)
    assert notes.points() == {"a": 3, "b": 5, "c": 6}
    notes.delete("a")
    assert notes.points() == {"b": 5, "c": 6}
    assert notes.store.count == 2
    notes.checkpoint()
    assert notes.points() == {"b": 5, "c": 6}
    notes.checkpoint()
    assert notes.points() == {"b": 5, "c": 6}


def test_rule_10_old_label_is_not_resolved_after_an_update(notes):
    labels = notes.store.view.labels()
    assert sorted(notes.store.view.resolve(labels)) == [("a", b'{"v":3}'), ("b", b'{"v":2}')]
    notes.put(a=7)
    assert sorted(notes.store.view.resolve(labels), key=str) == [("b", b'{"v":2}'), None]


def test_rule_10_overlay_is_measured_and_emptied(notes):
    before = notes.store.overlay_bytes
    notes.put(c=4)
    assert notes.store.overlay_bytes >= before + STRIDE
    notes.checkpoint()
    assert notes.store.overlay_bytes == 0


def test_reader_that_a_checkpoint_overtook_reads_again(notes, monkeypatch):
    """Between looking an id up and reading its row, the row's slot is given to another point."""
    view = notes.store.view
    real = view._rows_of
    moves = iter([True])

    def overtaken(found):
        if next(moves, False):
            notes.put(b=8)
            notes.checkpoint()
            notes.put(x=20, y=21, z=22)
            notes.checkpoint()
        return real(found)

    monkeypatch.setattr(view, "_rows_of", overtaken)
    [point] = view.get(["b"])
    assert point.vector.tolist() == vector(8)
    assert notes.store.layers.withheld == {}


# The parts -----------------------------------------------------------------------------------------------


def test_compaction_moves_the_highest_rows_down_and_cuts_the_file(tmp_path):
    notes = StoreOnDisk(tmp_path / "data")
    notes.put(**{f"p{number}": number + 1 for number in range(50)})
    notes.checkpoint()
    notes.delete(*(f"p{number}" for number in range(40)))
    notes.checkpoint()
    before = notes.store.bytes_on_disk()
    while notes.store.relocate(4) is not None:
        notes.checkpoint()
    assert notes.store.truncate() <= before
    assert (notes.folder / "vectors.bin").stat().st_size == HEADER_BYTES + 10 * STRIDE
    wanted = {f"p{number}": number + 1 for number in range(40, 50)}
    assert notes.points() == wanted
    again = notes.reopened()
    assert again.points() == wanted
    again.put(q=99)
    assert again.points() == wanted | {"q": 99}
    again.close()


def test_slot_table_hands_out_freed_slots_before_it_grows():
    table = SlotTable()
    slots = table.allocate(3)
    table.occupy(slots, 1, np.zeros(3, np.uint32))
    table.vacate(1)
    assert table.allocate(1).tolist() == [3]
    table.release([1])
    assert table.allocate(2).tolist() == [1, 4]
    assert table.live_count == 2
    assert table.live()[0].tolist() == [0, 2]


def test_slot_table_forgets_free_slots_at_its_end():
    table = SlotTable()
    table.occupy(table.allocate(4), 1, np.zeros(4, np.uint32))
    for slot in (0, 2, 3):
        table.vacate(slot)
    table.release([3, 0, 2])
    assert table.shrink() == 2
    assert table.allocate(2).tolist() == [0, 2]


def test_slot_beyond_the_table_has_no_epoch():
    assert SlotTable().epoch(7) == 0
    assert SlotTable().epochs(np.array([0, 9])).tolist() == [0, 0]


def test_batch_with_the_same_id_twice_counts_with_its_last_place(tmp_path):
    """The service refuses it; a log that holds it is replayed so."""
    notes = StoreOnDisk(tmp_path / "data")
    effect = upsert(a=1, b=2)
    applied = notes.store.commit([type(effect)(["a", "a"], effect.rows, effect.payloads)])[0]
    assert len(applied.added) == 1
    assert notes.points() == {"a": 2}
    notes.checkpoint()
    assert notes.points() == {"a": 2}
    notes.close()


def test_delete_of_an_unknown_id_does_no_harm(notes):
    assert notes.delete("nobody", "a").existed == [False, True]
    notes.checkpoint()
    assert notes.points() == {"b": 2}


def test_group_of_effects_on_one_id_is_applied_in_order(notes):
    first, second, third = notes.store.commit([upsert(n=1), Delete(["n"]), upsert(n=2)])
    assert (first.existed, second.existed, third.existed) == ([False], [True], [False])
    assert notes.points()["n"] == 2
    copy = notes.copied()
    assert copy.points()["n"] == 2
    copy.close()


def damage_table(notes):
    connection = sqlite3.connect(notes.folder / "points.db", isolation_level=None)
    connection.execute("UPDATE points SET payload = x'7b7d' WHERE id = 'b'")
    connection.close()


def damage_in_the_table(notes):
    notes.checkpoint()
    notes.close()
    damage_table(notes)
    with pytest.raises(Unavailable, match="withheld"):
        notes.store.view.get(["b"])


def test_write_to_a_point_whose_table_row_is_damaged_replaces_it(notes):
    damage_in_the_table(notes)
    assert notes.put(b=9).existed == [True]
    notes.checkpoint()
    again = notes.reopened()
    assert again.points() == {"a": 3, "b": 9}
    again.close()


def test_point_whose_table_row_is_damaged_can_be_deleted(notes):
    damage_in_the_table(notes)
    assert notes.delete("b").existed == [True]
    notes.checkpoint()
    again = notes.reopened()
    assert again.points() == {"a": 3}
    again.close()


@pytest.mark.parametrize("change", ["an update", "a delete"])
def test_damaged_point_that_the_log_replaces_or_deletes_hinders_no_replay(notes, change):
    notes.checkpoint()
    notes.put(b=9) if change == "an update" else notes.delete("b")
    notes.close()
    damage_table(notes)
    again = StoreOnDisk(notes.data)
    assert again.points() == ({"a": 3, "b": 9} if change == "an update" else {"a": 3})
    again.checkpoint()
    again = again.reopened()
    assert again.points() == ({"a": 3, "b": 9} if change == "an update" else {"a": 3})
    again.close()
