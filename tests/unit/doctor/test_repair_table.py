"""A damaged points.db read through SQLite: each page that cannot be read costs the points on it alone."""

import random
import sqlite3
from contextlib import closing

import pytest

from vecstow_engine.doctor.repair import table as reading
from vecstow_engine.doctor.repair.evidence import Evidence
from vecstow_engine.doctor.repair.table import damaged_table
from vecstow_engine.model.errors import StorageError
from vecstow_engine.storage.points.records import Meta, StoredPoint, checked_point
from vecstow_engine.storage.points.writer import create_points

META = Meta("a" * 32, "notes", applied=1, checkpoints=1)
PAGE = 4096
COUNT = 3000


def points(count, seed=0):
    """Points with payloads of all sizes that a cell may have: none, on its page, on one more, on many."""
    chance = random.Random(seed)
    for slot in range(count):
        size = chance.choice([0, 0, 1, 50, 500, 3900, 4050, 4061, 5000, 8200, 60_000]) if slot < 100 else 1
        payload = bytes(chance.randrange(32, 127) for _ in range(size)) if size else None
        point_id = f"{slot}-" + "é" * chance.choice([0, 1, 120])
        yield StoredPoint(slot, point_id, chance.randrange(1, 1 << 50), 1, chance.randrange(1 << 32), payload)


def insert(connection, found):
    rows = [(p.slot, p.id, p.sequence, p.epoch, p.row_checksum, p.payload, p.checksum) for p in found]
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.execute("COMMIT")


@pytest.fixture
def table(tmp_path):
    """A table whose points are in SQLite's own log, with the connection that keeps it there."""
    path = tmp_path / "points.db"
    create_points(path, META)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        yield path, connection


@pytest.fixture
def folded(table):
    path, connection = table
    insert(connection, points(COUNT))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def read(path):
    """The meta row, the entries of the index when it is whole, the points that prove themselves by slot."""
    with damaged_table(path) as found:
        meta, listed = found.meta(), list(found.ids())
        rows = [checked_point(row) for row in found.points(COUNT)]
        return meta, listed if found.is_index_whole else None, {p.slot: p for p in rows if p is not None}


def looked_up(path):
    """The points that SQLite finds when it looks up each slot, by slot."""
    found = {}
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        for slot in range(COUNT):
            try:
                row = connection.execute("SELECT * FROM points WHERE slot = ?", (slot,)).fetchone()
            except sqlite3.DatabaseError:
                continue
            if row is not None and (point := checked_point(row)) is not None:
                found[slot] = point
    return found


@pytest.mark.parametrize("where", ["in -wal", "in the file", "in both"])
def test_every_point_is_read_from_the_file_and_from_whole_commits_of_the_log(table, where):
    path, connection = table
    insert(connection, [p for p in points(200) if p.slot < 100])
    if where != "in -wal":
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    insert(connection, [p for p in points(200) if p.slot >= 100])
    if where == "in the file":
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    meta, listed, found = read(path)
    assert meta == META
    assert sorted(listed) == sorted((p.id, p.slot) for p in points(200))
    assert list(found.values()) == list(points(200))


def test_reading_leaves_no_trace(table):
    path, connection = table
    insert(connection, points(50))
    before = {p.name: p.read_bytes() for p in path.parent.iterdir() if not p.name.endswith("-shm")}
    read(path)
    assert {p.name: p.read_bytes() for p in path.parent.iterdir() if not p.name.endswith("-shm")} == before


@pytest.mark.parametrize("number", range(1, 120, 4))
def test_zeroed_page_costs_what_no_look_up_finds_either(folded, number):
    raw = bytearray(folded.read_bytes())
    at = number * PAGE
    raw[at : at + PAGE] = bytes(PAGE)
    folded.write_bytes(raw)
    _, _, found = read(folded)
    reached = looked_up(folded)
    assert reached.items() <= found.items()
    assert all(found[slot] == point for slot, point in enumerate(points(COUNT)) if slot in found)


def test_intact_table_is_read_whole_whatever_else_is_known_of_its_slots(folded):
    with damaged_table(folded) as found:
        assert [row[0] for row in found.points(end=0)] == list(range(COUNT))


@pytest.mark.parametrize("tenth", [1, 3, 5, 9])
def test_cut_table_gives_what_is_left_of_it(folded, tenth):
    folded.write_bytes(folded.read_bytes()[: folded.stat().st_size * tenth // 10])
    _, _, found = read(folded)
    assert looked_up(folded).items() <= found.items()


def test_damaged_point_keeps_no_other_back(folded):
    raw = bytearray(folded.read_bytes())
    raw[raw.index(b"2777-")] ^= 0xFF  # the id is no UTF-8 any more
    folded.write_bytes(raw)
    _, _, found = read(folded)
    assert len(found) >= COUNT - 1


def test_attempts_on_a_table_that_cannot_be_read_are_bounded(folded, monkeypatch):
    raw = bytearray(folded.read_bytes())
    raw[PAGE * 2 : PAGE * 3] = bytes(PAGE)  # the root of the points
    folded.write_bytes(raw)
    monkeypatch.setattr(reading, "ATTEMPTS_MAX", 50)
    tried = []
    real = reading.DamagedTable._between
    monkeypatch.setattr(
        reading.DamagedTable, "_between", lambda self, *given: tried.append(given) or real(self, *given)
    )
    assert read(folded)[2] == {}
    assert len(tried) == 50


@pytest.mark.parametrize(
    "content", [None, b"", b"\0" * PAGE, b"no table"], ids=["gone", "empty", "zeros", "text"]
)
def test_file_that_is_no_table_gives_nothing(tmp_path, content):
    path = tmp_path / "points.db"
    if content is not None:
        path.write_bytes(content)
    assert read(path)[0] is None
    assert read(path)[2] == {}
    assert path.exists() is (content is not None)


def test_tree_that_leads_back_to_itself_is_walked_to_an_end(folded):
    raw = bytearray(folded.read_bytes())
    root = PAGE * 2
    assert raw[root] == 0x05
    raw[root + 8 : root + 12] = (3).to_bytes(4, "big")
    folded.write_bytes(raw)
    _, _, found = read(folded)
    assert looked_up(folded).items() <= found.items()


@pytest.mark.parametrize("seed", range(12))
def test_garbage_in_a_leaf_costs_no_point_that_a_lookup_finds(folded, seed):
    """A cell of garbage may have a slot behind its range: SQLite takes it for the end, and raises nothing."""
    chance = random.Random(seed)
    raw = bytearray(folded.read_bytes())
    leaves = [start for start in range(0, len(raw), PAGE) if raw[start] == 13]
    start = chance.choice(leaves[len(leaves) // 4 :]) + chance.randrange(8, PAGE - 512)
    raw[start : start + 512] = chance.randbytes(512)
    folded.write_bytes(raw)
    assert looked_up(folded).keys() <= read(folded)[2].keys()


def test_a_log_of_sqlite_without_its_table_is_a_missing_table(folded):
    folded.with_name("points.db-wal").write_bytes(b"not empty")
    folded.unlink()
    assert read(folded) == (None, None, {})


@pytest.mark.parametrize("rows", [Evidence.saved, Evidence.lost])
def test_error_of_what_repair_remembers_is_no_error_of_the_volume(rows):
    """The caller writes points.db meanwhile, and would name that file."""
    with closing(Evidence()) as evidence:
        reading_rows = rows(evidence)
    with pytest.raises(StorageError, match="what repair remembers"):
        next(reading_rows)
