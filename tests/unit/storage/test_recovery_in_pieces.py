"""A log longer than recovery may hold in memory is replayed in pieces, each brought into the files."""

import contextlib
import errno
import shutil
import tracemalloc

import numpy as np
import pytest

from tests.unit.recorded_disk import PowerOff
from tests.unit.running_engine import RunningEngine, fill
from tests.unit.store_on_disk import STRIDE, StoreOnDisk
from vecstow_engine.model.errors import DiskFull
from vecstow_engine.storage.layers import ENTRY_OVERHEAD_BYTES
from vecstow_engine.storage.log.replay import read_log, select_records
from vecstow_engine.storage.log.segment import Upsert

PIECE = 3 * (ENTRY_OVERHEAD_BYTES + STRIDE)
"""Three points are more than this, with their payloads."""


@pytest.fixture
def notes(tmp_path):
    """Ten records that no checkpoint has, over two log segments, and one that a checkpoint has."""
    opened = StoreOnDisk(tmp_path / "data")
    opened.put(first=1)
    opened.checkpoint()
    for number in range(5):
        opened.put(**{f"a{number}": number + 1})
    opened.store.log.start_segment()
    opened.put(a0=10, b=2)
    opened.delete("a1", "first")
    opened.put(a2=12)
    opened.put(a1=11)
    opened.put(c=3)
    yield opened
    opened.close()


def test_replay_in_pieces_gives_the_same_points(notes):
    copy = notes.copied(replay_bytes_max=PIECE)
    assert copy.points() == notes.points()
    assert copy.opened.replayed == 10
    again = copy.reopened()
    assert again.points() == notes.points()
    again.close()


def test_only_the_last_piece_is_carried_over(notes):
    copy = notes.copied(replay_bytes_max=PIECE)
    applied = copy.store.meta.applied
    assert 1 < applied < notes.store.last_sequence
    assert copy.segments() == [applied + 1]
    verdict = select_records(read_log(copy.log_folder), applied)
    assert (verdict.last, verdict.count) == (notes.store.last_sequence, notes.store.last_sequence - applied)
    assert len(copy.opened.changes) == verdict.count
    copy.close()


def test_collection_goes_on_after_pieces(notes):
    copy = notes.copied(replay_bytes_max=PIECE)
    copy.put(d=4)
    copy.checkpoint()
    copy.put(e=5)
    again = copy.reopened()
    assert again.points() == notes.points() | {"d": 4, "e": 5}
    again.close()


def test_log_that_fits_is_not_checkpointed_by_a_start(notes):
    copy = notes.copied()
    assert copy.store.meta.applied == 1
    copy.close()


def test_power_that_goes_at_any_step_of_a_replay_in_pieces_loses_nothing(notes, disk):
    wanted = notes.points()
    number, finished = 0, False
    while not finished:
        target = notes.data.with_name(f"copy-{number}")
        shutil.copytree(notes.data, target)
        disk.clear()
        disk.stop_before = number
        with contextlib.suppress(PowerOff):
            StoreOnDisk(target, notes.manifest, replay_bytes_max=PIECE).close()
            finished = True
        disk.stop_before = None
        again = StoreOnDisk(target, notes.manifest, replay_bytes_max=PIECE)
        assert again.points() == wanted, f"after step {number}"
        again.close()
        number += 1
    assert number > 20


@pytest.mark.parametrize("step", ["write vectors.bin", "commit points.db"])
def test_replay_in_pieces_that_finds_no_room_changes_nothing_and_is_tried_again(notes, disk, step):
    disk.fail(step, errno.ENOSPC)
    with pytest.raises(DiskFull):
        notes.copied(replay_bytes_max=PIECE)
    data = notes.data.with_name(f"{notes.data.name}-copy")
    again = StoreOnDisk(data, notes.manifest, replay_bytes_max=PIECE)
    assert again.points() == notes.points()
    again.close()


def test_memory_of_recovery_does_not_grow_with_the_log(tmp_path):
    """Twenty records of a megabyte each, with room for two."""
    notes = StoreOnDisk(tmp_path / "data")
    rows = np.zeros((1, STRIDE), np.uint8)
    payload = b'{"text":"' + b"x" * (1 << 20) + b'"}'
    for number in range(20):
        notes.store.commit([Upsert([f"p{number}"], rows, [payload])])
    tracemalloc.start()
    copy = notes.copied(replay_bytes_max=2 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 9 << 20
    assert copy.store.count == 20
    copy.close()
    notes.close()


async def test_engine_finds_every_point_after_a_replay_in_pieces(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(gone=500, moved=501)
        for number in range(20):
            await engine.put(**fill(f"p{number}x", 3, 10 * number))
        await engine.delete_points("notes", ["gone"])
        await engine.put(moved=700)
        with engine.copied(overlay_bytes_max=PIECE) as copy:
            collection = copy.indexed()
            assert collection.store.meta.applied > 0
            assert collection.count == collection.index.count == 61
            assert [await copy.nearest("notes", 10 * n + 1) for n in range(20)] == [
                [f"p{n}x0"] for n in range(20)
            ]
            assert await copy.nearest("notes", 700) == ["moved"]
            assert await copy.nearest("notes", 500, 2) != ["gone"]
