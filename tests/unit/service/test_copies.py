"""Backups, and folders that are copies of a served collection."""

import dataclasses
import shutil

import pytest

from tests.unit.store_on_disk import MANIFEST
from vecstow_engine.model.errors import (
    Conflict,
)
from vecstow_engine.service import registry
from vecstow_engine.storage.manifests import write_manifest


async def test_backup_becomes_a_collection_with_a_uid_of_its_own(engine):
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    path = engine.backup("notes")
    await engine.put(a=9)
    assert engine.catalog.restore(path, "copy") == "copy"
    assert await engine.values("copy", "a", "b") == [1, 2]
    assert await engine.values("notes", "a") == [9]
    uids = {engine.collection(name).manifest.collection_uid for name in ("notes", "copy")}
    assert len(uids) == 2
    await engine.put("copy", c=3)
    with engine.copied() as again:
        assert await again.values("copy", "a", "b", "c") == [1, 2, 3]
        assert await again.values("notes", "a", "b", "c") == [9, 2, None]


async def test_backup_is_not_touched_by_what_comes_after(engine):
    """Its hard links are of files that are never written again."""
    await engine.put(a=1)
    engine.checkpoint()
    await engine.put(b=2)
    path = engine.settings.data / engine.backup("notes")
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    await engine.put(a=3, c=4)
    engine.checkpoint()
    await engine.delete_points("notes", ["b"])
    engine.checkpoint()
    engine.compact("notes")
    engine.drop("notes")
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


async def test_copy_of_a_served_folder_is_not_served_beside_it(engine):
    """Two collections on one log would destroy it; only the folder that the log names serves."""
    await engine.put(a=1)
    shutil.copytree(engine.layout.collection("notes"), engine.layout.collection("twin"))
    write_manifest(
        engine.layout.collection("twin"),
        dataclasses.replace(engine.collection("notes").manifest, name="twin"),
    )
    engine.refresh({})
    assert engine.describe("twin")["state"] == "quarantined"
    assert await engine.put(b=2) == ["b"]
    with engine.copied() as again:
        assert await again.values("notes", "a", "b") == [1, 2]
        assert again.describe("twin")["state"] == "quarantined"


async def test_copy_of_a_served_folder_with_a_manifest_by_hand_is_not_served_beside_it(engine):
    """Its manifest has no uid, but its rows have."""
    await engine.put(a=1)
    engine.checkpoint()
    shutil.copytree(engine.layout.collection("notes"), engine.layout.collection("twin"))
    write_manifest(engine.layout.collection("twin"), dataclasses.replace(MANIFEST, name="twin"))
    with engine.copied() as again:
        assert again.describe("twin")["state"] == "quarantined"
        assert await again.values("notes", "a") == [1]
    engine.refresh({})
    assert engine.describe("twin")["state"] == "quarantined"
    assert await engine.put(b=2) == ["b"]
    assert engine.describe("notes")["state"] == "ready"


async def test_start_does_not_compare_each_collection_with_all_the_others(engine, monkeypatch):
    """With 1,000 of them it would be a million comparisons; one over all manifests does."""
    await engine.put(a=1)
    asked = []
    monkeypatch.setattr(registry.Registry, "is_claimed", lambda self, manifest: asked.append(manifest.name))
    with engine.copied() as again:
        assert again.describe("notes")["state"] == "ready"
    assert asked == []


async def test_rival_whose_header_could_not_be_read_at_first_is_found_when_it_is_opened(engine, monkeypatch):
    await engine.put(a=1)
    shutil.copytree(engine.layout.collection("notes"), engine.layout.collection("twin"))
    write_manifest(engine.layout.collection("twin"), dataclasses.replace(MANIFEST, name="twin"))
    monkeypatch.setattr(registry, "rivals", lambda layout, found: set())
    with engine.copied() as again:
        assert again.describe("twin")["state"] == "quarantined"
        assert await again.values("notes", "a") == [1]
        assert again.registry.is_rival(again.collection("twin"))


async def test_served_collection_is_not_imported_from_under_its_writers(engine):
    await engine.put(a=1)
    (engine.layout.data / "link").symlink_to(engine.layout.collection("notes"))
    for path in ("notes", "link"):
        with pytest.raises(Conflict, match="served as collection 'notes'"):
            engine.import_orphan(
                orphaned_path=path, collection_name="other", dimension=4,
                distance_metric=MANIFEST.distance_metric, vector_type=MANIFEST.vector_type,
            )  # fmt: skip
    assert engine.collection_names() == ["notes"]
