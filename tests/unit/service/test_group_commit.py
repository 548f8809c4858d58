"""Group commit: writers that wait together share one sync (rule 4)."""

import asyncio

from tests.unit.interleaving import SlowSync


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
