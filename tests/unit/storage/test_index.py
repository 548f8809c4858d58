"""Rules 13 and 14: how index.bin is written, when it is believed, and why an old one is still of use."""

import dataclasses
import errno
import os
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from crc32c import crc32c
from structlog.testing import capture_logs

from tests.unit.recorded_disk import PowerOff
from tests.unit.running_engine import RunningEngine, fill, wait_until
from vecstow_engine.index.graph import HnswGraph
from vecstow_engine.model.errors import DiskFull, StorageError
from vecstow_engine.service import snapshotter
from vecstow_engine.service.snapshotter import take_snapshot
from vecstow_engine.storage.log.replay import segment_paths
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.records import SnapshotEntry
from vecstow_engine.storage.points.writer import write_snapshot

ROWS = 1200
"""More than stay in memory without a graph."""


@pytest.fixture
async def engine(tmp_path):
    """Points p0 to p1199 of values 1 to 1200, checkpointed and in the graph."""
    running = RunningEngine(tmp_path / "data")
    with running:
        running.declare()
        await running.put(**fill("p", ROWS))
        running.checkpoint()
        running.indexed()
        yield running


def snapshot(engine):
    collection = engine.collection("notes")
    with collection.upkeep_lock:
        return take_snapshot(collection, lambda: engine._upkeep.checkpoint(collection))


def entries(engine):
    table = PointTable(engine.layout.collection("notes") / "points.db")
    try:
        return table.snapshots()
    finally:
        table.close()


def index_file(engine):
    return engine.layout.collection("notes") / "index.bin"


class Loads:
    """Counts the graphs that hnswlib loads."""

    def __init__(self, monkeypatch):
        self.count = 0
        real = HnswGraph.load.__func__

        def load(cls, *values):
            self.count += 1
            return real(cls, *values)

        monkeypatch.setattr(HnswGraph, "load", classmethod(load))


@pytest.fixture
def loads(monkeypatch):
    return Loads(monkeypatch)


def remarks(logs):
    return [line["reason"] for line in logs if line["event"] == "index is rebuilt from its rows"]


# Rule 13: writing ----------------------------------------------------------------------------------------


async def test_rule_13_snapshot_is_synced_then_recorded_then_named(engine, disk):
    assert snapshot(engine)
    assert disk.matching("sync index*", "*points.db", "rename *") == [
        "sync index.bin.tmp",
        "commit points.db",
        "durable points.db",
        "rename index.bin.tmp -> index.bin",
    ]
    assert disk.steps[-1] == "sync notes/"


async def test_rule_13_snapshot_is_written_by_another_process(engine, monkeypatch):
    """hnswlib's save holds the interpreter: in this process no search would run meanwhile."""
    written = []
    real = snapshotter.describe_snapshot

    def save(graph, path):
        with open(path, "w") as file:
            file.write(f"{os.getpid()} {os.getppid()}")

    def describe(folder, **values):
        written.extend((folder / "index.bin.tmp").read_text().split())
        return real(folder, **values)

    monkeypatch.setattr(HnswGraph, "save", save)
    monkeypatch.setattr(snapshotter, "describe_snapshot", describe)
    with pytest.raises(StorageError):
        snapshot(engine)
    assert written[0] != str(os.getpid())
    assert written[1] == str(os.getpid())


async def test_rule_13_child_holds_no_lock_and_no_descriptor(engine, monkeypatch):
    seen = []
    real = snapshotter.describe_snapshot

    def save(graph, path):
        kept = [number for number in range(3, 200) if _is_open(number)]
        with open(path, "w") as file:
            file.write(repr(kept))

    def describe(folder, **values):
        seen.append((folder / "index.bin.tmp").read_text())
        return real(folder, **values)

    monkeypatch.setattr(HnswGraph, "save", save)
    monkeypatch.setattr(snapshotter, "describe_snapshot", describe)
    with pytest.raises(StorageError):
        snapshot(engine)
    assert seen == ["[]"]


def _is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


ENDLESS_SAVE = """
import os, sys, time
from vecstow_engine.service.snapshotter import _fork
class Graph:
    def save(self, path):
        os.write(1, b"%d\\n" % os.getpid())
        time.sleep(60)
_fork(Graph(), None)
time.sleep(60)
"""


def test_rule_13_child_dies_with_its_parent():
    with subprocess.Popen([sys.executable, "-c", ENDLESS_SAVE], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        assert os.path.exists(f"/proc/{child}")
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: _is_gone(child))


