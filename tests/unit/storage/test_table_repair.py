"""A point table whose points are intact but not found by slot or id: rebuilt at the start, or refused."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from tests.unit.checked_volume import flip, zero
from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.table_repair import Fault, find_faults, mend

POINTS = 2000
PAGE = 4096
LEAF_OF_IDS, LEAF_OF_POINTS, TREE_OF_POINTS = 10, 13, 5
"""Types of SQLite's pages."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    notes = StoreOnDisk(tmp_path_factory.mktemp("mending") / "data")
    notes.put(**{f"p{number}": number + 1 for number in range(POINTS)})
    notes.checkpoint()
    notes.close()
    return notes


@pytest.fixture
def data(filled, tmp_path):
    return shutil.copytree(filled.data, tmp_path / "data")


@pytest.fixture
def path(data):
    return data / "notes" / "points.db"


def pages(path, page_type):
    raw = path.read_bytes()
    return [start for start in range(PAGE, len(raw), PAGE) if raw[start] == page_type]


def place(path, page_type, text):
    """Where a text first stands on a page of that type."""
    raw = path.read_bytes()
    return next(
        raw.index(text, start) for start in pages(path, page_type) if text in raw[start : start + PAGE]
    )


def in_index(path):
    return place(path, LEAF_OF_IDS, b"p555")


def separator(path):
    """The last byte of a slot that parts two pages of points: 4 bytes of page number, 2 of slot."""
    raw = path.read_bytes()
    [start] = pages(path, TREE_OF_POINTS)
    fifth_cell = int.from_bytes(raw[start + 20 : start + 22], "big")
    return start + fifth_cell + 5


def faults(path):
    with closing(PointTable(path, at_rest=True)) as table:
        return find_faults(table)


def all_right(data):
    notes = StoreOnDisk(data)
    assert notes.points() == {f"p{number}": number + 1 for number in range(POINTS)}
    warnings = notes.opened.warnings
    notes.put(p555=7, new=8)
    notes.checkpoint()
    assert len(notes.points()) == POINTS + 1
    assert notes.value("p555") == 7
    notes.close()
    return warnings


def test_table_that_nobody_damaged_has_no_fault(path):
    assert faults(path) == []


@pytest.mark.parametrize(
    ("where", "mask", "fault"),
    [
        pytest.param(in_index, 1, Fault.IDS, id="an id in the index"),
        pytest.param(in_index, 0x80, Fault.IDS, id="an id in the index that is no text any more"),
        pytest.param(lambda path: in_index(path) - 2, 1, Fault.IDS, id="the type of an id in the index"),
        pytest.param(lambda path: in_index(path) + 5, 1, Fault.IDS, id="the slot of an id in the index"),
        pytest.param(separator, 64, Fault.TREE, id="a key between two pages of points"),
    ],
)
def test_what_leads_astray_is_made_anew_at_the_start(data, path, where, mask, fault):
    flip(path, where(path), mask)
    assert faults(path) == [fault]
    [warning] = all_right(data)
    assert warning == f"{path}: {fault.value}; it was rebuilt"
    assert faults(path) == []


def test_index_of_two_moments_is_made_anew(data, path):
    before = path.read_bytes()
    notes = StoreOnDisk(data)
    notes.put(p3=4)
    notes.checkpoint()
    notes.close()
    raw = bytearray(path.read_bytes())
    changed = [s for s in pages(path, LEAF_OF_IDS) if raw[s : s + PAGE] != before[s : s + PAGE]]
    for start in changed:
        raw[start : start + PAGE] = before[start : start + PAGE]
    path.write_bytes(raw)
    assert changed
    assert faults(path) == [Fault.IDS]
    assert len(all_right(data)) == 1


def test_damaged_id_of_a_point_is_no_fault_of_the_index(data, path):
    flip(path, place(path, LEAF_OF_POINTS, b"p555"))
    assert faults(path) == []
    notes = StoreOnDisk(data)
    assert notes.opened.warnings == ()
    assert len(notes.points()) == POINTS - 1
    notes.close()


def test_index_and_points_both_damaged_are_refused(data, path):
    flip(path, place(path, LEAF_OF_POINTS, b"p777"))
    flip(path, in_index(path))
    with pytest.raises(DamagedFile, match="and so are points"):
        StoreOnDisk(data)


def test_index_that_cannot_be_made_anew_is_refused(data, path):
    [root] = pages(path, 2)
    flip(path, root, 0xFF)
    with pytest.raises(DamagedFile, match="malformed"):
        StoreOnDisk(data)


