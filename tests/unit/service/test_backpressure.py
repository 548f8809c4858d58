"""Writers that outrun the checkpoints wait, and are refused at the limit."""

import asyncio
import dataclasses

import pytest

from tests.unit.running_engine import RunningEngine, fill
from vecstow_engine.model.errors import (
    Busy,
)


def bounded(data, *, wait_seconds=0.02, **index):
    engine = RunningEngine(data, overlay_bytes_max=10_000)
    limits = dataclasses.replace(engine.settings.limits, write_wait_seconds=wait_seconds)
    engine.settings = dataclasses.replace(engine.settings, limits=limits, **index)
    return engine


async def test_writer_that_outruns_the_checkpoints_waits_and_then_gets_busy(tmp_path):
    """At the limit the refusal comes before anything is logged."""
    with bounded(tmp_path / "data") as engine:
        engine.declare()
        await engine.put(**fill("p", 20))
        last = engine.collection("notes").store.last_sequence
        with pytest.raises(Busy, match="wait for a checkpoint") as told:
            await engine.put(**fill("q", 20))
        assert told.value.retry_after_seconds == 5
        assert engine.collection("notes").store.last_sequence == last
        engine.checkpoint()
        assert len(await engine.put(**fill("q", 20))) == 20


async def test_writer_that_waits_goes_on_when_there_is_room(tmp_path):
    with bounded(tmp_path / "data", wait_seconds=20.0) as engine:
        engine.declare()
        await engine.put(**fill("p", 20))
        write = asyncio.create_task(engine.put(**fill("q", 20)))
        await asyncio.sleep(0.05)
        assert not write.done()
        await asyncio.to_thread(engine.checkpoint)
        assert len(await write) == 20


async def test_one_batch_above_the_bound_is_taken_alone(tmp_path):
    """A limit on what waits must not refuse for ever what a client may send."""
    with bounded(tmp_path / "data") as engine:
        engine.declare()
        assert len(await engine.put(**fill("p", 500))) == 500


async def test_write_that_comes_while_the_engine_stops_is_refused_not_lost(engine):
    await engine.put(a=1)
    collection = engine.collection("notes")
    engine._committer.stop()
    with pytest.raises(Busy, match="stopping"):
        await engine.put(b=2)
    assert collection.store.last_sequence == 1