def _is_gone(pid):
    """Whether the process has ended, though perhaps its exit code was not asked for yet."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("kept", [0, 100, -1], ids=["nothing", "100 bytes", "all but a byte"])
async def test_rule_13_cut_snapshot_is_thrown_away(engine, monkeypatch, kept):
    """hnswlib reports no error on a full disk."""
    assert snapshot(engine)
    before = index_file(engine).read_bytes()
    await engine.put(more=5000)
    engine.indexed()
    real = HnswGraph.save

    def cut(graph, path):
        real(graph, path)
        os.truncate(path, kept if kept >= 0 else os.stat(path).st_size + kept)

    monkeypatch.setattr(HnswGraph, "save", cut)
    with pytest.raises(StorageError, match="the disk may be full"):
        snapshot(engine)
    assert index_file(engine).read_bytes() == before
    assert not index_file(engine).with_name("index.bin.tmp").exists()
    assert await engine.put(still=5001) == ["still"]


async def test_rule_13_child_that_dies_leaves_everything_as_it_was(engine, monkeypatch):
    monkeypatch.setattr(HnswGraph, "save", lambda graph, path: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(StorageError, match="ended with status"):
        snapshot(engine)
    assert entries(engine) == []
    assert engine.describe("notes")["state"] == "ready"


async def test_rule_13_record_holds_length_checksum_space_links_version_and_sequence(engine):
    assert snapshot(engine)
    [entry] = entries(engine)
    raw = index_file(engine).read_bytes()
    assert entry == SnapshotEntry(crc32c(raw), len(raw), 1, "l2", 16, "0.8.0")


async def test_rule_13_snapshot_never_contains_what_is_not_durably_applied(engine):
    """The changes that the graph has beyond the last checkpoint are checkpointed before the record."""
    await engine.put(more=5000)
    engine.indexed()
    store = engine.collection("notes").store
    assert store.meta.applied < store.last_sequence
    assert snapshot(engine)
    [entry] = entries(engine)
    assert entry.sequence == store.meta.applied == 2


async def test_rule_13_stale_or_missing_index_never_holds_the_log_back(engine, monkeypatch):
    monkeypatch.setattr(HnswGraph, "save", lambda graph, path: os.kill(os.getpid(), signal.SIGKILL))
    for value in range(3):
        await engine.put(more=5000 + value)
        engine.checkpoint()
        with pytest.raises(StorageError):
            snapshot(engine)
    assert len(segment_paths(engine.collection("notes").store.log.folder)) == 1


async def test_rule_13_two_newest_records_are_kept(engine):
    for value in range(4):
        await engine.put(more=5000 + value)
        engine.indexed()
        assert snapshot(engine)
    assert [entry.sequence for entry in entries(engine)] == [5, 4]


async def test_rule_13_previous_snapshot_is_valid_after_a_crash_between_record_and_rename(
    engine, disk, loads
):
    assert snapshot(engine)
    await engine.put(more=5000)
    engine.indexed()
    disk.stop_at = "rename index.bin.tmp*"
    with pytest.raises(PowerOff):
        snapshot(engine)
    disk.stop_at = disk.stop_before = None
    assert len(entries(engine)) == 2
    with capture_logs() as logs, engine.copied() as again:
        assert remarks(logs) == []
        assert loads.count == 1
        assert await again.nearest("notes", 5000) == ["more"]


async def test_rule_13_full_disk_at_the_record_leaves_the_collection_writing(engine, disk):
    disk.fail("commit points.db", errno.ENOSPC)
    with pytest.raises(DiskFull):
        snapshot(engine)
    assert await engine.put(more=5000) == ["more"]


# Rule 13: believing --------------------------------------------------------------------------------------


async def test_rule_13_valid_snapshot_is_loaded(engine, loads):
    assert snapshot(engine)
    with capture_logs() as logs, engine.copied() as again:
        assert (remarks(logs), loads.count) == ([], 1)
        assert again.collection("notes").index.pending == 0
        assert await again.nearest("notes", 700) == ["p699"]


def damage(path, how):
    raw = bytearray(path.read_bytes())
    if how == "flipped":
        raw[len(raw) // 2] ^= 1
    elif how == "cut":
        raw = raw[:-1]
    elif how == "longer":
        raw += b"\0"
    elif how == "empty":
        raw = bytearray()
    elif how == "text":
        raw[:] = b"x" * len(raw)
    path.write_bytes(raw)


@pytest.mark.parametrize("how", ["flipped", "cut", "longer", "empty", "text"])
async def test_rule_13_damaged_snapshot_is_rebuilt_and_never_loaded(engine, loads, how):
    """A damaged one answers wrongly, or crashes the process."""
    assert snapshot(engine)
    engine.stop()
    damage(index_file(engine), how)
    with capture_logs() as logs, engine.copied() as again:
        assert loads.count == 0
        [reason] = remarks(logs)
        assert "index.bin" in reason
        assert again.describe("notes")["state"] == "ready"
        assert await again.nearest("notes", 700) == ["p699"]
        again.indexed()
        assert await again.nearest("notes", 700) == ["p699"]


async def test_rule_13_missing_snapshot_is_rebuilt(engine, loads):
    with capture_logs() as logs, engine.copied() as again:
        assert (remarks(logs), loads.count) == (["index.bin is missing"], 0)
        assert await again.nearest("notes", 700) == ["p699"]


@pytest.mark.parametrize(
    "change",
    [{"library": "0.9.0"}, {"space": "cosine"}, {"sequence": 99}, {"max_connections": 8}],
    ids=lambda change: next(iter(change)),
)
async def test_rule_13_snapshot_of_other_making_is_not_believed(engine, loads, change):
    assert snapshot(engine)
    [entry] = entries(engine)
    path = engine.layout.collection("notes") / "points.db"
    write_snapshot(path, dataclasses.replace(entry, **change), keep=1)
    with capture_logs() as logs, engine.copied() as again:
        if "max_connections" not in change:
            assert loads.count == 0
            assert len(remarks(logs)) == 1
        assert await again.nearest("notes", 700) == ["p699"]


async def test_rule_13_record_that_fails_its_checksum_is_not_believed(engine, loads):
    assert snapshot(engine)
    engine.stop()
    connection = sqlite3.connect(engine.layout.collection("notes") / "points.db", isolation_level=None)
    connection.execute("UPDATE snapshots SET sequence = 0")
    connection.close()
    with engine.copied() as again:
        assert loads.count == 0
        assert await again.nearest("notes", 700) == ["p699"]


# Rule 14 -------------------------------------------------------------------------------------------------


async def test_rule_14_stale_snapshot_is_completed_not_rebuilt(engine, loads):
    """Unknown labels are marked deleted, missing points join the tail: updated, deleted and new ones."""
    assert snapshot(engine)
    await engine.put(p5=9000, new=9100)
    await engine.delete_points("notes", ["p6", "p7"])
    engine.checkpoint()
    await engine.put(p8=9200)
    await engine.delete_points("notes", ["new", "p9"])
    with capture_logs() as logs, engine.copied() as again:
        assert (remarks(logs), loads.count) == ([], 1)
        collection = again.collection("notes")
        assert not collection.index.rebuilding
        assert collection.index.count == ROWS - 3
        assert await again.nearest("notes", 9000) == ["p5"]
        assert await again.nearest("notes", 9200) == ["p8"]
        assert {"p5", "p6", "p7", "p8", "p9"} & set(await again.nearest("notes", 7.5, 20)) == set()
        again.indexed()
        assert await again.nearest("notes", 9000) == ["p5"]
        assert {"p5", "p6", "p7", "p8", "p9"} & set(await again.nearest("notes", 7.5, 20)) == set()


async def test_rule_14_slot_that_was_given_to_another_point_since_is_not_answered_for_it(engine, loads):
    """The label is slot and epoch: an old one in the snapshot must not name the new point."""
    assert snapshot(engine)
    await engine.delete_points("notes", ["p5"])
    engine.checkpoint()
    await engine.put(x=9000)
    engine.checkpoint()
    labels = engine.collection("notes").store.view.labels()
    assert len(np.unique(labels & np.uint64(0xFFFFFFFF))) == len(labels) == ROWS
    with engine.copied() as again:
        assert loads.count == 1
        assert "x" not in await again.nearest("notes", 6, 10)
        assert await again.nearest("notes", 9000) == ["x"]


async def test_rule_14_update_is_found_by_its_new_vector_only(engine):
    await engine.put(p5=9000)
    assert await engine.nearest("notes", 9000) == ["p5"]
    assert "p5" not in await engine.nearest("notes", 6, 20)
    engine.indexed()
    assert await engine.nearest("notes", 9000) == ["p5"]
    assert "p5" not in await engine.nearest("notes", 6, 20)


async def test_rule_14_deleted_id_is_never_returned_again(engine):
    await engine.delete_points("notes", [f"p{number}" for number in range(100)])
    for _ in range(2):
        found = await engine.nearest("notes", 50, 300)
        assert not {f"p{number}" for number in range(100)} & set(found)
        assert found[0] == "p100"
        engine.checkpoint()


async def test_rule_14_more_than_a_quarter_deleted_is_rebuilt_in_the_background(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(**fill("p", ROWS))
        collection = engine.indexed()
        await engine.delete_points("notes", [f"p{number}" for number in range(ROWS // 4)])
        assert list(engine._upkeep._due(collection)) == []
        assert 0.2 < collection.index.deleted_share <= 0.25
        settings = engine._upkeep._settings

        engine._upkeep._settings = dataclasses.replace(
            settings, index=dataclasses.replace(settings.index, rebuild_deleted_ratio=0.2)
        )
        wait_until(lambda: collection.index.deleted_share == 0 and not collection.index.rebuilding)
        assert await engine.nearest("notes", 400) == ["p399"]
