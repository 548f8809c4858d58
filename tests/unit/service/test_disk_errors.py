"""After an error of the disk, the answer is true and the collection goes on."""

import errno
import shutil

import pytest
from structlog.testing import capture_logs

from tests.unit.running_engine import wait_until
from vecstow_engine.model.errors import DiskFull, NotFound, OutcomeUnknown, ReadOnly, StorageError
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.service import attempts
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import MANIFEST
from vecstow_engine.storage.points import writer


async def test_collection_whose_sync_failed_in_a_write_is_told_of_in_the_log_once(engine, disk):
    await engine.put(a=1)
    disk.fail("data_sync *.log")
    with capture_logs() as logs:
        with pytest.raises(OutcomeUnknown):
            await engine.put(b=2)
        wait_until(lambda: any("takes no writes" in line["event"] for line in logs))
        engine.stop()
    told = [line for line in logs if "takes no writes" in line["event"]]
    assert [(line["log_level"], line["collection"]) for line in told] == [("error", "notes")]
    assert "Input/output error" in told[0]["reason"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_restored_backup_serves_though_its_log_could_not_begin(engine, disk, number):
    await engine.put(a=1)
    engine.checkpoint()
    path = engine.backup("notes")
    disk.fail("rename *.log.tmp -> *", number, times=9)
    assert engine.catalog.restore(path, "copy") == "copy"
    disk.faults.clear()
    assert engine.describe("copy")["reason"] is None
    assert await engine.values("copy", "a") == [1]
    await engine.put("copy", b=2)
    with engine.copied() as restarted:
        assert await restarted.values("copy", "a", "b") == [1, 2]
        assert restarted.describe("copy")["reason"] is None


async def test_restored_backup_serves_though_nothing_could_be_cleared_away(engine, monkeypatch):
    def refuse(folder):
        raise OSError(errno.EIO, "Input/output error")

    await engine.put(a=1)
    path = engine.backup("notes")
    with monkeypatch.context() as patch:
        patch.setattr(files, "remove_tree", refuse)
        engine.catalog.restore(path, "copy")
    assert await engine.values("copy", "a") == [1]
    with engine.copied() as restarted:
        assert restarted.collection_names() == ["copy", "notes"]
        assert list(restarted.layout.data.glob(".staging/*")) == []


async def test_import_serves_though_its_log_could_not_begin(engine, disk):
    await engine.put(a=1)
    engine.checkpoint()
    orphan = engine.layout.data / ".quarantine" / "orphan"
    orphan.parent.mkdir()
    engine.layout.collection("notes").rename(orphan)
    (orphan / MANIFEST).unlink()
    disk.fail("rename *.log.tmp -> *", times=9)
    manifest = engine.collection("notes").manifest
    engine.import_orphan(
        orphaned_path=".quarantine/orphan",
        collection_name="found",
        dimension=manifest.dimension,
        distance_metric=manifest.distance_metric,
        vector_type=manifest.vector_type,
    )
    disk.faults.clear()
    assert "wal_missing" not in engine.describe("found")["reason"]
    assert await engine.values("found", "a") == [1]
    await engine.put("found", b=2)


def orphaned(engine):
    """`notes` with its data, but no manifest, as a folder that no collection has."""
    orphan = engine.layout.data / ".quarantine" / "orphan"
    orphan.parent.mkdir()
    shutil.copytree(engine.layout.collection("notes"), orphan, ignore=shutil.ignore_patterns(MANIFEST))
    return orphan


def import_as(engine, path, name):
    shape = {"dimension": 4, "distance_metric": DistanceMetric.EUCLIDEAN, "vector_type": VectorType.FLOAT32}
    engine.import_orphan(orphaned_path=path, collection_name=name, **shape)


def refuse_place(patch, engine, name):
    """Let no folder come to the place of this collection."""
    real = files.rename

    def rename(source, target):
        if target == engine.layout.collection(name):
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    patch.setattr(files, "rename", rename)


async def test_refused_import_is_not_finished_by_a_start(engine, monkeypatch):
    """The disk also refused to remove what the import had copied."""

    def refuse(folder):
        if folder.exists():
            raise OSError(errno.EIO, "Input/output error")

    await engine.put(a=1)
    engine.checkpoint()
    orphaned(engine)
    with monkeypatch.context() as patch:
        patch.setattr(files, "remove_tree", refuse)
        refuse_place(patch, engine, "found")
        with pytest.raises(StorageError, match=r"import failed: .*Input/output error"):
            import_as(engine, ".quarantine/orphan", "found")
    assert list(engine.layout.data.glob(".staging/*")) != []
    with engine.copied() as restarted:
        assert restarted.collection_names() == ["notes"]
        assert list(restarted.layout.data.glob(".staging/*")) == []


async def test_import_in_place_that_fails_between_its_renames_is_finished_by_a_start(engine, monkeypatch):
    """Until that start the outcome of the import is unknown."""
    await engine.put(a=1)
    engine.checkpoint()
    shutil.copytree(orphaned(engine), engine.layout.collection("found"))
    with monkeypatch.context() as patch:
        refuse_place(patch, engine, "found")
        with pytest.raises(OutcomeUnknown, match=r"found was set aside.*Input/output error"):
            import_as(engine, "found", "found")
    with pytest.raises(ReadOnly):
        import_as(engine, ".quarantine/orphan", "other")
    with engine.copied() as restarted:
        assert await restarted.values("found", "a") == [1]
        [aside] = restarted.layout.quarantine.glob("found-*")
        assert {"vectors.bin", "points.db"} <= {path.name for path in aside.iterdir()}


async def test_collection_with_an_unknown_drop_takes_no_writes_before_a_start(engine, disk):
    """They would be acknowledged, and dropped with it."""
    await engine.put(a=1)
    disk.fail("sync notes/")
    with pytest.raises(OutcomeUnknown):
        engine.drop("notes")
    with pytest.raises(ReadOnly, match="whether it is dropped is unknown"):
        await engine.put(b=2)
    assert engine.describe("notes")["state"] == "read_only"
    assert await engine.values("notes", "a") == [1]
    with engine.copied() as restarted:
        assert restarted.collection_names() == []
        [dropped] = restarted.catalog.deleted()
        restarted.catalog.restore(dropped["path"], None)
        assert await restarted.values("notes", "a") == [1]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_drop_that_cannot_move_the_folder_says_so_and_is_finished_by_the_next_look(
    engine, disk, number, monkeypatch
):
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 0.0)
    await engine.put(a=1)
    disk.fail("rename notes -> *", number, times=2)
    with pytest.raises((StorageError, DiskFull), match="is dropped, but its folder could not be moved away"):
        engine.drop("notes")
    with pytest.raises(NotFound):
        engine.describe("notes")
    engine.refresh({})
    assert engine.catalog.deleted() == []
    engine.refresh({})
    [dropped] = engine.catalog.deleted()
    engine.catalog.restore(dropped["path"], None)
    assert await engine.values("notes", "a") == [1]


