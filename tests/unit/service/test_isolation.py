"""One collection fails in the engine's own work for it: it says so, is tried again, and delays no other."""

import asyncio
import dataclasses
import errno
import sqlite3
import threading

import msgspec
import pytest
from structlog.testing import capture_logs

from tests.unit.running_engine import RunningEngine, fill, wait_until
from tests.waiting import SECONDS_MAX
from vecstow_engine.api.metrics import EngineCollector
from vecstow_engine.index.vector_index import VectorIndex
from vecstow_engine.model.errors import DiskFull, StorageError
from vecstow_engine.model.manifest import IndexConfig
from vecstow_engine.service import attempts, catalog, loader, manifest_watcher, registry, upkeep
from vecstow_engine.service.attempts import Attempts, Folder, Work
from vecstow_engine.service.collection import Collection
from vecstow_engine.storage import files
from vecstow_engine.storage.layout import MANIFEST
from vecstow_engine.storage.manifests import mark_dropped, update_manifest
from vecstow_engine.storage.store import Store

UNFORESEEN = [
    pytest.param(RuntimeError("Not enough memory: addPoint failed"), id="hnswlib"),
    pytest.param(MemoryError(), id="memory"),
    pytest.param(sqlite3.OperationalError("disk I/O error"), id="sqlite"),
    pytest.param(msgspec.ValidationError("Expected `str`"), id="msgspec"),
    pytest.param(AssertionError("never"), id="assertion"),
]
WIDE = IndexConfig(max_connections=32)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 0.01)


@pytest.fixture
async def two(tmp_path):
    """An engine with the collections `bad` and `good`, in this order, that checkpoints when asked for it."""
    with RunningEngine(tmp_path / "data") as engine:
        for name in ("bad", "good"):
            engine.declare(name)
            await engine.put(name, a=1)
        yield engine


class Failing:
    """A method that raises for one collection, until it is allowed to succeed."""

    def __init__(self, monkeypatch, kind, name, error, is_bad):
        self.tries = 0
        self.fails = True
        self._error, self._is_bad = error, is_bad
        real = getattr(kind, name)

        def call(target, *values, **options):
            if self.fails and is_bad(target):
                self.tries += 1
                raise error
            return real(target, *values, **options)

        monkeypatch.setattr(kind, name, call)


def checkpoint_always(engine, monkeypatch):
    storage = dataclasses.replace(engine.settings.storage, checkpoint_seconds=0.0)
    monkeypatch.setattr(engine._upkeep, "_settings", dataclasses.replace(engine.settings, storage=storage))


def applied(engine, name):
    store = engine.collection(name).store
    return store.meta.applied == store.last_sequence


def failures(engine, work):
    [family] = [f for f in EngineCollector(engine, 9).collect() if f.name == "vecstow_work_failures"]
    return next(sample.value for sample in family.samples if sample.labels == {"work": work.value})


@pytest.mark.parametrize("error", UNFORESEEN)
async def test_checkpoint_that_fails_is_shown_and_tried_again_and_delays_no_other(
    tmp_path, monkeypatch, error
):
    with RunningEngine(tmp_path / "data", checkpoint_seconds=0) as engine:
        failing = Failing(monkeypatch, Store, "checkpoint", error, lambda s: s.identity.name == "bad")
        for name in ("bad", "good"):
            engine.declare(name)
            await engine.put(name, a=1)
        await asyncio.to_thread(
            wait_until, lambda: failures(engine, Work.CHECKPOINT) >= 3 and applied(engine, "good")
        )
        assert engine.describe("bad")["reason"].startswith("checkpoint fails, and is tried again: ")
        assert engine.describe("good")["reason"] is None
        row = next(row for row in engine.state_document()["collections"] if row["name"] == "bad")
        assert row["reason"] == engine.describe("bad")["reason"]
        failing.fails = False
        await asyncio.to_thread(wait_until, lambda: applied(engine, "bad"))
        await asyncio.to_thread(wait_until, lambda: engine.describe("bad")["reason"] is None)
        assert engine.live


