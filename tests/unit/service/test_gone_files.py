"""Collections whose files vanish while they are served, and those that are opened again."""

import dataclasses
import os
import shutil
import threading

import pytest
from structlog.testing import capture_logs

from tests.unit.running_engine import RunningEngine, fill, wait_until
from vecstow_engine.model.errors import OutcomeUnknown, Quarantined
from vecstow_engine.service import loader, manifest_watcher, snapshotter
from vecstow_engine.service.lifecycle import State
from vecstow_engine.storage import files, store
from vecstow_engine.storage.layout import MANIFEST, POINTS, ROWS
from vecstow_engine.storage.manifests import update_manifest


def folder_of(engine, name="notes"):
    return engine.layout.collection(name)


def log_of(engine, name="notes"):
    """The bytes of every segment, by name."""
    folder = engine.layout.log(engine.collection(name).manifest.collection_uid)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def aside(engine):
    """Return a place on the volume where the engine does not look."""
    path = engine.layout.data / ".aside"
    path.mkdir(exist_ok=True)
    return path


def change(engine, **fields):
    """The manifest of `notes`, as a sidecar changes it."""
    update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, **fields))


def remove_folder(engine):
    shutil.rmtree(folder_of(engine))


def move_folder(engine):
    folder_of(engine).rename(aside(engine) / "notes")


def remove_rows(engine):
    (folder_of(engine) / ROWS).unlink()


def remove_points(engine):
    (folder_of(engine) / POINTS).unlink()


def exchange_folder(engine):
    """For a copy of itself, which has the same uid."""
    copy = aside(engine) / "copy"
    shutil.copytree(folder_of(engine), copy)
    move_folder(engine)
    copy.rename(folder_of(engine))


def remove_and_copy_back(engine):
    """A file system may give the new files the inode numbers of the old ones."""
    copy = aside(engine) / "copy"
    shutil.copytree(folder_of(engine), copy)
    engine._handles.close()
    shutil.rmtree(folder_of(engine))
    folder_of(engine).mkdir()
    for name in os.listdir(copy):
        shutil.copy2(copy / name, folder_of(engine) / name)


LOSSES = [remove_folder, move_folder, remove_rows, remove_points, exchange_folder]


@pytest.mark.parametrize("lose", LOSSES)
async def test_rescan_takes_a_collection_whose_files_are_gone_out_of_service(engine, lose):
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    engine.declare("other")
    await engine.put("other", a=1)
    before = log_of(engine)
    lose(engine)
    with capture_logs() as logs:
        engine.refresh({})
        engine.refresh({})
    told = [line for line in logs if line["event"] == "files of a served collection are gone"]
    assert [(line["collection"], line["log_level"]) for line in told] == [("notes", "error")]
    file = POINTS if lose is remove_points else ROWS
    with pytest.raises(Quarantined, match=f"notes/{file}: ") as read:
        await engine.values("notes", "a")
    assert "metadata.json" in read.value.hint
    with pytest.raises(Quarantined):
        await engine.put(c=3)
    facts = engine.describe("notes")
    assert (facts["state"], facts["vector_count"]) == ("quarantined", 0)
    assert len(engine._handles) <= 3  # those of the other collection
    engine.stop()
    assert log_of_stopped(engine) >= before.items()


def log_of_stopped(engine):
    """Name and bytes of every segment on the volume."""
    return {(path.name, path.read_bytes()) for path in engine.layout.logs.glob("*/*")}


async def test_new_files_that_have_the_inodes_of_the_removed_ones_are_other_files(tmp_path):
    """On a disk, not in memory: there a number never comes back."""
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(a=1)
        engine.checkpoint()
        remove_and_copy_back(engine)
        collection = engine.collection("notes")
        with pytest.raises(Quarantined):
            engine.checkpoint()
        assert collection.state is State.QUARANTINED


