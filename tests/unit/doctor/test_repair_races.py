"""Repair during other actions: a copy has the same uid, a drop comes, a manifest comes back."""

import asyncio
import errno
import shutil
import threading

import pytest

from tests.unit.checked_volume import flip, zero
from tests.unit.damaged_store import DamagedStore, digests, without
from tests.unit.doctor.test_repair_online import Paused, served
from tests.unit.recorded_disk import RecordedDisk
from tests.unit.running_engine import RunningEngine, wait_until
from tests.unit.store_on_disk import upsert
from vecstow_engine.doctor.repair import RepairOutcome, repair_volume
from vecstow_engine.doctor.repair import collection as repair_one
from vecstow_engine.model.errors import (
    Conflict,
    OutcomeUnknown,
    Quarantined,
    ReadOnly,
    Recovering,
    StorageError,
    VecstowError,
)
from vecstow_engine.model.manifest import DistanceMetric, VectorType
from vecstow_engine.service import attempts
from vecstow_engine.service.attempts import Work
from vecstow_engine.service.lifecycle import Retired, State
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import mark_dropped, read_manifest


@pytest.fixture
def store(tmp_path):
    return DamagedStore(tmp_path / "data")


def copied(store, *, rename):
    """Copy the collection to a folder next to it; the copy's manifest names the original or the copy."""
    copy = store.data / "copy"
    shutil.copytree(store.folder, copy)
    if rename:
        manifest = copy / "metadata.json"
        manifest.write_text(manifest.read_text().replace('"notes"', '"copy"'))
    return copy


@pytest.mark.parametrize("rename", [pytest.param(True, id="declared"), pytest.param(False, id="undeclared")])
def test_repair_of_a_copy_leaves_the_log_to_the_collection_that_is_served(store, rename):
    with RunningEngine(store.data) as engine:
        copy = copied(store, rename=rename)
        engine._manifest_watcher.rescan()
        with pytest.raises(Quarantined):
            engine.collection("copy").readable()
        flip(copy / "vectors.bin", 40)
        assert engine.repair("copy")["outcome"] == "repaired"
        assert engine.collection("copy").state is State.READY
        uids = [engine.collection(name).manifest.collection_uid for name in ("notes", "copy")]
        assert uids[0] != uids[1]
        asyncio.run(engine.put("notes", late=9000))
        shutil.copytree(store.data, store.data.with_name("killed"))
    with RunningEngine(store.data.with_name("killed")) as engine:
        assert served(engine) == store.points | {"late": 9000}


def test_repair_of_an_intact_copy_gives_it_a_uid_of_its_own(store):
    with RunningEngine(store.data) as engine:
        copied(store, rename=True)
        engine._manifest_watcher.rescan()
        before = digests(store.log)
        assert engine.repair("copy")["outcome"] == "repaired"
        assert digests(store.log) == before


def test_repair_of_a_stopped_volume_sees_that_a_folder_without_manifest_is_a_copy(store):
    (copied(store, rename=False) / "metadata.json").unlink()
    before = digests(store.log)
    assert repair_volume(store.data, ["copy"]).collections["copy"].outcome is RepairOutcome.REPAIRED
    assert digests(store.log) == before
    assert store.served() == store.points


def test_log_of_a_dropped_collection_stays_when_its_copy_is_repaired(store):
    with RunningEngine(store.data) as engine:
        copied(store, rename=False)
        engine.drop("notes")
        engine.repair("copy")
        [deleted] = engine.catalog.deleted()
        engine.catalog.restore(deleted["path"], None)
        assert served(engine) == store.points


def repaired_meanwhile(engine, monkeypatch, meanwhile):
    """Repair while `meanwhile` runs; return the repair's error in a list, empty if there is none."""
    paused, failures = Paused(monkeypatch), []

    def repair():
        try:
            engine.repair("notes")
        except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
            failures.append(error)

    thread = threading.Thread(target=repair)
    thread.start()
    assert paused.reached.wait(20)
    try:
        meanwhile()
    finally:
        paused.go_on.set()
        thread.join()
    return failures


def test_collection_that_is_dropped_while_it_is_repaired_stays_dropped(store, monkeypatch):
    flip(store.rows, store.row_offset("p7"))
    with RunningEngine(store.data) as engine:
        [error] = repaired_meanwhile(engine, monkeypatch, lambda: mark_dropped(engine.layout, "notes"))
        assert isinstance(error, Conflict)
        engine._manifest_watcher.rescan()
        assert len(engine.catalog.deleted()) == 1
    with RunningEngine(store.data) as engine:
        assert engine.collection_names() == []