@pytest.mark.parametrize("error", UNFORESEEN[:2])
async def test_graph_that_fails_delays_no_other(two, monkeypatch, error):
    bad = two.collection("bad").index
    failing = Failing(monkeypatch, VectorIndex, "advance", error, lambda index: index is bad)
    await two.put("bad", **fill("p", 1200))
    await two.put("good", **fill("p", 1200))
    await asyncio.to_thread(wait_until, lambda: failing.tries >= 3)
    await asyncio.to_thread(two.indexed, "good")
    assert "indexing fails" in two.describe("bad")["reason"]
    failing.fails = False
    await asyncio.to_thread(two.indexed, "bad")
    assert two.describe("bad")["reason"] is None


async def test_what_decides_on_upkeep_fails_and_delays_no_other(two, monkeypatch):
    bad = two.collection("bad")
    real = upkeep.Upkeep._due
    tries = []

    def due(upkeep, collection):
        if collection is bad:
            tries.append(1)
            raise AssertionError("never")
        return real(upkeep, collection)

    monkeypatch.setattr(upkeep.Upkeep, "_due", due)
    checkpoint_always(two, monkeypatch)
    await asyncio.to_thread(wait_until, lambda: len(tries) >= 3 and applied(two, "good"))
    assert "upkeep fails" in two.describe("bad")["reason"]


async def test_failed_rebuild_keeps_no_checkpoint_of_its_collection(tmp_path, monkeypatch):
    """A pause is of one kind of work: the log would grow meanwhile."""
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 1e9)
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare("bad")
        await engine.put("bad", a=1)
        monkeypatch.setattr(VectorIndex, "deleted_share", property(lambda index: 2.0))
        failing = Failing(monkeypatch, VectorIndex, "start_rebuild", RuntimeError("no"), lambda index: True)
        await asyncio.to_thread(wait_until, lambda: failing.tries == 1)
        checkpoint_always(engine, monkeypatch)
        await asyncio.to_thread(wait_until, lambda: applied(engine, "bad"))
        assert failing.tries == 1


@pytest.mark.parametrize("chore", ["let_drops_if_over", "open_postponed", "rescan_when_due", "fill_reserve"])
def test_chore_that_fails_keeps_no_other_from_its_turn(tmp_path, monkeypatch, chore):
    engine = RunningEngine(tmp_path / "data")
    calls = []

    def noted(owner, name):
        def call(*values):
            calls.append(name)
            if name == chore and threading.current_thread().name == "upkeep":
                raise RuntimeError("no")

        monkeypatch.setattr(owner, name, call)

    noted(engine.hold, "let_drops_if_over")
    noted(engine._loader, "open_postponed")
    noted(engine._manifest_watcher, "rescan_when_due")
    noted(upkeep.Volume, "fill_reserve")
    with engine:
        wait_until(
            lambda: {"let_drops_if_over", "open_postponed", "rescan_when_due", "fill_reserve"} <= set(calls)
        )
        wait_until(lambda: calls.count(chore) >= 2)
        assert engine.live


@pytest.mark.parametrize("error", UNFORESEEN)
async def test_last_checkpoint_that_fails_keeps_no_other_from_its_own(tmp_path, monkeypatch, error):
    engine = RunningEngine(tmp_path / "data")
    with engine:
        for name in ("bad", "good"):
            engine.declare(name)
            await engine.put(name, a=1)
        Failing(monkeypatch, Store, "checkpoint", error, lambda s: s.identity.name == "bad")
        good = engine.collection("good").store
    assert good.meta.applied == good.last_sequence
    assert engine.volume is None
    assert len(engine._handles) == 0
    monkeypatch.undo()
    with RunningEngine(tmp_path / "data") as again:
        assert await again.values("bad", "a") == [1]


