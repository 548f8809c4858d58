"""The log stays bounded: what is not needed is not logged, checkpoints are due by its bytes, writers wait."""

import asyncio
import dataclasses
from io import BytesIO

import numpy as np
import pytest

from tests.unit.running_engine import RunningEngine, wait_until
from tests.unit.store_on_disk import StoreOnDisk, upsert
from vecstow_engine.model.errors import Busy, OutcomeUnknown, ReadOnly, TooLarge
from vecstow_engine.storage import store
from vecstow_engine.storage.log import segment
from vecstow_engine.storage.log.replay import segment_paths
from vecstow_engine.storage.log.segment import (
    Delete,
    Upsert,
    decode_effect,
    decode_header,
    encode_effect,
    payload_bytes,
)
from vecstow_engine.storage.log.segment_reader import iterate_records

LONG_ID = "\U00010000" * 256
"""1,024 bytes in UTF-8."""


@pytest.fixture
def notes(tmp_path):
    opened = StoreOnDisk(tmp_path / "data")
    opened.put(a=1, b=2)
    yield opened
    opened.close()


def logged(notes):
    """Every effect in the first segment but the first, which the fixture wrote."""
    raw = notes.segment(1).read_bytes()
    records = iterate_records(BytesIO(raw), decode_header(raw, "").seed)
    return [decode_effect(record).ids for record in records][1:]


# What is not needed is not logged ------------------------------------------------------------------------


def test_delete_of_absent_ids_writes_and_syncs_nothing(notes, disk):
    disk.clear()
    assert notes.delete("x", LONG_ID).existed == [False, False]
    assert disk.steps == []
    assert notes.points() == {"a": 1, "b": 2}


def test_delete_logs_each_id_that_is_there_once(notes):
    assert notes.delete("x", "a", "y", "a").existed == [False, True, False, True]
    assert logged(notes) == [["a"]]
    assert notes.copied().points() == {"b": 2}


@pytest.mark.parametrize("checkpoint", [False, True], ids=["in the overlay", "in the table"])
def test_delete_sees_what_comes_before_it_in_its_group(notes, checkpoint):
    if checkpoint:
        notes.checkpoint()
    effects = [Delete(["a"]), Delete(["a", "c"]), upsert(c=3), Delete(["c", "b"]), upsert(b=4), Delete(["x"])]
    applied = notes.store.commit(effects)
    assert [change.existed for change in applied] == [
        [True], [False, False], [False], [True, True], [False], [False],
    ]  # fmt: skip
    copy = notes.copied()
    assert copy.points() == notes.points() == {"b": 4}
    copy.close()


def test_effects_that_log_nothing_take_no_sequence(notes):
    notes.store.commit([Delete(["x"]), upsert(c=3), Delete(["y"])])
    assert notes.store.last_sequence == 2
    notes.checkpoint()
    assert notes.store.meta.applied == 2


def test_delete_of_an_absent_id_after_a_failed_sync_is_refused(notes, disk):
    """The point that the failed sync covered may come back at the next start."""
    disk.fail("data_sync *.log")
    with pytest.raises(OutcomeUnknown):
        notes.put(c=3)
    with pytest.raises(ReadOnly):
        notes.delete("c")


def test_deletes_of_absent_ids_leave_the_log_by_a_checkpoint(notes):
    """An earlier release logged them."""
    notes.store.log.append([encode_effect(Delete(["x", LONG_ID]))])
    copy = notes.copied()
    copy.checkpoint()
    assert copy.store.meta.applied == 2
    assert copy.store.log.total_bytes == segment.HEADER_BYTES
    copy.close()


# Sizes are true ------------------------------------------------------------------------------------------

EFFECTS = {
    "delete": Delete(["a", LONG_ID]),
    "delete of nothing": Delete([]),
    "upsert": Upsert(["a", LONG_ID, "é"], np.zeros((3, 16), np.uint8), [b"{}", None, b""]),
}


@pytest.mark.parametrize("effect", [pytest.param(effect, id=name) for name, effect in EFFECTS.items()])
def test_payload_bytes_is_the_length_of_the_encoded_payload(effect):
    assert payload_bytes(effect) == len(encode_effect(effect)[1])


