"""What the engine's threads do to each other: holds, stops and errors in each other's way."""

import asyncio
import contextlib
import dataclasses
import errno
import functools
import os
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.unit.interleaving import Slowed
from tests.unit.running_engine import RunningEngine, fill, wait_until
from tests.unit.store_on_disk import MANIFEST, upsert
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.model.batch import SearchQuery
from vecstow_engine.model.errors import Busy, Conflict, DiskFull, InvalidInput, Recovering
from vecstow_engine.model.filters import parse_filter
from vecstow_engine.query import filtered
from vecstow_engine.service import attempts, catalog, committer, hold_gate, loader, searcher
from vecstow_engine.service.snapshotter import take_snapshot
from vecstow_engine.storage import restoring
from vecstow_engine.storage.manifests import drops_wait, manifests_locked, update_manifest


async def test_hold_waits_until_every_collection_is_opened(engine, monkeypatch):
    """Recovery writes logs anew and removes those that it found: a copy beside it may have neither."""
    await engine.put(a=1)
    opening = Slowed(monkeypatch, loader, "open_store")
    copy = engine.copied()
    copy.start()
    try:
        with pytest.raises(Recovering, match="until every collection is opened"):
            copy.hold(60)
        opening.goes_on.set()
        wait_until(copy.registry.all_opened)
        copy.hold(60)
    finally:
        opening.goes_on.set()
        copy.stop()


async def test_volume_is_locked_until_a_restore_that_is_under_way_is_done(engine, monkeypatch):
    """Else another engine would have it, and two would write."""
    await engine.put(a=1)
    engine.drop("notes")
    slowed = Slowed(monkeypatch, restoring, "restore_deleted")
    restore = asyncio.create_task(asyncio.to_thread(engine.restore, engine.deleted()[0]["path"], None))
    await asyncio.to_thread(slowed.entered.wait, 20)
    stop = asyncio.create_task(asyncio.to_thread(engine.stop))
    await asyncio.to_thread(wait_until, lambda: engine.gate.closed)
    assert engine.volume is not None
    slowed.goes_on.set()
    assert await restore == "notes"
    await stop
    assert engine.volume is None
    with pytest.raises(Busy, match="stopping"):
        engine.cleanup(0)


async def test_purge_of_a_hard_delete_is_over_before_a_hold_begins(engine, monkeypatch):
    await engine.put(a=1)
    purging = Slowed(monkeypatch, catalog, "purge")
    delete = asyncio.create_task(asyncio.to_thread(engine.hard_delete, "notes"))
    await asyncio.to_thread(purging.entered.wait, 20)
    with pytest.raises(Busy):
        engine.gate.hold(60, wait_seconds=0.01)
    purging.goes_on.set()
    await delete
    engine.hold(60)
    engine.release_hold()


async def test_reserve_that_cannot_be_given_up_fails_the_delete_and_not_the_thread(engine, monkeypatch):
    await engine.put(a=1)
    collection = engine.collection("notes")
    commit = collection.commit

    def fail(effects):
        monkeypatch.setattr(collection, "commit", commit)
        raise DiskFull("the volume is full")

    def refuse():
        raise OSError(errno.EIO, "refused")

    monkeypatch.setattr(collection, "commit", fail)
    monkeypatch.setattr(engine.volume, "release_reserve", refuse)
    with pytest.raises(OSError, match="refused"):
        await engine.delete_points("notes", ["a"])
    assert await engine.delete_points("notes", ["a"]) == [True]


async def test_writers_whose_event_loop_is_gone_do_not_end_the_thread(engine, monkeypatch):
    await engine.put(a=1)
    collection = engine.collection("notes")
    commit = Slowed(monkeypatch, collection, "commit")

    def write_and_leave():
        with contextlib.suppress(TimeoutError):
            asyncio.run(asyncio.wait_for(engine.put(b=2), 0.05))

    for _ in range(2 * committer.THREADS):
        await asyncio.to_thread(write_and_leave)
    commit.goes_on.set()
    await asyncio.wait_for(engine.put(c=3), 20)
    assert await engine.values("notes", "a", "b", "c") == [1, 2, 3]


def change_owner(engine, owner):
    """As another process does it."""
    update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, owner=owner))


def test_manifest_that_was_changed_while_the_collection_was_created_is_followed(tmp_path, monkeypatch):
    with RunningEngine(tmp_path / "data") as engine:

        def overtaken(*values):
            answer = update_manifest(*values)
            change_owner(engine, "sidecar")
            return answer

        monkeypatch.setattr(catalog, "update_manifest", overtaken)
        engine.declare()
        engine.refresh({})
        assert engine.collection("notes").manifest.owner == "sidecar"


