"""From `helm install` to the first search, and away again: what a platform engineer does on the first day."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.load import DIMENSION
from tests.e2e.node import Node
from tests.e2e.pods import pod
from tests.e2e.release import KEYS_SECRET, Release
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(600)

ASKS = """
import os, sys, urllib.error, urllib.request
headers = {"Authorization": "Bearer " + os.environ["KEY"]} if "KEY" in os.environ else {}
request = urllib.request.Request(sys.argv[1], headers=headers)
try: print(urllib.request.urlopen(request, timeout=20).read().decode())
except urllib.error.HTTPError as refused: print(refused.code)
"""
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
VECTOR = bytes(4 * DIMENSION)


@pytest.fixture
def oddly_named(release: Release) -> Release:
    """A release whose name has nothing to do with the chart's."""
    named = Release(release.node, release.namespace, "another")
    named.keys = release.keys
    return named


def test_a_release_of_any_name_is_installed_and_tested_and_answers_by_its_dns_name(
    oddly_named: Release, record_property: Any
) -> None:
    began = time.monotonic()
    oddly_named.install()
    installed = time.monotonic() - began
    oddly_named.helm("test", "--timeout=120s")
    record_property("helm install, seconds", round(installed, 1))
    record_property("helm install and helm test, seconds", round(time.monotonic() - began, 1))
    oddly_named.declare("notes", DIMENSION)
    url = f"http://another-vecstow.{oddly_named.namespace}.svc.cluster.local:3030/collections"
    assert '"notes"' in asked(oddly_named, "with-key", url, key=True)
    assert asked(oddly_named, "without-key", url, key=False) == "401"


def asked(release: Release, name: str, url: str, *, key: bool) -> str:
    """Return the answer that an application's pod gets."""
    asking = pod(name, "python3", "-c", ASKS, url)
    if key:
        source = {"secretKeyRef": {"name": KEYS_SECRET, "key": "app"}}
        asking["spec"]["containers"][0]["env"] = [{"name": "KEY", "valueFrom": source}]
    release.apply(asking)
    release.kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=80s")
    return release.kubectl("logs", name).strip()


def test_each_container_may_do_what_it_needs_and_no_more(release: Release) -> None:
    release.install()
    in_sidecar = release.execute(
        "python3", "-c", f"print(len(open('{TOKEN}').read()) > 100)", container="sidecar"
    )
    assert in_sidecar.strip() == "True"
    with pytest.raises(Exception, match="No such file"):
        release.execute("cat", TOKEN)
    for container in ("engine", "sidecar"):
        assert release.execute("id", "-u", container=container).strip() == "65532"
        assert release.execute("id", "-g", container=container).strip() == "65532"
        with pytest.raises(Exception, match="Read-only file system"):
            release.execute("touch", "/here", container=container)
    account = f"--as=system:serviceaccount:{release.namespace}:vecstow-engine"
    rights = release.kubectl("auth", "can-i", "--list", "--no-headers", account).splitlines()
    of_ours = [line.split() for line in rights if "vecstow" in line]
    assert sorted(" ".join(line) for line in of_ours) == [
        "customresourcedefinitions.apiextensions.k8s.io [] [vectorcollections.vecstow.dev] [get]",
        "vectorcollections.vecstow.dev [] [] [list watch]",
    ]
    # kopf, among others, asks who the user is, and the image knows of none.
    for role in (("statefulset/vecstow", "sidecar"), ("deployment/vecstow-manager", "manager")):
        assert "watch ended" not in release.kubectl("logs", role[0], f"--container={role[1]}")
    # Kinds of the cluster's own size are the CRD chart's alone.
    for kind in ("clusterroles", "clusterrolebindings"):
        labelled = release.node.get(kind, f"--selector=app.kubernetes.io/instance={release.name}")
        assert labelled["items"] == []


def test_data_outlives_an_uninstall(release: Release) -> None:
    release.install()
    release.declare("notes", DIMENSION)
    release.declare("dropped-with-it", DIMENSION, deletionPolicy="Delete")
    with release.rest() as rest:
        rest.put("notes", "a", (VECTOR, {"n": 1}))
        rest.put("dropped-with-it", "b", (VECTOR, {"n": 2}))
    release.helm("uninstall", "--wait", "--timeout=120s")
    wait_for(lambda: not release.get("pods")["items"], "an end of the pods")
    release.install()
    release.wait_ready("notes", "dropped-with-it")
    with release.rest() as rest:
        assert rest.get_many("notes", ["a"]) == {"a": (VECTOR, {"n": 1})}
        assert rest.get_many("dropped-with-it", ["b"]) == {"b": (VECTOR, {"n": 2})}


def test_a_namespace_with_resources_of_both_policies_goes_by_itself(node: Node, release: Release) -> None:
    release.install()
    release.declare("kept", DIMENSION)
    release.declare("dropped", DIMENSION, deletionPolicy="Delete")
    assert release.get("vcol", "dropped")["metadata"]["finalizers"]
    node.kubectl("delete", "namespace", release.namespace, "--wait=false")
    wait_for(
        lambda: not node.kubectl("get", "namespace", release.namespace, "--ignore-not-found"),
        lambda: node.kubectl("get", "namespace", release.namespace, "-oyaml"),
        seconds=180,
    )
