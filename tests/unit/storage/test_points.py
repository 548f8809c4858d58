"""Rules 11 and 12: when points.db is durable, and how changed content in it, or in the rows, is seen."""

import functools
import shutil
import sqlite3

import numpy as np
import pytest

from tests.unit.recorded_disk import PowerOff
from tests.unit.store_on_disk import STRIDE, StoreOnDisk, vector
from vecstow_engine.model.errors import Busy, DamagedFile, NewerFormat, StorageError, Unavailable
from vecstow_engine.storage.identity import HEADER_BYTES
from vecstow_engine.storage.points import reader, writer
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.records import Meta, StoredPoint
from vecstow_engine.storage.points.writer import connect, create_points, fold_journal, write_points

UID = "00112233445566778899aabbccddeeff"
PAGE = 4096


@pytest.fixture
def notes(tmp_path):
    """Three points in the files, and nothing else."""
    opened = StoreOnDisk(tmp_path / "data")
    opened.put(a=1, b=2, c=3)
    opened.checkpoint()
    yield opened
    opened.close()


def execute(path, *statements):
    """Change points.db behind the engine's back."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def flip(path, offset):
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


# Rule 11 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("wal_autocheckpoint", 0), ("mmap_size", 0)],
)
def test_rule_11_every_connection_has_its_settings(notes, pragma, value):
    connection = writer.connect(notes.folder / "points.db", 1024)
    try:
        assert connection.execute(f"PRAGMA {pragma}").fetchall() in ([(value,)], [])
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    finally:
        connection.close()


def test_rule_11_durable_means_that_sqlites_log_is_empty(notes):
    """The database file alone then has everything; a copy of it needs no -wal."""
    notes.put(d=4)
    with notes.store.layers.table():
        notes.checkpoint()
        assert (notes.folder / "points.db-wal").stat().st_size == 0
        alone = notes.data.parent / "alone.db"
        shutil.copy(notes.folder / "points.db", alone)
    table = PointTable(alone, at_rest=True)
    assert {point.id for _, point in table.scan()} == {"a", "b", "c", "d"}
    table.close()


def test_rule_11_reader_that_keeps_the_log_busy_means_not_durable(notes, monkeypatch):
    """The checkpoint fails and keeps the log; once the reader is gone, the same one succeeds."""
    monkeypatch.setattr(writer, "BUSY_TIMEOUT_SECONDS", 0.01)
    reader = sqlite3.connect(notes.folder / "points.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM points").fetchone()
    notes.put(d=4)
    with pytest.raises(Busy, match="readers held the table"):
        notes.store.checkpoint()
    assert notes.segments() == [2, 3]
    assert notes.points() == {"a": 1, "b": 2, "c": 3, "d": 4}
    reader.close()
    assert notes.store.broken is None
    assert notes.store.checkpoint()
    assert notes.segments() == [3]
    copy = notes.copied()
    assert copy.points() == {"a": 1, "b": 2, "c": 3, "d": 4}
    copy.close()


def test_rule_11_found_log_of_sqlite_is_written_anew_before_it_is_read(notes, disk):
    """The page cache may show frames that the disk never had."""
    notes.put(d=4)
    disk.stop_at = "commit points.db"
    with pytest.raises(PowerOff):
        notes.store.checkpoint()
    disk.stop_at = disk.stop_before = None
    assert (notes.folder / "points.db-wal").stat().st_size > 0
    disk.clear()
    copy = notes.copied()
    assert disk.matching("*points.db*") == [
        "unlink points.db-shm",
        "create points.db-wal.tmp",
        "write points.db-wal.tmp",
        "sync points.db-wal.tmp",
        "rename points.db-wal.tmp -> points.db-wal",
        "commit points.db",
        "durable points.db",
    ]
    assert disk.first("rename points.db-wal.tmp*") < disk.first("sync notes/") < disk.first("commit *")
    assert copy.points() == {"a": 1, "b": 2, "c": 3, "d": 4}
    copy.close()


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.99], ids=lambda share: f"{share:.0%} of it")
def test_rule_11_cut_log_of_sqlite_gives_the_older_table_and_the_log_the_rest(notes, disk, kept):
    notes.put(d=4)
    notes.delete("a")
    disk.stop_at = "commit points.db"
    with pytest.raises(PowerOff):
        notes.store.checkpoint()
    disk.stop_at = disk.stop_before = None
    target = notes.data.with_name("cut")
    shutil.copytree(notes.data, target)
    wal = target / "notes" / "points.db-wal"
    wal.write_bytes(wal.read_bytes()[: int(wal.stat().st_size * kept)])
    cut = StoreOnDisk(target, notes.manifest)
    assert cut.points() == {"b": 2, "c": 3, "d": 4}
    cut.close()


def test_settling_a_table_at_rest_writes_nothing(notes, disk):
    notes.close()
    fold_journal(notes.folder / "points.db")
    assert disk.steps == []


# Rule 12: points -----------------------------------------------------------------------------------------


def test_rule_12_integrity_check_does_not_see_changed_content_but_the_checksum_does(notes):
    notes.close()
    path = notes.folder / "points.db"
    flip(path, path.read_bytes().index(b'{"v":2}') + 5)
    table = PointTable(path)
    assert table.integrity_errors() == []
    assert table.by_ids(["b"]) == {"b": None}
    table.close()


@pytest.mark.parametrize(
    "change",
    [
        "payload = x'7b7d'", "payload = NULL", "sequence = 9", "row_checksum = row_checksum + 1", "id = 'x'",
        "generation = 7", "slot = 77", "payload = 'text'", "sequence = 'text'",
    ],
)  # fmt: skip
def test_rule_12_changed_point_is_withheld_and_listed_and_others_are_served(notes, change):
    notes.close()
    execute(notes.folder / "points.db", f"UPDATE points SET {change} WHERE id = 'b'")
    if change == "slot = 77":
        with pytest.raises(DamagedFile, match="slot 77"):
            StoreOnDisk(notes.data)
        return
    again = StoreOnDisk(notes.data)
    assert again.points() == {"a": 1, "c": 3}
    if change != "id = 'x'":
        with pytest.raises(Unavailable, match="withheld"):
            again.store.view.get(["b"])
    again.store.view.resolve(again.store.view.labels())
    [reason] = again.store.layers.withheld.values()
    assert "fails its checksum" in reason
    again.close()


def test_rule_12_id_that_is_damaged_in_the_table_alone_is_withheld_by_its_id_too(notes):
    notes.put(needle=4)
    notes.checkpoint()
    notes.close()
    path = notes.folder / "points.db"
    raw = path.read_bytes()
    flip(path, raw.rindex(b"needle", 0, raw.index(b'{"v":4}')))  # the index of ids has it too, and whole
    table = PointTable(path)
    assert table.listed_slots(["needle"]) == {"needle": 3}
    assert table.by_slots([3]) == {3: None}
    assert table.by_ids(["needle"]) == {"needle": None}
    table.close()
    again = StoreOnDisk(notes.data)
    with pytest.raises(Unavailable, match="withheld"):
        again.store.view.get(["needle"])
    again.close()


def test_rule_12_checksum_covers_every_field():
    point = StoredPoint(1, "id", 2, 3, 4, b"{}")
    others = [
        StoredPoint(9, "id", 2, 3, 4, b"{}"), StoredPoint(1, "iD", 2, 3, 4, b"{}"),
        StoredPoint(1, "id", 9, 3, 4, b"{}"), StoredPoint(1, "id", 2, 9, 4, b"{}"),
        StoredPoint(1, "id", 2, 3, 9, b"{}"), StoredPoint(1, "id", 2, 3, 4, b"{ }"),
        StoredPoint(1, "id", 2, 3, 4, None), StoredPoint(1, "id{", 2, 3, 4, b"}"),
    ]  # fmt: skip
    assert len({other.checksum for other in [point, *others]}) == 9


# Rule 12: rows -------------------------------------------------------------------------------------------


def damage_row(notes, point_id):
    slot = notes.store.layers.live_slots([point_id])[point_id]
    notes.close()
    flip(notes.folder / "vectors.bin", HEADER_BYTES + slot * STRIDE + 5)
    return HEADER_BYTES + slot * STRIDE


def test_rule_12_damaged_row_is_never_read_out_by_get(notes):
    offset = damage_row(notes, "b")
    again = StoreOnDisk(notes.data)
    with pytest.raises(Unavailable, match=f"row at byte {offset} fails its checksum"):
        again.store.view.get(["a", "b"])
    assert again.points() == {"a": 1, "c": 3}
    assert list(again.store.layers.withheld.values()) == [
        f"vectors.bin: the row at byte {offset} fails its checksum"
    ]
    again.close()


def test_rule_12_damaged_row_is_never_given_to_the_index(notes):
    damage_row(notes, "b")
    again = StoreOnDisk(notes.data)
    labels = again.store.view.labels()
    rows = again.store.view.vectors(labels)
    assert np.isnan(rows).any(axis=1).tolist() == [False, True, False]
    assert rows[[0, 2]].tolist() == [vector(1), vector(3)]
    assert again.store.view.labels().tolist() == labels[[0, 2]].tolist()
    again.close()


def test_rule_12_withheld_point_is_healed_by_writing_it_anew(notes):
    damage_row(notes, "b")
    again = StoreOnDisk(notes.data)
    with pytest.raises(Unavailable):
        again.store.view.get(["b"])
    again.put(b=9)
    assert again.points() == {"a": 1, "b": 9, "c": 3}
    assert again.store.layers.withheld == {}
    again.checkpoint()
    assert again.points() == {"a": 1, "b": 9, "c": 3}
    again.close()


def test_rule_12_withheld_point_can_be_deleted(notes):
    damage_row(notes, "b")
    again = StoreOnDisk(notes.data)
    with pytest.raises(Unavailable):
        again.store.view.get(["b"])
    again.delete("b")
    assert again.store.layers.withheld == {}
    assert again.store.view.get(["b"]) == [None]
    again.close()


def test_rule_12_compaction_withholds_a_damaged_row_and_does_not_move_it(notes):
    damage_row(notes, "c")
    again = StoreOnDisk(notes.data)
    again.delete("a")
    again.checkpoint()
    assert again.store.relocate(10) is None
    assert len(again.store.layers.withheld) == 1
    assert again.points() == {"b": 2}
    again.close()


def test_rows_file_that_ends_before_a_live_row_is_damage(notes):
    notes.close()
    path = notes.folder / "vectors.bin"
    path.write_bytes(path.read_bytes()[: HEADER_BYTES + 2 * STRIDE + 3])
    with pytest.raises(DamagedFile, match="a live row stands at slot 2"):
        StoreOnDisk(notes.data)


# Rule 12: the meta row -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "applied = applied + 1", "checkpoints = 9", "points = 4", "checksum_sum = checksum_sum + 1",
        "name = 'other'", "uid = x'00'", "uid = 'text'", "applied = 'text'", "checksum = 5",
        "applied = -1",
    ],
)  # fmt: skip
def test_rule_12_changed_meta_row_is_damage(notes, change):
    notes.close()
    execute(notes.folder / "points.db", f"UPDATE meta SET {change}")
    with pytest.raises(DamagedFile, match=r"points\.db: "):
        StoreOnDisk(notes.data)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        pytest.param("DELETE FROM points WHERE id = 'b'", "two moments", id="a point is gone"),
        pytest.param("UPDATE points SET checksum = 7 WHERE id = 'b'", "two moments", id="another sum"),
        pytest.param("INSERT INTO points SELECT 9, 'n', 1, 1, 1, NULL, 0", "two moments", id="one more"),
        pytest.param("DELETE FROM meta", "0 meta rows", id="no meta row"),
        pytest.param("DROP TABLE points", "no such table", id="no table"),
    ],
)
def test_rule_12_wrong_count_or_sum_is_damage(notes, statement, message):
    notes.close()
    execute(notes.folder / "points.db", statement)
    with pytest.raises(DamagedFile, match=message):
        StoreOnDisk(notes.data)


def test_newer_table_is_refused(notes):
    notes.close()
    execute(notes.folder / "points.db", "UPDATE meta SET version = 2")
    with pytest.raises(NewerFormat, match="version 2"):
        StoreOnDisk(notes.data)


def test_table_of_another_incarnation_is_damage(notes, tmp_path):
    other = StoreOnDisk(tmp_path / "other")
    other.put(x=1)
    other.checkpoint()
    other.close()
    notes.close()
    shutil.copy(other.folder / "points.db", notes.folder / "points.db")
    with pytest.raises(DamagedFile, match="belongs to incarnation"):
        StoreOnDisk(notes.data)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x" * 5000, id="text"),
        pytest.param(b"SQLite format 3\0" + b"\0" * 5000, id="zeros"),
    ],
)
def test_file_that_is_no_table_is_damage(notes, content):
    notes.close()
    (notes.folder / "points.db").write_bytes(content)
    with pytest.raises(DamagedFile):
        StoreOnDisk(notes.data)


# Rule 12: two moments ------------------------------------------------------------------------------------


class TwoMoments:
    """A collection copied before and after some checkpoints, with several pages of table and of its index."""

    def __init__(self, folder):
        self.notes = StoreOnDisk(folder / "data")
        rng = np.random.default_rng(12)
        names = [f"a-rather-long-name-of-a-point-{number:04d}" for number in range(700)]
        self.notes.put(**dict.fromkeys(names[:500], 1))
        self.notes.checkpoint()
        self.first = self._files()
        for value in (2, 3, 4):
            self.notes.put(**{names[n]: value for n in rng.choice(700, 60, replace=False)})
            gone = rng.choice(700, 30, replace=False)
            self.notes.delete(*(names[n] for n in gone))
            self.notes.checkpoint()
        self.second = self._files()
        self.names = names
        self.wanted = self.notes.points()
        self.notes.close()

    def _files(self):
        return {name: (self.notes.folder / name).read_bytes() for name in ("points.db", "vectors.bin")}

    def open_mix(self, table, rows):
        """Return how the mix opens (right, damage, or some withheld); assert that no value is wrong."""
        (self.notes.folder / "points.db").write_bytes(table)
        (self.notes.folder / "vectors.bin").write_bytes(rows)
        try:
            mixed = StoreOnDisk(self.notes.data, self.notes.manifest)
        except DamagedFile:
            return "damage"
        try:
            found = [self._told(mixed, name) for name in self.names]
        finally:
            mixed.close()
        told = [(name, value) for name, value in zip(self.names, found, strict=True) if value != "withheld"]
        assert [value for _, value in told] == [self.wanted.get(name) for name, _ in told]
        return "right" if len(told) == len(self.names) else "withheld"

    def _told(self, mixed, name):
        try:
            [point] = mixed.store.view.get([name])
        except (Unavailable, StorageError):
            return "withheld"
        return None if point is None else point.vector[0]


@pytest.fixture(scope="module")
def moments(tmp_path_factory):
    return TwoMoments(tmp_path_factory.mktemp("moments"))


def pages(raw, count):
    raw = raw.ljust(count * PAGE, b"\0")
    return [raw[start : start + PAGE] for start in range(0, count * PAGE, PAGE)]


def both(moments):
    count = max(len(m["points.db"]) for m in (moments.first, moments.second)) // PAGE
    assert count >= 20
    return pages(moments.first["points.db"], count), pages(moments.second["points.db"], count)


def test_rule_12_each_moment_alone_opens_rightly_or_shows(moments):
    assert moments.open_mix(*moments.second.values()) == "right"
    assert moments.open_mix(*moments.first.values()) == "damage"


@pytest.mark.parametrize("newer_first", [True, False], ids=["newer pages first", "older pages first"])
def test_rule_12_copy_that_stopped_between_two_moments_shows(moments, newer_first):
    """As a copier reads: the pages before some place are of one moment, the others of another."""
    old, new = both(moments)
    front, back = (new, old) if newer_first else (old, new)
    outcomes = {
        moments.open_mix(b"".join(front[:cut] + back[cut:]), moments.second["vectors.bin"])
        for cut in range(len(old) + 1)
    }
    assert "damage" in outcomes


def test_rule_12_copy_that_mixes_pages_of_two_moments_shows(moments):
    old, new = both(moments)
    rng = np.random.default_rng(1)
    for _ in range(150):
        share = rng.random()
        mixed = [new[n] if rng.random() < share else old[n] for n in range(len(old))]
        moments.open_mix(b"".join(mixed), moments.second["vectors.bin"])


def test_rule_12_copy_with_one_older_page_shows(moments):
    old, new = both(moments)
    for number in range(len(old)):
        mixed = b"".join([*new[:number], old[number], *new[number + 1 :]])
        moments.open_mix(mixed, moments.second["vectors.bin"])


def test_rule_12_rows_of_an_older_moment_are_withheld(moments):
    outcomes = {moments.open_mix(moments.second["points.db"], moments.first["vectors.bin"])}
    rows = moments.first["vectors.bin"].ljust(len(moments.second["vectors.bin"]), b"\0")
    outcomes |= {moments.open_mix(moments.second["points.db"], rows)}
    assert outcomes <= {"damage", "withheld"}


# The module ----------------------------------------------------------------------------------------------


def test_table_that_a_crash_left_without_a_manifest_is_made_anew(tmp_path):
    path = tmp_path / "points.db"
    create_points(path, Meta(UID, "old", points=3))
    (tmp_path / "points.db-wal").write_bytes(b"x")
    create_points(path, Meta(UID, "new"))
    table = PointTable(path)
    assert table.meta() == Meta(UID, "new")
    table.close()


def test_more_ids_than_one_statement_takes_are_all_found(tmp_path):
    path = tmp_path / "points.db"
    create_points(path, Meta(UID, "notes"))
    stored = [StoredPoint(n, f"p{n}", 1, 1, n, None) for n in range(1300)]
    meta = write_points(path, [], stored, applied=1, checkpoints=1)
    table = PointTable(path)
    assert len(table.by_ids([f"p{n}" for n in range(2000)])) == 1300
    assert len(table.by_slots(range(2000))) == 1300
    assert [slot for slot, _ in table.scan()] == list(range(1300))
    assert table.slots(meta).row_checksums.tolist() == list(range(1300))
    table.close()


def test_checkpoint_of_more_points_than_one_scan_reads_is_counted(tmp_path):
    path = tmp_path / "points.db"
    create_points(path, Meta(UID, "notes"))
    stored = [StoredPoint(n, f"p{n}", 1, 1, n, None) for n in range(2 * reader.SCAN_ROWS)]
    meta = write_points(path, [], stored, applied=1, checkpoints=1)
    table = PointTable(path)
    assert len(table.slots(meta).slots) == meta.points == 2 * reader.SCAN_ROWS
    table.close()


def test_connection_that_cannot_be_set_up_is_closed(monkeypatch, tmp_path):
    """On a full disk `-shm` has no room, and each attempt would keep a descriptor."""
    made = []

    class Refusing(sqlite3.Connection):
        def executescript(self, script):
            made.append(self)
            raise sqlite3.OperationalError("database or disk is full")

    path = tmp_path / "points.db"
    path.touch()
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Refusing))
    with pytest.raises(sqlite3.OperationalError):
        connect(path, 100)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].total_changes  # noqa: B018
