"""Repair of a lost, broken or wrong manifest: what the headers tell is written again, the data stays."""

import json

import pytest

from tests.unit.checked_volume import cut, flip
from tests.unit.damaged_store import DamagedStore, digests
from tests.unit.store_on_disk import StoreOnDisk
from vecstow_engine.doctor.repair import RepairOutcome, repair_volume
from vecstow_engine.storage.layout import Layout
from vecstow_engine.storage.manifests import read_manifest


@pytest.fixture
def store(tmp_path):
    return DamagedStore(tmp_path / "data")


def change(store, **fields):
    store.manifest.write_text(json.dumps(json.loads(store.manifest.read_text()) | fields))


DAMAGES = {
    "gone": lambda s: s.manifest.unlink(),
    "empty": lambda s: s.manifest.write_bytes(b""),
    "cut": lambda s: cut(s.manifest, 50),
    "no JSON": lambda s: flip(s.manifest, 0, 0xFF),
    "of another name": lambda s: change(s, name="other"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_lost_manifest_is_made_anew_from_the_headers_and_nothing_else_is_touched(store, damage):
    damage(store)
    before = digests(store.data)
    done = store.repair()
    after = digests(store.data)
    changed = {name for name in after if after[name] != before.get(name)}
    assert {name for name in changed if not name.startswith(".quarantine")} == {"notes/metadata.json"}
    assert set(before.values()) <= set(after.values())
    assert any("index settings are the defaults" in warning for warning in done.plan.warnings)
    assert store.served() == store.points


@pytest.mark.parametrize("fields", [{"dimension": 5}, {"distance_metric": "Cosine"}, {"vector_type": "Int8"}])
def test_manifest_of_another_shape_than_the_data_is_put_right_and_keeps_the_rest(store, fields):
    change(store, owner="search-team", **fields)
    uid = json.loads(store.manifest.read_text())["collection_uid"]
    assert store.repair().outcome is RepairOutcome.REPAIRED
    manifest = read_manifest(store.folder)
    assert (manifest.dimension, manifest.owner, manifest.collection_uid) == (4, "search-team", uid)
    assert store.served() == store.points


def test_manifest_of_another_incarnation_is_put_right_where_all_data_agrees(store):
    change(store, collection_uid="f" * 32)
    store.repair()
    assert store.served() == store.points


def test_settings_are_kept_when_the_data_is_made_anew(store):
    change(store, owner="search-team", managed_by="kubernetes", resource_uid="r", generation=4, extra=[1])
    flip(store.rows, 40)
    before = read_manifest(store.folder)
    store.repair()
    after = read_manifest(store.folder)
    assert after.collection_uid != before.collection_uid
    kept = ("owner", "managed_by", "resource_uid", "generation", "unknown", "index_config", "created_at")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]


def test_manifest_of_a_later_release_is_left_to_that_release(store):
    change(store, schema_version=3)
    before = digests(store.data)
    done = store.repair()
    assert done.outcome is RepairOutcome.IMPOSSIBLE
    assert "run the release that wrote it" in done.plan.hint
    assert digests(store.data) == before


def test_folder_without_any_data_is_nobody_s_collection(tmp_path):
    (tmp_path / "stray").mkdir()
    (tmp_path / "stray" / "notes.txt").write_text("mine")
    DamagedStore(tmp_path)
    done = repair_volume(tmp_path).collections["stray"]
    assert done.outcome is RepairOutcome.SOUND
    assert (tmp_path / "stray" / "notes.txt").read_text() == "mine"
    assert not Layout(tmp_path).quarantine.exists()


def test_collection_that_never_held_data_is_left_alone(tmp_path):
    StoreOnDisk(tmp_path).close()
    assert repair_volume(tmp_path).collections["notes"].outcome is RepairOutcome.SOUND
