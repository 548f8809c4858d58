"""Repair of a damaged points.db: what proves itself is kept, whatever SQLite makes of the file."""

import json
import random
import sqlite3
from contextlib import closing

import pytest

from tests.unit.checked_volume import cut, flip, zero
from tests.unit.damaged_store import PAGE, DamagedStore, digests, swap, without
from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.doctor.repair import Loss, RepairOutcome, repair_volume


@pytest.fixture
def store(tmp_path):
    return DamagedStore(tmp_path / "data")


WHOLE = {
    "the meta row does not fit its checksum": lambda s: s.change_table("UPDATE meta SET applied = 1"),
    "the meta row is gone": lambda s: s.change_table("DELETE FROM meta"),
    "the page of the meta row is zero": lambda s: zero(s.table, s.root("meta")),
    "the root of the index of ids is zero": lambda s: zero(s.table, s.root("sqlite_autoindex_points_1")),
    "two leaves are exchanged": lambda s: swap(s.table, *s.leaves()[:2]),
    "the count does not fit": lambda s: s.change_table("UPDATE meta SET points = 7"),
    "the header of the file is zero": lambda s: s.table.write_bytes(bytes(100) + s.table.read_bytes()[100:]),
    "the first page is zero": lambda s: zero(s.table, 0),
    "the first page is garbage": lambda s: s.table.write_bytes(b"\xa5" * PAGE + s.table.read_bytes()[PAGE:]),
}  # fmt: skip
PARTLY_READ = {
    "the root of the points is zero": lambda s: zero(s.table, s.root("points")),
    "a leaf and the root are exchanged": lambda s: swap(s.table, s.leaves()[1], s.root("points")),
    "a leaf and the first page are exchanged": lambda s: swap(s.table, s.leaves()[1], 0),
    "a leaf and the meta row are exchanged": lambda s: swap(s.table, s.leaves()[0], s.root("meta")),
    "the root of the points is zero, and the meta row": lambda s: (
        zero(s.table, s.root("points")), zero(s.table, s.root("meta")),
    ),
}  # fmt: skip
UNREAD = {
    "the file is empty": lambda s: s.table.write_bytes(b""),
    "the file is gone": lambda s: s.table.unlink(),
}


def logged(store):
    """Return the points that only the log has."""
    return {i: v for i, v in store.points.items() if i.startswith("n") or i == "p2"}


def leaf_of(store, slot):
    """Where the leaf begins that has a slot, and the ids that nothing finds by their slots without it."""
    raw = store.table.read_bytes()
    for at in store.leaves():
        zero(store.table, at)
        missing = {point_id for found, point_id in slots(store, raw) if not is_found(store, found)}
        store.table.write_bytes(raw)
        if any(found == slot and point_id in missing for found, point_id in slots(store, raw)):
            return at, missing
    raise AssertionError(slot)


def slots(store, raw):
    whole = store.table.with_name("whole.db")
    whole.write_bytes(raw)
    with closing(sqlite3.connect(whole)) as connection:
        found = connection.execute("SELECT slot, id FROM points").fetchall()
    whole.unlink()
    return found