def test_manifest_that_comes_back_during_the_repair_is_followed_after_it(store, monkeypatch):
    text = store.manifest.read_text()
    store.manifest.unlink()
    flip(store.rows, store.row_offset("p7"))
    with RunningEngine(store.data) as engine:

        def meanwhile():
            store.manifest.write_text(text)
            engine._manifest_watcher.rescan()
            assert engine.collection_names() == []
            with pytest.raises(Conflict, match="being repaired"):
                engine.import_orphan(
                    orphaned_path="notes", collection_name="notes", dimension=4,
                    distance_metric=DistanceMetric.EUCLIDEAN, vector_type=VectorType.FLOAT32,
                )  # fmt: skip
            with pytest.raises(Conflict, match="being repaired"):
                engine.repair("notes")

        assert repaired_meanwhile(engine, monkeypatch, meanwhile) == []
        assert served(engine) == without(store.points, "p7")
        asyncio.run(engine.put("notes", fresh=9000))
    with RunningEngine(store.data) as engine:
        assert served(engine) == without(store.points, "p7") | {"fresh": 9000}


def test_repair_does_not_bring_a_dropped_collection_back(store):
    (store.data / ".deleted").write_text("in the way: the folder cannot be moved there")
    with RunningEngine(store.data) as engine:
        mark_dropped(engine.layout, "notes")
    with RunningEngine(store.data) as engine:
        assert engine.repair("notes")["outcome"] == "sound"
        assert engine.collection_names() == []


def test_repair_after_a_failed_first_sync_leaves_the_collection_read_only(tmp_path):
    """The sync that failed was the first one of the collection's files."""
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare("notes")
        with pytest.MonkeyPatch.context() as patch:
            RecordedDisk(patch).fail("sync notes/")
            with pytest.raises(ReadOnly):
                asyncio.run(engine.put("notes", a=1))
        assert engine.collection("notes").state is State.READ_ONLY
        engine.repair("notes")
        assert engine.collection("notes").state is State.READ_ONLY


def test_exchange_whose_sync_failed_is_not_served_in_this_process(store):
    zero(store.table, store.root("meta"))
    with RunningEngine(store.data) as engine:
        with pytest.MonkeyPatch.context() as patch:
            disk, real = RecordedDisk(patch), repair_one.take_place

            def take_place(*args):
                disk.fail("sync data/", errno.EIO)
                real(*args)

            patch.setattr(repair_one, "take_place", take_place)
            with pytest.raises(OutcomeUnknown):
                engine.repair("notes")
        refuses_to_repair_before_the_next_start(engine)
    with RunningEngine(store.data) as engine:
        assert served(engine) == store.points


def refuses_to_repair_before_the_next_start(engine):
    for dry_run in (True, False):
        with pytest.raises(ReadOnly, match="repair was not begun: "):
            engine.repair("notes", dry_run=dry_run)
        with pytest.raises(Quarantined, match="a restart opens what is there"):
            engine.collection("notes").readable()


def test_exchange_that_fails_between_its_renames_is_finished_by_the_next_start(store):
    """Until then the outcome of the repair is unknown."""
    zero(store.table, store.root("meta"))
    with RunningEngine(store.data) as engine:
        with pytest.MonkeyPatch.context() as patch:
            disk, real = RecordedDisk(patch), files.rename

            def rename(source, target):
                if source.parent == engine.layout.staging:
                    disk.fail("rename notes -> notes")
                real(source, target)

            patch.setattr(files, "rename", rename)
            with pytest.raises(OutcomeUnknown, match=r"notes was set aside.*Input/output error"):
                engine.repair("notes")
        refuses_to_repair_before_the_next_start(engine)
    with RunningEngine(store.data) as engine:
        assert served(engine) == store.points


def read_only(engine):
    """Let the sync of a write to `notes` fail."""
    with pytest.MonkeyPatch.context() as patch:
        RecordedDisk(patch).fail("data_sync *")
        with pytest.raises(OutcomeUnknown):
            asyncio.run(engine.put("notes", unknown=9001))
    assert engine.collection("notes").state is State.READ_ONLY


def test_second_repair_after_a_failed_sync_does_not_rely_on_the_files(store):
    """The first repair failed too, and left the collection quarantined."""
    with RunningEngine(store.data) as engine:
        read_only(engine)
        with pytest.MonkeyPatch.context() as patch:
            RecordedDisk(patch).fail("sync vectors.bin")
            with pytest.raises(StorageError):
                engine.repair("notes")
        assert engine.collection("notes").state is State.QUARANTINED
        assert engine.repair("notes", dry_run=True)["outcome"] == "planned"
        done = engine.repair("notes")
        assert (done["outcome"], engine.collection("notes").state) == ("repaired", State.READY)
        assert "a sync of" in done["plan"]["steps"][0]["because"]
        asyncio.run(engine.put("notes", more=9002))