@pytest.mark.parametrize("size", [-1, 0, 1], ids=["below", "at", "above"])
def test_writer_logs_no_record_above_the_limit(notes, disk, monkeypatch, size):
    effect = Delete(["a", "b"])
    monkeypatch.setattr(segment, "RECORD_BYTES_MAX", payload_bytes(effect) - size)
    disk.clear()
    if size <= 0:
        assert notes.store.commit([effect])[0].existed == [True, True]
        return
    for write in (lambda: payload_bytes(effect), lambda: notes.store.commit([effect])):
        with pytest.raises(
            TooLarge, match=rf"{len(encode_effect(effect)[1])} bytes in the log; the limit is"
        ):
            write()
    assert disk.steps == []
    assert notes.points() == {"a": 1, "b": 2}


def test_compaction_moves_no_more_points_than_one_record_can_hold(notes, monkeypatch):
    notes.put(**{f"p{number}": number + 1 for number in range(20)})
    notes.delete("a", "b", *[f"p{number}" for number in range(10)])
    notes.checkpoint()
    limit = 3 * (notes.store.identity.stride + store.POINT_BYTES_BESIDE_ROW)
    monkeypatch.setattr(store, "RECORD_BYTES_MAX", limit)
    moved = notes.store.relocate(4096)
    assert moved is not None
    assert len(moved.added) == 3


# Checkpoints and writers ---------------------------------------------------------------------------------


async def test_checkpoint_is_due_by_bytes_of_the_log(tmp_path):
    """Deletes take little memory per byte that they log."""
    with RunningEngine(tmp_path / "data", checkpoint_bytes=100_000) as engine:
        engine.declare()
        ids = [f"{number:03d}{LONG_ID[:253]}" for number in range(200)]
        batch = upsert(**dict.fromkeys(ids, 1))
        collection = engine.collection("notes")
        await engine._committer.write(collection, batch)
        store = collection.store
        await asyncio.to_thread(wait_until, lambda: store.meta.points == 200)
        applied = store.meta.applied
        assert await engine.delete_points("notes", ids[:90]) == [True] * 90
        assert store.layers.active.bytes < 100_000
        await engine.delete_points("notes", ids[90:180])
        await asyncio.to_thread(wait_until, lambda: store.meta.applied > applied)


async def test_log_of_upserts_and_deletes_in_turn_stays_bounded(tmp_path):
    limit = 200_000
    with RunningEngine(tmp_path / "data", checkpoint_bytes=50_000, overlay_bytes_max=limit) as engine:
        engine.declare()
        largest = 0
        for _ in range(200):
            await engine.put(**{LONG_ID: 1})
            await engine.delete_points("notes", [LONG_ID])
            largest = max(largest, engine.collection("notes").store.log.total_bytes)
        assert largest <= limit + 2 * 2_000


async def test_log_stays_bounded_during_a_hold(tmp_path):
    """Deletes of long ids log more than they take in memory. A hold keeps even rotation away."""
    limit = 200_000
    engine = RunningEngine(tmp_path / "data", overlay_bytes_max=limit)
    limits = dataclasses.replace(engine.settings.limits, write_wait_seconds=0.0)
    engine.settings = dataclasses.replace(engine.settings, limits=limits)
    with engine:
        engine.declare()
        await engine.put(a=1)
        engine.hold.begin(60)

        async def write_without_end():
            while True:
                await engine.put(**{LONG_ID: 1})
                await engine.delete_points("notes", [LONG_ID])

        with pytest.raises(Busy, match="until a checkpoint"):
            await write_without_end()
        assert engine.collection("notes").store.last_sequence > 20
        log = engine.collection("notes").store.log
        assert log.total_bytes <= limit
        assert len(segment_paths(log.folder)) == 1
        engine.hold.end()
        engine.checkpoint()
        await engine.put(b=2)


async def test_write_that_no_record_can_hold_is_refused_alone(tmp_path, monkeypatch):
    """Its neighbours of the same moment are written."""
    with RunningEngine(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(a=1)
        monkeypatch.setattr(segment, "RECORD_BYTES_MAX", 100)
        large = engine.put(**{f"p{number}": 1 for number in range(10)})
        refused, written = await asyncio.gather(large, engine.put(b=2), return_exceptions=True)
        assert isinstance(refused, TooLarge)
        assert written == ["b"]
        assert await engine.values("notes", "a", "b", "p0") == [1, 2, None]
