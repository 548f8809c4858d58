"""Checkpoints and snapshots through the engine."""

import errno
import os
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from tests.unit.running_engine import RunningEngine, fill
from vecstow_engine.model.errors import (
    DiskFull,
    StorageError,
)
from vecstow_engine.service.snapshotter import take_snapshot
from vecstow_engine.storage.store import Store


async def test_clean_stop_leaves_nothing_to_replay(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(a=1)
    with capture_logs() as logs, RunningEngine(tmp_path / "data") as again:
        assert await again.values("notes", "a") == [1]
    [line] = [line for line in logs if line["event"] == "collection loaded"]
    assert (line["replayed"], line["vectors"]) == (0, 1)


async def test_failed_checkpoint_of_one_collection_is_told_and_the_log_kept(engine, disk):
    await engine.put(a=1)
    disk.fail("write vectors.bin", errno.EIO)
    with pytest.raises(StorageError):
        engine.checkpoint()
    assert await engine.values("notes", "a") == [1]
    with engine.copied() as again:
        assert await again.values("notes", "a") == [1]


async def test_snapshot_takes_no_room_that_writes_need(engine, monkeypatch):
    """It would fill the disk before it is found to be cut, and writes would be refused meanwhile."""
    await engine.put(**fill("p", 1200))
    collection = engine.indexed()
    with collection.index.fork_point() as graph:
        size = graph.hnsw.file_size()
    stats = SimpleNamespace(f_bavail=2 * size - 1, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: stats)
    with (
        collection.upkeep_lock,
        pytest.raises(DiskFull, match=f"takes {size} bytes, and {2 * size - 1} are free"),
    ):
        take_snapshot(collection, lambda: engine._upkeep.checkpoint(collection))
    assert not list(collection.store.layers.folder.glob("index.bin*"))
    stats.f_bavail += 1
    with collection.upkeep_lock:
        assert take_snapshot(collection, lambda: engine._upkeep.checkpoint(collection))


async def test_log_bytes_count_every_segment(engine, monkeypatch):
    """A checkpoint that fails leaves the segments before its own."""
    await engine.put(a=1)
    collection = engine.collection("notes")
    monkeypatch.setattr(Store, "_write_frozen", full)
    with pytest.raises(DiskFull):
        engine._upkeep.checkpoint(collection)
    await engine.put(b=2)
    segments = list(engine.layout.log(collection.manifest.collection_uid).glob("*.log"))
    [row] = engine.state_document()["collections"]
    assert len(segments) == 2
    assert row["log_bytes"] == sum(segment.stat().st_size for segment in segments)


def full(store):
    raise DiskFull("the volume is full")
