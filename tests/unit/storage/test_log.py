"""Rules 3 to 5 and 7: what a segment is, when a write is acknowledged, and what a failed sync means."""

import errno
from io import BytesIO

import pytest

from tests.unit.recorded_disk import PowerOff
from tests.unit.store_on_disk import StoreOnDisk, upsert
from vecstow_engine.model.errors import DamagedFile, DiskFull, OutcomeUnknown, ReadOnly, StorageError
from vecstow_engine.storage import files
from vecstow_engine.storage.log.replay import read_log, records_of, select_records
from vecstow_engine.storage.log.segment import DELETE, decode_header
from vecstow_engine.storage.log.segment_reader import iterate_records
from vecstow_engine.storage.log.writer import Log


@pytest.fixture
def notes(tmp_path):
    """A collection with one point, checkpointed never, on a disk that the test may let fail."""
    opened = StoreOnDisk(tmp_path / "data")
    opened.put(a=1)
    yield opened
    opened.close()


# Rule 3: segments and records ----------------------------------------------------------------------------


def test_rule_03_segment_gets_its_name_only_when_its_header_is_durable(notes, disk):
    notes.checkpoint()
    [name] = [step.split(" -> ")[1] for step in disk.matching("rename *.log.tmp -> *")]
    written, synced = disk.first(f"write {name}.tmp"), disk.first(f"sync {name}.tmp")
    assert written < synced < disk.first(f"rename {name}.tmp -> {name}")


def test_rule_03_predecessor_is_fully_synced_before_a_segment_gets_its_name(notes, disk):
    notes.put(b=2)
    notes.checkpoint()
    assert disk.last(f"data_sync {notes.segment(1).name}") < disk.first("create *.log.tmp")
    header = decode_header(notes.segment(3).read_bytes(), "")
    assert (header.first_sequence, header.synced) == (3, 2)


def test_rule_03_header_says_whose_it_is(notes):
    header = decode_header(notes.segment(1).read_bytes(), "")
    assert header.identity == notes.store.identity
    assert (header.identity.name, header.identity.uid) == ("notes", notes.manifest.collection_uid)


def test_rule_03_each_segment_has_a_seed_of_its_own(notes):
    seeds = {decode_header(notes.segment(1).read_bytes(), "").seed}
    for value in range(2, 6):
        notes.checkpoint()
        notes.put(a=value)
        seeds.add(decode_header(notes.segment(value).read_bytes(), "").seed)
    assert len(seeds) == 5


def test_rule_03_record_says_what_was_durable_when_it_was_written(notes):
    """Two of one group share a sync, so the first is not known durable when the second is written."""
    notes.store.commit([upsert(b=2), upsert(c=3)])
    raw = notes.segment(1).read_bytes()
    found = [
        (r.sequence, r.previous, r.synced) for r in iterate_records(BytesIO(raw), decode_header(raw, "").seed)
    ]
    assert found == [(1, 0, 0), (2, 1, 1), (3, 2, 1)]


def test_rule_03_batch_is_one_record_and_so_atomic(notes):
    """A batch cut anywhere in the log is there as a whole or not at all."""
    before = notes.segment(1).stat().st_size
    notes.put(b=2, c=3, d=4)
    after = notes.segment(1).stat().st_size
    for length in range(before, after + 1, 7):
        copy = notes.copied_with_log_of(length)
        assert copy.points() in ({"a": 1}, {"a": 1, "b": 2, "c": 3, "d": 4})
        assert (len(copy.points()) == 4) == (length == after)
        copy.close()


def test_rule_03_record_holds_effects(notes):
    """The ids that were made, the bytes as stored: a replay gives the same points, not new ones."""
    made = notes.store.commit([upsert(b=2)])[0]
    copy = notes.copied()
    assert copy.points() == notes.points()
    assert copy.store.view.labels().tolist()[-1] == made.added.tolist()[0]
    copy.close()


# Rule 4: acknowledgement ---------------------------------------------------------------------------------


def test_rule_04_acknowledge_only_after_fdatasync_returned(notes, disk):
    assert notes.put(b=2).existed == [False]
    name = notes.segment(1).name
    assert disk.steps == [f"write {name}", f"data_sync {name}"]


def test_rule_04_write_is_not_visible_before_its_sync(notes, disk, monkeypatch):
    seen = []
    real = files.data_sync

    def sync(fd):
        seen.append(notes.points())
        real(fd)

    monkeypatch.setattr(files, "data_sync", sync)
    notes.put(b=2)
    assert seen == [{"a": 1}]
    assert notes.points() == {"a": 1, "b": 2}


