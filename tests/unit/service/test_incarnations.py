"""A request belongs to one incarnation of a collection: what replaces it meanwhile gets none of its steps."""

import asyncio
import dataclasses
import threading

import numpy as np
import pytest

from tests.unit.asgi_client import AsgiClient
from tests.unit.interleaving import Slowed, overtaken
from tests.unit.running_engine import RunningEngine, fill, wait_until
from tests.unit.store_on_disk import vector
from vecstow_engine.api import point_routes
from vecstow_engine.api.request import Request
from vecstow_engine.api.server import create_app
from vecstow_engine.model.errors import Conflict
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.model.points import PointBatch
from vecstow_engine.model.searches import SearchQuery
from vecstow_engine.service import searcher
from vecstow_engine.service.registry import Bound
from vecstow_engine.storage.manifests import update_manifest

SHAPES = [
    pytest.param({"dimension": 3}, id="dimension"),
    pytest.param({"distance_metric": DistanceMetric.COSINE}, id="metric"),
    pytest.param({"vector_type": VectorType.INT8}, id="type"),
    pytest.param({}, id="same shape"),
]


def replace(engine: RunningEngine, **fields: object) -> None:
    """Drop `notes`, and create it again."""
    engine.drop("notes")
    engine.declare(**fields)


def batch_for(engine: RunningEngine, **values: float) -> PointBatch:
    rows = np.array([vector(value) for value in values.values()], np.float32)
    return PointBatch.build(engine.collection("notes").manifest, list(values), rows, None)


@pytest.mark.parametrize("fields", SHAPES)
async def test_batch_that_was_decoded_before_the_collection_was_replaced_is_refused(
    engine, monkeypatch, fields
):
    await engine.put(a=1)
    client = AsgiClient(create_app(engine))
    overtaken(monkeypatch, Request, "decode", lambda: replace(engine, **fields))
    reply = await client.call(
        "POST", "/collections/notes/vectors/batch", {"vectors": [{"id": "b", "data": [1, 2, 3, 4]}]}
    )
    assert (reply.status, reply.json["details"]["kind"]) == (409, "Conflict")
    assert "'notes' was replaced by another one during the request" in reply.json["message"]
    assert engine.collection("notes").count == 0


async def test_batch_of_a_collection_that_was_only_dropped_is_not_found(engine, monkeypatch):
    client = AsgiClient(create_app(engine))
    overtaken(monkeypatch, Request, "decode", lambda: engine.drop("notes"))
    reply = await client.call(
        "POST", "/collections/notes/vectors/batch", {"vectors": [{"id": "b", "data": [1, 2, 3, 4]}]}
    )
    assert (reply.status, reply.json["details"]["kind"]) == (404, "NotFound")


async def test_batch_decoded_for_a_replaced_manifest_of_an_empty_collection_is_refused(engine, monkeypatch):
    """Without data there is no uid yet, and another shape is followed."""

    def change_shape():
        update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, dimension=3))
        engine.refresh({})

    client = AsgiClient(create_app(engine))
    overtaken(monkeypatch, Request, "decode", change_shape)
    reply = await client.call(
        "POST", "/collections/notes/vectors/batch", {"vectors": [{"id": "b", "data": [1, 2, 3, 4]}]}
    )
    assert reply.status == 409
    assert engine.collection("notes").manifest.dimension == 3
    assert engine.collection("notes").count == 0


async def test_points_that_are_read_in_chunks_are_of_one_collection(engine, monkeypatch):
    ids = [f"p{number}" for number in range(3)]
    await engine.put(p0=0, p1=1, p2=2)
    monkeypatch.setattr(point_routes, "GET_CHUNK_POINTS", 1)
    overtaken(monkeypatch, engine, "get_points", lambda: replace(engine))
    client = AsgiClient(create_app(engine))
    reply = await client.call("POST", "/collections/notes/vectors/get", {"ids": ids})
    assert (reply.status, reply.json["data"]) == (409, None)


@pytest.mark.parametrize("fields", SHAPES[:3])
async def test_service_refuses_by_name_what_was_checked_for_another_shape(engine, fields):
    batch = batch_for(engine, a=1)
    query = SearchQuery.build(engine.collection("notes").manifest, np.ones(4, np.float32))
    replace(engine, **fields)
    with pytest.raises(Conflict, match="was replaced"):
        await engine.upsert("notes", batch)
    with pytest.raises(Conflict, match="was replaced"):
        await engine.search("notes", query)
    assert engine.collection("notes").store is None


async def test_service_refuses_by_name_what_was_checked_for_another_uid(engine):
    await engine.put(a=1)
    batch = batch_for(engine, b=2)
    replace(engine)
    await engine.put(c=3)
    with pytest.raises(Conflict, match="was replaced"):
        await engine.upsert("notes", batch)
    assert await engine.values("notes", "b", "c") == [None, 3]