def is_found(store, slot):
    with closing(sqlite3.connect(f"{store.table.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        try:
            return bool(connection.execute("SELECT 1 FROM points WHERE slot = ?", (slot,)).fetchone())
        except sqlite3.DatabaseError:
            return False


@pytest.mark.parametrize("damage", WHOLE.values(), ids=WHOLE.keys())
def test_everything_is_kept_where_every_point_is_still_there(store, damage):
    damage(store)
    done = store.repair()
    assert done.outcome is RepairOutcome.REPAIRED
    assert store.served() == store.points
    assert (done.plan.lost, done.plan.losses) == (0, ())
    assert done.plan.kept + done.plan.restored == len(store.points)


@pytest.mark.parametrize("damage", PARTLY_READ.values(), ids=PARTLY_READ.keys())
def test_points_to_which_no_page_leads_are_lost_and_told_by_the_index_of_ids(store, damage):
    damage(store)
    done = store.repair()
    served = store.served()
    assert logged(store).items() <= served.items() <= store.points.items()
    assert {line["id"] for line in store.lost(done)} == set(store.points) - set(served) != set()
    assert done.plan.lost == len(store.points) - len(served)


@pytest.mark.parametrize("damage", UNREAD.values(), ids=UNREAD.keys())
def test_table_that_cannot_be_opened_leaves_what_the_log_has_and_the_plan_says_so(store, damage):
    rows = (store.rows.stat().st_size - PAGE) // 16
    DamagedStore(store.data / ".backups" / "notes-20260101T120000Z")
    damage(store)
    done = store.repair()
    assert store.served() == logged(store)
    assert (done.plan.kept, done.plan.restored, done.plan.lost_rows) == (0, len(logged(store)), rows)
    [line] = store.lost(done)
    assert (line["rows"], line["file"], line["offset"]) == ([0, rows - 1], "notes/vectors.bin", PAGE)
    assert any("only what the log still has is saved" in warning for warning in done.plan.warnings)
    assert "vecstow restore .backups/notes-20260101T120000Z" in done.plan.hint


@pytest.mark.parametrize("damage", UNREAD.values(), ids=UNREAD.keys())
def test_unreadable_table_without_a_log_is_left_as_it_is(store, damage):
    """The outcome names the backup that can be restored."""
    DamagedStore(store.data / ".backups" / "notes-20260101T120000Z")
    for path in store.log.glob("*.log"):
        path.unlink()
    damage(store)
    before = digests(store.data)
    done = store.repair()
    assert done.outcome is RepairOutcome.IMPOSSIBLE
    assert "nothing of it can be saved" in done.plan.impossible
    assert "vecstow restore .backups/notes-20260101T120000Z" in done.plan.hint
    assert digests(store.data) == before


def test_damaged_page_costs_the_points_on_it_alone(store):
    slot = store.table_value("SELECT slot FROM points WHERE id = 'p60'")
    at, ids = leaf_of(store, slot)
    zero(store.table, at)
    done = store.repair()
    lost = ids - set(logged(store)) - {"p0", "p1"}
    assert 1 < len(lost) < 200
    assert store.served() == without(store.points, *lost)
    assert {line["id"] for line in store.lost(done)} == lost


def test_damaged_page_costs_the_points_on_it_alone_where_nothing_else_names_them(store):
    at, ids = leaf_of(store, store.table_value("SELECT slot FROM points WHERE id = 'p60'"))
    zero(store.table, at)
    for name in ("meta", "sqlite_autoindex_points_1"):
        zero(store.table, store.root(name))
    store.repair()
    assert store.served() == without(store.points, *(ids - set(logged(store))))


def test_leaf_that_changed_places_with_the_index_of_ids_is_counted_as_lost(store):
    swap(store.table, store.leaves()[0], store.root("sqlite_autoindex_points_1"))
    done = store.repair()
    served = store.served()
    assert logged(store).items() <= served.items() <= store.points.items()
    assert len(store.checkpointed) - done.plan.kept - 3 <= done.plan.lost_without_id < len(store.checkpointed)
    assert len(served) > 100


def test_point_that_fails_its_checksum_is_lost_and_told_with_its_id(store):
    store.change_table("UPDATE points SET payload = x'7b7d' WHERE id = 'p7'")
    done = store.repair()
    assert store.served() == without(store.points, "p7")
    [loss] = done.plan.losses
    assert (loss.id, loss.slot, loss.file, loss.proven) == ("p7", 7, "notes/points.db", False)
    assert (loss.reason, loss.payload) == ("its point fails its checksum", b"{}")


def test_points_of_a_lost_page_are_told_by_the_index_of_ids(store):
    """The page itself tells nothing any more; the index still knows which ids and slots there were."""
    at = store.leaves()[1]
    zero(store.table, at)
    done = store.repair()
    served = store.served()
    lost = {line["id"] for line in store.lost(done)}
    assert lost == set(store.points) - set(served) != set()
    assert served == without(store.points, *lost)
    assert done.plan.lost == len(lost)


def test_points_that_nothing_names_are_counted(store):
    """Page and index are gone; the meta row says how many points there were."""
    zero(store.table, store.leaves()[1])
    zero(store.table, store.root("sqlite_autoindex_points_1"))
    done = store.repair()
    served = store.served()
    assert served.items() <= store.points.items()
    assert done.plan.lost_without_id == len(store.checkpointed) - done.plan.kept - 3  # p0, p1 and p2 changed
    assert 0 < len(served) < len(store.points)


@pytest.mark.parametrize("has_index", [True, False], ids=["with the index", "without the index"])
def test_deleted_points_on_free_pages_do_not_come_back(store, has_index):
    """Where SQLite does not wipe them, their bytes are still there, with right checksums; here the tree even
    leads to some of them.
    """
    live = min(store.leaves())
    gone = [f"x{number}" for number in range(1000)]
    notes = StoreOnDisk(store.data)
    notes.put(**dict.fromkeys(gone, 1))
    notes.checkpoint()
    before = store.table.read_bytes()
    notes.delete(*gone)
    notes.checkpoint()
    expected = notes.points()
    notes.close()
    free = unwipe(store, before)
    swap(store.table, free, live)
    if not has_index:
        zero(store.table, store.root("sqlite_autoindex_points_1"))
    done = store.repair()
    served = store.served()
    missing = set(expected) - set(served)
    assert done.outcome is RepairOutcome.REPAIRED
    assert served.items() <= expected.items()
    assert len(served) > 100
    assert done.plan.lost == len(missing)
    assert not has_index or {line["id"] for line in store.lost(done)} == missing


def test_replaced_points_of_an_older_page_do_not_come_back(store):
    """A write of one page was lost: its points pass their checksums where the tree leads."""
    before = store.table.read_bytes()
    notes = StoreOnDisk(store.data)
    notes.put(**{f"p{number}": number + 5001 for number in range(10, 90)})
    notes.delete(*(f"p{number}" for number in range(90, 95)))
    notes.checkpoint()
    expected = notes.points()
    notes.close()
    raw = bytearray(store.table.read_bytes())
    at = next(at for at in store.leaves() if raw[at : at + PAGE] != before[at : at + PAGE])
    raw[at : at + PAGE] = before[at : at + PAGE]
    store.table.write_bytes(raw)
    done = store.repair()
    served = store.served()
    assert served.items() <= expected.items()
    assert {line["id"] for line in store.lost(done)} == set(expected) - set(served)


def unwipe(store, before):
    """Bring the content of free pages back; returns where one of them begins."""
    raw = bytearray(store.table.read_bytes())
    trunk = int.from_bytes(raw[32:36], "big")
    count = int.from_bytes(raw[PAGE * (trunk - 1) + 4 : PAGE * (trunk - 1) + 8], "big")
    assert count > 1
    for number in range(count):
        at = PAGE * (trunk - 1) + 8 + 4 * number
        start = PAGE * (int.from_bytes(raw[at : at + 4], "big") - 1)
        raw[start : start + PAGE] = before[start : start + PAGE]
        if before[start] == 0x0D:
            found = start
    store.table.write_bytes(raw)
    return found


def test_table_that_is_cut_keeps_what_is_left_of_it(store):
    cut(store.table, store.table.stat().st_size // 8192 * PAGE)
    done = store.repair()
    served = store.served()
    assert served.items() <= store.points.items()
    assert set(store.points) - set(served) == {line["id"] for line in store.lost(done)}


def test_rows_of_a_lost_table_are_told_as_one_run(store):
    rows = (store.rows.stat().st_size - PAGE) // 16
    store.table.unlink()
    done = store.repair()
    [line] = store.lost(done)
    assert (line["rows"], line["file"], line["offset"]) == ([0, rows - 1], "notes/vectors.bin", PAGE)
    report = json.loads((store.data / done.quarantine / "repair.json").read_text())
    assert (report["lost"], report["lost_without_id"], report["lost_rows"]) == (rows, rows, rows)


def test_rows_that_no_point_claims_any_more_are_told_in_runs(store):
    """Meta row, index of ids and one leaf are gone: each row of that leaf's points may have been one."""
    for name in ("meta", "sqlite_autoindex_points_1"):
        zero(store.table, store.root(name))
    zero(store.table, store.leaves()[-1])
    done = store.repair()
    missing = set(store.points) - set(store.served())
    assert len(missing) <= done.plan.lost_rows == done.plan.lost_without_id
    runs = [loss.rows for loss in done.plan.losses if loss.rows]
    assert sum(last - first + 1 for first, last in runs) == done.plan.lost_rows


@pytest.mark.parametrize(
    ("payload", "proven", "told"),
    [
        pytest.param(b"\0\0\0", False, None, id="garbage"),
        pytest.param(b"7", False, None, id="a number where nothing proves it"),
        pytest.param(b'{"a": 1}', False, {"a": 1}, id="an object"),
        pytest.param(b"\0", True, "\0", id="what was written so"),
        pytest.param(None, True, None, id="none"),
    ],
)
def test_payload_that_is_garbage_is_told_as_none(payload, proven, told):
    loss = Loss("damaged", "notes/points.db", 1, "a", 0, payload, proven=proven)
    assert loss.document()["metadata"] == told


def test_table_that_makes_nothing_of_a_collection_is_no_reason_to_make_it_empty(store):
    """An empty collection would hide that there was data."""
    store.table.unlink()
    for path in store.log.glob("*.log"):
        path.unlink()
    done = store.repair()
    assert done.outcome is RepairOutcome.IMPOSSIBLE
    assert "nothing of it can be saved" in done.plan.impossible
    assert not (store.data / ".quarantine").exists()


def test_tree_that_leads_back_to_itself_is_walked_to_an_end(store):
    """The last child of the root is the root."""
    root = store.root("points")
    raw = bytearray(store.table.read_bytes())
    assert raw[root] == 0x05
    raw[root + 8 : root + 12] = (root // PAGE + 1).to_bytes(4, "big")
    store.table.write_bytes(raw)
    done = store.repair()
    served = store.served()
    assert served.items() <= store.points.items()
    assert {line["id"] for line in store.lost(done)} == set(store.points) - set(served)


@pytest.mark.parametrize("seed", range(8))
def test_garbage_in_a_page_makes_nothing_false(store, seed):
    """With any content of a page, each point that is served was stored; the others are listed or counted."""
    chance = random.Random(seed)
    raw = bytearray(store.table.read_bytes())
    at = chance.randrange(1, len(raw) // PAGE) * PAGE
    raw[at + chance.choice((0, 1, 200)) : at + PAGE] = chance.randbytes(PAGE)
    store.table.write_bytes(raw[: store.table.stat().st_size])
    done = store.repair()
    if done.outcome is RepairOutcome.REPAIRED:
        served = store.served()
        assert served.items() <= store.points.items()
        assert len(store.points) - len(served) <= done.plan.lost


def test_damaged_point_whose_record_the_log_still_has_is_restored(tmp_path):
    """The log is kept until the next checkpoint removes it: here a copy of it comes back."""
    notes = StoreOnDisk(tmp_path / "data")
    notes.put(a=1, b=2)
    notes.checkpoint()
    notes.put(c=3)
    old = {path: path.read_bytes() for path in notes.log_folder.glob("*.log")}
    notes.checkpoint()
    notes.close()
    for path, raw in old.items():
        path.write_bytes(raw)
    flip(notes.folder / "vectors.bin", PAGE + 2 * 16)  # the row of c
    flip(notes.folder / "vectors.bin", PAGE)  # the row of a, whose record is gone
    done = repair_volume(notes.data, ["notes"]).collections["notes"]
    again = StoreOnDisk(notes.data)
    assert again.points() == {"b": 2, "c": 3}
    again.close()
    assert (done.plan.kept, done.plan.restored, [loss.id for loss in done.plan.losses]) == (1, 1, ["a"])


def test_point_without_a_witness_that_the_log_restores_is_not_counted_as_lost(tmp_path):
    """The table and its index of ids are gone; the meta row counts a, b and c, and the log still has c."""
    notes = StoreOnDisk(tmp_path / "data")
    notes.put(a=1, b=2)
    notes.checkpoint()
    notes.put(c=3)
    old = {path: path.read_bytes() for path in notes.log_folder.glob("*.log")}
    notes.checkpoint()
    notes.put(d=4)
    notes.close()
    newest = max(notes.log_folder.glob("*.log"))
    for path, raw in old.items():
        path.write_bytes(raw)
    assert newest not in old
    table = notes.folder / "points.db"
    with closing(sqlite3.connect(table)) as connection:
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master").fetchall())
    for name in ("points", "sqlite_autoindex_points_1"):
        zero(table, PAGE * (roots[name] - 1))
    done = repair_volume(notes.data, ["notes"]).collections["notes"]
    again = StoreOnDisk(notes.data)
    assert again.points() == {"c": 3, "d": 4}
    again.close()
    assert (done.plan.restored, done.plan.lost, done.plan.lost_without_id) == (2, 2, 2)


def test_sequences_and_epochs_are_never_used_again(store):
    before = (
        store.table_value("SELECT max(generation) FROM points"),
        store.table_value("SELECT applied FROM meta"),
    )
    zero(store.table, store.root("meta"))
    store.repair()
    assert store.table_value("SELECT min(generation) FROM points") > before[0]
    assert store.table_value("SELECT applied FROM meta") >= before[1] + 3  # the records of the log
