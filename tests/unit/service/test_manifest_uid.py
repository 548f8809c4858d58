"""A manifest names other data than is served, or none, while the engine runs."""

import dataclasses
import shutil

import pytest

from vecstow_engine.model.errors import Quarantined
from vecstow_engine.storage.manifests import read_manifest, update_manifest

OTHER_UID = "0" * 32


def change(engine, **fields):
    update_manifest(engine.layout, "notes", lambda found: dataclasses.replace(found, **fields))
    engine.refresh({})


def on_disk(engine):
    return read_manifest(engine.layout.collection("notes"))


@pytest.mark.parametrize(
    "uid", [pytest.param(None, id="no uid"), pytest.param(OTHER_UID, id="another incarnation's")]
)
async def test_manifest_takes_the_uid_of_the_data_that_is_served(engine, uid):
    await engine.put(a=1)
    right = on_disk(engine).collection_uid
    change(engine, collection_uid=uid, owner="somebody")
    assert (on_disk(engine).collection_uid, on_disk(engine).owner) == (right, "somebody")
    [row] = engine.state_document()["collections"]
    assert row["collection_uid"] == right
    assert await engine.values("notes", "a") == [1]


async def test_manifest_that_came_with_other_data_is_left_as_it_is(engine):
    """The folder was exchanged: the data that lies there now is not the data that is served."""
    await engine.put(a=1)
    folder = engine.layout.collection("notes")
    shutil.copytree(folder, folder.with_name(".copy"))
    shutil.rmtree(folder)
    folder.with_name(".copy").rename(folder)
    change(engine, collection_uid=OTHER_UID)
    assert on_disk(engine).collection_uid == OTHER_UID
    assert engine.describe("notes")["state"] == "quarantined"


async def test_empty_collection_is_quarantined_when_its_manifest_names_a_uid(engine):
    """A uid in the manifest says that the collection had data."""
    change(engine, collection_uid=OTHER_UID)
    assert engine.describe("notes")["state"] == "quarantined"
    with pytest.raises(Quarantined):
        await engine.put(a=1)
    change(engine, collection_uid=None)
    await engine.put(a=1)
    assert await engine.values("notes", "a") == [1]
