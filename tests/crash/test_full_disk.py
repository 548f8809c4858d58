"""Rule 15 on a disk that is really full: SQLite, the log and the rows all meet it."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.crash.rest import Refused, Rest, Stored
from tests.engine_process import EngineProcess
from tests.unit.running_engine import RunningEngine, wait_until
from vecstow_engine.model.errors import DiskFull

MIB = 1 << 20
SIZE = 16 * MIB


@pytest.fixture
def disk(tmp_path):
    """A small file system in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill_up(disk: Path, leave: int) -> Path:
    """Take all room but `leave` bytes."""
    filler = disk / "filler"
    stats = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, stats.f_bavail * stats.f_frsize - leave)
    return filler


async def put_until_full(engine: RunningEngine, first: int) -> dict[str, int]:
    """Store points one by one; returns those that were acknowledged."""
    acknowledged: dict[str, int] = {}
    for number in range(first, first + 10_000):
        try:
            await engine.put(**{f"p{number}": number})
        except DiskFull:
            return acknowledged
        acknowledged[f"p{number}"] = number
    raise AssertionError("the disk did not get full")


async def assert_served(engine: RunningEngine, acknowledged: dict[str, int]) -> None:
    assert engine.describe("notes")["state"] == "ready"
    assert engine.describe("notes")["vector_count"] == len(acknowledged)
    values = await engine.values("notes", *acknowledged)
    assert dict(zip(acknowledged, values, strict=True)) == acknowledged
    name, value = next(iter(acknowledged.items()))
    assert await engine.nearest("notes", value) == [name]


@pytest.mark.parametrize("leave", [0, 20_000, 100_000, 200_000], ids=lambda n: f"{n} bytes left")
async def test_full_disk_refuses_writes_serves_reads_and_recovers_by_itself(disk, tmp_path, leave):
    with RunningEngine(disk / "data", reserve_bytes=MIB) as engine:
        engine.declare()
        await engine.put(p1=1)
        engine.checkpoint()
        filler = fill_up(disk, leave)
        acknowledged = {"p1": 1} | await put_until_full(engine, 2)
        await assert_served(engine, acknowledged)
        shutil.copytree(disk / "data", tmp_path / "copy")
        with RunningEngine(tmp_path / "copy") as copy:
            await assert_served(copy, acknowledged)

        if len(acknowledged) > 1:
            gone = next(reversed(acknowledged))
            assert await engine.delete_points("notes", [gone]) == [True]
            del acknowledged[gone]
        with contextlib.suppress(DiskFull):
            engine.checkpoint()
        await assert_served(engine, acknowledged)

        filler.unlink()
        wait_until(lambda: not engine.volume.full)
        await engine.put(later=77)
        acknowledged["later"] = 77
        while engine.checkpoint():
            pass
        await assert_served(engine, acknowledged)
    with RunningEngine(disk / "data") as again:
        await assert_served(again, acknowledged)


async def test_engine_that_was_killed_on_a_full_disk_starts_there_again(disk):
    engine = RunningEngine(disk / "data", reserve_bytes=MIB)
    with engine:
        engine.declare()
        await engine.put(p1=1)
        engine.checkpoint()
        fill_up(disk, 50_000)
        acknowledged = {"p1": 1} | await put_until_full(engine, 2)
        engine.hold.begin(60)  # so that its end writes nothing, as that of a killed one
    with RunningEngine(disk / "data", reserve_bytes=MIB) as again:
        await assert_served(again, acknowledged)


async def test_collection_whose_files_are_closed_is_read_on_a_full_disk(disk):
    """SQLite needs room for its `-shm` even to read: the reserve gives it."""
    with RunningEngine(disk / "data", reserve_bytes=MIB, handles_max=1) as engine:
        engine.declare("other")
        engine.declare()
        acknowledged = {f"p{number}": number for number in range(1, 100)}
        await engine.put(**acknowledged)
        engine.checkpoint()
        await engine.put("other", **acknowledged)
        engine.checkpoint("other")
        filler = fill_up(disk, 0)
        for collection in ("notes", "other") * 2:
            assert await engine.values(collection, "p1") == [1]
        await assert_served(engine, acknowledged)
        filler.unlink()
        wait_until(lambda: not engine.volume.full)


async def test_drop_and_purge_make_room_on_a_full_disk(disk):
    with RunningEngine(disk / "data", reserve_bytes=MIB) as engine:
        engine.declare("large")
        engine.declare()
        for start in (1, 10_000, 20_000):
            await engine.put("large", **{f"p{number}": number for number in range(start, start + 9000)})
        await engine.put(a=1)
        fill_up(disk, 0)
        with pytest.raises(DiskFull):
            await engine.put(**{f"b{number}": number for number in range(1, 3000)})
        engine.drop("large")
        assert engine.catalog.cleanup(0) == ["large"]
        wait_until(lambda: not engine.volume.full)
        await engine.put(b=2)
        assert await engine.values("notes", "a", "b") == [1, 2]


def store_until_full(rest: Rest, first: int) -> dict[str, Stored]:
    """Store points one by one over REST; returns those that were acknowledged."""
    acknowledged: dict[str, Stored] = {}
    for number in range(first, first + 10_000):
        point = np.array([number, number + 1], "<f4").tobytes(), {"n": number}
        try:
            rest.put("notes", f"p{number}", point)
        except Refused as refused:
            if (refused.status, refused.kind) != (507, "DiskFull"):
                raise
            return acknowledged
        acknowledged[f"p{number}"] = point
    raise AssertionError("the disk did not get full")


def takes_writes(rest: Rest, point: Stored) -> bool:
    try:
        rest.put("notes", "later", point)
    except Refused:
        return False
    return True


def test_server_on_a_disk_that_fills_and_is_emptied_again_and_again_loses_nothing(disk):
    with EngineProcess(disk / "data", "--reserve-bytes", MIB) as engine:
        with Rest(engine.port) as rest:
            rest.create("notes", 2)
        acknowledged: dict[str, Stored] = {}
        for round_number in range(3):
            filler = fill_up(disk, 40_000)
            with Rest(engine.port) as rest:
                acknowledged |= store_until_full(rest, 10_000 * round_number)
                assert rest.get_many("notes", acknowledged) == acknowledged
            if round_number == 1:
                engine.kill()
                engine.start()
            with Rest(engine.port) as rest:
                assert rest.get_many("notes", acknowledged) == acknowledged
                filler.unlink()
                later = np.array([0.5, round_number], "<f4").tobytes(), None
                wait_until(lambda rest=rest, later=later: takes_writes(rest, later))
                acknowledged["later"] = later
                assert rest.get_many("notes", acknowledged) == acknowledged
                assert rest.describe("notes")["state"] == "ready"
