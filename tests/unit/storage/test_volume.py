"""Rule 15 and the volume as a whole: one engine, local storage, a reserve that keeps deletes working."""

import errno
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.unit.recorded_disk import PowerOff
from tests.unit.running_engine import RunningEngine, fill, wait_until
from vecstow_engine.model.errors import DiskFull, VolumeRefused
from vecstow_engine.storage import volume
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.volume import NETWORK_FILE_SYSTEMS, Volume, file_system_type

MIB = 1 << 20


class Room:
    """The volume's free bytes as statfs reports them."""

    def __init__(self, monkeypatch):
        self.free = 100_000 * MIB
        real = os.statvfs

        def statvfs(path):
            found = real(path)
            return SimpleNamespace(
                f_blocks=100_000, f_frsize=MIB, f_bavail=self.free // MIB, f_files=found.f_files
            )

        monkeypatch.setattr(os, "statvfs", statvfs)


@pytest.fixture
def room(monkeypatch):
    return Room(monkeypatch)


# One engine per volume -----------------------------------------------------------------------------------


def test_volume_is_locked_for_one_engine(tmp_path):
    first = Volume(Layout(tmp_path), 0)
    with pytest.raises(VolumeRefused, match=f"process {os.getpid()}"):
        Volume(Layout(tmp_path), 0)
    first.close()
    Volume(Layout(tmp_path), 0).close()


def test_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import os, sys; from pathlib import Path\n"
        "from vecstow_engine.storage.volume import Volume; from vecstow_engine.storage.layout import Layout\n"
        "v = Volume(Layout(Path(sys.argv[1])), 0); print('locked', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], **pipes) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(VolumeRefused, match=f"process {holder.pid}"):
            Volume(Layout(tmp_path), 0)
        holder.kill()
        holder.wait()
    Volume(Layout(tmp_path), 0).close()


def test_volume_id_is_made_once(tmp_path):
    first = Volume(Layout(tmp_path / "a"), 0)
    first.close()
    again = Volume(Layout(tmp_path / "a"), 0)
    again.close()
    other = Volume(Layout(tmp_path / "b"), 0)
    other.close()
    assert first.id == again.id == (tmp_path / "a" / "VOLUME").read_text().strip()
    assert len(first.id) == 32
    assert other.id != first.id


@pytest.mark.parametrize(
    "held", [b"", b"\n", b"0" * 31, b"G" * 32, b"0" * 32 + b"\x0b", b"\xff" * 32], ids=repr
)
def test_damaged_volume_id_is_refused_and_left_as_it_is(tmp_path, held):
    (tmp_path / "VOLUME").write_bytes(held)
    with pytest.raises(VolumeRefused, match="32 hex digits"):
        Volume(Layout(tmp_path), 0)
    assert (tmp_path / "VOLUME").read_bytes() == held


@pytest.mark.parametrize("kind", NETWORK_FILE_SYSTEMS, ids=NETWORK_FILE_SYSTEMS.get)
def test_network_file_system_is_refused_unless_a_flag_allows_it(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(volume, "file_system_type", lambda path: kind)
    with pytest.raises(VolumeRefused, match=NETWORK_FILE_SYSTEMS[kind]) as refused:
        Volume(Layout(tmp_path), 0)
    assert "--allow-network-file-system" in refused.value.hint
    assert list(tmp_path.iterdir()) == [], "nothing is written there"
    Volume(Layout(tmp_path), 0, allow_network=True).close()


def test_file_system_type_is_statfs_word_for_it(tmp_path):
    """Compared with what the system's own tool says."""
    said = subprocess.run(["stat", "-f", "-c", "%t", tmp_path], capture_output=True, text=True, check=True)
    assert file_system_type(tmp_path) == int(said.stdout, 16)


@pytest.mark.parametrize("name", ["metadata.json", "vectors.bin", "points.db", "data/VOLUME", "data/LOCK"])
def test_new_data_directory_is_neither_in_a_collection_nor_around_a_volume(tmp_path, name):
    (tmp_path / "data").mkdir()
    (tmp_path / name).touch()
    with pytest.raises(VolumeRefused, match="no data directory"):
        Volume(Layout(tmp_path), 0)
    assert {path.name for path in tmp_path.iterdir()} == {"data", name.partition("/")[0]}
    (tmp_path / "VOLUME").write_text("0" * 32)
    Volume(Layout(tmp_path), 0).close()


def test_data_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "data").write_text("x")
    with pytest.raises(VolumeRefused, match="is no folder") as refused:
        Volume(Layout(tmp_path / "data"), 0)
    assert "--data" in (refused.value.hint or "")
    with pytest.raises(VolumeRefused, match="cannot be made"):
        Volume(Layout(tmp_path / "data" / "below"), 0)


# Rule 15: the reserve ------------------------------------------------------------------------------------


def reserved(data):
    stat = (data / "RESERVE").stat()
    return stat.st_size, stat.st_blocks * 512


def test_rule_15_reserve_is_allocated_not_only_sized(tmp_path, room):
    """A sparse file would keep no room."""
    Volume(Layout(tmp_path), 3 * MIB).close()
    assert reserved(tmp_path) == (3 * MIB, 3 * MIB)


def test_rule_15_reserve_is_at_most_a_fiftieth_of_the_volume(tmp_path, monkeypatch):
    stats = SimpleNamespace(f_blocks=50, f_frsize=MIB, f_bavail=50)
    monkeypatch.setattr(os, "statvfs", lambda path: stats)
    Volume(Layout(tmp_path), 64 * MIB).close()
    assert reserved(tmp_path)[0] == MIB


