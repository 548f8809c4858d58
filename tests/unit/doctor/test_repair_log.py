"""Repair of a damaged log: it applies proven records in their order, and reports lost ones by sequence."""

import json
import shutil
from io import BytesIO

import pytest

from tests.unit.checked_volume import flip, zero
from tests.unit.damaged_store import PAGE, DamagedStore, without
from tests.unit.store_on_disk import StoreOnDisk, upsert
from vecstow_engine.doctor.repair import RepairOutcome, repair_volume
from vecstow_engine.storage.log.segment import (
    HEADER_BYTES,
    UPSERT,
    decode_header,
    encode_record,
)
from vecstow_engine.storage.log.segment_reader import iterate_records


@pytest.fixture
def store(tmp_path):
    return DamagedStore(tmp_path / "data")


def records(store):
    raw = store.segment.read_bytes()
    return list(iterate_records(BytesIO(raw), decode_header(raw, "").seed))


def sequences(done):
    return [loss.records for loss in done.plan.losses]


def test_lost_record_is_told_and_those_behind_it_are_applied(store):
    first = records(store)[0]
    flip(store.segment, first.offset + 60)
    place = str(store.segment.relative_to(store.data))
    done = store.repair()
    assert store.served() == without(store.points, *(f"n{number}" for number in range(10)))
    [loss] = done.plan.losses
    assert (loss.records, loss.file, loss.offset) == ((first.sequence,) * 2, place, first.offset)
    assert done.plan.warnings
    assert (done.plan.lost, done.plan.lost_records) == (0, 1)
    report = json.loads((store.data / done.quarantine / "repair.json").read_text())
    assert report["lost_records"] == 1


def test_points_that_a_lost_record_deleted_are_as_they_were_before_it(store):
    second = records(store)[1]
    flip(store.segment, second.offset + 45)
    done = store.repair()
    assert store.served() == store.points | {"p0": 1, "p1": 2}
    assert sequences(done) == [(second.sequence, second.sequence)]
    assert any("as they were before" in warning for warning in done.plan.warnings)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda s: flip(s.segment, 40), id="a bit"),
        pytest.param(lambda s: zero(s.segment, 0, HEADER_BYTES), id="all of it"),
    ],
)
def test_records_behind_a_damaged_header_are_told_as_a_loss_that_names_the_file(store, damage):
    """The header has the seed of their checksums, so nothing proves them."""
    damage(store)
    place, first = str(store.segment.relative_to(store.data)), int(store.segment.stem)
    done = store.repair()
    assert store.served() == store.checkpointed
    [loss] = done.plan.losses
    assert (loss.records, loss.file) == ((first, None), place)
    assert any("as they were before" in warning for warning in done.plan.warnings)


@pytest.mark.parametrize("length", [0, 100, HEADER_BYTES])
def test_emptied_segment_is_a_loss_of_unknown_extent(store, length):
    """It had its name only when its header was durable: acknowledged records may have been in it."""
    store.segment.write_bytes(bytes(length))
    place, first = str(store.segment.relative_to(store.data)), int(store.segment.stem)
    done = store.repair()
    assert store.served() == store.checkpointed
    [loss] = done.plan.losses
    assert (loss.records, loss.file) == ((first, None), place)
    assert done.plan.warnings


def test_torn_tail_is_no_loss(store):
    """Nothing says that it was ever acknowledged; recovery drops it as well."""
    last = records(store)[-1]
    flip(store.segment, last.offset + 50)
    store.change_table("UPDATE meta SET points = 1")
    done = store.repair()
    assert store.served() == store.points | {"p2": 3}
    assert sequences(done) == []


def test_segment_that_begins_too_late_is_a_loss_of_what_it_lacks(store):
    notes = StoreOnDisk(store.data)
    notes.store.log.start_segment()
    notes.put(late=7)
    notes.close()
    oldest = min(store.log.glob("*.log"))
    expected = store.checkpointed | {"late": 7}
    oldest.unlink()
    done = store.repair()
    assert store.served() == expected
    assert len(sequences(done)) == 1