async def test_write_that_waits_for_the_log_is_refused_when_its_collection_is_replaced(engine, monkeypatch):
    await engine.put(a=1)
    collection = engine.collection("notes")
    commit = Slowed(monkeypatch, collection, "commit")
    first = asyncio.create_task(engine.put(b=2))
    await asyncio.to_thread(commit.entered.wait, 20)
    waiting = [
        asyncio.create_task(engine.put(c=3)),
        asyncio.create_task(engine.delete_points("notes", ["a"])),
    ]
    await asyncio.sleep(0)  # both are in the queue
    await asyncio.to_thread(replace, engine)
    await engine.put(d=4)
    commit.goes_on.set()
    for write in (first, *waiting):
        with pytest.raises(Conflict, match="was replaced"):
            await write
    assert await engine.values("notes", "a", "b", "c", "d") == [None, None, None, 4]


@pytest.mark.parametrize("call", ["search_many", "get_many"])
async def test_read_that_is_under_way_is_refused_when_its_collection_is_replaced(engine, monkeypatch, call):
    await engine.put(a=1)
    engine.checkpoint()
    slowed = Slowed(monkeypatch, searcher, call)
    monkeypatch.setattr("vecstow_engine.service.engine.get_many", searcher.get_many)
    read = asyncio.create_task(
        engine.nearest("notes", 1) if call == "search_many" else engine.values("notes", "a")
    )
    await asyncio.to_thread(slowed.entered.wait, 20)
    replace(engine)
    await engine.put(b=2)
    slowed.goes_on.set()
    with pytest.raises(Conflict, match="was replaced"):
        await read


@pytest.mark.parametrize("operation", ["backup", "compact", "check", "drop", "hard_delete"])
async def test_operation_that_waited_while_its_collection_was_replaced_touches_no_other(
    engine, monkeypatch, operation
):
    """It has looked the name up, and waits; the folder that has the name then is another one's."""
    await engine.put(a=1)
    looked_up = threading.Event()
    goes_on = threading.Event()
    first = engine.collection("notes")
    get = engine.registry.get

    def get_and_wait(name):
        found = get(name)
        if threading.current_thread() is not threading.main_thread():
            looked_up.set()
            assert goes_on.wait(20)
        return found

    monkeypatch.setattr(engine.registry, "get", get_and_wait)
    call = asyncio.create_task(asyncio.to_thread(getattr(engine, operation), "notes"))
    await asyncio.to_thread(looked_up.wait, 20)
    replace(engine)
    await engine.put(b=2)
    goes_on.set()
    with pytest.raises(Conflict, match="was replaced"):
        await call
    assert engine.collection("notes") is not first
    assert await engine.values("notes", "b") == [2]
    assert not list(engine.settings.data.glob(".backups/*"))


async def test_repair_that_waited_while_its_collection_was_replaced_touches_no_other(engine, monkeypatch):
    await engine.put(a=1)
    found = engine.collection("notes")
    replace(engine)
    await engine.put(b=2)
    monkeypatch.setattr(engine.registry, "find", lambda name: found)
    for dry_run in (True, False):
        with pytest.raises(Conflict, match="was replaced"):
            engine.repair("notes", dry_run=dry_run)


async def test_first_write_makes_no_files_where_data_has_come_meanwhile(engine, monkeypatch):
    """The follower opens data that was put there; the write was made for the collection without data."""
    await engine.put(a=1)
    engine.checkpoint()
    with engine.copied("other") as other:
        other.hard_delete("notes")
        other.declare()
        create_files_of = Slowed(monkeypatch, other.catalog, "create_files_of")
        other._committer._create_files_of = create_files_of
        write = asyncio.create_task(other.put(b=2))
        await asyncio.to_thread(create_files_of.entered.wait, 20)
        for name in ("vectors.bin", "points.db", "metadata.json"):
            source = engine.settings.data / "notes" / name
            (other.settings.data / "notes" / name).write_bytes(source.read_bytes())
        uid = engine.collection("notes").manifest.collection_uid
        await asyncio.to_thread(other.refresh, {})
        wait_until(lambda: other.collection("notes").manifest.collection_uid == uid)
        create_files_of.goes_on.set()
        with pytest.raises(Conflict, match="was replaced"):
            await write
        assert await other.values("notes", "a", "b") == [1, None]


def test_collection_that_is_opened_again_is_another_object(engine):
    """So that a request which is bound to what it found never reaches what came instead."""
    before = engine.collection("notes")
    with engine.registry.changing, before.upkeep_lock:
        engine.catalog.reopen(before, before.manifest)
    after = engine.collection("notes")
    assert after is not before
    assert after.upkeep_lock is before.upkeep_lock
    with pytest.raises(Conflict, match="was replaced"), Bound(engine.registry, before):
        pass


async def test_operations_on_the_collection_that_is_still_served_go_on(engine):
    collection = engine.collection("notes")
    await engine.upsert(collection, batch_for(engine, a=1))
    assert await engine.delete_points(collection, ["a", "b"]) == [True, False]
    await engine.put(**fill("p", 3))
    [point] = await engine.get_points(collection, ["p0"])
    assert point.id == "p0"