def test_rule_15_reserve_is_given_up_and_filled_again_when_there_is_room(tmp_path, room):
    held = Volume(Layout(tmp_path), MIB)
    assert (held.release_reserve(), held.full) == (True, True)
    assert reserved(tmp_path) == (0, 0)
    assert held.release_reserve() is False
    room.free = 2 * MIB
    assert (held.fill_reserve(), held.full) == (False, True)
    room.free = 100 * MIB
    assert (held.fill_reserve(), held.full) == (True, False)
    assert reserved(tmp_path)[0] == MIB
    held.close()


def test_rule_15_reserve_that_finds_no_room_takes_none(tmp_path, room, disk):
    disk.fail("allocate RESERVE", errno.ENOSPC)
    held = Volume(Layout(tmp_path), MIB)
    assert reserved(tmp_path) == (0, 0)
    held.close()


# Rule 15: a full disk, through the engine ----------------------------------------------------------------


@pytest.fixture
def engine(tmp_path, room):
    with RunningEngine(tmp_path / "data", reserve_bytes=MIB) as running:
        running.declare()
        yield running


async def test_rule_15_full_disk_fails_the_write_clearly_and_reads_go_on(engine, disk, room):
    await engine.put(a=1)
    disk.fail("write *.log", errno.ENOSPC, bytes_first=50)
    with pytest.raises(DiskFull, match="nothing was changed"):
        await engine.put(b=2)
    assert await engine.values("notes", "a", "b") == [1, None]
    assert await engine.nearest("notes", 1) == ["a"]
    assert engine.describe("notes")["state"] == "ready"
    assert await engine.put(b=3) == ["b"], "writes resume by themselves"
    with engine.copied() as again:
        assert await again.values("notes", "a", "b") == [1, 3]


async def test_rule_15_delete_gets_the_reserve(engine, disk, room):
    await engine.put(a=1, b=2)
    room.free = 0
    disk.fail("write *.log", errno.ENOSPC)
    assert await engine.delete_points("notes", ["a"]) == [True]
    assert reserved(engine.settings.data) == (0, 0)
    assert await engine.values("notes", "a", "b") == [None, 2]
    with pytest.raises(DiskFull, match="only deletes are taken"):
        await engine.put(c=3)
    assert await engine.delete_points("notes", ["b"]) == [True]
    room.free = 100 * MIB
    wait_until(lambda: not engine.volume.full)
    assert await engine.put(c=3) == ["c"]


async def test_rule_15_checkpoint_gets_the_reserve(engine, disk, room):
    await engine.put(a=1)
    room.free = 0
    disk.fail("write vectors.bin", errno.ENOSPC)
    assert engine.checkpoint()
    assert reserved(engine.settings.data) == (0, 0)
    assert engine.collection("notes").store.meta.points == 1


async def test_rule_15_checkpoint_without_room_or_reserve_keeps_everything(engine, disk, room):
    await engine.put(a=1)
    room.free = 0
    engine.volume.release_reserve()
    disk.fail("write vectors.bin", errno.ENOSPC, times=3)
    for _ in range(3):
        with pytest.raises(DiskFull):
            engine.checkpoint()
    assert await engine.values("notes", "a") == [1]
    assert engine.describe("notes")["state"] == "ready"
    assert engine.checkpoint()


@pytest.mark.parametrize("step", ["sync data/", "write metadata.json.tmp"])
async def test_rule_15_drop_gets_the_reserve(engine, disk, room, step):
    """The mark in the manifest, and the folder of dropped collections, need room."""
    await engine.put(a=1)
    room.free = 0
    if step.startswith("write"):
        disk.fail(step, errno.ENOSPC)
    engine.drop("notes")
    assert engine.collection_names() == []


async def test_rule_15_purge_and_hard_delete_need_no_room(engine, disk, room):
    await engine.put(a=1)
    engine.declare("other")
    engine.drop("other")
    room.free = 0
    disk.fail("write *", errno.ENOSPC, times=99)
    assert engine.catalog.cleanup(0) == ["other"]


async def test_rule_15_engine_starts_on_a_full_disk_and_serves_reads(tmp_path, disk):
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(a=1)
        engine.checkpoint()
        await engine.put(b=2)
        copy = engine.copied()
    disk.fail("write *", errno.ENOSPC, times=10_000)
    disk.fail("allocate *", errno.ENOSPC, times=10_000)
    with copy as full:
        assert await full.values("notes", "a", "b") == [1, 2]
        assert await full.nearest("notes", 2) == ["b"]
        with pytest.raises(DiskFull):
            await full.put(c=3)
        disk.faults.clear()
        assert await full.put(c=3) == ["c"]


async def test_rule_15_finishing_a_checkpoint_that_a_crash_cut_gets_the_reserve(engine, disk, room):
    """SQLite's found log is written again before it is read, and that needs room."""
    await engine.put(a=1)
    disk.stop_at = "commit points.db"
    with pytest.raises(PowerOff):
        engine.checkpoint()
    disk.stop_at = disk.stop_before = None
    copy = engine.copied(reserve_bytes=MIB)
    disk.fail("write points.db-wal.tmp", errno.ENOSPC)
    with copy as again:
        assert await again.values("notes", "a") == [1]


async def test_rule_15_compaction_gives_space_back(engine):
    await engine.put(**fill("p", 3000))
    engine.checkpoint()
    await engine.delete_points("notes", [f"p{number}" for number in range(2900)])
    answer = engine.compact("notes")
    assert answer["bytes_after"] < answer["bytes_before"] / 5
    assert await engine.nearest("notes", 2950) == ["p2949"]
    with engine.copied() as again:
        assert again.describe("notes")["vector_count"] == 100
        assert await again.nearest("notes", 2950) == ["p2949"]
