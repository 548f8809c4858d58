"""Reads see what no checkpoint has, at every moment of its way to the files (rule 10)."""

import asyncio
import shutil
import threading

import numpy as np
import pytest

from tests.unit.running_engine import RunningEngine
from tests.unit.store_on_disk import vector
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.searches import SearchQuery
from vecstow_engine.service.searcher import search_many
from vecstow_engine.storage.backup import make_backup


def watched(method, look):
    """Looks before and after each call that is no part of a look."""
    looking = False

    def call(*values):
        nonlocal looking
        if looking:
            method(*values)
            return
        looking = True
        look()
        method(*values)
        look()
        looking = False

    return call


def keep_changing(engine, busy):
    while not busy.is_set():
        for name in ("one", "two", "three"):
            engine.compact(name)
            with engine.collection(name).upkeep_lock:
                shutil.rmtree(make_backup(engine.layout, engine.collection(name).manifest))


async def write_and_read(engine, name, rounds):
    """Three points in turn, each written, updated, read, found and deleted; ids are this writer's alone."""
    mine = f"{id(asyncio.current_task())}-"
    for round_ in range(1, rounds + 1):
        point_id = f"{mine}{round_ % 3}"
        value = 1000 * round_ + int(mine[:-1]) % 997
        await engine.put(name, **{point_id: value})
        assert await engine.values(name, point_id) == [value]
        assert await engine.nearest(name, value) == [point_id]
        if round_ % 4 == 0:
            assert await engine.delete_points(name, [point_id]) == [True]
            assert await engine.values(name, point_id) == [None]
            assert point_id not in await engine.nearest(name, value, 50)


async def test_rule_10_filter_count_and_search_see_what_no_checkpoint_has(engine):
    await engine.put(a=1, b=2, c=3)
    engine.checkpoint()
    await engine.put(b=20, d=4)
    await engine.delete_points("notes", ["c"])
    assert engine.describe("notes")["vector_count"] == 3
    for value, wanted in ((2, []), (20, ["b"]), (3, []), (4, ["d"]), (1, ["a"])):
        query = SearchQuery.build(
            engine.collection("notes").manifest, np.zeros(4, np.float32), 10, None, parse_filter({"v": value})
        )
        assert [hit.id for hit in await engine.search("notes", query)] == wanted, value


@pytest.mark.parametrize(("change", "moved", "value"), [("update", "a", 1), ("compaction", "far", 1000)])
async def test_rule_10_point_is_found_at_every_moment_of_its(engine, monkeypatch, change, moved, value):
    """By its old row or by its new one."""
    await engine.put(gone=500, a=1, far=1000)
    engine.checkpoint()
    await engine.delete_points("notes", ["gone"])
    engine.checkpoint()
    collection = engine.collection("notes")
    query = SearchQuery.build(collection.manifest, np.array(vector(value), np.float32), 1)
    found = []

    def look():
        found.extend(hit.id for [hit] in search_many(collection, [query]))

    for name in ("add", "remove"):
        monkeypatch.setattr(collection.index, name, watched(getattr(collection.index, name), look))
    if change == "update":
        await engine.put(a=2)
    else:
        engine.compact("notes")
    assert found == [moved] * 4


async def test_rule_10_reads_are_right_while_everything_else_goes_on(tmp_path):
    """Writers, checkpoints, compaction, backups and few open files: no read is ever older than an answer."""
    with RunningEngine(tmp_path / "data", handles_max=2, checkpoint_seconds=0.0) as engine:
        for name in ("one", "two", "three"):
            engine.declare(name)
        busy = threading.Event()
        upkeep = asyncio.create_task(asyncio.to_thread(keep_changing, engine, busy))
        await asyncio.gather(*(write_and_read(engine, name, 60) for name in ("one", "two", "three", "one")))
        busy.set()
        await upkeep
        with engine.copied() as again:
            for name in ("one", "two", "three"):
                assert again.describe(name)["state"] == "ready"
                assert again.describe(name)["vector_count"] == engine.describe(name)["vector_count"]
