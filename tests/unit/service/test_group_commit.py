"""Group commit: writers that wait together share one sync (rule 4)."""

import asyncio
from dataclasses import replace

import numpy as np

from tests.unit.interleaving import SlowSync
from tests.unit.store_on_disk import vector
from vecstow_engine.model.conditions import Presence
from vecstow_engine.model.points import PointBatch


async def test_rule_04_concurrent_writers_share_one_sync(engine, monkeypatch):
    await engine.put(a=1)
    slow = SlowSync(monkeypatch)
    first = asyncio.create_task(engine.put(b=2))
    await slow.under_way()
    others = [asyncio.create_task(engine.put(**{f"p{number}": number})) for number in range(1, 30)]
    await asyncio.sleep(0)
    assert not first.done()
    slow.goes_on.release(2)
    await asyncio.gather(first, *others)
    assert slow.count == 2


async def test_rule_04_no_writer_is_told_before_its_sync_returned(engine, monkeypatch):
    await engine.put(a=1)
    slow = SlowSync(monkeypatch)
    write = asyncio.create_task(engine.put(b=2))
    await slow.under_way()
    assert await engine.values("notes", "b") == [None]
    assert not write.done()
    slow.goes_on.release()
    assert await write == ["b"]
    assert await engine.values("notes", "b") == [2]


async def test_client_that_goes_away_does_not_take_its_write_back(engine, monkeypatch):
    await engine.put(a=1)
    slow = SlowSync(monkeypatch)
    write = asyncio.create_task(engine.put(b=2))
    await slow.under_way()
    write.cancel()
    slow.goes_on.release(100)
    await engine.put(c=3)
    assert await engine.values("notes", "b", "c") == [2, 3]


async def put_if(engine, condition, **values):
    """Store points that meet a condition; return the ids that were written."""
    vectors = np.array([vector(value) for value in values.values()], np.float32)
    batch = PointBatch.build(engine.collection("notes").manifest, list(values), vectors, None)
    return await engine.upsert("notes", replace(batch, condition=condition))


async def test_conditional_writers_of_one_group_see_each_other(engine, monkeypatch):
    await engine.put(old=1)
    [old] = await engine.get_points("notes", ["old"])
    slow = SlowSync(monkeypatch)
    first = asyncio.create_task(engine.put(b=2))
    await slow.under_way()
    wanted = [
        (Presence.ABSENT, {"new": 1, "newer": 2}),
        (Presence.ABSENT, {"new": 3, "newest": 4}),
        (Presence.PRESENT, {"newer": 5, "none": 6}),
        (frozenset([old.version]), {"old": 7}),
        (frozenset([old.version]), {"old": 8}),
    ]
    group = [asyncio.create_task(put_if(engine, condition, **values)) for condition, values in wanted]
    await asyncio.sleep(0)
    slow.goes_on.release(2)
    await first
    written = [await task for task in group]
    assert slow.count == 2, "the writers did not share a group"
    assert written == [["new", "newer"], ["newest"], ["newer"], ["old"], []]
    ids = ["new", "newer", "newest", "none", "old"]
    assert await engine.values("notes", *ids) == [1, 5, 4, None, 7]
    with engine.copied() as again:
        assert await again.values("notes", *ids) == [1, 5, 4, None, 7]


async def test_a_write_that_needs_points_makes_no_files_of_an_empty_collection(engine):
    assert await put_if(engine, Presence.PRESENT, a=1) == []
    assert await put_if(engine, frozenset(["0" * 32]), a=1) == []
    assert engine.collection("notes").store is None
    assert await put_if(engine, Presence.ABSENT, a=1) == ["a"]


async def test_a_conditional_delete_answers_for_each_id(engine):
    await engine.put(a=1, b=2, c=3)
    [a] = await engine.get_points("notes", ["a"])
    versions = frozenset([a.version])
    assert await engine.delete_points("notes", ["b", "a", "none"], versions) == [False, True, False]
    assert await engine.values("notes", "a", "b") == [None, 2]
