"""Drops, backups, restores, imports: a delete is not a loss, a copy is whole or says what is missing."""

import dataclasses
import json
import shutil
import threading

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.unit.dvecdb_records import make, unpack, write
from tests.unit.recorded_disk import PowerOff
from tests.unit.running_engine import RunningEngine
from tests.unit.store_on_disk import MANIFEST, StoreOnDisk, upsert
from vecstow_engine.model.errors import Conflict, DamagedFile, InvalidInput, NotFound
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.points import PointBatch
from vecstow_engine.storage import backup, files, trash
from vecstow_engine.storage.backup import make_backup, path_below
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.log.replay import segment_paths
from vecstow_engine.storage.manifests import read_manifest, write_manifest


@pytest.fixture
async def engine(tmp_path):
    """`notes` has a in its files, and b in its log alone."""
    with RunningEngine(tmp_path / "data") as running:
        running.declare()
        await running.put(a=1)
        running.checkpoint()
        await running.put(b=2)
        yield running


SHAPE = {
    "dimension": 4,
    "distance_metric": DistanceMetric.EUCLIDEAN,
    "vector_type": VectorType.FLOAT32,
}


# Drops ---------------------------------------------------------------------------------------------------


async def test_drop_is_one_rename_and_a_sync_of_both_parents(engine, disk):
    engine.drop("notes")
    marked = disk.first("rename metadata.json.tmp*")
    [moved] = disk.matching("rename notes -> *")
    at = disk.steps.index(moved)
    assert marked < at
    assert disk.steps[at + 1 : at + 3] == ["sync .deleted/", "sync data/"]


async def test_dropped_collection_keeps_its_log_until_the_purge(engine):
    uid = engine.collection("notes").manifest.collection_uid
    engine.drop("notes")
    assert len(list(engine.layout.log(uid).iterdir())) == 1
    engine.catalog.cleanup(0)
    assert not engine.layout.log(uid).exists()


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000, "\U0001f600" * 64, "a\n"])
def test_a_path_that_no_file_system_holds_is_not_found(tmp_path, name):
    layout = Layout(tmp_path)
    with pytest.raises(NotFound, match="is no folder"):
        path_below(layout, f".deleted/{name}", (layout.deleted,))


async def test_restore_to_a_name_that_is_taken_is_a_conflict(engine):
    engine.drop("notes")
    engine.declare()
    [gone] = engine.catalog.deleted()
    with pytest.raises(Conflict, match="exists") as refused:
        engine.catalog.restore(gone["path"], None)
    assert "new_name" in refused.value.hint
    assert "--new-name" in refused.value.hint
    assert engine.catalog.restore(gone["path"], "old") == "old"


async def test_crash_in_a_restore_leaves_the_collection_to_be_restored_again(engine, disk):
    engine.drop("notes")
    [gone] = engine.catalog.deleted()
    disk.stop_at = "rename notes-* -> notes"
    with pytest.raises(PowerOff):
        engine.catalog.restore(gone["path"], None)
    disk.stop_at = disk.stop_before = None
    with engine.copied() as again:
        assert again.collection_names() == []
        assert again.catalog.restore(again.catalog.deleted()[0]["path"], None) == "notes"
        assert await again.values("notes", "a", "b") == [1, 2]


async def test_crash_between_mark_and_rename_of_a_drop_is_finished_at_the_next_start(engine, disk):
    disk.stop_at = "rename notes -> *"
    with pytest.raises(PowerOff):
        engine.drop("notes")
    disk.stop_at = disk.stop_before = None
    with engine.copied() as again:
        assert again.collection_names() == []
        [gone] = again.catalog.deleted()
        again.catalog.restore(gone["path"], "back")
        assert await again.values("back", "a", "b") == [1, 2]


async def test_purge_does_not_take_the_log_of_a_collection_that_is_being_restored(engine, monkeypatch):
    """The first request is served first."""
    engine.drop("notes")
    [gone] = engine.catalog.deleted()
    real = trash.is_claimed
    restorers = []

    def claimed(layout, uid):
        answer = real(layout, uid)
        restorer = threading.Thread(target=lambda: outcomes.append(attempt()))
        restorer.start()
        restorer.join(0.2)
        restorers.append(restorer)
        return answer

    def attempt():
        try:
            return engine.catalog.restore(gone["path"], None)
        except NotFound:
            return "not found"

    outcomes = []
    monkeypatch.setattr(trash, "is_claimed", claimed)
    engine.catalog.cleanup(0)
    restorers[0].join()
    assert outcomes == ["not found"]
    assert engine.collection_names() == []