@pytest.mark.parametrize("part", ["_loader", "_committer", "_indexer", "_upkeep", "_searcher"])
async def test_part_that_cannot_stop_keeps_no_other_from_it(tmp_path, monkeypatch, part):
    engine = RunningEngine(tmp_path / "data")
    engine.start()
    wait_until(engine.registry.all_opened)
    engine.declare("good")
    await engine.put("good", a=1)
    good = engine.collection("good").store
    stop = getattr(engine, part).stop

    def stop_and_fail():
        stop()
        raise RuntimeError("no")

    monkeypatch.setattr(getattr(engine, part), "stop", stop_and_fail)
    with pytest.raises(RuntimeError, match="no"):
        engine.stop()
    assert good.meta.applied == good.last_sequence
    assert engine.volume is None
    with RunningEngine(tmp_path / "data"):
        pass


async def test_last_checkpoints_begin_with_collections_on_whose_files_nobody_works(tmp_path):
    engine = RunningEngine(tmp_path / "data")
    engine.start()
    wait_until(engine.registry.all_opened)
    for name in ("busy", "free"):
        engine.declare(name)
        await engine.put(name, a=1)
    free = engine.collection("free").store
    with engine.collection("busy").upkeep_lock:
        stop = threading.Thread(target=engine.stop)
        stop.start()
        await asyncio.to_thread(wait_until, lambda: free.meta.applied == free.last_sequence)
    await asyncio.to_thread(stop.join)
    assert engine.volume is None


@pytest.mark.parametrize("error", UNFORESEEN)
async def test_manifest_that_cannot_be_followed_is_tried_again_and_delays_no_other(two, monkeypatch, error):
    failing = Failing(monkeypatch, VectorIndex, "start_rebuild", error, lambda index: True)

    def change(name, **fields):
        update_manifest(two.layout, name, lambda found: dataclasses.replace(found, **fields))

    change("bad", index_config=WIDE)
    change("good", owner="somebody")
    two.refresh({})
    assert two.collection("good").manifest.owner == "somebody"
    assert "following its manifest fails" in two.describe("bad")["reason"]
    wait_until(lambda: two.refresh({}) or failing.tries >= 3)
    failing.fails = False
    wait_until(lambda: two.refresh({}) or two.collection("bad").manifest.index_config == WIDE)
    assert two.describe("bad")["reason"] is None
    assert failures(two, Work.FOLLOWING) == failing.tries


async def test_changed_manifest_is_followed_at_once_though_the_one_before_failed(two, monkeypatch):
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 1e9)
    failing = Failing(monkeypatch, VectorIndex, "start_rebuild", RuntimeError("no"), lambda index: True)
    update_manifest(two.layout, "bad", lambda found: dataclasses.replace(found, index_config=WIDE))
    for _ in range(3):
        two.refresh({})
    assert failing.tries == 1
    update_manifest(two.layout, "bad", lambda found: dataclasses.replace(found, index_config=IndexConfig()))
    two.refresh({})
    assert two.describe("bad")["reason"] is None


@pytest.mark.parametrize("kind", ["read", "open", "drop"])
async def test_folder_that_cannot_be_followed_is_shown_and_delays_no_other(two, tmp_path, monkeypatch, kind):
    for name in ("alone", "beside"):
        (two.layout.data / name).mkdir()
        text = (two.layout.data / "good" / MANIFEST).read_text().replace('"good"', f'"{name}"')
        uid = two.collection("good").manifest.collection_uid
        (two.layout.data / name / MANIFEST).write_text(text.replace(f'"{uid}"', "null"))
    if kind == "drop":
        mark_dropped(two.layout, "alone")
    fails = True

    def guarded(module, name, is_bad):
        real = getattr(module, name)

        def call(*values, **options):
            if fails and is_bad(*values):
                raise RuntimeError("no")
            return real(*values, **options)

        monkeypatch.setattr(module, name, call)

    guarded(registry, "read_manifest", lambda folder: kind == "read" and folder.name == "alone")
    guarded(catalog.Catalog, "open_new", lambda _, manifest: kind == "open" and manifest.name == "alone")
    guarded(manifest_watcher, "move_to_deleted", lambda layout, name, uid: name == "alone")
    two.refresh({})
    assert two.collection_names() == ["bad", "beside", "good"]
    row = next(row for row in two.state_document()["collections"] if row["name"] == "alone")
    assert row["reason"] == "its manifest cannot be followed: RuntimeError: no"
    fails = False
    served = [] if kind == "drop" else ["alone"]
    wait_until(lambda: two.refresh({}) or two.collection_names() == [*served, "bad", "beside", "good"])
    wait_until(lambda: two.refresh({}) or "alone" not in two.registry.broken())


