"""A copy says what it lacks: in the answer of the route, in the state and in the command's report."""

import shutil
from dataclasses import replace

import pytest

from tests.unit.asgi_client import AsgiClient
from tests.unit.checked_volume import flip
from tests.unit.dvecdb_records import make, write
from tests.unit.running_engine import RunningEngine
from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.api.server import create_app
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.storage.backup import restore_on_volume

SHAPE = {
    "dimension": 4,
    "distance_metric": DistanceMetric.EUCLIDEAN,
    "vector_type": VectorType.FLOAT32,
}


@pytest.fixture
async def engine(tmp_path):
    """`notes` has a in its files, and b in its log alone."""
    with RunningEngine(tmp_path / "data") as running:
        running.declare()
        await running.put(a=1)
        running.checkpoint()
        await running.put(b=2)
        yield running


def backup_of(engine):
    return engine.settings.data / engine.backup("notes")


def without_log(folder):
    shutil.rmtree(folder / "wal")


async def ask(engine, path, **document):
    answer = await AsgiClient(create_app(engine)).call("POST", f"/collections/{path}", document)
    assert answer.status == 200, answer.body
    return answer.data["message"]


async def ask_import(engine, path, name):
    shape = {"dimension": 4, "distance_metric": "Euclidean", "vector_type": "Float32"}
    return await ask(engine, "import", orphaned_path=str(path), collection_name=name, **shape)


def import_folder(engine, path, name):
    engine.import_orphan(orphaned_path=str(path), collection_name=name, **SHAPE)
    return engine.describe(name)["reason"]


# The log that belongs to a copy --------------------------------------------------------------------------


async def test_import_of_a_backup_has_its_own_log_and_nothing_later(engine):
    backup = backup_of(engine)
    await engine.put(c=3)
    assert import_folder(engine, backup / "notes", "copy") is None
    assert await engine.values("copy", "a", "b", "c") == [1, 2, None]


async def test_import_of_another_volume_reads_the_log_there(engine, tmp_path):
    shutil.copytree(engine.settings.data, tmp_path / "other")
    await engine.put(c=3)
    data = tmp_path / "second"
    with RunningEngine(data) as second:
        second.catalog._settings = replace(second.settings, import_root=tmp_path / "other")
        assert import_folder(second, tmp_path / "other" / "notes", "notes") is None
        assert await second.values("notes", "a", "b", "c") == [1, 2, None]


async def test_import_of_a_moved_folder_reads_its_log_in_the_old_place(tmp_path):
    """The folder was moved within the volume, without its log."""
    notes = StoreOnDisk(tmp_path / "data")
    notes.put(a=1)
    notes.close()
    (tmp_path / "data" / "lost").mkdir()
    notes.folder.rename(tmp_path / "data" / "lost" / "orphan")
    with RunningEngine(tmp_path / "data") as engine:
        assert import_folder(engine, "lost/orphan", "found") is None
        assert await engine.values("found", "a") == [1]


async def test_import_of_a_dropped_collection_reads_its_log(engine):
    engine.drop("notes")
    [dropped] = engine.catalog.deleted()
    assert import_folder(engine, dropped["path"], "again") is None
    assert await engine.values("again", "a", "b") == [1, 2]


async def test_stale_copy_of_a_served_folder_does_not_take_the_log_that_goes_on(engine):
    """The log of the original has the later writes; a remark says that the copy has no log."""
    shutil.copytree(engine.layout.collection("notes"), engine.settings.data / "stale")
    await engine.put(c=3)
    assert "wal_missing" in import_folder(engine, "stale", "copy")
    assert await engine.values("copy", "a", "b", "c") == [1, None, None]


# What is missing is reported -----------------------------------------------------------------------------


async def test_restore_of_a_backup_without_its_log_says_so(engine):
    backup = backup_of(engine)
    without_log(backup)
    assert "wal_missing" in await ask(engine, "restore", backup_path=str(backup), new_name="copy")
    assert "wal_missing" in engine.describe("copy")["reason"]
    assert await engine.values("copy", "a", "b") == [1, None]


async def test_import_of_a_folder_without_its_log_says_so(engine):
    backup = backup_of(engine)
    without_log(backup)
    assert "wal_missing" in await ask_import(engine, backup / "notes", "copy")
    assert "wal_missing" in engine.describe("copy")["reason"]


async def test_restore_of_a_dropped_collection_whose_log_is_gone_says_so(engine):
    uid = engine.collection("notes").manifest.collection_uid
    engine.drop("notes")
    shutil.rmtree(engine.layout.log(uid))
    [dropped] = engine.catalog.deleted()
    assert "wal_missing" in await ask(engine, "restore", backup_path=dropped["path"])
    assert "wal_missing" in engine.describe("notes")["reason"]


@pytest.mark.parametrize("dropped", [False, True], ids=["a backup", "a dropped collection"])
async def test_restore_on_a_stopped_volume_says_that_the_log_is_gone(engine, dropped):
    uid = engine.collection("notes").manifest.collection_uid
    path = backup_of(engine)
    without_log(path)
    engine.drop("notes")
    shutil.rmtree(engine.layout.log(uid))
    if dropped:
        path = engine.settings.data / engine.catalog.deleted()[0]["path"]
    engine.stop()
    settled = restore_on_volume(engine.settings.data, str(path), "again")
    assert [remark for remark in settled.remarks if "wal_missing" in remark]


async def test_restore_of_a_copy_that_is_whole_has_nothing_to_say(engine):
    assert await ask(engine, "restore", backup_path=str(backup_of(engine)), new_name="copy") == "restored"
    assert engine.describe("copy")["reason"] is None


async def test_restore_says_how_many_points_are_withheld(engine):
    backup = backup_of(engine)
    flip(backup / "notes" / "vectors.bin", 4096)
    assert "1 point is withheld" in await ask(engine, "restore", backup_path=str(backup), new_name="copy")
    assert engine.describe("copy")["reason"].count("1 point is withheld") == 1


async def test_restore_says_that_a_torn_tail_was_left_out(engine):
    backup = backup_of(engine)
    [segment] = backup.glob("wal/*/*.log")
    segment.write_bytes(segment.read_bytes()[:-1])
    assert "torn tail" in await ask(engine, "restore", backup_path=str(backup), new_name="copy")
    assert "torn tail" in engine.describe("copy")["reason"]


async def test_import_of_foreign_files_says_how_many_records_it_lacks(engine):
    folder = engine.settings.data / "foreign"
    folder.mkdir()
    records = make(3, 4)
    offsets = write(folder / "vectors.bin", records, "0.2.1")
    raw = bytearray((folder / "vectors.bin").read_bytes())
    raw[offsets[1] : offsets[1] + 8] = b"\xff" * 8
    (folder / "vectors.bin").write_bytes(raw)
    message = await ask_import(engine, "foreign", "copy")
    assert "not imported" in message
    assert "not imported" in engine.describe("copy")["reason"]
