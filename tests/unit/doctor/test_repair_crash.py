"""A repair that is cut off before each of its steps: nothing is lost, and the next one finishes it."""

import errno
import os
import shutil

import pytest

from tests.unit.checked_volume import flip, zero
from tests.unit.damaged_store import DamagedStore, digests, without
from tests.unit.recorded_disk import PowerOff, RecordedDisk
from tests.unit.running_engine import RunningEngine
from vecstow_engine.doctor.repair import RepairOutcome, repair_volume, staging
from vecstow_engine.model.errors import DiskFull, StorageError


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A lost meta row and a damaged row: everything must be rebuilt."""
    store = DamagedStore(tmp_path_factory.mktemp("crash") / "data")
    flip(store.rows, store.row_offset("p7"))
    zero(store.table, store.root("meta"))
    return store


@pytest.fixture
def store(damaged, tmp_path):
    return copied(damaged, tmp_path / "data")


def copied(store, target):
    copy = object.__new__(DamagedStore)
    copy.__dict__ |= store.__dict__
    shutil.copytree(store.data, target)
    copy.data = target
    copy.log = target / store.log.relative_to(store.data)
    return copy


def steps_of(store):
    """The steps of a whole repair of a copy."""
    with pytest.MonkeyPatch.context() as patch:
        disk = RecordedDisk(patch)
        repair_volume(store.data, ["notes"])
        return disk.steps


def after_the_lock(steps):
    """The numbers of the steps; of those before, only the end of the process would let the lock go."""
    return range(1 + max(n for n, step in enumerate(steps) if "LOCK" in step), len(steps))


def cut_before(store, number):
    with pytest.MonkeyPatch.context() as patch:
        disk = RecordedDisk(patch)
        disk.stop_before = number
        with pytest.raises(PowerOff):
            repair_volume(store.data, ["notes"])


@pytest.mark.slow
def test_killed_before_each_step_it_is_finished_by_the_next_and_nothing_is_gone(damaged, tmp_path):
    original = set(digests(damaged.data).values())
    steps = steps_of(copied(damaged, tmp_path / "whole"))
    assert len(steps) > 30
    for number in after_the_lock(steps):
        store = copied(damaged, tmp_path / f"{number}")
        cut_before(store, number)
        assert original <= set(digests(store.data).values()), steps[number]
        repair_volume(store.data)
        assert store.served() == without(store.points, "p7"), steps[number]
        assert original <= set(digests(store.data).values()), steps[number]
        shutil.rmtree(store.data)


def test_start_after_a_kill_finds_the_damaged_or_the_repaired_collection(damaged, tmp_path):
    """A start after a kill between the two renames gives the place to the repaired folder."""
    steps = steps_of(copied(damaged, tmp_path / "whole"))
    states = []
    for number in [n for n, step in enumerate(steps) if step.startswith(("rename", "sync"))]:
        store = copied(damaged, tmp_path / f"{number}")
        cut_before(store, number)
        with RunningEngine(store.data) as engine:
            states.append(engine.collection("notes").state.value)
        shutil.rmtree(store.data)
    repaired = states.index("ready")
    assert set(states[:repaired]) == {"quarantined"}
    assert set(states[repaired:]) == {"ready"}


def test_everything_is_durable_before_the_folders_are_exchanged(store):
    with pytest.MonkeyPatch.context() as patch:
        disk = RecordedDisk(patch)
        repair_volume(store.data, ["notes"])
    moved, placed = (i for i, step in enumerate(disk.steps) if step == "rename notes -> notes")
    before = disk.steps[:moved]
    for step in ("sync vectors.bin", "durable points.db", "sync metadata.json.tmp", "sync lost.jsonl.tmp"):
        assert step in before
    assert before[-1].startswith("sync ")
    assert all(step.startswith("sync ") for step in disk.steps[moved + 1 : placed])


@pytest.mark.parametrize("pattern", ["write *", "sync *", "rename *", "create *"])
def test_failing_disk_leaves_the_damaged_collection_as_it_was_or_the_repaired_one(store, pattern):
    original = set(digests(store.data).values())
    with pytest.MonkeyPatch.context() as patch:
        disk = RecordedDisk(patch)
        disk.fail(pattern, errno.EIO, times=1000)
        with pytest.raises((StorageError, OSError)):
            repair_volume(store.data, ["notes"])
    assert original <= set(digests(store.data).values())
    store.repair()
    assert store.served() == without(store.points, "p7")


def test_full_disk_is_told_before_anything_was_changed(store, monkeypatch):
    before = digests(store.data)
    real = os.statvfs
    monkeypatch.setattr("os.statvfs", lambda path: full(real(path)))
    with pytest.raises(DiskFull, match="nothing was changed"):
        repair_volume(store.data, ["notes"])
    assert digests(store.data) == before


def full(found):
    return os.statvfs_result([*found[:4], 10, *found[5:]])


def test_what_was_written_wrongly_does_not_take_its_place(store, monkeypatch):
    """It is read once more before the damaged collection is moved."""
    real = staging.RowsFile.write

    def write(self, slots, rows):
        rows = rows.copy()
        rows[3] ^= 1
        real(self, slots, rows)

    before = digests(store.data)
    with monkeypatch.context() as patch:
        patch.setattr(staging.RowsFile, "write", write)
        with pytest.raises(StorageError, match="does not pass its check"):
            repair_volume(store.data, ["notes"])
    assert digests(store.data) == before


def test_disk_that_fills_up_leaves_nothing_half_made(store):
    before = digests(store.data)
    with pytest.MonkeyPatch.context() as patch:
        RecordedDisk(patch).fail("write vectors.bin", errno.ENOSPC, times=10)
        with pytest.raises(DiskFull):
            repair_volume(store.data, ["notes"])
    assert digests(store.data) == before
    assert store.repair().outcome is RepairOutcome.REPAIRED