@pytest.mark.parametrize("lose", LOSSES)
async def test_checkpoint_writes_nothing_when_the_files_are_gone(engine, lose):
    await engine.put(a=1)
    before = log_of(engine)
    lose(engine)
    names = (ROWS, POINTS)
    there = {path: path.read_bytes() for name in names for path in engine.layout.data.glob(f"**/{name}")}
    with pytest.raises(Quarantined, match="notes"):
        engine.checkpoint()
    assert engine.describe("notes")["state"] == "quarantined"
    assert log_of(engine) == before
    assert {path: path.read_bytes() for path in there} == there
    with pytest.raises(Quarantined):
        await engine.put(b=2)


async def test_neighbours_of_a_collection_whose_files_are_gone_go_on(engine):
    engine.declare("other")
    await engine.put(a=1)
    await engine.put("other", a=1)
    remove_folder(engine)
    engine.refresh({})
    await engine.put("other", b=2)
    assert engine.checkpoint("other")
    assert await engine.values("other", "a", "b") == [1, 2]
    assert engine.discovered
    assert engine.not_ready() == {}


async def test_checkpoint_whose_files_go_while_it_writes_them_leaves_the_log_whole(engine, monkeypatch):
    await engine.put(a=1)
    real = store.write_points

    def overtaken(*values, **options):
        meta = real(*values, **options)
        remove_folder(engine)
        return meta

    monkeypatch.setattr(store, "write_points", overtaken)
    before = log_of(engine)
    with pytest.raises(Quarantined):
        engine.checkpoint()
    assert log_of(engine).items() >= before.items()
    assert engine.describe("notes")["state"] == "quarantined"


async def test_checkpoint_does_not_write_into_the_table_of_a_folder_that_came_meanwhile(engine, monkeypatch):
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    table = folder_of(engine) / POINTS
    before = table.read_bytes()
    monkeypatch.setattr(store.Store, "_write_rows", lambda self, entries: exchange_folder(engine))
    with pytest.raises(Quarantined):
        engine.checkpoint()
    assert table.read_bytes() == before


async def test_snapshot_is_not_recorded_in_a_folder_that_came_meanwhile(engine, monkeypatch):
    await engine.put(**fill("p", 1200))
    collection = engine.indexed()
    engine.checkpoint()
    real = snapshotter._wait

    def overtaken(child):
        real(child)
        exchange_folder(engine)

    monkeypatch.setattr(snapshotter, "_wait", overtaken)
    before = (folder_of(engine) / POINTS).read_bytes()
    with collection.upkeep_lock, pytest.raises(Quarantined):
        snapshotter.take_snapshot(collection, lambda: engine._upkeep.checkpoint(collection))
    assert (folder_of(engine) / POINTS).read_bytes() == before
    assert not (folder_of(engine) / "index.bin").exists()


@pytest.mark.parametrize("operation", ["backup", "compact"])
async def test_call_that_works_on_files_finds_them_gone(engine, operation):
    await engine.put(a=1)
    exchange_folder(engine)
    with pytest.raises(Quarantined):
        getattr(engine, operation)("notes")
    assert engine.describe("notes")["state"] == "quarantined"
    assert not list(engine.layout.backups.glob("notes*"))


async def test_check_of_a_collection_whose_files_are_gone_reports_it(engine):
    await engine.put(a=1)
    remove_rows(engine)
    for _ in range(2):
        assert not engine.check("notes")["clean"]
        engine.refresh({})
    assert engine.describe("notes")["state"] == "quarantined"


