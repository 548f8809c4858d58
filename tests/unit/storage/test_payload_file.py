"""Rules 13 and 14 for payload.bin: how it is written, when it is believed, why an old one is still of use."""

import asyncio
import dataclasses
import errno
import os
import shutil
import sqlite3
from types import SimpleNamespace

import numpy as np
import pytest
from crc32c import crc32c
from structlog.testing import capture_logs

from tests.unit.indexed_points import INDEXES, IndexedPoints, Reads
from tests.unit.recorded_disk import PowerOff
from tests.unit.running_engine import RunningEngine, wait_until
from vecstow_engine.index.payload.columns_file import FILE_VERSION
from vecstow_engine.index.payload.payload_columns import PayloadColumns
from vecstow_engine.model.errors import DiskFull
from vecstow_engine.model.manifest import PayloadIndex
from vecstow_engine.service import upkeep
from vecstow_engine.service.attempts import Work
from vecstow_engine.service.snapshotter import save_columns
from vecstow_engine.storage import snapshots
from vecstow_engine.storage.layout import COLUMNS
from vecstow_engine.storage.manifests import update_manifest
from vecstow_engine.storage.points.reader import PointTable
from vecstow_engine.storage.points.records import COLUMNS_SPACE, SnapshotEntry
from vecstow_engine.storage.points.writer import write_snapshot

COUNT = 300


@pytest.fixture
async def points(tmp_path):
    """Indexed points, checkpointed, in an engine that saves only where a test asks for it."""
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare(payload_indexes=INDEXES)
        made = IndexedPoints(engine)
        await made.put(range(COUNT))
        made.complete()
        engine.checkpoint()
        yield made


@pytest.fixture
def reads(monkeypatch):
    return Reads(monkeypatch)


def save(points):
    collection = points.collection
    with collection.upkeep_lock:
        return save_columns(collection, lambda: points.engine._upkeep.checkpoint(collection))


def file_of(engine, name="notes"):
    return engine.layout.collection(name) / COLUMNS


def entries(engine):
    table = PointTable(engine.layout.collection("notes") / "points.db")
    try:
        return [entry for entry in table.snapshots() if entry.file == COLUMNS]
    finally:
        table.close()


def remarks(logs):
    return [line["reason"] for line in logs if line["event"] == "payload indexes are built again"]


class Started:
    """A start: how many payloads it read, and why it believed no file."""

    def __init__(self, points, engine, reads):
        before = reads.points
        with capture_logs() as logs, engine as again:
            wait_until(lambda: again.collection("notes").payload_indexes.unfinished is None)
            self.payloads = reads.points - before
            self.remarks = remarks(logs)
            assert again.describe("notes")["state"] == "ready"
            assert points.are_certain(again)
            points.check(again)


# Writing -------------------------------------------------------------------------------------------------


async def test_file_is_synced_then_recorded_then_named(points, disk):
    assert save(points)
    assert disk.matching("sync payload*", "*points.db", "rename *") == [
        "sync payload.bin.tmp",
        "commit points.db",
        "durable points.db",
        "rename payload.bin.tmp -> payload.bin",
    ]
    assert disk.steps[-1] == "sync notes/"


async def test_record_holds_length_checksum_version_and_sequence(points):
    assert save(points)
    raw = file_of(points.engine).read_bytes()
    [entry] = entries(points.engine)
    assert entry == SnapshotEntry(crc32c(raw), len(raw), 1, COLUMNS_SPACE, 0, str(FILE_VERSION))


async def test_file_never_contains_what_is_not_durably_applied(points):
    await points.put(range(COUNT, COUNT + 10))
    store = points.collection.store
    assert store.meta.applied < store.last_sequence
    assert save(points)
    [entry] = entries(points.engine)
    assert entry.sequence == store.meta.applied == store.last_sequence == 2


async def test_point_that_is_written_while_the_file_is_made_is_in_the_checkpoint_before_the_record(
    points, monkeypatch, reads
):
    written = []
    copied = PayloadColumns.parts

    def overtaken(columns):
        for part in copied(columns):
            yield part
            written.append(COUNT + len(written))
            asyncio.run(points.put([*written[-1:], len(written)], shift=1))
            points.check()

    with monkeypatch.context() as planted:
        planted.setattr(PayloadColumns, "parts", overtaken)
        assert await asyncio.to_thread(save, points)
    assert entries(points.engine)[0].sequence == points.collection.store.meta.applied == 1 + len(written)
    started = Started(points, points.engine.copied(), reads)
    assert (started.payloads, started.remarks) == (2 * len(written), [])