async def test_settings_do_not_take_the_uid_away_that_the_first_write_gives(engine, monkeypatch):
    """Without it the log would be missing in a backup, and stay behind in a purge."""
    change_owner(engine, "sidecar")
    writing = Slowed(monkeypatch, catalog, "create_data_files")
    write = asyncio.create_task(engine.put(a=1))
    await asyncio.to_thread(writing.entered.wait, 20)
    await asyncio.to_thread(engine.refresh, {})
    assert engine.collection("notes").manifest.owner is None
    writing.goes_on.set()
    await write
    engine.refresh({})
    manifest = engine.collection("notes").manifest
    assert (manifest.owner, manifest.collection_uid) == (
        "sidecar", engine.collection("notes").store.identity.uid,
    )  # fmt: skip


async def test_collection_is_neither_dropped_nor_changed_while_it_is_opened(engine, monkeypatch):
    """Its loader would go on with the next collection's files, or with the settings that it read before."""
    await engine.put(a=1)
    opening = Slowed(monkeypatch, loader, "open_store")
    copy = engine.copied()
    copy.start()
    try:
        with pytest.raises(Recovering):
            copy.drop("notes")
        change_owner(copy, "sidecar")
        copy.refresh({})
        opening.goes_on.set()
        wait_until(copy.registry.all_opened)
        copy.refresh({})
        assert copy.collection("notes").manifest.owner == "sidecar"
        copy.drop("notes")
    finally:
        opening.goes_on.set()
        copy.stop()


async def test_snapshot_takes_no_room_that_writes_need(engine, monkeypatch):
    """It would fill the disk before it is found to be cut, and writes would be refused meanwhile."""
    await engine.put(**fill("p", 1200))
    collection = engine.indexed()
    with collection.index.fork_point() as graph:
        size = graph.file_size()
    stats = SimpleNamespace(f_bavail=2 * size - 1, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: stats)
    with collection.upkeep, pytest.raises(DiskFull, match=f"takes {size} bytes, and {2 * size - 1} are free"):
        take_snapshot(collection, lambda: engine._upkeep.checkpoint(collection))
    assert not list(collection.store.layers.folder.glob("index.bin*"))
    stats.f_bavail += 1
    with collection.upkeep:
        assert take_snapshot(collection, lambda: engine._upkeep.checkpoint(collection))


def test_drops_of_others_wait_as_long_as_a_hold_lasts(engine, monkeypatch):
    seconds = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(hold_gate, "time", SimpleNamespace(monotonic=lambda: seconds.now))
    assert not drops_wait(engine.layout)
    for _ in range(2):
        engine.hold(30)
        assert drops_wait(engine.layout)
    engine.release_hold()
    assert not drops_wait(engine.layout)
    engine.hold(30)
    seconds.now += 30
    wait_until(lambda: not drops_wait(engine.layout))


def test_hold_that_does_not_begin_keeps_no_drop_waiting(engine, monkeypatch):
    monkeypatch.setattr(engine.gate, "hold", functools.partial(engine.gate.hold, wait_seconds=0.01))
    with engine.gate.passing(), pytest.raises(Busy):
        engine.hold(30)
    wait_until(lambda: not drops_wait(engine.layout))


def test_drop_that_is_being_marked_is_made_before_a_hold_begins(engine):
    held = threading.Thread(target=engine.hold, args=(30,))
    with manifests_locked(engine.layout):
        held.start()
        held.join(0.05)
        assert held.is_alive()
    held.join()
    assert drops_wait(engine.layout)


