"""An error in one of the engine's threads ends neither the thread nor the work of others."""

import asyncio
import contextlib
import errno
import threading

import pytest
from structlog.testing import capture_logs

from tests.unit.interleaving import Slowed
from tests.unit.running_engine import RunningEngine, fill, wait_until
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.model.errors import (
    DiskFull,
)
from vecstow_engine.service import attempts, committer


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