async def test_file_is_not_recorded_without_a_checkpoint_of_its_points(points):
    await points.put(range(COUNT, COUNT + 10))
    with points.collection.upkeep_lock:
        assert not save_columns(points.collection, lambda: False)
    assert entries(points.engine) == []
    assert list(file_of(points.engine).parent.glob("payload.bin*")) == []


async def test_columns_that_are_torn_meanwhile_are_not_recorded(points, monkeypatch):
    copied = PayloadColumns.parts

    def torn(columns):
        yield from copied(columns)
        columns.is_torn = True

    monkeypatch.setattr(PayloadColumns, "parts", torn)
    assert not save(points)
    assert entries(points.engine) == []


async def test_two_newest_records_of_each_file_are_kept(points):
    with points.collection.upkeep_lock:
        for number in range(4):
            write_snapshot(
                points.collection.store.layers.folder / "points.db",
                SnapshotEntry(100 + number, 1, number, "l2", 16, "0.8.0"),
            )
    for number in range(4):
        await points.put([COUNT + number])
        assert save(points)
    assert [entry.sequence for entry in entries(points.engine)] == [5, 4]
    table = PointTable(points.engine.layout.collection("notes") / "points.db")
    assert [entry.sequence for entry in table.snapshots() if entry.file != COLUMNS] == [3, 2]
    table.close()


async def test_previous_file_is_valid_after_a_crash_between_record_and_rename(points, disk, reads):
    assert save(points)
    await points.put(range(COUNT, COUNT + 10))
    disk.stop_at = "rename payload.bin.tmp*"
    with pytest.raises(PowerOff):
        save(points)
    disk.stop_at = disk.stop_before = None
    assert len(entries(points.engine)) == 2
    started = Started(points, points.engine.copied(), reads)
    assert (started.payloads, started.remarks) == (10, [])


@pytest.mark.parametrize("stop", ["create payload*", "write payload*", "sync payload*", "commit points.db"])
async def test_crash_before_the_record_is_durable_leaves_the_previous_file(points, disk, reads, stop):
    assert save(points)
    await points.put(range(COUNT, COUNT + 10))
    points.engine.checkpoint()
    disk.stop_at = stop
    with pytest.raises(PowerOff):
        save(points)
    disk.stop_at = disk.stop_before = None
    copy = points.engine.copied()
    started = Started(points, copy, reads)
    assert (started.payloads, started.remarks) == (10, [])
    assert list(file_of(copy).parent.glob("payload.bin*")) == [file_of(copy)]


async def test_full_disk_leaves_the_previous_file_and_the_collection_writing(points, disk, reads):
    assert save(points)
    before = file_of(points.engine).read_bytes()
    await points.put(range(COUNT, COUNT + 10))
    points.engine.checkpoint()
    for step in ("write payload*", "commit points.db"):
        disk.fail(step, errno.ENOSPC)
        with pytest.raises((DiskFull, OSError)):
            save(points)
    assert file_of(points.engine).read_bytes() == before
    assert not file_of(points.engine).with_name("payload.bin.tmp").exists()
    await points.put([COUNT + 20])
    points.check()
    assert save(points)
    assert Started(points, points.engine.copied(), reads).payloads == 0


async def test_file_leaves_room_for_log_and_checkpoints(points, monkeypatch):
    """It is a cache: writes come first. It is written when there is room again."""
    size = points.collection.payload_indexes.memory_bytes
    free = [2 * size - 4096]
    monkeypatch.setattr(
        snapshots, "os", SimpleNamespace(statvfs=lambda folder: SimpleNamespace(f_bavail=free[0], f_frsize=1))
    )
    monkeypatch.setattr(upkeep, "SNAPSHOT_ROWS_MIN", 1)
    wait_until(lambda: Work.PAYLOAD_SNAPSHOT in points.collection.troubles)
    assert "payload index snapshot fails" in points.collection.reason
    assert "payload.bin is not written again: it takes" in points.collection.reason
    assert not file_of(points.engine).exists()
    free[0] = 2 * size
    points.collection.troubles.clear()
    wait_until(lambda: file_of(points.engine).exists() and points.collection.reason is None)