async def test_stop_leaves_the_log_of_a_collection_whose_files_are_gone(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(a=1)
        before = log_of(engine)
        move_folder(engine)
    assert {(name, content) for name, content in before.items()} == log_of_stopped(engine)
    (aside(engine) / "notes").rename(folder_of(engine))
    with RunningEngine(tmp_path / "data") as again:
        assert await again.values("notes", "a") == [1]


async def test_empty_collection_whose_folder_is_gone_serves_again_when_declared(engine):
    """The collection has no data. A folder with the same manifest declares it."""
    text = (folder_of(engine) / MANIFEST).read_bytes()
    remove_folder(engine)
    engine.refresh({})
    with pytest.raises(Quarantined, match="/notes: "):
        await engine.put(a=1)
    folder_of(engine).mkdir()
    (folder_of(engine) / MANIFEST).write_bytes(text)
    engine.refresh({})
    assert await engine.put(a=1) == ["a"]


async def test_drop_of_a_collection_whose_folder_is_gone_frees_its_name(engine):
    await engine.put(a=1)
    before = log_of(engine).items()
    remove_folder(engine)
    engine.refresh({})
    engine.drop("notes")
    assert engine.collection_names() == []
    engine.declare()
    await engine.put(b=2)
    assert await engine.values("notes", "a", "b") == [None, 2]
    assert log_of_stopped(engine) >= set(before)


async def test_repair_saves_what_the_log_has_of_lost_files(engine):
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    remove_rows(engine)
    engine.refresh({})
    assert engine.repair("notes")["outcome"] == "repaired"
    engine.refresh({})
    assert await engine.values("notes", "a", "b") == [None, 2]


async def test_loss_that_a_checkpoint_met_is_looked_after_without_a_poke(engine):
    await engine.put(a=1)
    remove_rows(engine)
    with pytest.raises(Quarantined):
        engine.checkpoint()
    wait_until(lambda: engine.collection("notes").store is None)
    assert engine.describe("notes")["vector_count"] == 0


# The engine's own moves -----------------------------------------------------------------------------------


async def test_own_moves_are_not_taken_for_a_loss(tmp_path):
    """Rescans during drops, restores, compactions, backups, checkpoints and repairs find no lost files."""
    with RunningEngine(tmp_path / "data") as engine, capture_logs() as logs:
        engine.declare()
        await engine.put(**fill("p", 1200))
        stop = threading.Event()
        rescans = [threading.Thread(target=keep_rescanning, args=(engine, stop)) for _ in range(2)]
        for thread in rescans:
            thread.start()
        try:
            for round_ in range(5):
                collection = engine.indexed()
                await engine.put(**{f"q{round_}": 9000 + round_})
                engine.checkpoint()
                with collection.upkeep_lock:
                    snapshotter.take_snapshot(collection, lambda c=collection: engine._upkeep.checkpoint(c))
                await engine.delete_points("notes", [f"p{round_}"])
                engine.compact("notes")
                repair_row(engine, 500)
                engine.drop("notes")
                engine.catalog.restore(engine.catalog.deleted()[0]["path"], None)
            engine.catalog.restore(engine.backup("notes"), "copy")
        finally:
            stop.set()
            for thread in rescans:
                thread.join()
        assert not [line for line in logs if line["log_level"] == "error"]
        assert all(engine.describe(name)["state"] == "ready" for name in engine.collection_names())
        assert await engine.values("notes", "q0", "q4") == [9000, 9004]


def keep_rescanning(engine, stop):
    while not stop.wait(0.001):  # two threads that never wait keep the lock over names from all others
        engine.refresh({})


def repair_row(engine, slot):
    """Damage a row, and let the collection be rebuilt."""
    collection = engine.collection("notes")
    engine.checkpoint()
    path = folder_of(engine) / ROWS
    raw = bytearray(path.read_bytes())
    raw[4096 + 16 * slot] ^= 1
    with collection.upkeep_lock:
        path.write_bytes(raw)
    assert engine.repair("notes")["outcome"] == "repaired"


async def test_rescan_during_a_repair_finds_nothing_gone(engine, monkeypatch):
    await engine.put(a=1, b=2)
    engine.checkpoint()
    real = files.rename

    def rename(source, target):
        real(source, target)
        engine.refresh({})

    monkeypatch.setattr(files, "rename", rename)
    repair_row(engine, 0)
    monkeypatch.undo()
    engine.refresh({})
    assert engine.describe("notes")["state"] == "ready"


# Opened again ----------------------------------------------------------------------------------------------


async def test_files_that_come_back_to_their_place_are_served_again(engine):
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    move_folder(engine)
    engine.refresh({})
    (aside(engine) / "notes").rename(folder_of(engine))
    engine.refresh({})
    assert await engine.values("notes", "a", "b") == [1, 2]
    await engine.put(c=3)
    assert engine.checkpoint()


async def test_one_file_that_comes_back_to_its_place_is_enough(engine):
    await engine.put(a=1)
    (folder_of(engine) / ROWS).rename(aside(engine) / ROWS)
    engine.refresh({})
    engine.refresh({})
    assert engine.describe("notes")["state"] == "quarantined"
    (aside(engine) / ROWS).rename(folder_of(engine) / ROWS)
    engine.refresh({})
    assert await engine.values("notes", "a") == [1]


async def test_copy_of_the_lost_folder_is_served_with_all_that_the_log_has(engine):
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    shutil.copytree(folder_of(engine), aside(engine) / "copy")
    remove_folder(engine)
    engine.refresh({})
    shutil.copytree(aside(engine) / "copy", folder_of(engine))
    engine.refresh({})
    assert await engine.values("notes", "a", "b") == [1, 2]


async def test_copied_file_counts_when_the_manifest_was_touched(engine):
    """Before the manifest is touched, the copy may lack a part."""
    await engine.put(a=1)
    shutil.copy2(folder_of(engine) / ROWS, aside(engine) / ROWS)
    remove_rows(engine)
    engine.refresh({})
    shutil.copy2(aside(engine) / ROWS, folder_of(engine) / ROWS)
    engine.refresh({})
    assert engine.describe("notes")["state"] == "quarantined"
    os.utime(folder_of(engine) / MANIFEST)
    engine.refresh({})
    assert await engine.values("notes", "a") == [1]


@pytest.fixture
async def without_data(engine):
    """An engine for a copy of the volume, where the data files of `notes` are missing."""
    await engine.put(a=1)
    copy = engine.copied()
    for name in (ROWS, POINTS):
        (folder_of(copy) / name).unlink()
    with copy as running:
        assert running.describe("notes")["state"] == "quarantined"
        yield running


async def test_accepted_loss_is_served_empty(without_data):
    [log] = without_data.layout.logs.iterdir()
    change(without_data, collection_uid=None)
    without_data.refresh({})
    facts = without_data.describe("notes")
    assert (facts["state"], facts["reason"], facts["vector_count"]) == ("ready", None, 0)
    await without_data.put(b=2)
    assert await without_data.values("notes", "a", "b") == [None, 2]
    assert list(log.iterdir()) != []


async def test_accepted_loss_of_files_that_vanished_is_served_empty(engine):
    await engine.put(a=1)
    before = log_of(engine)
    manifest = engine.collection("notes").manifest
    remove_folder(engine)
    engine.refresh({})
    update_manifest(engine.layout, "notes", lambda found: manifest)
    engine.refresh({})
    assert engine.describe("notes")["state"] == "quarantined"
    assert log_of(engine) == before
    change(engine, collection_uid=None)
    engine.refresh({})
    assert await engine.values("notes", "a") == [None]
    await engine.put(b=2)
    assert engine.collection("notes").manifest.collection_uid != manifest.collection_uid


async def test_accepted_loss_may_come_with_another_shape(without_data):
    change(without_data, collection_uid=None, dimension=5)
    without_data.refresh({})
    without_data.refresh({})
    assert without_data.describe("notes")["dimension"] == 5
    assert without_data.describe("notes")["state"] == "ready"


async def test_quarantined_collection_is_opened_once_for_each_change_of_its_manifest(
    without_data, monkeypatch
):
    without_data.refresh({})
    openings = []
    real = loader.open_store

    def counted(*values, **options):
        openings.append(values)
        return real(*values, **options)

    monkeypatch.setattr(loader, "open_store", counted)
    for _ in range(3):
        without_data.refresh({})
    assert openings == []
    change(without_data, owner="somebody")
    for _ in range(3):
        without_data.refresh({})
    assert len(openings) == 1
    assert without_data.describe("notes")["owner"] == "somebody"
    assert without_data.describe("notes")["state"] == "quarantined"


async def test_files_that_came_back_are_served_when_the_manifest_was_touched(engine, without_data):
    for name in (ROWS, POINTS):
        shutil.copy(folder_of(engine) / name, folder_of(without_data) / name)
    without_data.refresh({})
    assert without_data.describe("notes")["state"] == "quarantined"
    os.utime(folder_of(without_data) / MANIFEST)
    without_data.refresh({})
    assert await without_data.values("notes", "a") == [1]


async def test_quarantined_collection_is_not_opened_anew_during_a_hold(without_data):
    change(without_data, collection_uid=None)
    without_data.hold.begin(60)
    without_data.refresh({})
    assert without_data.describe("notes")["state"] == "quarantined"
    without_data.hold.end()
    without_data.refresh({})
    assert without_data.describe("notes")["state"] == "ready"


async def test_quarantined_collection_is_not_opened_anew_while_it_is_looked_at(without_data):
    change(without_data, collection_uid=None)
    with without_data.collection("notes").upkeep_lock:
        without_data.refresh({})
        assert without_data.describe("notes")["state"] == "quarantined"
    without_data.refresh({})
    assert without_data.describe("notes")["state"] == "ready"


async def test_collection_is_not_opened_anew_while_its_last_checkpoint_is_under_way(engine):
    """Two would write the same files."""
    await engine.put(a=1)
    with engine.collection("notes").upkeep_lock:
        move_folder(engine)
        engine.refresh({})
        (aside(engine) / "notes").rename(folder_of(engine))
        engine.refresh({})
        assert engine.describe("notes")["state"] == "quarantined"
    engine.refresh({})
    assert await engine.values("notes", "a") == [1]


async def test_repair_that_is_under_way_is_left_alone_by_a_changed_manifest(without_data, monkeypatch):
    taken_out = without_data._repairer._take_out
    seen = []

    def overtaken(collection):
        answer = taken_out(collection)
        change(without_data, owner="somebody")
        without_data.refresh({})
        seen.append(without_data.describe("notes")["state"])
        return answer

    monkeypatch.setattr(without_data._repairer, "_take_out", overtaken)
    without_data.repair("notes")
    assert seen == ["recovering"]


async def test_collection_that_lost_its_files_after_a_failed_sync_waits_for_a_start(engine, disk):
    await engine.put(a=1)
    disk.fail("data_sync *.log")
    with pytest.raises(OutcomeUnknown):
        await engine.put(b=2)
    move_folder(engine)
    engine.refresh({})
    (aside(engine) / "notes").rename(folder_of(engine))
    os.utime(folder_of(engine) / MANIFEST)
    engine.refresh({})
    assert engine.describe("notes")["state"] == "quarantined"
    with engine.copied() as again:
        assert await again.values("notes", "a") == [1]


async def test_opening_whose_sync_failed_is_not_tried_again_when_the_manifest_changes(engine, monkeypatch):
    await engine.put(a=1)
    engine.drop("notes")

    def fail(*values, **options):
        raise files.SyncFailed(5, "Input/output error (sync)")

    with monkeypatch.context() as patch:
        patch.setattr(loader, "open_store", fail)
        engine.catalog.restore(engine.catalog.deleted()[0]["path"], None)
    os.utime(folder_of(engine) / MANIFEST)
    change(engine, owner="somebody")
    engine.refresh({})
    assert engine.describe("notes")["state"] == "quarantined"


async def test_stand_in_waits_for_the_outcome_of_the_commit_under_way(engine, monkeypatch):
    """Its sync may fail: then only a new process may read the files again, though they come back."""
    await engine.put(a=1)
    collection = engine.collection("notes")
    remove_folder(engine)
    seen = []

    def retire(*values):
        seen.append(collection.is_lost)
        return "a sync failed"

    monkeypatch.setattr(collection.store, "retire", retire)
    with pytest.raises(Quarantined):
        collection.refuse_if_gone()
    assert seen == [False]
    assert collection.is_lost
    other = manifest_watcher.stand_in(collection)
    assert (other.lifecycle.failure, other.reopens) == ("a sync failed", False)