async def test_collection_whose_log_cannot_go_on_at_the_start_serves_reads(engine, disk):
    await engine.put(a=1)
    disk.fail("create *.log.tmp", errno.EIO)
    with engine.copied() as restarted:
        assert restarted.describe("notes")["state"] == "ready"
        assert "Input/output error" in restarted.describe("notes")["reason"]
        assert await restarted.values("notes", "a") == [1]
        await restarted.put(b=2)


async def test_checkpoint_that_cannot_open_its_table_for_writing_is_tried_again(engine, monkeypatch):
    """SQLite serves a table whose -wal it cannot make as one that is read-only; nothing was written then."""
    await engine.put(a=1)
    real = writer.connect

    def read_only(path, cache_kib):
        connection = real(path, cache_kib)
        connection.execute("PRAGMA query_only=1")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(writer, "connect", read_only)
        with pytest.raises(StorageError, match="readonly database"):
            engine.checkpoint()
    assert engine.describe("notes")["state"] == "ready"
    await engine.put(b=2)
    assert engine.checkpoint()


async def test_what_a_refused_repair_left_does_not_take_the_place_of_a_dropped_collection(
    engine,
):
    await engine.put(a=1)
    engine.checkpoint()
    shutil.copytree(engine.layout.collection("notes"), engine.layout.staging / "notes")
    engine.drop("notes")
    with engine.copied() as restarted:
        assert restarted.collection_names() == []
        assert [dropped["name"] for dropped in restarted.catalog.deleted()] == ["notes"]
