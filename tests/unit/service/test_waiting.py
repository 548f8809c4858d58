"""Long work on a collection's files, or a long change of names, stops nothing else."""

import asyncio
import contextlib
import dataclasses
import threading

import pytest

from tests.unit.asgi_client import AsgiClient
from tests.unit.running_engine import RunningEngine, wait_until
from tests.unit.store_on_disk import MANIFEST
from vecstow_engine.api.server import create_app
from vecstow_engine.model.errors import NotFound
from vecstow_engine.storage.manifests import mark_dropped, update_manifest, write_manifest

POKES = 9
"""More than there are threads in any pool."""


@pytest.fixture
def engine(tmp_path):
    """An engine with the collections `notes` and `other`, which looks at its manifests all the time."""
    with RunningEngine(tmp_path / "data", rescan_seconds=0.01) as running:
        running.declare()
        running.declare("other")
        yield running


def client_of(engine):
    return AsgiClient(create_app(engine))


async def status(client, method, path):
    return (await client.call(method, path)).status


async def assert_all_is_answered(client):
    async with asyncio.timeout(10):
        for path in ("/state", "/metrics", "/stats", "/collections", "/collections/other"):
            assert await status(client, "GET", path) == 200


async def poke(client):
    async with asyncio.timeout(10):
        pokes = [status(client, "POST", "/state/refresh") for _ in range(POKES)]
        assert set(await asyncio.gather(*pokes)) == {200}


@contextlib.contextmanager
def names_change(engine):
    """Another thread changes names, as a restore does for as long as its copy takes."""
    begun, ends = threading.Event(), threading.Event()

    def change():
        with engine.registry.changing:
            begun.set()
            ends.wait(20)

    thread = threading.Thread(target=change)
    thread.start()
    begun.wait(20)
    try:
        yield
    finally:
        ends.set()
        thread.join()


async def test_collection_marked_as_dropped_is_moved_after_the_work_on_its_files(engine):
    """No poke waits for that work."""
    await engine.put(a=1)
    client = client_of(engine)
    with engine.collection("notes").upkeep_lock:
        mark_dropped(engine.layout, "notes")
        await poke(client)
        await assert_all_is_answered(client)
        with pytest.raises(NotFound):
            await engine.put(b=2)
        assert engine.catalog.deleted() == []
    await asyncio.to_thread(wait_until, engine.catalog.deleted)
    assert engine.collection_names() == ["other"]


async def test_collection_whose_mark_is_taken_away_before_it_could_be_moved_serves_again(engine):
    await engine.put(a=1)
    with engine.collection("notes").upkeep_lock:
        mark_dropped(engine.layout, "notes")
        await asyncio.to_thread(wait_until, lambda: engine.collection("notes").dropping)
        update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, dropped_at=None))
        await asyncio.to_thread(wait_until, lambda: not engine.collection("notes").dropping)
    assert await engine.values("notes", "a") == [1]
    await engine.put(b=2)


async def test_changed_shape_is_followed_after_the_work_on_the_files(engine):
    """No poke waits for that work."""
    client = client_of(engine)
    with engine.collection("notes").upkeep_lock:
        update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, dimension=7))
        await poke(client)
        await assert_all_is_answered(client)
        assert engine.collection("notes").manifest.dimension == 4
    await asyncio.to_thread(wait_until, lambda: engine.collection("notes").manifest.dimension == 7)


async def test_poke_while_names_change_is_answered_and_followed_after_it(tmp_path):
    with RunningEngine(tmp_path / "data") as engine:
        client = client_of(engine)
        with names_change(engine):
            write_manifest(engine.layout.collection("notes"), MANIFEST)
            await poke(client)
            assert engine.collection_names() == []
        await asyncio.to_thread(wait_until, lambda: engine.collection_names() == ["notes"])


async def test_drop_over_rest_waits_for_work_on_the_files_and_nobody_else_does(engine):
    """Not even the drops of others, nor creations."""
    names = [f"c{number}" for number in range(POKES)]
    for name in names:
        engine.declare(name)
    client = client_of(engine)
    with engine.collection("notes").upkeep_lock:
        drop = asyncio.create_task(status(client, "DELETE", "/collections/notes"))
        drops = [asyncio.create_task(status(client, "DELETE", f"/collections/{name}")) for name in names]
        await poke(client)
        await assert_all_is_answered(client)
        assert await asyncio.gather(*drops) == [200] * POKES
        await asyncio.to_thread(engine.declare, "created")
        await asyncio.to_thread(engine.hard_delete, "created")
        assert not drop.done()
    assert await drop == 200
    assert engine.collection_names() == ["other"]


async def test_purge_waits_for_its_turn_and_not_in_the_upkeep_thread(engine, monkeypatch):
    engine.drop("other")
    moments, purges = [], []
    monkeypatch.setattr(engine.catalog, "cleanup", lambda hours: purges.append(hours))
    locked = engine.registry.changing_now
    monkeypatch.setattr(engine.registry, "changing_now", lambda: moments.append(1) or locked())
    with names_change(engine):
        engine.catalog._purged_at = float("-inf")
        await asyncio.to_thread(wait_until, lambda: len(moments) >= 2)
        assert not purges
    await asyncio.to_thread(wait_until, lambda: engine.catalog._purged_at > 0)


async def test_upkeep_of_the_others_goes_on_beside_work_on_one(tmp_path):
    with RunningEngine(tmp_path / "data", checkpoint_seconds=0) as engine:
        for name in ("notes", "other"):
            engine.declare(name)
            await engine.put(name, a=1)
        with engine.collection("notes").upkeep_lock:
            await engine.put("notes", b=2)
            await engine.put("other", b=2)
            other = engine.collection("other").store
            await asyncio.to_thread(wait_until, lambda: other.meta.applied == other.last_sequence)
        notes = engine.collection("notes").store
        await asyncio.to_thread(wait_until, lambda: notes.meta.applied == notes.last_sequence)