def test_rule_04_first_write_has_data_files_then_manifest_then_segment(tmp_path, disk):
    notes = StoreOnDisk(tmp_path / "data")
    disk.clear()
    notes.put(a=1)
    order = [
        disk.first("rename vectors.bin.tmp -> vectors.bin"), disk.last("rename points.db.tmp -> points.db"),
        disk.first("write metadata.json.tmp"), disk.first("rename metadata.json.tmp -> metadata.json"),
        disk.first("create *.log.tmp"), disk.first("rename *.log.tmp -> *"), disk.first("data_sync *.log"),
    ]  # fmt: skip
    assert order == sorted(order)
    assert disk.steps.index("sync notes/", order[3]) < order[4], "the manifest's name is durable first"
    notes.close()


# Rule 5: a failed sync -----------------------------------------------------------------------------------


def test_rule_05_failed_sync_leaves_the_outcome_unknown_and_ends_writing(notes, disk):
    disk.fail("data_sync *.log")
    with pytest.raises(OutcomeUnknown):
        notes.put(b=2)
    for write in (lambda: notes.put(c=3), lambda: notes.delete("a")):
        with pytest.raises(ReadOnly):
            write()
    assert notes.store.broken is not None
    assert notes.points() == {"a": 1}
    notes.close()


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR], ids=errno.errorcode.get
)
def test_rule_05_failed_sync_is_never_tried_again_whatever_the_errno(notes, disk, number):
    disk.clear()
    disk.fail("data_sync *.log", number)
    with pytest.raises(OutcomeUnknown):
        notes.put(b=2)
    for _ in range(2):
        with pytest.raises(ReadOnly):
            notes.put(c=3)
        with pytest.raises(ReadOnly):
            notes.store.checkpoint()
    assert disk.matching("*data_sync *", "sync *", "write *") == [
        f"write {notes.segment(1).name}",
        f"FAILED data_sync {notes.segment(1).name}",
    ]


def test_rule_05_new_process_comes_back_by_replay(notes, disk):
    """In a new process the log's content counts: the write whose outcome was unknown may be there."""
    disk.fail("data_sync *.log")
    with pytest.raises(OutcomeUnknown):
        notes.put(b=2)
    copy = notes.copied()
    assert copy.points() == {"a": 1, "b": 2}
    copy.put(c=3)
    assert copy.points() == {"a": 1, "b": 2, "c": 3}
    copy.close()


def test_rule_05_failed_sync_of_a_segments_name_ends_writing(notes, disk):
    disk.fail(f"sync {notes.manifest.collection_uid}/")
    with pytest.raises(ReadOnly, match="could not be made durable"):
        notes.store.checkpoint()
    with pytest.raises(ReadOnly):
        notes.put(b=2)
    assert notes.points() == {"a": 1}


@pytest.mark.parametrize(
    "step", ["create *.log.tmp", "write *.log.tmp", "sync *.log.tmp", "rename *.log.tmp -> *"]
)
def test_rule_05_unnamed_segment_may_be_tried_again(notes, disk, step):
    """Only a temporary file that was not renamed may be thrown away; the log goes on where it was."""
    disk.fail(step)
    with pytest.raises(StorageError):
        notes.store.checkpoint()
    assert notes.store.broken is None
    notes.put(b=2)
    notes.checkpoint()
    copy = notes.copied()
    assert copy.points() == {"a": 1, "b": 2}
    copy.close()


# Rule 7: recovery ----------------------------------------------------------------------------------------


def test_rule_07_recovery_carries_what_it_found_into_a_segment_of_its_own(notes):
    """The page cache may have shown what the disk does not have."""
    copy = notes.copied()
    found, carried = (decode_header(s.segment(1).read_bytes(), "") for s in (notes, copy))
    assert found.seed != carried.seed
    assert notes.segments() == copy.segments() == [1]
    copy.close()


def test_rule_07_recovery_never_appends_to_a_found_segment(notes, disk):
    copy = notes.copied()
    copy.close()
    disk.clear()
    again = StoreOnDisk(copy.data)
    again.put(b=2)
    name = copy.segment(1).name
    assert disk.matching("create *.log*", "truncate *") == [f"create {name}.tmp"]
    assert disk.first(f"rename {name}.tmp -> {name}") < disk.first(f"write {name}")
    again.close()


