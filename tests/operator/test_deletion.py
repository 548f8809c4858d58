"""The end of a resource: its policy decides about the data; only without an engine it goes undecided."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress

import pytest

from tests.crash.rest import Refused
from tests.operator.plugin import plugin
from tests.operator.points import (
    POINTS,
    deleted,
    manifest,
    manifest_path,
    refusal,
    served_with_points,
    serves,
)
from tests.operator.site import collection
from tests.waiting import wait_for


def remove(site, name):
    """Ask for it; do not wait."""
    site.kubectl("delete", "vcol", name, "--wait=false")


def is_gone(site, name):
    return all(resource["metadata"]["name"] != name for resource in site.resources())


def wait_gone(site, name):
    wait_for(lambda: is_gone(site, name), lambda: str(site.condition("Ready", name)))


def set_policy(site, name, policy):
    site.kubectl(
        "patch", "vcol", name, "--type=merge", "-p", json.dumps({"spec": {"deletionPolicy": policy}})
    )


def events(site, name):
    found = site.get("events", "--field-selector", f"involvedObject.name={name}")
    return [event["reason"] for event in found]


def is_retained(site, name):
    return serves(site, name) and manifest(site, name)["managed_by"] == "api"


def deleting(site, name, policy):
    """Serve a resource, and delete it while no sidecar writes manifests."""
    served_with_points(site, name, deletionPolicy=policy)
    site.sidecar.end()
    remove(site, name)


@pytest.fixture
def sidecar_comes_back(shared):
    yield
    if not shared.sidecar.is_running:
        shared.sidecar.start()


# Retain ----------------------------------------------------------------------------------------------------


def test_retained_collection_is_served_on_and_rest_may_drop_it(shared):
    served_with_points(shared, "retained")
    shared.kubectl("delete", "vcol", "retained")
    wait_for(lambda: is_retained(shared, "retained"), "REST's collection")
    assert manifest(shared, "retained").get("resource_uid") is None
    wait_for(lambda: dropped_over_rest(shared, "retained"), "the drop over REST")
    assert len(deleted(shared, "retained")) == 1


def dropped_over_rest(site, name):
    """The engine follows the manifest a moment after it is written; until then it refuses."""
    with site.rest() as rest, suppress(Refused):
        rest.call("DELETE", f"/collections/{name}")
    return refusal(site, name) == 404


def test_retained_collection_is_served_with_its_points_when_it_is_declared_again(shared):
    served_with_points(shared, "again")
    shared.kubectl("delete", "vcol", "again")
    wait_for(lambda: is_retained(shared, "again"), "REST's collection")
    shared.apply(collection("again"))
    shared.wait_reason("Served", "again")
    assert serves(shared, "again")
    assert manifest(shared, "again")["resource_uid"] == shared.resource("again")["metadata"]["uid"]


def test_backup_takes_the_place_of_what_a_resource_declared(shared):
    """The way of docs/operations.md: nothing else may drop a collection that a resource owns."""
    served_with_points(shared, "rescued")
    with shared.rest() as rest:
        copy = rest.call("POST", "/collections/rescued/backup")["backup_path"]
        rest.delete_many("rescued", ["point-0"])
        assert rest.describe("rescued")["vector_count"] == len(POINTS) - 1
    shared.kubectl("delete", "vcol", "rescued")
    wait_for(lambda: dropped_over_rest(shared, "rescued"), "the drop over REST")
    with shared.rest() as rest:
        rest.call("POST", "/collections/restore", {"backup_path": copy})
    shared.apply(collection("rescued"))
    shared.wait_reason("Served", "rescued")
    assert serves(shared, "rescued")


def test_retained_collection_declared_again_at_once_never_stops_serving(shared):
    served_with_points(shared, "quick")
    shared.kubectl("delete", "vcol", "quick")
    shared.apply(collection("quick"))
    uid = shared.resource("quick")["metadata"]["uid"]
    wait_for(lambda: serves(shared, "quick") and manifest(shared, "quick")["resource_uid"] == uid, "adoption")
    shared.wait_reason("Served", "quick")


def test_retained_collection_declared_again_with_another_shape_is_a_conflict(shared):
    served_with_points(shared, "reshaped")
    shared.kubectl("delete", "vcol", "reshaped")
    shared.apply(collection("reshaped", dimension=5))
    shared.wait_reason("Conflict", "reshaped")
    assert is_retained(shared, "reshaped")
    assert deleted(shared, "reshaped") == []


# Delete ----------------------------------------------------------------------------------------------------


def test_deleted_collection_rests_in_deleted_and_its_resource_goes(shared):
    served_with_points(shared, "dropped", deletionPolicy="Delete")
    remove(shared, "dropped")
    wait_gone(shared, "dropped")
    [rest] = deleted(shared, "dropped")
    assert (rest / "vectors.bin").stat().st_size > 0
    assert not (shared.data / "dropped").exists()
    assert refusal(shared, "dropped") == 404
    wait_for(lambda: "Dropped" in events(shared, "dropped"), "the event")


def test_dropped_collection_can_be_restored_and_adopted_with_its_points(shared):
    served_with_points(shared, "restored", deletionPolicy="Delete")
    remove(shared, "restored")
    wait_gone(shared, "restored")
    [rest] = deleted(shared, "restored")
    with shared.rest() as client:
        client.call("POST", "/collections/restore", {"backup_path": f".deleted/{rest.name}"})
    shared.apply(collection("restored"))
    shared.wait_reason("Served", "restored")
    assert serves(shared, "restored")


def test_collection_that_is_declared_anew_after_its_drop_is_empty(shared):
    served_with_points(shared, "anew", deletionPolicy="Delete")
    remove(shared, "anew")
    wait_gone(shared, "anew")
    shared.apply(collection("anew", dimension=5))
    shared.wait_reason("Served", "anew")
    with shared.rest() as rest:
        assert rest.describe("anew")["vector_count"] == 0


def test_paused_collection_is_not_dropped_before_it_is_reconciled_again(shared):
    served_with_points(shared, "paused", deletionPolicy="Delete")
    shared.kubectl("patch", "vcol", "paused", "--type=merge", "-p", '{"spec": {"paused": true}}')
    wait_for(lambda: shared.condition("Paused", "paused")["status"] == "True", "Paused")
    remove(shared, "paused")
    wait_for(
        lambda: "nothing is deleted" in shared.condition("Paused", "paused")["message"], "what it waits for"
    )
    assert serves(shared, "paused")
    shared.kubectl("patch", "vcol", "paused", "--type=merge", "-p", '{"spec": {"paused": false}}')
    wait_gone(shared, "paused")
    assert len(deleted(shared, "paused")) == 1


def test_collection_whose_data_is_gone_keeps_no_resource(shared):
    served_with_points(shared, "lost", deletionPolicy="Delete")
    shutil.rmtree(shared.data / "lost")
    shared.wait_reason("DataMissing", "lost")
    remove(shared, "lost")
    wait_gone(shared, "lost")
    assert refusal(shared, "lost") == 404


@pytest.mark.usefixtures("sidecar_comes_back")
@pytest.mark.parametrize(
    ("name", "harm"),
    [
        pytest.param("cut", lambda path: path.write_text("{"), id="damaged"),
        pytest.param("unnamed", lambda path: path.unlink(), id="removed"),
    ],
)
def test_collection_is_dropped_whatever_became_of_its_manifest(shared, name, harm):
    deleting(shared, name, "Delete")
    harm(manifest_path(shared, name))
    shared.sidecar.start()
    wait_gone(shared, name)
    [rest] = deleted(shared, name)
    assert (rest / "vectors.bin").stat().st_size > 0


# The policy changes while it is being deleted --------------------------------------------------------------


@pytest.mark.usefixtures("sidecar_comes_back")
def test_deletion_waits_for_the_sidecar(shared):
    deleting(shared, "waiting", "Delete")
    shared.wait_reason("Deleting", "waiting")
    assert serves(shared, "waiting")
    shared.sidecar.start()
    wait_gone(shared, "waiting")
    assert len(deleted(shared, "waiting")) == 1


@pytest.mark.usefixtures("sidecar_comes_back")
def test_policy_changed_to_retain_in_time_keeps_the_data(shared):
    deleting(shared, "kept", "Delete")
    set_policy(shared, "kept", "Retain")
    shared.sidecar.start()
    wait_gone(shared, "kept")
    assert is_retained(shared, "kept")
    wait_for(lambda: "Released" in events(shared, "kept"), "the event")


@pytest.mark.usefixtures("sidecar_comes_back")
def test_policy_changed_to_delete_while_another_holds_the_resource_drops_the_data(shared):
    """Retain needs no finalizer; the finalizer of another controller keeps the resource."""
    served_with_points(shared, "held")
    shared.kubectl(
        "patch", "vcol", "held", "--type=merge", "-p", '{"metadata": {"finalizers": ["example.com/held"]}}'
    )
    shared.sidecar.end()
    remove(shared, "held")
    set_policy(shared, "held", "Delete")
    shared.sidecar.start()
    wait_for(lambda: len(deleted(shared, "held")) == 1, "the drop")
    assert not is_gone(shared, "held")
    shared.kubectl("patch", "vcol", "held", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    wait_gone(shared, "held")


# The engine ------------------------------------------------------------------------------------------------


def test_deletion_waits_for_an_engine_that_is_down(site):
    served_with_points(site, "notes", deletionPolicy="Delete")
    site.engine.kill()
    remove(site, "notes")
    site.wait_reason("EngineUnreachable")
    assert not is_gone(site, "notes")
    assert deleted(site, "notes") == []
    site.engine.start("/ready")
    wait_gone(site, "notes")
    assert len(deleted(site, "notes")) == 1
    assert refusal(site, "notes") == 404


def test_policy_that_changes_after_the_drop_comes_too_late(site):
    served_with_points(site, "notes", deletionPolicy="Delete")
    site.engine.kill()
    remove(site, "notes")
    wait_for(lambda: manifest(site, "notes").get("dropped_at"), "the mark of the drop")
    set_policy(site, "notes", "Retain")
    site.engine.start("/ready")
    wait_gone(site, "notes")
    assert len(deleted(site, "notes")) == 1
    wait_for(lambda: "Dropped" in events(site, "notes"), "the event")


def test_deletion_waits_for_an_engine_that_is_scaled_to_zero(site):
    served_with_points(site, "notes", deletionPolicy="Delete")
    end_pod(site)
    site.engine.declare(replicas=0)
    remove(site, "notes")
    site.wait_reason("EngineScaledDown")
    assert site.condition("Reconciling")["status"] == "True"
    assert "scaled to zero" in site.condition()["message"]
    assert not is_gone(site, "notes")

    site.engine.declare()
    site.sidecar.start()
    site.engine.start("/ready")
    wait_gone(site, "notes")
    assert len(deleted(site, "notes")) == 1


def test_resource_of_an_engine_that_is_gone_is_released_without_a_drop(site):
    served_with_points(site, "notes", deletionPolicy="Delete")
    end_pod(site)
    site.kubectl("delete", "statefulset", "vecstow")
    wait_for(lambda: not site.pods(), "the end of the pod")
    site.wait_reason("EngineMissing")
    remove(site, "notes")
    wait_gone(site, "notes")
    assert manifest(site, "notes").get("dropped_at") is None
    assert deleted(site, "notes") == []
    wait_for(lambda: "Released" in events(site, "notes"), "the event")


def end_pod(site):
    """End the pod as kubelet does."""
    site.engine.stop()
    site.sidecar.end()


# The namespace ---------------------------------------------------------------------------------------------


def declare_both(site):
    served_with_points(site, "kept")
    served_with_points(site, "notes", deletionPolicy="Delete")
    wait_for(lambda: site.resource()["metadata"].get("finalizers"), "the finalizer")


def namespace_is_gone(site):
    return not site.cluster.kubectl("get", "namespace", site.namespace, "--ignore-not-found")


def test_namespace_goes_away_by_itself_while_the_manager_runs(site):
    declare_both(site)
    end_pod(site)
    site.kubectl("delete", "namespace", site.namespace, "--wait=false")
    wait_for(lambda: namespace_is_gone(site), "the end of the namespace")
    assert (deleted(site, "notes"), deleted(site, "kept")) == ([], [])


def test_namespace_without_a_manager_goes_away_when_its_resources_are_released(site):
    declare_both(site)
    end_pod(site)
    site.manager.end()
    site.kubectl("delete", "namespace", site.namespace, "--wait=false")
    wait_for(lambda: [r["metadata"]["name"] for r in site.resources()] == ["notes"], "only the held one")
    assert plugin(site, "release", "--all") == "vectorcollection/notes released\n"
    wait_for(lambda: namespace_is_gone(site), "the end of the namespace")
    assert manifest(site, "notes").get("dropped_at") is None


def test_manager_that_ends_with_its_namespace_releases_what_it_held(site):
    """SIGTERM comes before it looks again."""
    declare_both(site)
    end_pod(site)
    site.kubectl("delete", "namespace", site.namespace, "--wait=false")
    assert site.manager.end(15) == 0
    wait_for(lambda: namespace_is_gone(site), "the end of the namespace")