async def test_log_of_a_uid_that_a_served_folder_has_survives_a_purge(engine):
    """A folder was copied out of `.deleted/` by hand: what rests there may go, the log may not."""
    engine.drop("notes")
    [gone] = engine.catalog.deleted()
    source = engine.settings.data / gone["path"]
    shutil.copytree(source, engine.layout.collection("notes"))
    write_manifest(
        engine.layout.collection("notes"), dataclasses.replace(read_dropped(source), dropped_at=None)
    )
    engine.refresh({})
    assert engine.catalog.cleanup(0) == ["notes"]
    with engine.copied() as again:
        assert await again.values("notes", "a", "b") == [1, 2]


def read_dropped(folder):
    return backup._read_deleted_manifest(folder)


# Backups -------------------------------------------------------------------------------------------------


async def test_backup_is_a_data_directory_with_everything_acknowledged_before(engine):
    path = engine.settings.data / engine.backup("notes")
    with RunningEngine(path) as opened:
        assert opened.collection_names() == ["notes"]
        assert await opened.values("notes", "a", "b") == [1, 2]


async def test_backup_goes_on_when_sqlite_takes_its_empty_log_away(engine, monkeypatch):
    real = files.copy_file

    def copy_file(source, target):
        if source.name.endswith("-wal"):
            source.unlink()
        real(source, target)

    monkeypatch.setattr(files, "copy_file", copy_file)
    await engine.values("notes", "a")
    path = engine.backup("notes")
    monkeypatch.undo()
    engine.catalog.restore(path, "copy")
    assert await engine.values("copy", "a", "b") == [1, 2]


async def test_hard_links_only_for_what_is_never_written_again(engine, disk):
    disk.fail("unlink *.log")
    with pytest.raises(OSError, match="Input/output"):
        engine.checkpoint()
    await engine.put(c=3)
    disk.clear()
    engine.backup("notes")
    [closed, growing] = sorted(
        path.name for path in segment_paths(engine.collection("notes").store.log.folder)
    )
    assert {step.split()[1] for step in disk.matching("link *")} == {closed}
    assert f"create {growing}" in disk.steps
    assert "create vectors.bin" in disk.steps
    assert "create points.db" in disk.steps


async def test_backup_gets_its_name_when_it_is_whole(engine, disk):
    """A crash leaves something that is no backup, and the next one is not disturbed by it."""
    disk.stop_at = "rename *.tmp -> notes-*"
    with pytest.raises(PowerOff):
        engine.backup("notes")
    disk.stop_at = disk.stop_before = None
    with engine.copied() as again:
        assert [p for p in again.layout.backups.iterdir() if not p.name.endswith(".tmp")] == []
        again.catalog.restore(again.backup("notes"), "copy")
        assert await again.values("copy", "a", "b") == [1, 2]


async def test_backup_that_is_damaged_is_not_restored_and_leaves_nothing_behind(engine):
    path = engine.settings.data / engine.backup("notes")
    raw = bytearray((path / "notes" / "points.db").read_bytes())
    raw[:16] = b"x" * 16
    (path / "notes" / "points.db").unlink()
    (path / "notes" / "points.db").write_bytes(raw)
    with pytest.raises(DamagedFile):
        engine.catalog.restore(str(path), "copy")
    assert engine.collection_names() == ["notes"]
    assert not engine.layout.collection("copy").exists()
    assert list((engine.settings.data / ".staging").iterdir()) == []


CUT = {
    "backup": (
        "create vectors.bin",
        lambda engine, path: make_backup(engine.layout, engine.collection("notes").manifest),
    ),
    "restore": ("rename notes -> copy", lambda engine, path: engine.catalog.restore(path, "copy")),
    "import": ("rename copy-* -> copy", lambda engine, path: import_copy(engine)),
}


@pytest.mark.parametrize("made", CUT)
async def test_what_a_crash_left_half_made_is_removed_at_the_next_start(engine, disk, made):
    path = engine.backup("notes") if made == "restore" else ""
    make_orphan(engine, "orphan")
    disk.stop_at, make = CUT[made]
    with pytest.raises(PowerOff):
        make(engine, path)
    disk.stop_at = disk.stop_before = None
    with engine.copied() as again:
        assert not (again.settings.data / ".staging").exists()
        assert list(again.layout.backups.glob("*.tmp")) == []
        assert "copy" not in again.collection_names()


