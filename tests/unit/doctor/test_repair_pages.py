"""Reading points.db page by page: what SQLite reads is read, -wal and long cells included."""

import random
import sqlite3
from contextlib import closing

import pytest

from tests.unit.checked_volume import flip
from vecstow_engine.doctor.repair.cells import TABLE_LEAF, Unreadable, cell_offsets, table_cell
from vecstow_engine.doctor.repair.pages import PAGE_BYTES, PageFile
from vecstow_engine.doctor.repair.survey import Standing, Survey
from vecstow_engine.storage.points.records import Meta, StoredPoint
from vecstow_engine.storage.points.writer import create_points

META = Meta("a" * 32, "notes", applied=1, checkpoints=1)


def points(count, seed=0):
    """Points with payloads of all sizes that a cell may have: none, on its page, on one more, on many."""
    chance = random.Random(seed)
    for slot in range(count):
        size = chance.choice([0, 1, 50, 500, 3900, 4050, 4061, 5000, 8200, 60_000])
        payload = bytes(chance.randrange(32, 127) for _ in range(size)) if size else None
        point_id = f"{slot}-" + "é" * chance.choice([0, 1, 120])
        yield StoredPoint(slot, point_id, chance.randrange(1, 1 << 50), 1, chance.randrange(1 << 32), payload)


@pytest.fixture
def table(tmp_path):
    """A table whose points are in SQLite's own log, with the connection that keeps it there."""
    path = tmp_path / "points.db"
    create_points(path, META)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        yield path, connection


def insert(connection, found):
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            (p.slot, p.id, p.sequence, p.generation, p.row_checksum, p.payload, p.checksum)
            for p in found
        ),
    )  # fmt: skip
    connection.execute("COMMIT")


def surveyed(path):
    with closing(PageFile(path)) as pages:
        survey = Survey(pages)
        listed = list(survey.listed())
        return survey, listed, list(survey.sightings())


@pytest.mark.parametrize("where", ["in -wal", "in the file", "in both"])
def test_every_point_is_read_from_the_file_and_from_whole_commits_of_the_log(table, where):
    path, connection = table
    insert(connection, [p for p in points(200) if p.slot < 100])
    if where != "in -wal":
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    insert(connection, [p for p in points(200) if p.slot >= 100])
    if where == "in the file":
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    survey, listed, sightings = surveyed(path)
    wanted = list(points(200))
    assert [s.point for s in sightings if s.standing is Standing.PLACED] == wanted
    assert sorted(listed) == sorted((p.id, p.slot) for p in wanted)
    assert survey.index_intact
    assert survey.metas == [META]
    assert not survey.unreadable


def test_log_counts_up_to_its_last_whole_commit(table):
    path, connection = table
    insert(connection, [p for p in points(60) if p.slot < 30])
    size = path.with_name("points.db-wal").stat().st_size
    insert(connection, [p for p in points(60) if p.slot >= 30])
    flip(path.with_name("points.db-wal"), size + 24 + 100)
    _, _, sightings = surveyed(path)
    assert [s.point for s in sightings] == list(points(30))


def test_damaged_cell_keeps_no_other_back(table):
    path, connection = table
    insert(connection, (StoredPoint(n, f"id-{n}", 1, 1, 1, b'{"n":%d}' % n) for n in range(500)))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = path.read_bytes()
    flip(path, raw.index(b'id-77{"n":77}') if b'id-77{"n":77}' in raw else raw.index(b'{"n":77}'))
    _, _, sightings = surveyed(path)
    assert [s.slot for s in sightings if s.point is None] == [77]
    assert sum(s.point is not None for s in sightings) == 499


def test_garbage_is_unreadable_and_nothing_worse():
    """Whatever a page holds: an error of its own, or cells that prove nothing."""
    chance = random.Random(5)
    for _ in range(300):
        page = bytes([TABLE_LEAF]) + chance.randbytes(PAGE_BYTES - 1)
        try:
            for offset in cell_offsets(page):
                table_cell(page, offset, lambda number, page=page: page)
        except Unreadable:
            continue


def test_tree_that_leads_back_to_itself_is_walked_once(table):
    path, connection = table
    insert(connection, (StoredPoint(n, f"id-{n}", 1, 1, 1, None) for n in range(3000)))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = bytearray(path.read_bytes())
    root = PAGE_BYTES * 2
    assert raw[root] == 0x05
    raw[root + 8 : root + 12] = (3).to_bytes(4, "big")
    path.write_bytes(raw)
    _, _, sightings = surveyed(path)
    assert {s.point.slot for s in sightings if s.point} == set(range(3000))
