"""Collections and keys leave each other room: threads, places to wait in, requests in flight."""

import asyncio
import gc
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit.asgi_client import docs_service
from tests.unit.interleaving import Slowed
from tests.unit.running_engine import RunningEngine, wait_until
from vecstow_engine.api.context import Workers
from vecstow_engine.api.shares import Shares
from vecstow_engine.model.errors import Busy, Unavailable
from vecstow_engine.model.filter_parser import parse_filter
from vecstow_engine.model.manifest import Manifest
from vecstow_engine.model.metrics import DistanceMetric
from vecstow_engine.model.searches import SearchQuery
from vecstow_engine.service import searcher
from vecstow_engine.service.fair_pool import TENANT, FairPool


@pytest.fixture
def gate():
    """A call that blocks its thread until the test ends, and the names of those that began."""
    opened = threading.Event()
    begun = []

    def call(name):
        begun.append(name)
        assert opened.wait(20)
        return name

    yield SimpleNamespace(call=call, begun=begun, open=opened.set)
    opened.set()


def task_of(pool, gate, collection, name, tenant=None):
    async def run():
        TENANT.set(tenant)
        return await pool.run(collection, gate.call, name)

    return asyncio.create_task(run())


async def begin(*tasks):
    """Let tasks come as far as they can."""
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


@pytest.mark.parametrize("tenant", [None, "t"])
async def test_nobody_takes_the_last_thread(gate, tenant):
    """Neither a collection without a key, nor a key with many collections."""
    pool = FairPool(3, "work")
    mine = [task_of(pool, gate, "a" if tenant is None else f"c{n}", f"a{n}", tenant) for n in range(9)]
    await begin()
    other = task_of(pool, gate, "b", "b", "other")
    await begin()
    await asyncio.to_thread(wait_until, lambda: len(gate.begun) == 3)
    assert sorted(gate.begun) == ["a0", "a1", "b"]
    gate.open()
    assert await asyncio.gather(*mine, other) == [f"a{n}" for n in range(9)] + ["b"]
    pool.shutdown(wait=True)


async def test_waiting_calls_of_collections_run_in_turn(gate):
    pool = FairPool(1, "work")
    first = task_of(pool, gate, "a", "first")
    await begin()
    waiting = [task_of(pool, gate, name[0], name) for name in ("a1", "a2", "a3", "b1", "b2", "c1")]
    await begin()
    gate.open()
    await asyncio.gather(first, *waiting)
    assert gate.begun == ["first", "a1", "b1", "c1", "a2", "b2", "a3"]
    pool.shutdown(wait=True)


async def test_collection_that_waited_is_forgotten_with_its_last_call(gate):
    """A dropped collection must not keep the memory of its graph."""

    class Held:
        pass

    pool = FairPool(1, "work")
    collection = Held()
    calls = [task_of(pool, gate, collection, str(number)) for number in range(3)]
    await begin()
    gate.open()
    await asyncio.gather(*calls)
    pool.shutdown(wait=True)
    held = weakref.ref(collection)
    del collection, calls
    gc.collect()
    assert held() is None


async def test_one_owner_has_half_of_the_room_to_wait_in(gate):
    pool = FairPool(1, "work", 8)
    running = task_of(pool, gate, "a", "first")
    mine = [task_of(pool, gate, "a", str(number)) for number in range(4)]
    await begin()
    with pytest.raises(Busy, match="4 work calls of this collection or key wait"):
        await task_of(pool, gate, "a", "one more")
    others = [task_of(pool, gate, f"b{number}", str(number), "key") for number in range(4)]
    await begin()
    with pytest.raises(Busy, match="8 work calls wait, the limit"):
        await task_of(pool, gate, "c", "one more")
    gate.open()
    await asyncio.gather(running, *mine, *others)
    pool.shutdown(wait=True)


async def test_call_whose_client_went_away_while_it_waited_is_not_made(gate):
    pool = FairPool(1, "work", 2)
    running = task_of(pool, gate, "a", "first")
    await begin()
    gone = task_of(pool, gate, "a", "gone")
    await begin()
    gone.cancel()
    await begin(running)
    gate.open()
    await running
    assert await task_of(pool, gate, "a", "next") == "next"
    assert gate.begun == ["first", "next"]
    pool.shutdown(wait=True)


async def test_call_whose_client_went_away_while_it_ran_keeps_its_thread_until_its_end(gate):
    pool = FairPool(1, "work")
    running = task_of(pool, gate, "a", "first")
    await asyncio.to_thread(wait_until, lambda: gate.begun == ["first"])
    running.cancel()
    waiting = task_of(pool, gate, "b", "second")
    await begin()
    assert gate.begun == ["first"]
    gate.open()
    assert await waiting == "second"
    pool.shutdown(wait=True)


async def test_calls_that_wait_when_the_pool_ends_are_answered(gate):
    pool = FairPool(1, "work")
    running = task_of(pool, gate, "a", "first")
    await asyncio.to_thread(wait_until, lambda: gate.begun == ["first"])
    waiting = task_of(pool, gate, "a", "second")
    await begin()
    pool.shutdown(wait=False)
    gate.open()
    assert await running == "first"
    with pytest.raises(Unavailable, match="stopping"):
        await waiting