async def test_import_in_place_that_a_crash_cut_is_finished_at_the_next_start(engine, tmp_path):
    """Between the two renames the old folder is set aside, and the new one has no place yet."""
    make_orphan(engine, "orphan")
    engine.import_orphan(orphaned_path="orphan", collection_name="orphan", **SHAPE)
    again = engine.copied()
    staging = again.settings.data / ".staging"
    staging.mkdir(exist_ok=True)
    (again.settings.data / "orphan").rename(staging / "orphan")
    with again:
        assert await again.values("orphan", "x", "y") == [7, 8]
        assert not staging.exists()


def import_copy(engine):
    engine.import_orphan(orphaned_path="orphan", collection_name="copy", **SHAPE)


@pytest.mark.parametrize(
    "path",
    [
        "../elsewhere",
        "/etc",
        ".backups/../../elsewhere",
        ".",
        "",
        "notes",
        ".backups",
        "nul\0",
        ".backups/link",
    ],
)
def test_path_that_leads_out_of_its_roots_is_refused(tmp_path, path):
    layout = Layout(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir(parents=True)
    (layout.backups / "one").mkdir(parents=True)
    (layout.data / "notes").mkdir()
    (layout.backups / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput):
        path_below(layout, path, (layout.backups,))
    assert path_below(layout, ".backups/one", (layout.backups,)) == layout.backups / "one"
    with pytest.raises(NotFound):
        path_below(layout, ".backups/none", (layout.backups,))


# Imports -------------------------------------------------------------------------------------------------


def make_orphan(engine, name):
    """A folder with the data files of `notes`, and a log of its own, but no manifest."""
    other = StoreOnDisk(engine.settings.data.with_name("other"), dataclasses.replace(MANIFEST, name=name))
    other.put(x=7)
    other.checkpoint()
    other.put(y=8)
    other.close()
    (other.folder / "metadata.json").unlink()
    shutil.copytree(other.folder, engine.layout.collection(name))
    shutil.copytree(other.log_folder, engine.layout.log(other.log_folder.name))
    return engine.layout.collection(name)


async def test_orphan_is_copied_with_what_its_log_holds_and_stays_as_it_is(engine):
    folder = make_orphan(engine, "orphan")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    engine.import_orphan(orphaned_path="orphan", collection_name="found", **SHAPE)
    assert await engine.values("found", "x", "y") == [7, 8]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    await engine.put("found", z=9)
    with engine.copied() as again:
        assert await again.values("found", "x", "y", "z") == [7, 8, 9]


async def test_orphan_is_imported_in_its_place_and_the_files_set_aside(engine):
    make_orphan(engine, "orphan")
    engine.import_orphan(orphaned_path="orphan", collection_name="orphan", **SHAPE)
    assert await engine.values("orphan", "x", "y") == [7, 8]
    [aside] = engine.layout.quarantine.glob("orphan-*")
    assert {"vectors.bin", "points.db"} <= {path.name for path in aside.iterdir()}
    with engine.copied() as again:
        assert await again.values("orphan", "x", "y") == [7, 8]


async def test_orphan_of_another_shape_is_refused(engine):
    make_orphan(engine, "orphan")
    with pytest.raises(InvalidInput, match="holds 4, Euclidean") as refusal:
        engine.import_orphan(orphaned_path="orphan", collection_name="found", **(SHAPE | {"dimension": 5}))
    assert refusal.value.details == {"field": "dimension", "value": 5, "limit": 4}
    assert engine.collection_names() == ["notes"]


async def test_import_over_a_served_collection_is_a_conflict(engine):
    make_orphan(engine, "orphan")
    with pytest.raises(Conflict):
        engine.import_orphan(orphaned_path="orphan", collection_name="notes", **SHAPE)
    with pytest.raises(NotFound):
        engine.import_orphan(orphaned_path="wal", collection_name="found", **SHAPE)
    assert await engine.values("notes", "a", "b") == [1, 2]


@pytest.mark.parametrize("release", ["0.2.1", "0.2.6"])
async def test_volume_that_d_vecdb_left_is_foreign_until_it_is_imported_in_its_place(tmp_path, release):
    data, truth = unpack(release, tmp_path)
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    with RunningEngine(data) as engine:
        assert {name: engine.describe(name)["state"] for name in truth} == dict.fromkeys(truth, "foreign")
        assert {path: path.read_bytes() for path in before} == before
        for name, known in truth.items():
            engine.import_orphan(
                orphaned_path=name, collection_name=name, dimension=known["dimension"],
                distance_metric=DistanceMetric(known["distance_metric"]), vector_type=VectorType.FLOAT32,
            )  # fmt: skip
        await engine.upsert(
            "users",
            PointBatch.build(
                engine.collection("users").manifest, ["new"], np.ones((1, 16), np.float32), None
            ),
        )
        with engine.copied() as again:
            for name, known in truth.items():
                points = await again.get_points(name, known["ids"])
                assert [point.vector.tolist() for point in points] == np.array(
                    known["vectors"], np.float32
                ).tolist()
                assert [json.loads(point.payload or b"null") for point in points] == [
                    metadata or None for metadata in known["metadata"]
                ]
                assert again.describe(name)["state"] == "ready"
            assert (await again.get_points("users", ["new"]))[0] is not None
    aside = data / ".quarantine"
    for path, content in before.items():
        name = path.relative_to(data)
        [kept] = aside.glob(f"{name.parts[0]}-*")
        assert kept.joinpath(*name.parts[1:]).read_bytes() == content


async def test_foreign_records_that_we_cannot_hold_are_skipped_and_told(engine):
    """Values that are not finite, zeros under Cosine, and metadata above the limit are skipped."""
    records = make(6, 4, lambda at: {"n": at, "text": "x" * (70_000 if at == 2 else 1)})
    records[1].vector = [1.0, float("nan"), 2.0, 3.0]
    records[3].vector = [0.0] * 4
    records[4].vector = [float("inf"), 1.0, 2.0, 3.0]
    folder = engine.settings.data / "found"
    folder.mkdir()
    write(folder / "vectors.bin", records, "0.2.6")
    with capture_logs() as logs:
        engine.import_orphan(
            orphaned_path="found", collection_name="found",
            **(SHAPE | {"distance_metric": DistanceMetric.COSINE}),
        )  # fmt: skip
    points = await engine.get_points("found", [record.text for record in records])
    assert [point is not None for point in points] == [True, False, False, False, False, True]
    assert len([line for line in logs if line["event"] == "record was not imported"]) == 4


# What is left of a crash ---------------------------------------------------------------------------------


def test_temporary_files_of_a_crash_are_removed_at_the_next_start(tmp_path):
    notes = StoreOnDisk(tmp_path / "data")
    notes.put(a=1)
    notes.close()
    left = [
        notes.folder / "index.bin.tmp", notes.folder / "vectors.bin.tmp", notes.folder / "points.db-wal.tmp",
        notes.log_folder / f"{9:020d}.log.tmp",
    ]  # fmt: skip
    for path in left:
        path.write_bytes(b"half")
    again = StoreOnDisk(notes.data)
    again.put(b=2)
    assert [path.name for path in left if path.exists()] == []
    assert again.points() == {"a": 1, "b": 2}
    again.close()


# Open files ----------------------------------------------------------------------------------------------


async def test_torn_log_of_a_backup_is_told_of_the_collection_that_is_made_of_it(engine):
    backup = engine.backup("notes")
    [segment] = (engine.layout.data / backup).glob("wal/*/*.log")
    segment.write_bytes(segment.read_bytes()[:-3])
    assert engine.catalog.restore(backup, "again") == "again"
    assert await engine.values("again", "a", "b") == [1, None]
    assert "torn tail" in engine.describe("again")["reason"]


def test_vectors_of_all_types_come_back_as_they_were_stored(tmp_path):
    rng = np.random.default_rng(3)
    for vector_type in VectorType:
        manifest = dataclasses.replace(MANIFEST, name=vector_type.value, vector_type=vector_type)
        notes = StoreOnDisk(tmp_path / vector_type.value, manifest)
        values = {f"p{number}": float(rng.integers(1, 500)) for number in range(20)}
        notes.store.commit([upsert(manifest, **values)])
        before = [point.vector.tolist() for point in notes.store.view.get(list(values))]
        notes.checkpoint()
        assert [point.vector.tolist() for point in notes.store.view.get(list(values))] == before
        again = notes.reopened()
        assert [point.vector.tolist() for point in again.store.view.get(list(values))] == before
        assert read_manifest(again.folder).vector_type is vector_type
        again.close()