def test_record_that_cannot_be_applied_is_told_as_lost(store):
    raw = store.segment.read_bytes()
    last, seed = records(store)[-1], decode_header(raw, "").seed
    payload = b"\1\0\0\0\7\0\0\0"
    head = encode_record(seed, last.sequence + 1, last.sequence, last.sequence, UPSERT, payload)
    store.segment.write_bytes(raw + head + payload)
    done = store.repair()
    assert store.served() == store.points
    assert sequences(done) == [(last.sequence + 1,) * 2]


def test_log_that_is_gone_is_told_when_something_else_is_repaired(store):
    for path in store.log.glob("*.log"):
        path.unlink()
    store.change_table("UPDATE meta SET points = 1")
    done = store.repair()
    assert store.served() == store.checkpointed
    assert any("there is no log" in warning for warning in done.plan.warnings)
    [loss] = done.plan.losses
    assert (loss.file, loss.records[1]) == (f"wal/{store.log.name}", None)
    assert done.plan.lost_records == 1


def test_copied_folder_gets_its_own_incarnation(tmp_path):
    """Two folders claim one uid; the log is that of the one which its newest segment names."""
    store = DamagedStore(tmp_path / "data")
    shutil.copytree(store.folder, store.data / "twin")
    path = store.data / "twin" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "twin"}))
    report = repair_volume(store.data)
    assert {name: repair.outcome for name, repair in report.collections.items()} == {
        "notes": RepairOutcome.SOUND, "twin": RepairOutcome.REPAIRED,
    }  # fmt: skip
    assert store.served() == store.points
    assert report.collections["twin"].plan.kept == len(store.checkpointed)


def test_record_before_a_lost_one_is_not_the_last_word_on_what_the_table_lacks(tmp_path):
    """The lost record deleted the point, and the table that is without it contains that."""
    notes = StoreOnDisk(tmp_path / "data")
    notes.put(a=1, b=2)
    notes.checkpoint()
    notes.put(c=3)
    notes.put(d=4)
    notes.delete("c")
    old = {path: path.read_bytes() for path in notes.log_folder.glob("*.log")}
    notes.checkpoint()
    notes.close()
    for path, raw in old.items():
        path.write_bytes(raw)
    flip(path, len(raw) - 1)  # the delete, the last record of that segment
    flip(notes.folder / "vectors.bin", PAGE)  # the row of a
    done = repair_volume(notes.data, ["notes"]).collections["notes"]
    again = StoreOnDisk(notes.data)
    assert again.points() == {"b": 2, "d": 4}
    again.close()
    assert [loss.id for loss in done.plan.losses] == ["a"]


def test_records_before_a_lost_one_are_lost_too_without_a_table(store):
    """The lost record may have deleted what they write, and a checkpoint may have contained it."""
    first, second, last = records(store)
    flip(store.segment, second.offset + 45)
    store.table.unlink()
    done = store.repair()
    assert store.served() == {"p2": 4001}
    assert (first.sequence - 1, last.sequence) == (first.previous, second.sequence + 1)
    assert (first.sequence, second.sequence) in sequences(done)
    assert done.plan.lost_records == 2


def test_intact_record_behind_a_torn_one_of_the_same_sync_is_not_applied(store):
    """Neither was acknowledged for all that anything says; recovery applies neither."""
    notes = StoreOnDisk(store.data)
    notes.put(sure=1)
    notes.store.commit([upsert(x=2), upsert(y=3)])
    notes.close()
    first = records(store)[-2]
    flip(store.segment, first.offset + 50)
    flip(store.rows, store.row_offset("p7"))
    done = store.repair()
    assert store.served() == without(store.points, "p7") | {"sure": 1}
    assert [loss.id for loss in done.plan.losses] == ["p7"]
