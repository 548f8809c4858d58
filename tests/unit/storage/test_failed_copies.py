"""A backup, restore, import or repair that fails leaves nothing, and frees its room at once."""

import dataclasses
import errno
import itertools
import re
import shutil

import pytest

from tests.unit.checked_volume import flip
from tests.unit.recorded_disk import RecordedDisk
from tests.unit.running_engine import RunningEngine, wait_until
from tests.unit.store_on_disk import MANIFEST, StoreOnDisk
from vecstow_engine.doctor.repair.collection import repair_collection
from vecstow_engine.importers import import_orphan
from vecstow_engine.model.errors import Busy, DiskFull, OutcomeUnknown, VecstowError
from vecstow_engine.storage import files
from vecstow_engine.storage.backup import make_backup, restore_backup
from vecstow_engine.storage.files import interruptible
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import read_manifest
from vecstow_engine.storage.staging import clear_away, clear_place, clear_refused

ERRNOS = errno.ENOSPC, errno.EIO, errno.EMFILE


def back_up(layout):
    make_backup(layout, read_manifest(layout.collection("notes")))


def restore(layout):
    restore_backup(layout, layout.backups / "whole", "copy")


def import_copy(layout):
    wanted = dataclasses.replace(MANIFEST, name="copy")
    import_orphan(layout, layout.backups / "whole" / "notes", wanted)


def import_in_place(layout):
    (layout.collection("notes") / "metadata.json").unlink()
    import_orphan(layout, layout.collection("notes"), MANIFEST)


def repair(layout):
    flip(layout.collection("notes") / "vectors.bin", 4096)
    repair_collection(layout, "notes")


OPERATIONS = {f.__name__: f for f in (back_up, restore, import_copy, import_in_place, repair)}


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """`notes` with two points in its files and one in its log, and a backup of it."""
    notes = StoreOnDisk(tmp_path_factory.mktemp("failed") / "data")
    notes.put(a=1, b=2)
    notes.checkpoint()
    notes.put(c=3)
    notes.close()
    make_backup(notes.layout, notes.manifest).rename(notes.layout.backups / "whole")
    return notes.data


def copied(volume, name):
    target = volume.with_name(name)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(volume, target)
    return Layout(target)


def names(layout):
    """Every path but those of locks, SQLite's own files, and folders that hold nothing."""
    found = {str(path.relative_to(layout.data)) for path in layout.data.rglob("*") if path.is_file()}
    return {name for name in found if not name.endswith((".lock", "metadata.json", "-wal", "-shm"))}


def patterns(steps):
    """The steps, once each, for the names that another run makes."""
    named = (re.sub(r"[0-9a-f]{32}|[0-9]{8}T[0-9]{6}Z", "*", step) for step in steps)
    return list(dict.fromkeys(step for step in named if not step.startswith("durable")))


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_that_fails_at_any_step_leaves_nothing(volume, name, monkeypatch):
    operation = OPERATIONS[name]
    disk = RecordedDisk(monkeypatch)
    operation(copied(volume, "whole"))
    failed = 0
    for number, step in enumerate(patterns(disk.steps)):
        layout = copied(volume, "failing")
        before = names(layout)
        disk.faults.clear()
        disk.fail(step, ERRNOS[number % len(ERRNOS)])
        try:
            operation(layout)
        except (OutcomeUnknown, files.SyncFailed):
            failed += 1  # what has its name is not removed: the next start tells
            assert name == "import_in_place" or not list(layout.data.rglob("*.tmp")), step
        except (VecstowError, OSError):
            failed += 1
            clear_refused(layout.data)
            assert names(layout) == before, step
    assert failed > 10


@pytest.mark.parametrize("operation", [back_up, restore, import_copy, repair])
def test_operation_that_an_exception_ends_leaves_nothing(volume, operation, monkeypatch):
    """Not only errors of the disk."""
    layout = copied(volume, "failing")
    before = names(layout)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(files, "write_at", fail)
    with pytest.raises(MemoryError):
        operation(layout)
    assert names(layout) == before


@pytest.mark.parametrize("operation", [back_up, restore, import_copy])
def test_operation_that_is_interrupted_at_any_step_leaves_nothing(volume, operation):
    layout = copied(volume, "interrupted")
    before = names(layout)
    for allowed in itertools.count():
        checks = iter(range(allowed))

        def check(checks=checks):
            if next(checks, None) is None:
                raise Busy("the engine is stopping")

        try:
            with interruptible(check):
                operation(layout)
            break
        except Busy:
            assert names(layout) == before, allowed
    assert allowed > 3


@pytest.mark.parametrize("operation", [back_up, restore, import_copy, repair])
def test_operation_that_does_not_fit_is_refused_before_it_writes(volume, operation, monkeypatch):
    layout = copied(volume, "failing")
    before = names(layout)
    monkeypatch.setattr("vecstow_engine.storage.volume.SPARE_BYTES", 1 << 60)
    with pytest.raises(DiskFull, match="are free, and nothing was changed"):
        operation(layout)
    assert names(layout) == before


def test_what_the_disk_refuses_to_remove_is_removed_later(volume, monkeypatch):
    layout = copied(volume, "failing")
    before = names(layout)
    disk = RecordedDisk(monkeypatch)
    disk.fail("create points.db", errno.ENOSPC)
    disk.fail("unlink *", errno.EIO)
    with pytest.raises(OSError, match="No space"):
        back_up(layout)
    assert names(layout) > before
    clear_refused(layout.data)
    assert names(layout) == before


def test_what_is_made_in_the_place_of_a_leftover_is_not_removed_later(tmp_path, monkeypatch):
    staging = tmp_path / "staging"
    staging.mkdir()

    def refuse(folder):
        raise OSError(errno.EIO, "the disk refuses")

    with monkeypatch.context() as broken:
        broken.setattr(files, "remove_tree", refuse)
        clear_away(staging)
    clear_place(staging)
    staging.mkdir()
    clear_refused(tmp_path)
    assert staging.is_dir()


async def test_engine_removes_what_a_failed_backup_left_by_itself(tmp_path, disk):
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(a=1)
        disk.fail("create points.db", errno.ENOSPC)
        disk.fail("unlink *", errno.EIO)
        with pytest.raises(OSError, match="No space"):
            engine.backup("notes")
        wait_until(lambda: not list(engine.layout.backups.iterdir()))
        await engine.put(b=2)
        assert engine.volume is not None
        assert not engine.volume.full
