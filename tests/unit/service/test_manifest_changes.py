"""Manifests that change while the engine serves the collection."""

import asyncio
import dataclasses
import json

import numpy as np
import pytest
from structlog.testing import capture_logs

from tests.unit.interleaving import Slowed
from tests.unit.running_engine import RunningEngine, fill, wait_until
from tests.unit.store_on_disk import MANIFEST
from vecstow_engine.model.errors import (
    Conflict,
    Recovering,
    VecstowError,
)
from vecstow_engine.model.manifest import IndexConfig, render_manifest
from vecstow_engine.model.metrics import VectorType
from vecstow_engine.model.points import PointBatch
from vecstow_engine.service import catalog, loader
from vecstow_engine.storage.manifests import update_manifest, write_manifest


def change_owner(engine, owner):
    """As another process does it."""
    update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, owner=owner))


async def test_changed_graph_settings_rebuild_the_graph_in_the_background(engine):
    await engine.put(**fill("p", 1500))
    engine.indexed()
    config = IndexConfig(max_connections=8, ef_construction=50, ef_search=77)
    update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, index_config=config))
    engine.refresh({})
    collection = engine.indexed()
    assert engine.describe("notes")["index_config"]["ef_search"] == 77
    with collection.index.fork_point() as graph:
        assert graph.hnsw.built_with(config)
    assert await engine.nearest("notes", 700) == ["p699"]


async def test_collection_is_not_created_over_data_that_lost_its_manifest(engine):
    await engine.put(a=1)
    engine.checkpoint()
    engine.stop()
    (engine.layout.collection("notes") / "metadata.json").unlink()
    with RunningEngine(engine.settings.data) as again:
        assert again.collection_names() == []
        with pytest.raises(Conflict, match="holds data"):
            again.declare("notes")
        write_manifest(again.layout.collection("notes"), MANIFEST)
        again.refresh({})
        assert await again.values("notes", "a") == [1]


@pytest.mark.parametrize(
    ("edited", "level", "fault"),
    [
        pytest.param(None, "warning", "metadata.json is missing", id="removed"),
        pytest.param(b"{", "error", "not valid JSON", id="no JSON"),
        pytest.param(
            render_manifest(dataclasses.replace(MANIFEST, dimension=8)),
            "error",
            "it changed dimension",
            id="shape",
        ),
    ],
)
async def test_manifest_that_a_start_would_refuse_is_a_remark_until_put_right(engine, edited, level, fault):
    """The collection keeps its manifest and serves; the reason warns before the next start."""
    await engine.put(a=1)
    path = engine.layout.collection("notes") / "metadata.json"
    before = path.read_bytes()
    path.unlink() if edited is None else path.write_bytes(edited)
    with capture_logs() as logs:
        engine.refresh({})
    assert [line["log_level"] for line in logs if "manifest" in line["event"]] == [level]
    described = engine.describe("notes")
    assert (described["state"], described["dimension"]) == ("ready", 4)
    assert "the next start refuses the manifest" in described["reason"]
    assert fault in described["reason"]
    assert await engine.put(b=2) == ["b"]
    path.write_bytes(before)
    engine.refresh({})
    assert engine.describe("notes")["reason"] is None


async def test_write_checked_against_a_shape_that_changed_meanwhile_is_refused(engine):
    """Until the first write an empty collection may change its shape; what waits was made for the old one."""
    manifest = engine.collection("notes").manifest
    batch = PointBatch.build(manifest, ["a"], np.ones((1, 4), np.float32), None)
    changed = {"dimension": 8, "vector_type": VectorType.FLOAT16}
    update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, **changed))
    with pytest.raises(VecstowError):
        await engine.upsert("notes", batch)
    engine.refresh({})
    assert engine.describe("notes")["dimension"] == 8
    assert engine.describe("notes")["vector_count"] == 0


def test_manifest_on_the_volume_is_what_the_api_describes(engine):
    engine.declare("docs", owner="me")
    written = json.loads((engine.layout.collection("docs") / "metadata.json").read_text())
    described = engine.describe("docs")
    assert {key: described[key] for key in written} == written


def test_manifest_that_was_changed_while_the_collection_was_created_is_followed(tmp_path, monkeypatch):
    with RunningEngine(tmp_path / "data") as engine:

        def overtaken(*values):
            answer = update_manifest(*values)
            change_owner(engine, "sidecar")
            return answer

        monkeypatch.setattr(catalog, "update_manifest", overtaken)
        engine.declare()
        engine.refresh({})
        assert engine.collection("notes").manifest.owner == "sidecar"


async def test_settings_do_not_take_the_uid_away_that_the_first_write_gives(engine, monkeypatch):
    """Without it the log would be missing in a backup, and stay behind in a purge."""
    change_owner(engine, "sidecar")
    writing = Slowed(monkeypatch, catalog, "create_data_files")
    write = asyncio.create_task(engine.put(a=1))
    await asyncio.to_thread(writing.entered.wait, 20)
    await asyncio.to_thread(engine.refresh, {})
    assert engine.collection("notes").manifest.owner is None
    writing.goes_on.set()
    await write
    engine.refresh({})
    manifest = engine.collection("notes").manifest
    assert (manifest.owner, manifest.collection_uid) == (
        "sidecar", engine.collection("notes").store.identity.uid,
    )  # fmt: skip


async def test_collection_is_neither_dropped_nor_changed_while_it_is_opened(engine, monkeypatch):
    """Its loader would go on with the next collection's files, or with the settings that it read before."""
    await engine.put(a=1)
    opening = Slowed(monkeypatch, loader, "open_store")
    copy = engine.copied()
    copy.start()
    try:
        with pytest.raises(Recovering):
            copy.drop("notes")
        change_owner(copy, "sidecar")
        copy.refresh({})
        opening.goes_on.set()
        wait_until(copy.registry.all_opened)
        copy.refresh({})
        assert copy.collection("notes").manifest.owner == "sidecar"
        copy.drop("notes")
    finally:
        opening.goes_on.set()
        copy.stop()


def test_create_with_another_shape_names_both(engine):
    with pytest.raises(Conflict, match="exists with dimension 4, Euclidean, Float32, not with dimension 5"):
        engine.catalog.create(
            dataclasses.replace(engine.collection("notes").manifest, dimension=5), exist_ok=True
        )