def test_sync_that_fails_as_a_repair_begins_is_a_reason_to_rely_on_no_file(store, monkeypatch):
    flip(store.rows, store.row_offset("p7"))
    with RunningEngine(store.data) as engine:
        take_out = engine._repairer._take_out

        def fail_and_take_out(collection):
            read_only(engine)
            return take_out(collection)

        monkeypatch.setattr(engine._repairer, "_take_out", fail_and_take_out)
        done = engine.repair("notes")
        assert "a sync of" in done["plan"]["steps"][0]["because"]
        assert engine.collection("notes").state is State.READY


def test_read_only_collection_answers_reads_when_its_repair_cannot_begin(store):
    """The collection stays read-only, as before the repair."""
    with RunningEngine(store.data) as engine:
        read_only(engine)
        engine.catalog.changes.failure = "a sync failed during create"
        with pytest.raises(ReadOnly, match="repair was not begun: "):
            engine.repair("notes")
        assert engine.collection("notes").state is State.READ_ONLY
        assert asyncio.run(engine.values("notes", "p8")) == [9]


def test_write_that_comes_as_a_repair_begins_is_told_of_it_and_not_of_a_restart(store):
    with RunningEngine(store.data) as engine:
        collection = engine.collection("notes")
        readable = collection.readable

        def taken_out_just_after():
            readable()
            collection.readable = readable
            engine._repairer._take_out(collection)

        collection.readable = taken_out_just_after
        with pytest.raises(Recovering, match="being repaired"):
            asyncio.run(engine.put("notes", late=9000))


def test_write_that_waited_while_a_repair_began_is_told_of_it_and_not_of_a_restart(store, monkeypatch):
    with RunningEngine(store.data) as engine:
        retired, failures = engine.collection("notes").store, []
        close = retired.layers.close

        def write():
            try:
                retired.commit([upsert(late=9000)])
            except VecstowError as error:
                failures.append(error)

        thread = threading.Thread(target=write)

        def close_while_it_writes(error):
            thread.start()
            thread.join(0.1)
            close(error)

        monkeypatch.setattr(retired.layers, "close", close_while_it_writes)
        engine._repairer._take_out(engine.collection("notes"))
        thread.join()
        assert [type(failure) for failure in failures] == [Recovering]


def test_compaction_that_waited_for_a_repair_gets_an_error_that_names_the_repair(store):
    """The error does not speak of a restart."""
    with RunningEngine(store.data) as engine:
        collection, failures = engine.collection("notes"), []

        def compact():
            try:
                engine.compact("notes")
            except VecstowError as error:
                failures.append(error)

        thread = threading.Thread(target=compact)
        with collection.upkeep_lock:
            thread.start()
            wait_until(lambda: engine.gate._inside > 0)
            collection.move_to(Retired(Recovering("it is being repaired")))
            collection.store.retire("it is being repaired")
        thread.join()
        assert [type(failure) for failure in failures] == [Recovering]


def test_manifest_that_is_changed_while_it_is_repaired_is_not_written_over(store):
    """A repair leaves the lost manifest alone that comes back meanwhile, marked as dropped."""
    text = store.manifest.read_text()
    store.manifest.unlink()

    def meanwhile(_plan):
        store.manifest.write_text(text)
        mark_dropped(Layout(store.data), "notes")

    with pytest.raises(Conflict, match="changed meanwhile"):
        repair_volume(store.data, ["notes"], planned=meanwhile)
    assert read_manifest(store.folder).dropped_at is not None


def test_backup_that_waited_while_a_repair_began_is_refused(store):
    with RunningEngine(store.data) as engine:
        collection, failures = engine.collection("notes"), []

        def backup():
            try:
                engine.backup("notes")
            except Recovering as error:
                failures.append(error)

        thread = threading.Thread(target=backup)
        with collection.upkeep_lock:
            thread.start()
            collection.move_to(Retired(Recovering("it is being repaired")))
        thread.join()
        assert len(failures) == 1
        assert not engine.layout.backups.exists()


def test_no_collection_is_opened_after_a_failed_sync_of_names(store, monkeypatch):
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 0.0)
    with RunningEngine(store.data) as engine:
        engine.catalog.changes.failure = "a sync failed during create"
        copied(store, rename=True)
        engine._manifest_watcher.rescan()
        assert engine.collection_names() == ["notes"]
        engine.catalog.changes.failure = None
        engine._manifest_watcher.rescan()
        assert engine.collection_names() == ["copy", "notes"]


def test_upkeep_that_waited_while_a_repair_began_leaves_the_files_alone(store):
    flip(store.rows, store.row_offset("p7"))
    with RunningEngine(store.data) as engine:
        taken_out = engine.collection("notes")
        engine.repair("notes")
        assert engine.collection("notes") is not taken_out
        snapshots = []
        engine._upkeep._attempt(taken_out, Work.SNAPSHOT, lambda: snapshots.append("written"))
        assert snapshots == []
