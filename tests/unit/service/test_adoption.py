"""Whose a collection is, the volume tells: the engine may not have looked since a resource adopted it."""

import dataclasses
import json

import pytest

from tests.unit.dvecdb_records import make, write
from vecstow_engine.importers.dvecdb import importer
from vecstow_engine.model.errors import Conflict, NotFound
from vecstow_engine.model.manifest import ManagedBy, Manifest
from vecstow_engine.model.metrics import DistanceMetric, VectorType
from vecstow_engine.service.lifecycle import State
from vecstow_engine.storage.creation import bulk_load
from vecstow_engine.storage.layout import MANIFEST
from vecstow_engine.storage.manifests import read_manifest, update_manifest, write_manifest

OWNED = {"managed_by": ManagedBy.KUBERNETES, "resource_uid": "5f1d", "generation": 3}
SHAPE = {"dimension": 4, "distance_metric": DistanceMetric.EUCLIDEAN, "vector_type": VectorType.FLOAT32}


def on_disk(engine, name="notes"):
    return read_manifest(engine.layout.collection(name))


def change(engine, name="notes", **fields):
    """Change a manifest as a sidecar does, without a poke of the engine."""
    return update_manifest(engine.layout, name, lambda found: dataclasses.replace(found, **fields))[1]


@pytest.mark.parametrize("drop", ["drop", "hard_delete"])
async def test_collection_that_a_resource_adopted_a_moment_ago_is_not_dropped(engine, drop):
    await engine.put(a=1)
    adopted = change(engine, **OWNED)
    with pytest.raises(Conflict, match="belongs to a Kubernetes resource"):
        getattr(engine, drop)("notes")
    assert on_disk(engine) == adopted
    assert await engine.values("notes", "a") == [1]
    assert await engine.put(b=2) == ["b"]


async def test_collection_that_its_resource_released_a_moment_ago_is_dropped(engine):
    await engine.put(a=1)
    change(engine, **OWNED)
    engine.refresh({})
    change(engine, managed_by=ManagedBy.API, resource_uid=None, generation=None)
    engine.drop("notes")
    assert engine.collection_names() == []


async def test_collection_of_a_resource_is_not_dropped_though_its_manifest_is_lost(engine):
    await engine.put(a=1)
    change(engine, **OWNED)
    engine.refresh({})
    (engine.layout.collection("notes") / MANIFEST).unlink()
    with pytest.raises(Conflict):
        engine.drop("notes")
    assert await engine.values("notes", "a") == [1]


async def test_collection_that_lost_its_manifest_is_dropped_with_one_and_can_be_restored(engine):
    """Without the mark a resource could adopt it while its folder is on the way."""
    await engine.put(a=1)
    (engine.layout.collection("notes") / MANIFEST).unlink()
    engine.drop("notes")
    [gone] = engine.catalog.deleted()
    assert json.loads((engine.layout.data / gone["path"] / MANIFEST).read_text())["dropped_at"] is not None
    engine.catalog.restore(gone["path"], None)
    assert await engine.values("notes", "a") == [1]


def foreign(engine):
    """A collection whose data d-vecDB wrote."""
    folder = engine.layout.collection("found")
    write_manifest(folder, Manifest(name="found", owner="search", **SHAPE))
    write(folder / "vectors.bin", make(3, 4), "0.2.6")
    engine.refresh({})
    assert engine.collection("found").state is State.FOREIGN


def import_in_place(engine, **shape):
    engine.import_orphan(orphaned_path="found", collection_name="found", **(SHAPE | shape))


def test_import_in_place_leaves_a_collection_to_its_resource(engine):
    foreign(engine)
    adopted = change(engine, "found", **OWNED)
    import_in_place(engine)
    imported = on_disk(engine, "found")
    assert imported.collection_uid is not None
    changed = {"collection_uid": imported.collection_uid, "updated_at": imported.updated_at}
    assert imported == dataclasses.replace(adopted, **changed)
    assert engine.collection("found").manifest == imported
    assert engine.describe("found")["vector_count"] == 3


def test_import_in_place_with_another_shape_than_the_resource_declares_is_refused(engine):
    foreign(engine)
    adopted = change(engine, "found", **OWNED)
    with pytest.raises(Conflict, match="declares 4, Euclidean, Float32"):
        import_in_place(engine, distance_metric=DistanceMetric.COSINE)
    assert on_disk(engine, "found") == adopted
    assert not list(engine.layout.quarantine.glob("*"))


def test_import_in_place_of_a_collection_that_is_dropped_is_refused(engine):
    foreign(engine)
    change(engine, "found", dropped_at="2026-01-01T00:00:00.000Z")
    with pytest.raises(Conflict, match="is dropped"):
        import_in_place(engine)
    engine.refresh({})
    with pytest.raises(NotFound):
        engine.collection("found")


def test_what_changes_during_an_import_in_place_is_kept(engine, monkeypatch):
    foreign(engine)

    def load(*values):
        change(engine, "found", **OWNED)
        return bulk_load(*values)

    monkeypatch.setattr(importer, "bulk_load", load)
    import_in_place(engine)
    assert (on_disk(engine, "found").resource_uid, on_disk(engine, "found").owner) == ("5f1d", "search")
