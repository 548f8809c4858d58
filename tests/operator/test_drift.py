"""Changes on the volume are put right within ten seconds; lost data is reported."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.crash.rest import Refused
from tests.operator.points import (
    POINTS,
    collection_uid,
    command_told,
    deleted,
    fill,
    manifest,
    manifest_path,
    points,
    refusal,
    served_with_points,
    serves,
)
from tests.operator.site import collection
from tests.waiting import wait_for


def without_times(document):
    return {key: value for key, value in document.items() if key not in ("created_at", "updated_at")}


# The manifest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        pytest.param("setting", {"index_config": {"ef_search": 7}}, id="a setting"),
        pytest.param("shape", {"dimension": 5, "distance_metric": "Euclidean"}, id="the shape"),
        pytest.param("manager", {"managed_by": "api"}, id="who manages it"),
        pytest.param("owner", {"resource_uid": "somebody", "generation": 9}, id="whose it is"),
        pytest.param("nameless", {"collection_uid": None}, id="no data that it speaks of"),
        pytest.param("misnamed", {"collection_uid": "0" * 32}, id="which data it speaks of"),
        pytest.param("seed", {"schema_version": 0, "managed_by": "file"}, id="its schema"),
    ],
)
def test_edited_manifest_is_wait_for(shared, name, edit):
    served_with_points(shared, name)
    right = manifest(shared, name)
    manifest_path(shared, name).write_text(json.dumps(right | edit))
    wait_for(lambda: without_times(manifest(shared, name)) == without_times(right), "the manifest")
    wait_for(lambda: serves(shared, name), "its points")
    wait_for(lambda: shared.reason(name) == "Served", lambda: str(shared.condition("Ready", name)))


def test_damaged_manifest_is_set_aside_and_written_anew_until_somebody_has_looked(shared):
    served_with_points(shared, "damaged")
    right = manifest(shared, "damaged")
    manifest_path(shared, "damaged").write_text('{"name": "dam')
    wait_for(lambda: shared.condition("Degraded", "damaged")["status"] == "True", "Degraded")
    wait_for(lambda: without_times(manifest(shared, "damaged")) == without_times(right), "the manifest")
    [evidence] = shared.data.glob(".quarantine/damaged-*")
    assert (evidence / "damaged" / "metadata.json").read_text() == '{"name": "dam'
    assert shared.condition("Degraded", "damaged")["reason"] == "ManifestSetAside"
    assert shared.reason("damaged") == "Served"
    assert serves(shared, "damaged")

    shared.kubectl(*command_told(shared, "damaged", "Degraded"))
    wait_for(lambda: shared.condition("Degraded", "damaged")["status"] == "False", "no Degraded")
    assert evidence.exists()


def test_removed_manifest_is_written_anew_beside_its_data(shared):
    uid = served_with_points(shared, "removed")
    manifest_path(shared, "removed").unlink()
    wait_for(lambda: manifest_path(shared, "removed").exists(), "the manifest")
    wait_for(lambda: shared.reason("removed") == "Served" and serves(shared, "removed"), "its points")
    assert collection_uid(shared, "removed") == uid


def test_manifest_removed_while_the_engine_is_down_is_written_anew(site):
    uid = served_with_points(site, "notes")
    site.engine.stop()
    manifest_path(site, "notes").unlink()
    wait_for(lambda: manifest_path(site, "notes").exists(), "the manifest")
    site.engine.start("/ready")
    wait_for(lambda: serves(site, "notes"), "its points")
    site.wait_reason("Served")
    assert collection_uid(site, "notes") == uid


def test_rest_does_not_drop_what_is_declared(shared):
    served_with_points(shared, "declared")
    with shared.rest() as rest:
        for path in ("/collections/declared", "/collections/declared/hard-delete"):
            with pytest.raises(Refused) as refused:
                rest.call("DELETE", path)
            assert refused.value.status == 409
    assert serves(shared, "declared")


# The data --------------------------------------------------------------------------------------------------


def test_folder_that_is_gone_is_told_until_somebody_accepts_it(shared):
    uid = served_with_points(shared, "gone")
    shutil.rmtree(shared.data / "gone")
    wait_for(lambda: shared.reason("gone") == "DataMissing", lambda: str(shared.condition("Ready", "gone")))
    assert refusal(shared, "gone") == 503
    with pytest.raises(Refused) as refused:
        fill(shared, "gone")
    assert refused.value.status == 503
    assert manifest(shared, "gone")["collection_uid"] == uid
    status = shared.resource("gone")["status"]
    assert (status["collectionUid"], status["vectorCount"]) == (uid, len(POINTS))
    assert shared.condition("Stalled", "gone")["reason"] == "DataMissing"

    shared.kubectl(*command_told(shared, "gone", "Ready"))
    wait_for(lambda: shared.reason("gone") == "Served", lambda: str(shared.condition("Ready", "gone")))
    assert points(shared, "gone") == {}
    fill(shared, "gone")
    assert serves(shared, "gone")


def test_folder_that_is_gone_while_everything_is_down_is_told(site):
    served_with_points(site, "notes")
    site.sidecar.end()
    site.engine.stop()
    shutil.rmtree(site.data / "notes")
    site.engine.start("/ready")
    site.sidecar.start()
    wait_for(lambda: site.reason() == "DataMissing", lambda: str(site.condition()))
    assert refusal(site, "notes") == 503


def known(site):
    """Return what the status records of the data."""
    status = site.resource()["status"]
    return status["collectionUid"], status["vectorCount"]


def looked_at_all_the_while(site, before, until):
    """No moment until then forgets the loss, and none answers a read."""

    def look():
        assert refusal(site, "notes") in (404, 503)
        assert known(site) == before
        return until()

    wait_for(look, lambda: str(site.condition()))


def on_an_empty_volume(site):
    """Start the engine again; the volume that it had lies aside."""
    site.engine.stop()
    site.data.rename(site.folder / "old")
    site.engine.start("/ready")


def test_another_volume_is_told_and_the_old_one_is_served_again_by_itself(site):
    uid = served_with_points(site, "notes")
    on_an_empty_volume(site)
    looked_at_all_the_while(site, known(site), lambda: site.reason() == "VolumeReplaced")
    assert refusal(site, "notes") == 503
    assert site.condition()["status"] == "False"
    assert collection_uid(site, "notes") == uid

    site.engine.stop()
    site.data.rename(site.folder / "empty")
    (site.folder / "old").rename(site.data)
    site.engine.start("/ready")
    wait_for(lambda: site.reason() == "Served", lambda: str(site.condition()))
    assert serves(site, "notes")
    assert collection_uid(site, "notes") == uid


def test_loss_with_the_volume_is_accepted_by_hand(site):
    uid = served_with_points(site, "notes")
    on_an_empty_volume(site)
    wait_for(lambda: site.reason() == "VolumeReplaced", lambda: str(site.condition()))
    site.kubectl("annotate", "vcol", "notes", "vecstow.dev/accept-empty=another")
    site.kubectl("annotate", "--overwrite", "vcol", "notes", f"vecstow.dev/accept-empty={uid}")
    wait_for(lambda: site.reason() == "Served", lambda: str(site.condition()))
    assert points(site, "notes") == {}
    fill(site, "notes")
    wait_for(lambda: collection_uid(site, "notes") not in (None, uid), "the uid of the new data")
    assert site.reason() == "Served"


def test_empty_collection_made_over_rest_on_another_volume_does_not_hide_the_loss(site):
    served_with_points(site, "notes")
    site.sidecar.end()
    on_an_empty_volume(site)
    with site.rest() as rest:
        rest.create("notes", 4, "Cosine")
    site.sidecar.start()
    wait_for(lambda: site.reason() == "VolumeReplaced", lambda: str(site.condition()))
    wait_for(lambda: refusal(site, "notes") == 503, "no more reads")


def test_collection_without_vectors_is_served_on_another_volume(site):
    site.apply(collection("notes"))
    site.wait_reason("Served")
    on_an_empty_volume(site)
    wait_for(lambda: (site.data / "notes").is_dir() and site.reason() == "Served", "nothing was lost")


def test_repaired_collection_is_no_missing_data(shared):
    uid = served_with_points(shared, "repaired")
    shared.engine.stop()
    with (shared.data / "repaired" / "vectors.bin").open("r+b") as rows:
        rows.write(bytes(64))
    shared.engine.start("/ready")
    wait_for(lambda: shared.reason("repaired") == "Quarantined", "Quarantined")
    assert refusal(shared, "repaired") == 503
    with shared.rest() as rest:
        rest.call("POST", "/collections/repaired/repair", {})
    wait_for(
        lambda: shared.reason("repaired") == "Served", lambda: str(shared.condition("Ready", "repaired"))
    )
    assert serves(shared, "repaired")
    wait_for(lambda: collection_uid(shared, "repaired") not in (None, uid), "the uid of the repaired data")
    shared.engine.stop()
    shared.engine.start("/ready")
    wait_for(lambda: serves(shared, "repaired"), "its points after a start")
    assert shared.reason("repaired") != "DataMissing"


# Made over REST --------------------------------------------------------------------------------------------


def made_over_rest(site, name, dimension=4):
    with site.rest() as rest:
        rest.create(name, dimension, "Cosine")
    fill(site, name)


def test_collection_made_over_rest_is_adopted_with_its_points(shared):
    made_over_rest(shared, "adopted")
    uid = manifest(shared, "adopted")["collection_uid"]
    shared.apply(collection("adopted"))
    shared.wait_reason("Served", "adopted")
    assert serves(shared, "adopted")
    status = shared.resource("adopted")["status"]
    assert (status["collectionUid"], status["vectorCount"]) == (uid, len(POINTS))
    assert manifest(shared, "adopted")["managed_by"] == "kubernetes"


def test_another_shape_made_over_rest_is_a_conflict(shared):
    """The condition Stalled is True until the resource allows to replace the data."""
    made_over_rest(shared, "other")
    shared.apply(collection("other", dimension=3))
    shared.wait_reason("Conflict", "other")
    assert shared.condition("Stalled", "other")["status"] == "True"
    assert serves(shared, "other")
    assert deleted(shared, "other") == []

    shared.kubectl(*command_told(shared, "other", "Ready"))
    wait_for(lambda: shared.reason("other") == "Served", lambda: str(shared.condition("Ready", "other")))
    [old] = deleted(shared, "other")
    assert json.loads((old / "metadata.json").read_text())["dimension"] == 4
    with shared.rest() as rest:
        facts = rest.describe("other")
    assert (facts["dimension"], facts["vector_count"]) == (3, 0)
