"""Points in the order of their ids, and scans: whatever is written meanwhile, each point comes once."""

from __future__ import annotations

import random
import sqlite3
from itertools import pairwise

import pytest

from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.model.errors import DamagedFile
from vecstow_engine.storage import walk
from vecstow_engine.storage.identity import HEADER_BYTES
from vecstow_engine.storage.points import reader
from vecstow_engine.storage.walk import SortedIds

IDS = ["a", "B", "Z", "z", "aa", "a\0b", "a b", "é", "e\u0301", "\uffff", "\U0001f600", "ﬀ", "10", "9", "~"]


@pytest.fixture
def notes(tmp_path):
    store = StoreOnDisk(tmp_path / "data")
    yield store
    store.close()


def walked(notes, count, meanwhile=lambda: None):
    """Id and payload of each point, block by block."""
    found, after = [], ""
    while after is not None:
        block = notes.store.view.walk.block(after, count)
        assert [point.id for point in block.points] == sorted(point.id for point in block.points)
        assert all(
            after < point.id and (block.end is None or point.id <= block.end) for point in block.points
        )
        found += [(point.id, point.payload) for point in block.points]
        after = block.end
        meanwhile()
    return found


def expected(values):
    return [(i, None if not v else b'{"v":%g}' % v) for i, v in sorted(values.items())]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_ids_come_by_code_point_whatever_layer_has_them(notes, count):
    table, frozen, active = IDS[:6], IDS[4:10], IDS[8:]
    notes.put(**dict.fromkeys(table, 1))
    notes.checkpoint()
    notes.put(**dict.fromkeys(frozen, 2))
    notes.store._freeze()
    notes.put(**dict.fromkeys(active, 3))
    values = dict.fromkeys(table, 1) | dict.fromkeys(frozen, 2) | dict.fromkeys(active, 3)
    assert walked(notes, count) == expected(values)
    gone = IDS[::4]
    notes.delete(*gone)
    assert walked(notes, count) == expected({i: v for i, v in values.items() if i not in gone})
    notes.store.checkpoint()
    assert walked(notes, count) == expected({i: v for i, v in values.items() if i not in gone})


@pytest.mark.parametrize("seed", range(20))
def test_points_that_stay_come_once_while_others_change(notes, seed):
    """Updates and checkpoints between the blocks; what is inserted or deleted meanwhile may come or not."""
    choose = random.Random(seed)
    names = [f"{number:03d}" for number in range(60)]
    stays = set(names[::2])
    notes.put(**dict.fromkeys(names, 1))
    value = 1

    def meanwhile():
        nonlocal value
        value += 1
        for name in choose.sample(names, 5):
            if name in stays or choose.random() < 0.5:
                notes.put(**{name: value})
            else:
                notes.delete(name)
        if choose.random() < 0.3:
            notes.store.checkpoint()

    found = [point_id for point_id, _ in walked(notes, choose.choice([1, 4, 9]), meanwhile)]
    assert len(found) == len(set(found))
    assert stays <= set(found)


@pytest.mark.parametrize("moment", ["before the table is read", "after the table is read"])
@pytest.mark.parametrize("change", ["update", "delete", "checkpoint", "update and checkpoint"])
def test_block_is_whole_when_it_changes_while_it_is_read(notes, monkeypatch, moment, change):
    notes.put(a=1, b=2, c=3)
    notes.checkpoint()
    notes.put(b=4, d=5)
    following = reader.PointTable.following

    def write():
        monkeypatch.setattr(reader.PointTable, "following", following)
        if "update" in change:
            notes.put(a=10, d=20)
        if change == "delete":
            notes.delete("a", "d")
        if "checkpoint" in change:
            notes.checkpoint()

    def interrupted(table, *values):
        if moment.startswith("before"):
            write()
        rows = following(table, *values)
        if moment.startswith("after"):
            write()
        return rows

    monkeypatch.setattr(reader.PointTable, "following", interrupted)
    found = walked(notes, 10)
    values = {"a": 1, "b": 4, "c": 3, "d": 5} | ({"a": 10, "d": 20} if "update" in change else {})
    if change == "delete":
        values = {"b": 4, "c": 3}
    assert found == expected(values)