async def test_running_engine_saves_when_enough_has_changed(points, monkeypatch):
    assert not file_of(points.engine).exists()
    monkeypatch.setattr(upkeep, "SNAPSHOT_ROWS_MIN", COUNT)
    wait_until(lambda: len(entries(points.engine)) == 1)
    await points.put(range(COUNT - 1), shift=1)
    columns = points.complete()
    assert columns.changes == COUNT - 1
    await points.put([COUNT])
    wait_until(lambda: len(entries(points.engine)) == 2)
    wait_until(lambda: columns.changes == 0)


# Believing -----------------------------------------------------------------------------------------------


async def test_valid_file_is_loaded_and_no_payload_is_read(points, reads):
    points.engine.stop()
    started = Started(points, points.engine.copied(), reads)
    assert (started.payloads, started.remarks) == (0, [])


async def test_older_file_is_completed_and_not_built_again(points, reads):
    """Updated, deleted and new points, in the table and in the log."""
    assert save(points)
    await points.put(range(5), shift=1)
    await points.delete(range(10, 20))
    points.engine.checkpoint()
    await points.put([*range(COUNT, COUNT + 7), 30], shift=2)
    started = Started(points, points.engine.copied(), reads)
    assert (started.payloads, started.remarks) == (5 + 7 + 1, [])


async def test_slot_that_was_given_to_another_point_since_is_read(points, reads):
    assert save(points)
    await points.delete(range(50))
    points.engine.checkpoint()
    await points.put(range(COUNT, COUNT + 50), shift=3)
    points.engine.checkpoint()
    slots = points.collection.store.view.labels() & np.uint64(0xFFFFFFFF)
    assert len(np.unique(slots)) == int(slots.max()) + 1 == COUNT
    assert Started(points, points.engine.copied(), reads).payloads == 50


async def test_file_of_another_declaration(points, reads):
    """Fewer fields are taken from it; without a declared field it is not used."""
    points.engine.stop()

    def change(indexes):
        def copied(name):
            engine = points.engine.copied(name)
            update_manifest(
                engine.layout, "notes", lambda found: dataclasses.replace(found, payload_indexes=indexes)
            )
            return engine

        return copied

    with capture_logs() as logs, change(INDEXES[1:3])("less") as again:
        assert again.collection("notes").payload_indexes.complete.declared == INDEXES[1:3]
        assert (remarks(logs), reads.points) == ([], 0)
        points.check(again)
    for extra in (PayloadIndex("extra", "keyword"), PayloadIndex("word", "text")):
        rest = tuple(each for each in INDEXES if each.field != extra.field)
        with capture_logs() as logs, change((*rest, extra))(extra.type) as again:
            assert remarks(logs) == [f"it has no index of the declared type for {extra.field}"]
            wait_until(lambda again=again: again.collection("notes").payload_indexes.unfinished is None)
            points.check(again)


def flipped(raw):
    raw[len(raw) // 2] ^= 1
    return raw


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(flipped, "payload.bin fails its checksum", id="flipped bit"),
        pytest.param(lambda raw: raw[:-1], "which no recorded snapshot has", id="cut"),
        pytest.param(lambda raw: raw + b"\0", "which no recorded snapshot has", id="longer"),
        pytest.param(lambda raw: b"", "which no recorded snapshot has", id="empty"),
        pytest.param(lambda raw: b"x" * len(raw), "payload.bin fails its checksum", id="text"),
    ],
)
async def test_damaged_file_is_never_loaded(points, reads, damage, reason):
    points.engine.stop()
    path = file_of(points.engine)
    path.write_bytes(damage(bytearray(path.read_bytes())))
    started = Started(points, points.engine.copied(), reads)
    assert started.payloads == COUNT
    [remark] = started.remarks
    assert reason in remark


async def test_missing_file_is_built_again(points, reads):
    points.engine.stop()
    file_of(points.engine).unlink()
    assert Started(points, points.engine.copied(), reads).payloads == COUNT


async def test_file_of_another_collection_is_never_loaded(points, reads):
    """The same declaration, as many points of the same labels, another content."""
    points.engine.declare("other", payload_indexes=INDEXES)
    other = IndexedPoints(points.engine, "other")
    await other.put(range(COUNT), shift=5)
    other.complete()
    points.engine.stop()
    shutil.copyfile(file_of(points.engine, "other"), file_of(points.engine))
    started = Started(points, points.engine.copied(), reads)
    assert started.payloads == COUNT
    [remark] = started.remarks
    assert "payload.bin" in remark