async def test_errors_come_through_and_free_the_thread():
    pool = FairPool(1, "work")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await pool.run("a", lambda: 1 // 0)
    assert await pool.run("a", lambda: 1) == 1
    pool.shutdown(wait=True)


@pytest.fixture
async def two(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        for name in ("slow", "quick"):
            engine.declare(name)
            await engine.put(name, a=1)
        yield engine


def blocked(monkeypatch, name):
    """A read that blocks its thread for the collection `slow`; returns what lets it go on."""
    goes_on = threading.Event()
    begun = []
    real = getattr(searcher, name)

    def call(collection, *values):
        if collection.name == "slow":
            begun.append(1)
            assert goes_on.wait(20)
        return real(collection, *values)

    monkeypatch.setattr(searcher, name, call)
    monkeypatch.setattr("vecstow_engine.service.engine.get_many", searcher.get_many)
    return SimpleNamespace(begun=begun, goes_on=goes_on)


async def filtered(engine, name):
    manifest = engine.collection(name).manifest
    query = SearchQuery.build(manifest, np.ones(4, np.float32), 1, None, parse_filter({"v": 1.0}))
    return [hit.id for hit in await engine.search(name, query)]


async def test_slow_reads_of_one_collection_leave_a_thread_to_the_others(two, monkeypatch):
    block = blocked(monkeypatch, "get_many")
    slow = [asyncio.create_task(two.values("slow", "a")) for _ in range(20)]
    await asyncio.to_thread(wait_until, lambda: len(block.begun) == searcher.THREADS - 1)
    assert await two.values("quick", "a") == [1]
    assert await two.nearest("quick", 1) == ["a"]
    assert await filtered(two, "quick") == ["a"]
    block.goes_on.set()
    assert await asyncio.gather(*slow) == [[1]] * 20


async def test_slow_filtered_searches_leave_a_thread_and_room_to_other_collections(two, monkeypatch):
    block = blocked(monkeypatch, "search_alone")
    room = two.settings.limits.search_queue_max // 8
    slow = [asyncio.create_task(filtered(two, "slow")) for _ in range(room)]
    await asyncio.to_thread(wait_until, lambda: block.begun)
    assert await filtered(two, "quick") == ["a"]
    block.goes_on.set()
    answers = await asyncio.gather(*slow, return_exceptions=True)
    assert [answer for answer in answers if not isinstance(answer, Busy)] == [["a"]] * (room // 2 + 1)


async def test_writers_of_one_collection_leave_room_in_the_queue_to_the_others(two, monkeypatch):
    commit = Slowed(monkeypatch, two.collection("slow"), "commit")
    limits = SimpleNamespace(queue_bytes_max=10_000, write_wait_seconds=0.0)
    monkeypatch.setattr(
        two._committer, "_settings",
        SimpleNamespace(limits=limits, storage=two.settings.storage, index=two.settings.index),
    )  # fmt: skip
    slow = [asyncio.create_task(two.put("slow", **{f"p{number}": number})) for number in range(40)]
    await begin()
    refused = [write for write in slow if write.done()]
    assert refused
    assert all("half of what all may have" in str(write.exception()) for write in refused)
    assert await two.put("quick", b=2) == ["b"]
    commit.goes_on.set()
    await asyncio.gather(*slow, return_exceptions=True)


@pytest.mark.parametrize("pool", ["long", "waiting"])
async def test_long_operations_on_one_collection_leave_a_worker_to_the_others(gate, pool):
    workers = Workers()
    run = getattr(workers, pool)
    mine = [asyncio.create_task(run("slow", gate.call, "slow")) for _ in range(8)]
    await begin()
    other = asyncio.create_task(run("quick", gate.call, "quick"))
    await begin()
    await asyncio.to_thread(wait_until, lambda: "quick" in gate.begun)
    gate.open()
    await asyncio.gather(*mine, other)
    workers.close()


def test_requests_of_one_owner_leave_a_quarter_of_the_places_to_others():
    shares = Shares(8)
    docs, key = ("collection", "docs"), ("key", "k")
    for _ in range(6):
        shares.take([docs, key])
    with pytest.raises(Busy, match="6 requests of collection 'docs' are in flight"):
        shares.take([("collection", "other"), docs])
    with pytest.raises(Busy, match="6 requests of key 'k'"):
        shares.take([key])
    for _ in range(6):
        shares.take([("collection", "other"), ("key", "docs")])
    shares.give([docs, key])
    shares.take([docs])


async def test_requests_that_wait_in_one_collection_leave_others_their_places():
    client, engine = docs_service(requests_in_flight_max=8)
    engine.catalog.create(Manifest(name="other", dimension=3, distance_metric=DistanceMetric.EUCLIDEAN))
    goes_on = asyncio.Event()
    upsert = engine.upsert

    async def wait(collection, points):
        if collection.name == "docs":
            await goes_on.wait()
        return await upsert(collection, points)

    engine.upsert = wait
    point = {"id": "a", "data": [1, 2, 3]}
    spellings = ["docs", "d%6Fcs"]
    waiting = [
        asyncio.create_task(client.call("POST", f"/collections/{spellings[number % 2]}/vectors", point))
        for number in range(6)
    ]
    await begin()
    assert (await client.call("POST", "/collections/docs/vectors", point)).status == 429
    assert (await client.call("POST", "/collections/other/vectors", point)).status == 200
    goes_on.set()
    assert {reply.status for reply in await asyncio.gather(*waiting)} == {200}
    assert (await client.call("POST", "/collections/docs/vectors", point)).status == 200
