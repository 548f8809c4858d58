"""`check` on the write-ahead log: it separates torn from damaged as recovery does, by segment and byte."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from io import BytesIO

import pytest

from tests.unit.checked_volume import cut, flip, told, trace
from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.doctor.check import check_folder, check_volume
from vecstow_engine.model.errors import StorageError
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.log.segment import (
    DELETE,
    RECORD_HEADER_BYTES,
    UPSERT,
    decode_header,
    encode_header,
    encode_record,
)
from vecstow_engine.storage.log.segment_reader import iterate_records
from vecstow_engine.storage.points import writer


@pytest.fixture
def notes(tmp_path):
    """Two points in the files, and three records in the log: a put, a delete, a put."""
    notes = StoreOnDisk(tmp_path / "data")
    notes.put(a=1, b=2)
    notes.checkpoint()
    notes.put(c=3)
    notes.delete("a")
    notes.put(b=9)
    notes.close()
    return notes


def segment(notes):
    """The newest one."""
    return max(notes.log_folder.glob("*.log"))


def records(notes):
    raw = segment(notes).read_bytes()
    return list(iterate_records(BytesIO(raw), decode_header(raw, "").seed))


def name_of(notes, path=None):
    return str((path or segment(notes)).relative_to(notes.data))


def append(notes, record_type, payload):
    """One more record, with a right checksum."""
    path = segment(notes)
    raw, last = path.read_bytes(), records(notes)[-1]
    seed = decode_header(raw, "").seed
    head = encode_record(seed, last.sequence + 1, last.sequence, last.sequence, record_type, payload)
    path.write_bytes(raw + head + payload)


def checked(notes):
    """The findings and the state; asserts that a start comes to that state, and that nothing was written."""
    before = trace(notes.data)
    report = check_volume(notes.data, ["notes"])
    assert trace(notes.data) == before
    state = report.collections["notes"]["state"]
    assert all(f.next_steps for f in report.findings if f.severity == "error")
    try:
        again = StoreOnDisk(notes.data)
    except StorageError:
        assert state == "quarantined"
    else:
        assert state == "ready"
        again.close()
    return report.findings, state


def test_copy_of_a_crashed_volume_is_clean(notes):
    assert checked(notes) == ([], "ready")


def test_points_that_wait_in_sqlites_own_log_are_checked_with_it(notes, monkeypatch, tmp_path):
    """As a crash between the commit and its checkpoint leaves it; the copy is read elsewhere."""
    made_durable = writer.make_durable

    def keep_a_copy(connection, path):
        shutil.rmtree(tmp_path / "kept", ignore_errors=True)
        shutil.copytree(notes.data, tmp_path / "kept")
        made_durable(connection, path)

    monkeypatch.setattr(writer, "make_durable", keep_a_copy)
    notes = notes.reopened()
    notes.checkpoint()
    notes.close()
    kept = tmp_path / "kept"
    assert (kept / "notes" / "points.db-wal").stat().st_size > 0
    before = trace(kept)
    report = check_volume(kept, ["notes"])
    assert trace(kept) == before
    assert report.findings == []
    assert (report.collections["notes"]["applied"], report.collections["notes"]["points"]) == (4, 2)


def test_torn_tail_is_told_as_normal(notes):
    third = records(notes)[2]
    cut(segment(notes), -3)
    assert told(checked(notes)[0]) == [("info", name_of(notes), third.offset)]


def test_record_that_nothing_says_was_synced_is_a_torn_tail(notes):
    third = records(notes)[2]
    flip(segment(notes), third.offset + RECORD_HEADER_BYTES)
    assert told(checked(notes)[0]) == [("info", name_of(notes), third.offset)]


def test_zeros_behind_the_last_record_are_nothing(notes):
    with segment(notes).open("ab") as stream:
        stream.write(bytes(5000))
    assert checked(notes) == ([], "ready")


def test_garbage_behind_the_last_record_is_a_torn_tail(notes):
    end = segment(notes).stat().st_size
    with segment(notes).open("ab") as stream:
        stream.write(b"garbage" * 20)
    assert told(checked(notes)[0]) == [("info", name_of(notes), end)]


def test_record_that_a_later_one_says_was_synced_is_damage(notes):
    second = records(notes)[1]
    flip(segment(notes), second.offset + RECORD_HEADER_BYTES)
    [finding], state = checked(notes)
    assert (finding.severity, finding.file, finding.offset) == ("error", name_of(notes), second.offset)
    assert state == "quarantined"


def test_what_is_typed_next_after_damage_keeps_what_table_and_log_still_prove(notes, vecstow):
    """The first of three records is lost, the others are applied."""
    flip(segment(notes), records(notes)[0].offset + 2)
    [finding], _ = checked(notes)
    command = finding.next_command.removesuffix(" --dry-run").split()
    place = name_of(notes)
    code, out, _ = vecstow(*command[1:])
    assert code == 0
    assert f"notes: lost: log record 2 ({place} at byte 128)" in out
    assert checked(notes) == ([], "ready")
    again = StoreOnDisk(notes.data)
    assert again.points() == {"b": 9}
    again.close()


def test_removed_log_is_told_with_what_is_lost(notes):
    """No backup has what only the log had."""
    shutil.rmtree(notes.log_folder)
    [finding], _ = checked(notes)
    [step] = finding.next_steps
    assert finding.next_command is None
    assert step.does == (
        "acknowledged writes after the last checkpoint (sequence 1) are lost unless a copy of the volume has "
        f"wal/{notes.log_folder.name}: copy that back while no engine runs, and before anything is written: "
        "a new log's segments have those names"
    )


def test_records_that_wait_for_the_next_start_are_counted(notes, vecstow):
    code, out, _ = vecstow("check", "--data", notes.data)
    assert code == 0
    summary = out.splitlines()[-1]
    assert "with 2 points, and 3 log records that the next start will apply: 0 errors" in summary


def test_next_steps_repair_a_running_engine_and_restore_copies_to_a_stopped_one(notes):
    flip(segment(notes), records(notes)[0].offset + 2)
    [finding] = check_folder(Layout(notes.data), "notes").findings
    assert [step.command for step in finding.next_steps] == [
        "vecstow check notes --repair --dry-run", None, "vecstow check notes",
    ]  # fmt: skip
    assert finding.next_steps[1].does == (
        "stop the engine, copy notes/ and its log back from a copy of the volume, and start the engine"
    )


def test_damaged_segment_header_is_damage(notes):
    flip(segment(notes), 40)
    [finding], state = checked(notes)
    assert (finding.severity, finding.file, finding.offset) == ("error", name_of(notes), 0)
    assert state == "quarantined"


def test_log_that_begins_too_late_is_damage(notes):
    path = segment(notes)
    header = decode_header(path.read_bytes(), "")
    path.unlink()
    late = path.with_name(f"{9:020d}.log")
    late.write_bytes(encode_header(type(header)(header.identity, 9, 0, 0)))
    [finding], state = checked(notes)
    assert (finding.severity, finding.file, finding.offset) == ("error", name_of(notes, late), 0)
    assert state == "quarantined"


@pytest.mark.parametrize("in_header", [True, False])
def test_damage_in_what_is_applied_is_a_warning(notes, in_header):
    path = segment(notes)
    raw, second = path.read_bytes(), records(notes)[1]
    again = StoreOnDisk(notes.data)
    again.checkpoint()
    again.close()
    path.write_bytes(raw)
    flip(path, 40 if in_header else second.offset + 9)
    findings, state = checked(notes)
    assert told(findings) == [("warning", name_of(notes, path), 0 if in_header else second.offset)]
    assert state == "ready"


@pytest.mark.parametrize(
    ("record_type", "payload", "message"),
    [
        (3, b"", "unknown type 3"),
        (DELETE, struct.pack("<IH", 1, 9) + b"a", "cannot be applied"),
        (DELETE, struct.pack("<IH", 1, 0), "id has 0 characters"),
        (UPSERT, b"\x01", "cannot be applied"),
        (UPSERT, struct.pack("<IIHI", 1, 8, 1, 0xFFFFFFFF) + bytes(8) + b"x", "rows have 8 bytes, not 16"),
        (UPSERT, struct.pack("<IIHI", 1, 16, 1, 2) + bytes(16) + b"x[]", "no JSON object"),
    ],
    ids=["unknown type", "id cut", "id empty", "cut", "stride", "payload"],
)
def test_record_that_no_engine_can_have_written_is_an_error(notes, record_type, payload, message):
    end = segment(notes).stat().st_size
    append(notes, record_type, payload)
    [finding], _ = checked(notes)
    assert (finding.severity, finding.file, finding.offset) == ("error", name_of(notes), end)
    assert message in finding.message


def test_segment_of_another_incarnation_is_an_error(notes):
    path = segment(notes)
    header = decode_header(path.read_bytes(), "")
    identity = type(header.identity)("f" * 32, *[getattr(header.identity, n) for n in
                                     ("name", "dimension", "metric", "vector_type")])  # fmt: skip
    path.write_bytes(encode_header(type(header)(identity, header.first_sequence, header.synced, 0)))
    [finding], state = checked(notes)
    assert (finding.severity, finding.file, finding.offset) == ("error", name_of(notes), 12)
    assert state == "quarantined"


def test_segment_under_a_wrong_name_is_an_error(notes):
    path = segment(notes)
    path.rename(path.with_name(f"{1:020d}.log"))
    report = check_volume(notes.data, ["notes"])
    assert [(f.severity, f.offset) for f in report.findings] == [("error", 36)]


def test_damaged_row_that_the_log_replaces_is_nothing(notes):
    flip(notes.folder / "vectors.bin", 4096 + 16 + 3)
    assert checked(notes) == ([], "ready")


def test_damaged_point_that_the_log_replaces_keeps_the_collection_closed(notes):
    """Which slot it gives up is not known for certain."""
    connection = sqlite3.connect(notes.folder / "points.db", isolation_level=None)
    connection.execute("UPDATE points SET payload = x'7b7d' WHERE id = 'b'")
    connection.close()
    report = check_volume(notes.data, ["notes"])
    assert report.collections["notes"]["state"] == "quarantined"
    assert not report.clean


def test_newest_segment_of_a_served_collection_may_end_in_half_a_record(notes):
    cut(segment(notes), -3)
    report = check_folder(Layout(notes.data), "notes", serving=True)
    assert report.findings == []


def test_damage_in_a_served_log_is_found(notes):
    flip(segment(notes), records(notes)[0].offset + 2)
    report = check_folder(Layout(notes.data), "notes", serving=True)
    assert [f.severity for f in report.findings] == ["error"]