async def test_file_of_an_earlier_copy_of_the_volume_is_never_loaded(points, reads):
    """Two newer files were recorded since it was copied."""
    assert save(points)
    kept = file_of(points.engine).read_bytes()
    for shift in (1, 2):
        await points.put(range(COUNT), shift=shift)
        assert save(points)
    points.engine.stop()
    file_of(points.engine).write_bytes(kept)
    started = Started(points, points.engine.copied(), reads)
    assert started.payloads == COUNT
    [remark] = started.remarks
    assert "payload.bin" in remark


async def test_file_that_the_table_does_not_contain_yet_is_never_loaded(points, reads):
    """A record of the future: no engine writes it."""
    points.engine.stop()
    [entry] = entries(points.engine)
    path = points.engine.layout.collection("notes") / "points.db"
    write_snapshot(path, dataclasses.replace(entry, sequence=99), keep=1)
    started = Started(points, points.engine.copied(), reads)
    assert started.payloads == COUNT
    assert started.remarks == ["payload.bin contains sequence 99, but only 1 is applied"]


async def test_record_that_fails_its_checksum_is_not_believed(points, reads):
    points.engine.stop()
    connection = sqlite3.connect(points.engine.layout.collection("notes") / "points.db", isolation_level=None)
    connection.execute("UPDATE snapshots SET sequence = 0")
    connection.close()
    assert Started(points, points.engine.copied(), reads).payloads == COUNT


async def test_file_of_a_later_version_is_built_again(points, reads):
    points.engine.stop()
    path = file_of(points.engine)
    raw = bytearray(path.read_bytes())
    raw[8] += 1
    path.write_bytes(raw)
    [entry] = entries(points.engine)
    write_snapshot(path.with_name("points.db"), dataclasses.replace(entry, crc=crc32c(bytes(raw))), keep=1)
    started = Started(points, points.engine.copied(), reads)
    assert (started.payloads, started.remarks) == (COUNT, ["it has another format than version 1"])


async def test_file_that_does_not_fit_into_memory_is_not_loaded(points, reads, monkeypatch):
    points.engine.stop()
    copy = points.engine.copied()
    monkeypatch.setattr(copy.accounts, "may_index", lambda collection, size: size < 1000)
    with capture_logs() as logs, copy as again:
        assert remarks(logs) == ["payload.bin does not fit into memory"]
        wait_until(lambda: again.collection("notes").reason is not None)
        assert "payload indexes fails, and is tried again: payload indexes of 300 points need" in (
            again.collection("notes").reason
        )
        points.check(again)


# Copies --------------------------------------------------------------------------------------------------


async def test_backup_has_the_file_and_a_restore_builds_the_indexes(points):
    assert save(points)
    await points.put(range(20), shift=1)
    backup = await asyncio.to_thread(points.engine.backup, "notes")
    assert (points.engine.layout.data / backup / "notes" / COLUMNS).exists()
    before = dict(points.points)
    await points.put(range(20), shift=2)
    await asyncio.to_thread(points.engine.catalog.restore, backup, "again")
    restored = IndexedPoints(points.engine, "again")
    restored.points = before
    restored.check()
    restored.complete()
    assert restored.are_certain()
    restored.check()


async def test_drop_and_restore_keep_the_indexes(points):
    assert save(points)
    points.engine.drop("notes")
    await asyncio.to_thread(points.engine.catalog.restore, points.engine.newest_deleted(), None)
    points.check()
    points.complete()
    assert points.are_certain()
    await points.put(range(5), shift=1)
    points.check()


async def test_repaired_collection_has_its_indexes(points):
    assert save(points)
    await points.delete(range(10))
    points.engine.checkpoint()
    points.engine.stop()
    copy = points.engine.copied()
    rows = copy.layout.collection("notes") / "vectors.bin"
    raw = bytearray(rows.read_bytes())
    raw[40] ^= 1
    rows.write_bytes(raw)
    with copy as again:
        assert again.repair("notes")["outcome"] == "repaired"
        wait_until(lambda: again.collection("notes").payload_indexes.unfinished is None)
        assert again.collection("notes").payload_indexes.complete.declared == INDEXES
        assert points.are_certain(again)
        points.check(again)


def test_temporary_file_of_a_crash_is_removed(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare(payload_indexes=INDEXES)
        points = IndexedPoints(engine)
        asyncio.run(points.put(range(20)))
    temporary = file_of(engine).with_name("payload.bin.tmp")
    temporary.write_bytes(os.urandom(100))
    with RunningEngine(tmp_path / "data") as again:
        assert not temporary.exists()
        points.check(again)