async def test_collection_whose_files_cannot_be_looked_for_delays_no_other(two, monkeypatch):
    real = Collection.refuse_if_gone
    fails = True

    def look(collection):
        if fails and collection.name == "bad":
            raise RuntimeError("no")
        looked.append(collection.name)
        return real(collection)

    looked = []
    monkeypatch.setattr(Collection, "refuse_if_gone", look)
    two.refresh({})
    assert "good" in looked
    assert "looking for its files fails" in two.describe("bad")["reason"]
    fails = False
    wait_until(lambda: two.refresh({}) or two.describe("bad")["reason"] is None)


@pytest.mark.parametrize("error", UNFORESEEN[1:3])
@pytest.mark.parametrize("place", ["open_store", "is_rival"])
async def test_collection_that_fails_to_open_at_the_start_is_opened_later(two, monkeypatch, error, place):
    """Other collections are served meanwhile."""
    copy = two.copied()
    fails = True

    def guarded(owner, name, name_of):
        real = getattr(owner, name)

        def call(*values, **options):
            if fails and name == place and name_of(values) == "bad":
                raise error
            return real(*values, **options)

        monkeypatch.setattr(owner, name, call)

    guarded(loader, "open_store", lambda values: values[1].name)
    guarded(registry.Registry, "is_rival", lambda values: values[1].name)
    with copy:
        assert await copy.values("good", "a") == [1]
        described = copy.describe("bad")
        assert described["state"] == ("recovering" if isinstance(error, MemoryError) else "quarantined")
        assert type(error).__name__ in described["reason"]
        assert failures(copy, Work.OPENING) >= 1
        fails = False
        await asyncio.to_thread(wait_until, lambda: copy.describe("bad")["state"] == "ready")
        assert copy.describe("bad")["reason"] is None
        assert await copy.values("bad", "a") == [1]


async def test_postponed_opening_waits_for_nobody_who_works_on_the_files(two, monkeypatch):
    copy = two.copied()
    real = loader.open_store
    monkeypatch.setattr(loader, "open_store", lambda *values, **options: 1 / 0)
    with copy:
        monkeypatch.setattr(loader, "open_store", real)
        bad = copy.collection("bad")
        with bad.upkeep_lock:
            copy._loader.open_again(bad)
            assert bad.state == "quarantined"
        await asyncio.to_thread(wait_until, lambda: copy.describe("bad")["state"] == "ready")


async def test_manifest_that_cannot_even_be_read_keeps_no_other_from_the_start(two, monkeypatch):
    from vecstow_engine.storage import discovery

    real = discovery.read_manifest

    def read(folder):
        if folder.name == "bad":
            raise RecursionError("maximum recursion depth exceeded")
        return real(folder)

    copy = two.copied()
    monkeypatch.setattr(discovery, "read_manifest", read)
    with copy:
        assert await copy.values("good", "a") == [1]
        assert "maximum recursion depth" in copy.registry.broken()["bad"]


async def test_dropped_collection_that_cannot_be_purged_keeps_no_other(two, monkeypatch):
    real = catalog.purge

    def purge(layout, deleted):
        if deleted.name == "bad":
            raise RuntimeError("no")
        real(layout, deleted)

    two.drop("good")
    two.drop("bad")
    monkeypatch.setattr(catalog, "purge", purge)
    with pytest.raises(RuntimeError, match="no"):
        two.catalog.cleanup(0)
    assert [deleted["name"] for deleted in two.catalog.deleted()] == ["bad"]