def test_engine_that_ends_during_a_hold_keeps_no_drop_waiting(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        engine.hold(30)
        assert drops_wait(engine.layout)
    assert not drops_wait(engine.layout)


async def test_first_write_during_a_hold_is_told_when_to_come_again(engine):
    """Not that the collection exists, which a 409 means: the clients of d-vecDB raise TypeError then."""
    engine.hold(30)
    with pytest.raises(Busy, match="held for 30 s more") as refused:
        await engine.put(a=1)
    assert refused.value.retry_after_seconds == 30
    engine.release_hold()
    assert await engine.put(a=1) == ["a"]


async def test_served_collection_is_not_imported_from_under_its_writers(engine):
    await engine.put(a=1)
    (engine.layout.data / "link").symlink_to(engine.layout.collection("notes"))
    for path in ("notes", "link"):
        with pytest.raises(Conflict, match="served as collection 'notes'"):
            engine.import_orphan(
                orphaned_path=path, collection_name="other", dimension=4,
                distance_metric=MANIFEST.distance_metric, vector_type=MANIFEST.vector_type,
            )  # fmt: skip
    assert engine.collection_names() == ["notes"]


def test_create_with_another_shape_names_both(engine):
    with pytest.raises(Conflict, match="exists with dimension 4, Euclidean, Float32, not with dimension 5"):
        engine.create(dataclasses.replace(engine.collection("notes").manifest, dimension=5), exist_ok=True)


async def test_filtered_search_misses_no_point_that_is_replaced_meanwhile(engine, monkeypatch):
    await engine.put(a=1, b=1, c=2)
    collection = engine.collection("notes")
    real = filtered._nearest_matching

    def overtaken(*values):
        hits = real(*values)
        monkeypatch.setattr(filtered, "_nearest_matching", real)
        collection.commit([upsert(a=1)])
        return hits

    monkeypatch.setattr(filtered, "_nearest_matching", overtaken)
    query = SearchQuery.build(collection.manifest, np.zeros(4, np.float32), 3, None, parse_filter({"v": 1}))
    assert {hit.id for hit in searcher.search_filtered(collection, query, query.filter)} == {"a", "b"}


async def test_folder_that_appears_during_a_hold_is_opened_after_it(engine):
    """Opening settles and rewrites files: a copy under the hold would be of two moments."""
    await engine.put(a=1)
    engine.checkpoint()
    with engine.copied("source") as source:
        source.hard_delete("notes")
        engine_folder = engine.settings.data / "notes"
        source.hold(60)
        shutil.copytree(engine_folder, source.settings.data / "notes")
        source.refresh({})
        assert source.collection_names() == []
        source.release_hold()
        source.refresh({})
        assert await source.values("notes", "a") == [1]


async def test_graph_that_cannot_grow_is_tried_again_and_keeps_no_other_waiting(engine, monkeypatch):
    """The tail would be full for ever, and each further insert refused, while nothing says why."""
    engine.declare("other")
    add, failing = HnswGraph.add, threading.Event()
    failing.set()

    def add_or_fail(graph, rows, labels, threads):
        if failing.is_set() and rows[0, 0] < 5000:
            tries.append(labels)
            raise RuntimeError("Not enough memory: resizeIndex failed to allocate base layer")
        add(graph, rows, labels, threads)

    tries = []
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(HnswGraph, "add", add_or_fail)
    with capture_logs() as logs:
        await engine.put(**fill("p", 1200))
        wait_until(lambda: len(tries) >= 2)
    assert {line["event"] for line in logs} == {"work for a collection failed"}
    assert logs[0]["exc_info"].args == ("Not enough memory: resizeIndex failed to allocate base layer",)
    await engine.put("other", **fill("q", 1200, 5000))
    wait_until(lambda: engine.collection("other").index.indexed == 1200)
    assert engine.collection("notes").index.indexed == 0
    failing.clear()
    wait_until(lambda: engine.collection("notes").index.indexed == 1200)
    assert await engine.nearest("notes", 7) == ["p6"]
    assert engine.live


@pytest.mark.parametrize("part", ["_committer", "_indexer", "_upkeep"])
def test_engine_whose_thread_has_ended_is_not_alive(tmp_path, part):
    with RunningEngine(tmp_path / "data") as engine:
        assert engine.live
        getattr(engine, part).stop()
        assert not engine.live


def test_searches_that_ask_for_many_hits_share_no_call():
    small, large = SimpleNamespace(limit=10), SimpleNamespace(limit=10_000)
    assert searcher._group_size([(small, None)] * 100) == 64
    assert searcher._group_size([(large, None), (small, None)]) == 1
    assert searcher._group_size([(small, None), (large, None), (small, None)]) == 1
    assert searcher._group_size([(small, None)]) == 1


async def test_withheld_points_are_told_in_the_log_once(engine):
    await engine.put(a=1, b=2)
    collection = engine.collection("notes")
    collection.store.layers.withhold(0, 1, "a bad row")
    with capture_logs() as lines:
        collection.tell_withheld()
        collection.tell_withheld()
    assert [(line["event"], line["withheld"]) for line in lines] == [("collection is degraded", 1)]


def test_hold_above_the_limit_is_refused(engine):
    with pytest.raises(InvalidInput, match="at most 3600"):
        engine.hold(3601)
    assert engine.gate.remaining_seconds == 0