def test_blocks_are_short_in_bytes(notes, monkeypatch):
    monkeypatch.setattr(reader, "SCAN_BYTES", 100)
    monkeypatch.setattr(reader, "SCAN_STEP_ROWS", 2)
    notes.put(**dict.fromkeys("abcdefgh", 1))
    notes.checkpoint()
    assert len(notes.store.view.walk.block("", 8).points) < 8
    assert walked(notes, 8) == expected(dict.fromkeys("abcdefgh", 1))


def test_damaged_points_are_withheld(notes):
    notes.put(a=1, b=2, c=3)
    notes.checkpoint()
    connection = sqlite3.connect(notes.folder / "points.db", isolation_level=None)
    connection.execute("UPDATE points SET payload = x'7b7d' WHERE id = 'b'")
    connection.close()
    assert [point_id for point_id, _ in walked(notes, 2)] == ["a", "c"]
    assert notes.store.view.count == 2
    with notes.store.layers.rows() as rows:
        offset = rows.offset(0)
    path = notes.folder / "vectors.bin"
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)
    assert offset == HEADER_BYTES
    notes.store.view.verify()
    assert [point_id for point_id, _ in walked(notes, 2)] == ["c"]


@pytest.mark.parametrize(
    ("entry", "other"),
    [
        pytest.param(b"bb", b"bx", id="another id"),
        pytest.param(b"\x09bb", b"\x08bb", id="another slot"),  # the types of the constants 1 and 0
        pytest.param(b"bb", b"b\xff", id="no text"),
    ],
)
def test_damaged_index_of_ids_is_reported(notes, entry, other):
    """A point that the index leads to under another name must not be left out in silence."""
    notes.put(a=1, bb=2, cc=3)
    notes.checkpoint()
    path = notes.folder / "points.db"
    raw = path.read_bytes()
    connection = sqlite3.connect(path, isolation_level=None)
    [(root,)] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name LIKE 'sqlite_autoindex%'")
    [(page,)] = connection.execute("PRAGMA page_size")
    connection.close()
    at = raw.index(entry, (root - 1) * page)
    assert at < root * page
    path.write_bytes(raw[:at] + other + raw[at + len(other) :])
    notes.handles.close()
    with pytest.raises(DamagedFile, match=r"the index of ids|a column holds what it cannot"):
        walked(notes, 10)
    assert notes.store.layers.damage is not None


def test_sorted_ids_are_sorted_once_for_many_reads():
    names = [f"{number * 7919 % 10_007:05d}" for number in range(10_007)]
    ids, kept, compared = SortedIds(), {}, []
    for number, name in enumerate(names):
        kept[name] = None
        if number % 50 == 0:
            ids.add_new(kept)
            assert ids.following("05000", 5) == sorted(name for name in kept if name > "05000")[:5]
            compared.append(len(ids._runs))
    assert max(compared) <= 10
    assert all(len(longer) >= walk.RUN_GROWTH * len(shorter) for longer, shorter in pairwise(ids._runs))


@pytest.mark.parametrize("seed", range(10))
def test_a_scan_meets_each_point_once_while_points_are_written(notes, seed):
    choose = random.Random(seed)
    names = [f"{number:03d}" for number in range(40)]
    notes.put(**dict.fromkeys(names, 1))
    notes.checkpoint()
    notes.put(**dict.fromkeys(names[::3], 2))
    found = []
    for step, point in enumerate(notes.store.view.scan_once()):
        found.append(point.id)
        if step < 100 and choose.random() < 0.4:
            notes.put(**{choose.choice(names): step + 3})
        if step == 20:
            notes.store.checkpoint()
    assert sorted(found) == names
