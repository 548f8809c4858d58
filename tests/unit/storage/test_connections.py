"""Readers of the point table during writes, drops and failed syncs."""

import asyncio
import sqlite3

import numpy as np
import pytest

from tests.unit.running_engine import RunningEngine
from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.model.errors import (
    NotFound,
    StorageError,
)
from vecstow_engine.storage.points import writer


@pytest.fixture
def notes(tmp_path):
    store = StoreOnDisk(tmp_path / "data")
    store.put(a=1)
    yield store
    store.close()


@pytest.mark.parametrize("checkpoints", [0, 1, 2, 3])
def test_scan_meets_every_point_that_is_there_throughout(notes, checkpoints):
    """A point that is written again goes to a slot, or a layer, that the scan has passed."""
    notes.put(b=2, c=3, d=4)
    notes.delete("a")
    notes.checkpoint()
    scan = notes.store.view.scan()
    met = [next(scan)]
    notes.put(d=5)
    for number in range(checkpoints):
        notes.checkpoint()
        notes.put(**{f"more{number}": 6})
    met += scan
    labels = np.array([label for label, _, _ in met], np.uint64)
    assert len(set(labels.tolist())) == len(labels)
    live = [point for point in notes.store.view.resolve(labels) if point is not None]
    assert sorted(point for point in live if not point[0].startswith("more")) == [
        ("b", b'{"v":2}'), ("c", b'{"v":3}'), ("d", b'{"v":5}'),
    ]  # fmt: skip


def test_read_that_a_drop_overtook_opens_no_files_of_the_next_collection(tmp_path):
    """The new collection has none of the old points, and the restored one has none of the new."""

    async def drop_and_restore(engine):
        engine.declare()
        await engine.put(a=1, b=2)
        engine.checkpoint()
        dropped = engine.collection("notes")
        engine.drop("notes")
        engine.declare()
        await engine.put(a=100, b=200)
        engine.checkpoint()
        with pytest.raises(NotFound):
            dropped.store.view.get(["a"])
        engine.catalog.restore(engine.catalog.deleted()[0]["path"], "back")
        assert await engine.values("back", "a", "b") == [1, 2]
        assert await engine.values("notes", "a", "b") == [100, 200]

    with RunningEngine(tmp_path / "data") as engine:
        asyncio.run(drop_and_restore(engine))


def test_rule_11_connection_of_a_failed_sync_is_never_closed(notes, monkeypatch):
    """SQLite syncs once more when the last connection is closed, and then unlinks the only sure copy."""

    def fail(connection, path):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise error

    monkeypatch.setattr(writer, "make_durable", fail)
    with pytest.raises(StorageError):
        notes.store.checkpoint()
    notes.close()
    assert (notes.folder / "points.db-wal").stat().st_size > 0
