"""A copy of a volume, and nothing else: everything is served from it, and declared again by one command."""

from __future__ import annotations

import os
import secrets
import shutil

import httpx
import pytest
import yaml

from tests.cluster.fixtures import REQUIRED
from tests.operator.plugin import may_add_addresses, plugin, pod_address
from tests.operator.points import POINTS, deleted, fill, manifest, points, serves
from tests.operator.site import Site, collection
from tests.waiting import wait_for

NAMES = ["notes", "Mixed_Case", "by-rest", "no-points"]
SETTINGS = {
    "owner": "search-team",
    "index": {"maxConnections": 24, "efConstruction": 111, "efSearch": 77, "maxLayer": 16},
    "payloadIndexes": [{"field": "place", "type": "integer"}],
}


@pytest.fixture(scope="module")
def address():
    if not may_add_addresses() and not os.environ.get(REQUIRED):
        pytest.skip("only root may give this machine the address that the API server's proxy needs")
    with pod_address() as address:
        yield address


class Reachable(Site):
    """A site whose engine the API server can be a proxy for."""

    def __init__(self, cluster, namespace, folder, address):
        super().__init__(cluster, namespace, folder)
        self.address = address
        self.engine.flags += ["--host", "0.0.0.0", "--without-keys"]


@pytest.fixture(scope="module")
def copied(cluster, address, tmp_path_factory):
    """A copy of the volume of a site that is gone: made under a hold, while points were written."""
    folder = tmp_path_factory.mktemp("lost")
    namespace = f"lost-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", namespace)
    site = Reachable(cluster, namespace, folder, address)
    try:
        site.start()
        site.apply(
            collection("notes", **SETTINGS),
            collection("mixed", collectionName="Mixed_Case", deletionPolicy="Delete"),
            collection("no-points"),
        )
        with site.rest() as rest:
            rest.create("by-rest", 4, "Cosine")
        for name in ("notes", "mixed", "no-points"):
            site.wait_reason("Served", name)
        for name in NAMES[:3]:
            fill(site, name)
        assert plugin(site, "hold").startswith("holding until ")
        with site.rest() as rest:
            rest.delete_many("notes", ["point-0"])
            rest.put_many("notes", {"point-0": POINTS["point-0"]})
        shutil.copytree(site.data, folder / "copy")
        assert plugin(site, "hold", "--release") == "released\n"
    finally:
        site.end()
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    return folder / "copy"


@pytest.fixture
def rescued(cluster, namespace, address, copied, tmp_path):
    """A site of another namespace on the copy, where nothing is declared."""
    site = Reachable(cluster, namespace, tmp_path, address)
    shutil.copytree(copied, site.data)
    try:
        site.start()
        yield site
    finally:
        site.end()


def counts_orphans(site, count):
    """Whether the manager does; it may still be starting."""
    try:
        lines = site.manager.metrics().splitlines()
    except httpx.TransportError:
        return False
    [line] = [line for line in lines if line.startswith("vecstow_operator_orphans")]
    return float(line.split()[-1]) == count


def is_whole(site):
    """All that was declared and stored is served."""
    with site.rest() as rest:
        names = rest.call("GET", "/collections")
    return names == sorted(NAMES) and all(serves(site, name) for name in NAMES[:3])


def test_everything_is_served_from_the_manifests_and_nothing_is_deleted(rescued):
    wait_for(lambda: is_whole(rescued), "all collections")
    wait_for(lambda: counts_orphans(rescued, len(NAMES)), "the orphans")
    wait_for(lambda: all(manifest(rescued, n)["managed_by"] == "api" for n in NAMES), "REST's collections")
    assert is_whole(rescued)
    assert [deleted(rescued, name) for name in NAMES] == [[]] * len(NAMES)
    assert rescued.resources() == []
    told = plugin(rescued, "status")
    assert told.count("Orphan") == len(NAMES)
    assert f"kubectl vecstow adopt -n {rescued.namespace} notes" in told


def test_adopted_collections_are_ready_with_their_points(rescued):
    wait_for(lambda: counts_orphans(rescued, len(NAMES)), "the orphans")
    plan = list(yaml.safe_load_all(plugin(rescued, "adopt", "--dry-run", "-o", "yaml")))
    assert rescued.resources() == []
    made = plugin(rescued, "adopt").splitlines()
    assert made == [f"vectorcollection/{resource['metadata']['name']} made" for resource in plan]
    for resource in plan:
        rescued.wait_reason("Served", resource["metadata"]["name"])
    assert is_whole(rescued)
    wait_for(lambda: counts_orphans(rescued, 0), "no orphans")
    counts = {r["status"]["collectionName"]: r["status"]["vectorCount"] for r in rescued.resources()}
    assert counts == dict.fromkeys(NAMES, len(POINTS)) | {"no-points": 0}
    assert {r["spec"]["deletionPolicy"] for r in rescued.resources()} == {"Retain"}


def test_printed_resources_are_what_was_declared_and_can_be_applied(rescued):
    """For git: the same resources again, by hand."""
    wait_for(lambda: counts_orphans(rescued, len(NAMES)), "the orphans")
    printed = plugin(rescued, "adopt", "notes", "Mixed_Case", "--dry-run", "-o", "yaml")
    specs = {r["metadata"]["name"]: r["spec"] for r in yaml.safe_load_all(printed)}
    assert SETTINGS.items() <= specs["notes"].items()
    [mixed] = specs.keys() - {"notes"}
    assert mixed.startswith("mixed-case-")
    assert specs[mixed]["collectionName"] == "Mixed_Case"
    rescued.kubectl("apply", "-f", "-", input=printed)
    for name in specs:
        rescued.wait_reason("Served", name)
    assert is_whole(rescued)
    assert points(rescued, "notes") == POINTS


def test_sound_collections_are_found_sound_through_the_proxy(rescued):
    wait_for(lambda: is_whole(rescued), "all collections")
    assert plugin(rescued, "check", "notes").endswith("notes: 0 findings\n")


def test_copies_are_made_listed_brought_back_and_removed_through_the_proxy(rescued):
    wait_for(lambda: is_whole(rescued), "all collections")
    made = plugin(rescued, "backup", "notes")
    assert made.startswith("notes is copied to ")
    path = made.split()[-1]
    assert plugin(rescued, "restore", path, "--new-name", "again") == "again: restored\n"
    wait_for(lambda: serves(rescued, "again"), "the restored collection")
    with rescued.rest() as rest:
        rest.call("DELETE", "/collections/again")
    assert plugin(rescued, "deleted").splitlines()[1].startswith("again ")
    assert plugin(rescued, "cleanup", "--retention-hours", "0") == "again is removed\n"
    assert deleted(rescued, "again") == []
    assert plugin(rescued, "compact", "notes").startswith("notes: ")


def test_pod_that_only_carries_the_label_is_not_asked(rescued):
    """Its address is another's, which would be sent the key."""
    impostor = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "a-0", "labels": {"vecstow.dev/engine": "vecstow"}},
        "spec": {"containers": [{"name": "engine", "image": "x"}]},
    }  # fmt: skip
    rescued.apply(impostor)
    wait_for(lambda: is_whole(rescued), "all collections")
    assert plugin(rescued, "status").count("Orphan") == len(NAMES)
    wait_for(lambda: counts_orphans(rescued, len(NAMES)), "the orphans")
