"""The chart's hooks: a round trip as `helm test`, and the release before an uninstall."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.operator.site import OPERATOR, Site, account, collection
from tests.operator.test_rbac import Right, rights, rules, rules_without
from tests.waiting import wait_for
from vecstow_operator.round_trip import NAME_PREFIX
from vecstow_operator.vocabulary import FINALIZER

RUN_SECONDS_MAX = 240
NOBODY = "http://127.0.0.1:1"


def apply(cluster: ControlPlane, namespace: str, *documents: dict[str, Any]) -> None:
    """As the administrator."""
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=yaml.safe_dump_all(documents))


def run(
    cluster: ControlPlane, namespace: str, granted: list[dict[str, Any]], *arguments: str
) -> subprocess.CompletedProcess[str]:
    """`vecstow-operator`, with exactly these rights."""
    name = f"hook-{secrets.token_hex(4)}"
    apply(cluster, namespace, *account(name, granted))
    kubeconfig = cluster.account_kubeconfig(namespace, name)
    return subprocess.run(
        [OPERATOR, *arguments, "--namespace", namespace], timeout=RUN_SECONDS_MAX, check=False,
        capture_output=True, text=True, env=os.environ | {"KUBECONFIG": str(kubeconfig)},
    )  # fmt: skip


def round_trip(site: Site, url: str, granted: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    return run(
        site.cluster, site.namespace, granted,
        "round-trip", "--engine", site.engine.name, "--engine-url", url,
    )  # fmt: skip


def traces(site: Site) -> list[str]:
    """Return the traces of round trips: resources, and collections on the volume."""
    names = [resource["metadata"]["name"] for resource in site.resources()]
    return [name for name in names + os.listdir(site.data) if name.startswith(NAME_PREFIX)]


def test_round_trip_passes_and_leaves_nothing(shared: Site) -> None:
    result = round_trip(shared, shared.engine.url, rules("test"))
    assert result.returncode == 0, result.stderr
    wait_for(lambda: not traces(shared), lambda: f"traces to go: {traces(shared)}")


def test_round_trip_that_reaches_no_engine_says_so_and_leaves_nothing(shared: Site) -> None:
    result = round_trip(shared, NOBODY, rules("test"))
    assert result.returncode == 1
    assert "127.0.0.1" in result.stderr.splitlines()[-1]
    wait_for(lambda: not traces(shared), lambda: f"traces to go: {traces(shared)}")


@pytest.mark.parametrize("right", list(rights("test")), ids=lambda right: right.verb)
def test_round_trip_needs_each_of_its_rights(shared: Site, right: Right) -> None:
    result = round_trip(shared, shared.engine.url, rules_without(right))
    assert result.returncode == 1
    assert "403" in result.stderr.splitlines()[-1]


def test_release_lets_go_of_every_resource_though_a_manager_runs(site: Site) -> None:
    site.apply(collection("kept"), collection("dropped", deletionPolicy="Delete"))
    for name in ("kept", "dropped"):
        site.wait_reason("Served", name)
    assert site.resource("dropped")["metadata"]["finalizers"] == [FINALIZER]
    result = run(site.cluster, site.namespace, rules("release"), "release")
    assert result.returncode == 0, result.stderr
    site.kubectl("delete", "vcol", "--all", "--timeout=30s")
    assert {"kept", "dropped"} <= set(os.listdir(site.data))


@pytest.fixture
def held(cluster: ControlPlane, namespace: str) -> Iterator[str]:
    """A namespace without a manager, where a resource has the finalizer and a Lease is there."""
    resource = collection("held", deletionPolicy="Delete")
    resource["metadata"]["finalizers"] = [FINALIZER]
    apply(cluster, namespace, resource)
    yield namespace
    run(cluster, namespace, rules("release"), "release")


@pytest.mark.parametrize("right", list(rights("release")), ids=lambda right: f"{right.verb}-{right.resource}")
def test_release_needs_each_of_its_rights(cluster: ControlPlane, held: str, right: Right) -> None:
    if right.verb == "update":  # of a Lease that is there
        assert run(cluster, held, rules("release"), "release").returncode == 0
    result = run(cluster, held, rules_without(right), "release")
    assert result.returncode == 1
    assert ("Lease" if right.resource == "leases" else "403") in result.stderr.splitlines()[-1]