def test_rule_07_carried_records_are_synced_before_the_new_segment_is_named(notes, disk):
    """One sync covers all carried records."""
    notes.put(b=2)
    notes.delete("a")
    disk.clear()
    copy = notes.copied()
    name = copy.segment(1).name
    assert disk.matching(f"* {name}*") == [
        f"create {name}.tmp", f"write {name}.tmp", f"sync {name}.tmp", f"rename {name}.tmp -> {name}",
    ]  # fmt: skip
    verdict = select_records(read_log(copy.log_folder), 0)
    assert [(record.sequence, record.previous) for record in records_of(verdict.extents)] == [
        (1, 0),
        (2, 1),
        (3, 2),
    ]
    copy.close()


def test_rule_07_older_segments_go_only_after_the_new_one_is_durable(notes, disk):
    """Records in several segments come to stand in one."""
    disk.fail("write vectors.bin")
    with pytest.raises(StorageError):
        notes.store.checkpoint()
    notes.put(b=2)
    assert notes.segments() == [1, 2]
    disk.clear()
    copy = notes.copied()
    assert copy.segments() == [1]
    folder = f"sync {copy.manifest.collection_uid}/"
    assert disk.first("rename *.log.tmp -> *") < disk.first(folder) < disk.first("unlink *.log")
    assert copy.points() == {"a": 1, "b": 2}
    copy.close()


def test_rule_07_replay_is_idempotent(notes):
    notes.put(b=2, a=3)
    notes.delete("b")
    notes.put(c=4)
    first = notes.copied("first")
    second = first.copied("second")
    third = second.copied("third")
    assert first.points() == second.points() == third.points() == notes.points() == {"a": 3, "c": 4}
    assert third.store.last_sequence == notes.store.last_sequence
    for store in (first, second, third):
        store.close()


def test_rule_07_replay_interrupted_at_any_step_changes_nothing(notes, disk):
    notes.put(b=2)
    notes.checkpoint()
    notes.put(a=3)
    notes.delete("b")
    disk.clear()
    whole = notes.copied("whole")
    steps = len(disk.steps)
    whole.close()
    assert steps > 3
    for stop in range(steps):
        disk.clear()
        disk.stop_before = stop
        with pytest.raises(PowerOff):
            notes.copied("cut")
        disk.stop_before = None
        again = StoreOnDisk(notes.data.with_name("data-cut"), notes.manifest)
        assert again.points() == {"a": 3}, disk.steps
        again.close()


def test_rule_07_sequences_go_on_after_the_last_one(notes):
    copy = notes.copied()
    copy.put(b=2)
    copy.delete("a")
    assert copy.store.last_sequence == 3
    copy.close()


def test_rule_07_records_that_found_no_room_are_carried_over_by_the_next_checkpoint(notes, disk):
    """A segment after them alone would call them durable, though only the page cache may have them."""
    disk.fail("write *.log.tmp", errno.ENOSPC)
    copy = notes.copied()
    assert any("finds room" in warning for warning in copy.opened.warnings)
    disk.clear()
    copy.checkpoint()
    [carried, following] = disk.matching("rename *.log.tmp -> *")
    assert carried.endswith(f"{1:020d}.log")
    assert following.endswith(f"{2:020d}.log")
    copy.close()


def test_torn_tail_is_set_aside_before_its_segment_goes(notes, disk):
    with notes.segment(1).open("ab") as segment:
        segment.write(b"half a record")
    disk.clear()
    copy = notes.copied()
    [kept] = copy.layout.quarantine.glob("notes-*/*.torn-at-*")
    assert kept.read_bytes() == b"half a record"
    assert disk.first(f"rename {kept.name}.tmp -> {kept.name}") < disk.first("rename *.log.tmp -> *")
    assert copy.points() == {"a": 1}
    copy.close()


def test_torn_tail_that_finds_no_room_is_no_obstacle(notes, disk):
    with notes.segment(1).open("ab") as segment:
        segment.write(b"half a record")
    disk.fail("write *.torn-at-*", errno.ENOSPC)
    copy = notes.copied()
    assert copy.points() == {"a": 1}
    assert any("could not be set aside" in warning for warning in copy.opened.warnings)
    copy.close()


def test_torn_tail_behind_applied_records_is_set_aside_once(notes):
    notes.checkpoint()
    with notes.segment(2).open("ab") as segment:
        segment.write(b"half a record")
    first = notes.copied()
    second = first.reopened()
    third = second.reopened()
    assert len(list(third.layout.quarantine.glob("notes-*/*.torn-at-*"))) == 1
    third.close()


