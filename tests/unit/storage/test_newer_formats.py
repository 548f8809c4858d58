"""A file that a later release wrote is refused before anything is written, whatever is asked."""

import asyncio
import contextlib
import json
import shutil
import sqlite3

import pytest
from crc32c import crc32c

from tests.unit.running_engine import RunningEngine
from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.doctor.check import check_volume
from vecstow_engine.doctor.repair import repair_volume
from vecstow_engine.model.errors import VecstowError
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.storage.backup import make_backup, restore_on_volume
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.trash import move_to_deleted

SHAPE = {
    "dimension": 4,
    "distance_metric": DistanceMetric.EUCLIDEAN,
    "vector_type": VectorType.FLOAT32,
}
OWN_FILES = ("LOCK", "VOLUME", ".manifests.lock")
"""The files that each start writes."""


def raise_version(path, end):
    """Set the version of a header of ours, whose checksum stands at `end`."""
    raw = bytearray(path.read_bytes())
    raw[8:12] = (99).to_bytes(4, "little")
    raw[end : end + 4] = crc32c(bytes(raw[:end])).to_bytes(4, "little")
    path.write_bytes(raw)


def newer_manifest(folder, _log):
    document = json.loads((folder / "metadata.json").read_bytes())
    (folder / "metadata.json").write_text(json.dumps(document | {"schema_version": 99}))


def newer_rows(folder, _log):
    raise_version(folder / "vectors.bin", 4092)


def newer_table(folder, _log):
    with contextlib.closing(sqlite3.connect(folder / "points.db")) as connection, connection:
        connection.execute("UPDATE meta SET version = 99")
    for beside in folder.glob("points.db-*"):
        beside.unlink()


def newer_log(_folder, log):
    raise_version(max(log.glob("*.log")), 124)


FILES = {"manifest": newer_manifest, "rows": newer_rows, "table": newer_table, "log": newer_log}


@pytest.fixture(params=FILES)
def bump(request):
    return FILES[request.param]


@pytest.fixture
def volume(tmp_path):
    """`notes` with a point in its files and one in its log."""
    notes = StoreOnDisk(tmp_path / "data")
    notes.put(a=1)
    notes.checkpoint()
    notes.put(b=2)
    notes.close()
    return notes


def tree(data):
    return {
        str(path.relative_to(data)): path.read_bytes()
        for path in data.rglob("*")
        if path.is_file() and path.name not in OWN_FILES
    }


def started(data, act):
    with RunningEngine(data) as engine, contextlib.suppress(VecstowError):
        act(engine)


def upsert(engine):
    asyncio.run(engine.put(c=3))


SERVED = {
    "nothing": lambda engine: None,
    "a write": upsert,
    "a compaction": lambda engine: engine.compact("notes"),
    "a backup": lambda engine: engine.backup("notes"),
    "a check": lambda engine: engine.check("notes"),
    "a repair": lambda engine: engine.repair("notes"),
}


@pytest.mark.parametrize("act", [pytest.param(act, id=name) for name, act in SERVED.items()])
def test_engine_leaves_a_collection_of_a_later_release_as_it_is(volume, bump, act):
    bump(volume.folder, volume.log_folder)
    before = tree(volume.data)
    started(volume.data, act)
    assert tree(volume.data) == before


@pytest.mark.parametrize("bump", [newer_table, newer_log])
def test_start_leaves_what_sqlite_has_yet_to_move_as_it_is(volume, bump, tmp_path):
    """A crash left frames in `points.db-wal`, which a start makes durable."""
    bump(volume.folder, volume.log_folder)
    with contextlib.closing(sqlite3.connect(volume.folder / "points.db")) as connection:
        connection.execute("UPDATE meta SET checkpoints = checkpoints + 1")
        connection.commit()
        shutil.copytree(volume.data, tmp_path / "crashed")
    before = tree(tmp_path / "crashed")
    assert before["notes/points.db-wal"]
    started(tmp_path / "crashed", lambda engine: None)
    assert tree(tmp_path / "crashed") == before


@pytest.mark.parametrize("command", [check_volume, lambda data: repair_volume(data, ["notes"])])
def test_commands_on_a_stopped_volume_leave_it_as_it_is(volume, bump, command):
    bump(volume.folder, volume.log_folder)
    before = tree(volume.data)
    command(volume.data)
    assert tree(volume.data) == before


def test_drop_leaves_a_manifest_of_a_later_release_as_it_is(volume):
    newer_manifest(volume.folder, volume.log_folder)
    before = tree(volume.data)
    started(volume.data, lambda engine: engine.drop("notes"))
    assert tree(volume.data) == before


@pytest.mark.parametrize("place", ["copy", "in place"])
def test_import_leaves_its_source_as_it_is(volume, bump, place):
    bump(volume.folder, volume.log_folder)
    shutil.copytree(volume.data, volume.data / ".backups" / "whole")
    if place == "in place":
        shutil.rmtree(volume.data / ".backups")
        if bump is not newer_manifest:
            (volume.folder / "metadata.json").unlink()
    before = tree(volume.data)
    path, name = (".backups/whole/notes", "copy") if place == "copy" else ("notes", "notes")
    started(
        volume.data, lambda engine: engine.import_orphan(orphaned_path=path, collection_name=name, **SHAPE)
    )
    assert tree(volume.data) == before


@pytest.mark.parametrize("kind", ["backup", "dropped"])
def test_restore_leaves_its_source_as_it_is(volume, bump, kind):
    if kind == "backup":
        path = make_backup(volume.layout, volume.manifest)
        bump(path / "notes", path / "wal" / volume.manifest.collection_uid)
    else:
        path = move_to_deleted(volume.layout, "notes", volume.manifest.collection_uid)
        bump(path, volume.log_folder)
    before = tree(volume.data)
    with pytest.raises(VecstowError):
        restore_on_volume(volume.data, str(path), "again")
    assert tree(volume.data) == before


def test_start_keeps_what_a_later_release_has_staged(volume):
    """Its old folder may be set aside already: it is all that there is."""
    staged = Layout(volume.data).staging / "notes"
    staged.parent.mkdir()
    volume.folder.rename(staged)
    newer_manifest(staged, None)
    before = tree(volume.data)
    started(volume.data, lambda engine: None)
    assert tree(volume.data) == before