def test_pauses_grow_with_each_failure_and_end_with_a_success(monkeypatch):
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 1.0)
    made, holder = Attempts(), Folder("notes")
    pauses = [made.fail(Work.OPENING, holder, StorageError("no")).pause_seconds for _ in range(10)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert not made.may_begin(Work.OPENING, holder)
    assert made.may_begin(Work.FOLLOWING, holder)
    with made.at(Work.OPENING, holder):
        pass
    assert made.may_begin(Work.OPENING, holder)
    assert made.fail(Work.OPENING, holder, StorageError("no")).pause_seconds == 1


def test_pause_after_a_full_disk_stays_short(monkeypatch):
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 1.0)
    made, holder = Attempts(), Folder("notes")
    pauses = [made.fail(Work.CHECKPOINT, holder, DiskFull("full")).pause_seconds for _ in range(7)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_traceback_of_an_error_nobody_foresaw_is_logged_once():
    made, holder = Attempts(), Folder("notes")
    with capture_logs() as lines:
        for error in (RuntimeError("a"), RuntimeError("a"), RuntimeError("b"), StorageError("c")):
            made.fail(Work.INDEXING, holder, error)
    assert [bool(line["exc_info"]) for line in lines] == [True, False, True, False]
    assert [line["reason"] for line in lines] == ["RuntimeError: a"] * 2 + ["RuntimeError: b", "c"]
    assert {(line["work"], line["collection"]) for line in lines} == {("indexing", "notes")}


def test_error_that_ends_the_process_is_no_failed_attempt():
    made, holder = Attempts(), Folder("notes")
    with pytest.raises(KeyboardInterrupt), made.at(Work.INDEXING, holder):
        raise KeyboardInterrupt
    assert not holder.troubles


async def test_rows_that_the_index_could_not_take_are_found_all_the_same(two, monkeypatch):
    """The write is logged by then, and acknowledged."""
    add, error = VectorIndex.add, MemoryError()

    def fail_once(index, rows, labels):
        monkeypatch.setattr(VectorIndex, "add", add)
        raise error

    monkeypatch.setattr(VectorIndex, "add", fail_once)
    with capture_logs() as lines:
        assert await two.put("good", b=2) == ["b"]
    assert ("rows are indexed later", error) in {(line["event"], line.get("exc_info")) for line in lines}
    assert await two.nearest("good", 2) == ["b"]
    await two.put("good", c=3)
    assert await two.nearest("good", 3) == ["c"]
    await asyncio.to_thread(two.indexed, "good")


async def test_commit_that_fails_is_shown_until_one_succeeds(two, monkeypatch):
    commit = Store.commit

    def fail(store, *values):
        if store.identity.name == "bad":
            raise MemoryError
        return commit(store, *values)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "commit", fail)
        with pytest.raises(MemoryError):
            await two.put("bad", b=2)
        assert await two.put("good", b=2) == ["b"]
    assert two.describe("bad")["reason"] == "committing fails, and is tried again: MemoryError"
    assert failures(two, Work.COMMITTING) == 1
    assert await two.put("bad", b=2) == ["b"]
    assert two.describe("bad")["reason"] is None


@pytest.mark.parametrize("place", [".staging/notes-1", ".backups/notes-1.tmp"])
def test_leftover_that_cannot_be_removed_does_not_prevent_a_start(tmp_path, monkeypatch, place):
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        leftover = engine.layout.data / place
    leftover.mkdir(parents=True)

    def refuse(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(files, "remove_tree", refuse)
    with capture_logs() as lines, RunningEngine(tmp_path / "data") as engine:
        assert engine.discovered
        assert engine.not_ready() == {}
    assert "what a crash left could not be removed" in [line["event"] for line in lines]
    assert leftover.is_dir()


async def test_snapshot_of_one_collection_delays_no_checkpoint_of_another(two, monkeypatch):
    begun, may_end = threading.Event(), threading.Event()

    def take(collection, checkpoint):
        begun.set()
        assert may_end.wait(SECONDS_MAX)

    monkeypatch.setattr(upkeep, "take_snapshot", take)
    first, other = two.collection("bad"), two.collection("good")
    monkeypatch.setattr(two._upkeep, "_wants_snapshot", lambda collection, rows_min: collection is first)
    try:
        wait_until(begun.is_set)
        other.changed_at = -1e10  # long ago: a checkpoint is due
        wait_until(lambda: other.store.meta.applied == other.store.last_sequence)
    finally:
        may_end.set()