def test_points_out_of_order_are_refused_and_no_scan_goes_round_for_ever(data, path):
    last = POINTS - 1
    slot = bytes([0x80 | last >> 7, last & 0x7F])
    at = place(path, LEAF_OF_POINTS, b"p%d" % last)
    flip(path, path.read_bytes().rindex(slot, at - 20, at), 0x07)
    with closing(PointTable(path, at_rest=True)) as table, pytest.raises(DamagedFile, match="order"):
        table.slots(table.meta())
    with closing(PointTable(path, at_rest=True)) as table, pytest.raises(DamagedFile, match="order"):
        list(table.scan())
    with pytest.raises(DamagedFile, match="order of their slots"):
        StoreOnDisk(data)


def test_point_of_epoch_0_keeps_its_slot(data, path):
    """A free slot has epoch 0: given out again, the next checkpoint would meet the old point there."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE points SET generation = 0 WHERE id = 'p9'")
    connection.close()
    notes = StoreOnDisk(data)
    notes.put(new=1)
    notes.checkpoint()
    assert "p9" not in notes.points()
    assert len(notes.store.layers.withheld) == 1
    notes.close()


def test_mending_what_does_not_help_is_refused(path, monkeypatch):
    flip(path, in_index(path))
    monkeypatch.setattr("vecstow_engine.storage.points.table_repair.rebuild_id_index", lambda path: None)
    with pytest.raises(DamagedFile, match="could not be rebuilt"):
        mend(path, [Fault.IDS])


def with_free_page_in_use(data, path):
    """Delete half of the points; then let a number in SQLite's list of free pages name a page of points."""
    notes = StoreOnDisk(data)
    notes.delete(*[f"p{number}" for number in range(POINTS // 2)])
    notes.checkpoint()
    notes.close()
    raw = bytearray(path.read_bytes())
    trunk = (int.from_bytes(raw[32:36], "big") - 1) * PAGE
    in_use = pages(path, LEAF_OF_POINTS)[-1] // PAGE + 1
    raw[trunk + 8 : trunk + 12] = in_use.to_bytes(4, "big")
    path.write_bytes(raw)


def test_free_page_that_is_in_use_is_not_written_over(data, path):
    """No checksum covers SQLite's list of free pages, and no reader meets it."""
    with_free_page_in_use(data, path)
    assert faults(path) == [Fault.PAGES]
    notes = StoreOnDisk(data)
    assert notes.opened.warnings == (f"{path}: {Fault.PAGES.value}; it was rebuilt",)
    more = {f"q{number}": number + 1 for number in range(POINTS // 2)}
    notes.put(**more)
    notes.checkpoint()
    assert notes.points() == {f"p{n}": n + 1 for n in range(POINTS // 2, POINTS)} | more
    notes.close()
    assert faults(path) == []


def test_damaged_record_of_the_index_is_forgotten_and_the_points_kept(data, path):
    """Else the next snapshot of the index would end the writes."""
    with closing(sqlite3.connect(path)) as connection:
        [page] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'snapshots'").fetchone()
    zero(path, (page - 1) * PAGE, 512)
    assert faults(path) == [Fault.PAGES]
    [warning] = all_right(data)
    assert "it was rebuilt" in warning
    with closing(PointTable(path)) as table:
        assert table.snapshots() == []
    assert faults(path) == []


def test_pages_that_cannot_be_put_right_are_told_and_the_points_served(data, path, monkeypatch):
    with_free_page_in_use(data, path)

    def cannot(path):
        raise DamagedFile("it is malformed", file=str(path))

    monkeypatch.setattr("vecstow_engine.storage.points.table_repair.vacuum", cannot)
    monkeypatch.setattr("vecstow_engine.storage.points.table_repair.vacuum_without_snapshots", cannot)
    notes = StoreOnDisk(data)
    assert "could not be rebuilt, and a checkpoint may fail" in notes.opened.warnings[0]
    assert len(notes.points()) == POINTS // 2
    notes.close()


def spoil_free_space(path):
    """Let each page of points say that its free space begins behind its end: no reader looks at it."""
    raw = bytearray(path.read_bytes())
    for start in pages(path, LEAF_OF_POINTS):
        raw[start + 1 : start + 3] = b"\x0f\xfe"
    path.write_bytes(raw)


def test_damage_that_only_a_writer_meets_is_mended_by_the_checkpoint_that_meets_it(data, path):
    notes = StoreOnDisk(data)
    spoil_free_space(path)
    notes.put(p555=3)
    notes.checkpoint()
    assert "the table was rebuilt" in notes.store.remark
    notes.put(p555=556)
    notes.close()
    assert all_right(data) == ()


def test_table_is_not_written_anew_while_a_point_cannot_be_read(data, path):
    notes = StoreOnDisk(data)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE points SET checksum = checksum + 1 WHERE id = 'p9'")
    spoil_free_space(path)
    notes.put(p3=4)
    with pytest.raises(DamagedFile, match="two moments"):
        notes.checkpoint()
    assert notes.value("p3") == 4
    connection.close()
    notes.close()