def test_damage_in_the_log_is_told_with_file_and_offset(notes):
    notes.put(b=2)
    notes.put(c=3)
    raw = bytearray(notes.segment(1).read_bytes())
    raw[128 + 50] ^= 1
    notes.segment(1).write_bytes(raw)
    with pytest.raises(DamagedFile, match=r"0001\.log at byte 128: records after sequence 0"):
        notes.copied()


def test_lost_segment_is_damage_not_an_older_collection(notes):
    notes.put(b=2)
    notes.checkpoint()
    notes.put(c=3)
    table = notes.folder / "points.db"
    old = table.read_bytes()
    notes.checkpoint()
    notes.close()
    table.write_bytes(old)
    with pytest.raises(DamagedFile, match="the log begins at sequence 4, but only 2 is applied"):
        StoreOnDisk(notes.data)


def test_emptied_log_folder_loses_nothing_that_was_checkpointed_and_is_reported(notes):
    notes.checkpoint()
    notes.put(b=2)
    notes.close()
    for path in notes.log_folder.iterdir():
        path.unlink()
    notes.log_folder.rmdir()
    again = StoreOnDisk(notes.data)
    assert again.points() == {"a": 1}
    assert again.opened.wal_missing
    again.put(c=3)
    assert again.points() == {"a": 1, "c": 3}
    again.close()


def test_segment_of_another_incarnation_is_damage(notes, tmp_path):
    other = StoreOnDisk(tmp_path / "other")
    other.put(x=9)
    other.close()
    notes.close()
    notes.segment(1).write_bytes(other.segment(1).read_bytes())
    with pytest.raises(DamagedFile, match="belongs to incarnation"):
        StoreOnDisk(notes.data)


# The full disk (rule 15) ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bytes_first", [0, 1, 39, 40, 60, 100])
def test_rule_15_partial_append_is_cut_and_synced_before_the_next_one(notes, disk, bytes_first):
    disk.clear()
    size = notes.segment(1).stat().st_size
    disk.fail("write *.log", errno.ENOSPC, bytes_first=bytes_first)
    with pytest.raises(DiskFull):
        notes.store.commit([upsert(b=2), upsert(c=3)])
    assert notes.segment(1).stat().st_size == size
    name = notes.segment(1).name
    assert disk.steps[-2:] == [f"truncate {name}", f"data_sync {name}"]
    assert notes.points() == {"a": 1}
    notes.put(d=4)
    copy = notes.copied()
    assert copy.points() == {"a": 1, "d": 4}
    copy.close()


@pytest.mark.parametrize("step", ["truncate *.log", "data_sync *.log"])
def test_rule_15_partial_append_that_cannot_be_cut_ends_writing(notes, disk, step):
    """The outcome is unknown: a whole record of the group may be in the log, and count after a restart."""
    disk.fail("write *.log", errno.ENOSPC, bytes_first=100)
    disk.fail(step)
    with pytest.raises(OutcomeUnknown):
        notes.store.commit([upsert(b=2), upsert(c=3)])
    with pytest.raises(ReadOnly):
        notes.put(d=4)


def test_removal_of_found_segments_that_could_not_begin_is_retried_by_an_append(tmp_path, monkeypatch):
    """The retry comes before the append."""
    notes = StoreOnDisk(tmp_path / "data")
    notes.put(a=1)
    notes.close()
    found = notes.segments()
    opened_folder, opened = files.opened_folder, []

    def without_descriptors(folder):
        opened.append(folder)
        if len(opened) > 1:  # the first one is for the name of the new segment
            raise OSError(errno.EMFILE, "Too many open files")
        return opened_folder(folder)

    log = Log(notes.log_folder, notes.store.identity, applied=200)
    with monkeypatch.context() as patch:
        patch.setattr(files, "opened_folder", without_descriptors)
        for _ in range(2):
            with pytest.raises(StorageError, match="Too many open files"):
                log.append([(DELETE, b"x")])
        assert notes.segments() == [*found, 201]
    log.append([(DELETE, b"x")])
    assert notes.segments() == [201]
    assert log.broken is None
    log.close()


def test_removal_of_found_segments_that_failed_is_durable_before_an_append(notes, disk, monkeypatch):
    """The disk did what it called an error: there is nothing left to remove the second time."""
    log = Log(notes.log_folder, notes.store.identity, applied=200)
    remove = files.remove

    def remove_and_fail(path):
        remove(path)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files, "remove", remove_and_fail)
        with pytest.raises(StorageError, match="Input/output error"):
            log.append([(DELETE, b"x")])
    assert notes.segments() == [201]
    disk.clear()
    log.append([(DELETE, b"x")])
    assert disk.steps[0] == f"sync {notes.log_folder.name}/"
    log.close()
