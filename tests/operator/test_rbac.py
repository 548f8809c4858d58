"""Each role has the rights that it needs, and no other; people have theirs by the cluster's own roles."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane, KubectlFailed
from tests.operator.points import fill, manifest_path, served_with_points
from tests.operator.site import CRD_READER, REPOSITORY, RULES, Role, Site, account, collection, running
from tests.waiting import wait_for

ROLES = ("sidecar", "manager")
PEOPLE = REPOSITORY / "charts" / "vecstow-crds" / "templates" / "aggregated-roles.yaml"
NOTHING_SECONDS = 5.0
"""Time after which nothing more comes: an effect comes sooner."""
REFUSALS = 4
"""Refusals of a watch after which more than NOTHING_SECONDS pass until the next watch, which wakes a pass."""


class Right(NamedTuple):
    """One verb of one rule."""

    role: str
    verb: str
    resource: str


def rules(role: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((RULES / f"{role}.yaml").read_text())
    return found


def rights(role: str) -> Iterator[Right]:
    """All that the role may do by its own rules."""
    return _rights(role, rules(role))


def common_rights(role: str) -> Iterator[Right]:
    """Return the rights that the chart of the definition gives every service account."""
    cluster_role = next(yaml.safe_load_all(CRD_READER.read_text()))
    return _rights(role, cluster_role["rules"])


def _rights(role: str, rules: list[dict[str, Any]]) -> Iterator[Right]:
    for rule in rules:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                yield Right(role, verb, resource)


def rules_without(right: Right) -> list[dict[str, Any]]:
    """The rest; none of our rules has more than one resource."""
    kept = [
        rule
        | {"verbs": [v for v in rule["verbs"] if (v, rule["resources"]) != (right.verb, [right.resource])]}
        for rule in rules(right.role)
    ]
    return [rule for rule in kept if rule["verbs"]]


def asked(site: Site, role: str) -> list[tuple[Right, int]]:
    """Return the role's requests to the API server, each with the status of its answer."""
    return [
        (Right(role, event["verb"], _resource(event["objectRef"])), event["responseStatus"]["code"])
        for event in site.cluster.asked(site.namespace, role)
        if "objectRef" in event
    ]


def used(site: Site, role: str) -> set[Right]:
    return {right for right, _ in asked(site, role)}


def _resource(reference: dict[str, str]) -> str:
    parts = (reference["resource"], reference.get("subresource"))
    return "/".join(part for part in parts if part)


def api_errors(role: Role) -> float:
    return role.metric('vecstow_operator_errors_total{source="api_server"}')


def passes(role: Role) -> float:
    return role.metric("vecstow_operator_pass_seconds_count")


def wait_passes(role: Role, count: int = 5) -> None:
    """So many more."""
    before = passes(role)
    wait_for(lambda: passes(role) >= before + count, "passes")


# What stops working without a right ------------------------------------------------------------------------


def never(look: Callable[[], object]) -> None:
    """Not within NOTHING_SECONDS."""
    ends = time.monotonic() + NOTHING_SECONDS
    while time.monotonic() < ends:
        assert not look()
        time.sleep(0.2)


def has_status(site: Site, name: str = "notes") -> bool:
    return "conditions" in site.resource(name).get("status", {})


def writes_no_manifest(site: Site) -> None:
    wait_for(lambda: api_errors(site.sidecar) > 1, "errors")
    assert not manifest_path(site, "notes").exists()


def wait_watch_is_refused(site: Site, role: str) -> None:
    refused = (Right(role, "watch", "vectorcollections"), 403)
    wait_for(lambda: asked(site, role).count(refused) == REFUSALS, "refusals")


def writes_later_manifests_late(site: Site) -> None:
    wait_for(manifest_path(site, "notes").exists, "the manifest of what was there at the start")
    wait_watch_is_refused(site, "sidecar")
    site.apply(collection("later"))
    never(manifest_path(site, "later").exists)


def knows_nothing(site: Site) -> None:
    wait_for(lambda: api_errors(site.manager) > 1, "errors")
    assert not has_status(site)


def tells_of_later_resources_late(site: Site) -> None:
    wait_for(lambda: has_status(site), "the status of what was there at the start")
    wait_watch_is_refused(site, "manager")
    site.apply(collection("later"))
    never(lambda: has_status(site, "later"))


def sets_no_finalizer(site: Site) -> None:
    wait_for(lambda: api_errors(site.manager) > 1, "errors")
    assert "finalizers" not in site.resource("dropped")["metadata"]


def writes_no_status(site: Site) -> None:
    wait_for(lambda: api_errors(site.manager) > 1, "errors")
    assert not has_status(site)


def posts_no_event(site: Site) -> None:
    site.wait_reason("Served")
    wait_passes(site.manager)
    assert events(site) == []


def never_acts(site: Site) -> None:
    never(lambda: passes(site.manager))
    assert site.manager.health() == 200


def acts_only_at_first(site: Site) -> None:
    wait_for(lambda: "lease lost" in site.manager.log.read_text(), "the end of the lease")
    count = passes(site.manager)
    never(lambda: passes(site.manager) > count)


def events(site: Site) -> list[str]:
    return [event["reason"] for event in site.get("events", "--field-selector=involvedObject.name=notes")]


EFFECTS: dict[Right, Callable[[Site], None]] = {
    Right("sidecar", "list", "vectorcollections"): writes_no_manifest,
    Right("sidecar", "watch", "vectorcollections"): writes_later_manifests_late,
    Right("manager", "list", "vectorcollections"): knows_nothing,
    Right("manager", "watch", "vectorcollections"): tells_of_later_resources_late,
    Right("manager", "patch", "vectorcollections"): sets_no_finalizer,
    Right("manager", "patch", "vectorcollections/status"): writes_no_status,
    Right("manager", "list", "statefulsets"): knows_nothing,
    Right("manager", "list", "pods"): knows_nothing,
    Right("manager", "create", "events"): posts_no_event,
    Right("manager", "get", "namespaces"): knows_nothing,
    Right("manager", "get", "leases"): never_acts,
    Right("manager", "create", "leases"): never_acts,
    Right("manager", "update", "leases"): acts_only_at_first,
}
"""The check that shows the lack of each right."""


def test_effect_of_every_right_is_known() -> None:
    assert sorted(EFFECTS) == sorted(right for role in ROLES for right in rights(role))


@pytest.mark.parametrize("right", [pytest.param(right, id=" ".join(right)) for right in EFFECTS])
def test_right_is_needed(cluster: ControlPlane, namespace: str, tmp_path: Path, right: Right) -> None:
    site = Site(cluster, namespace, tmp_path)
    site.apply(*account(right.role, rules_without(right)))
    site.apply(collection(), collection("dropped", deletionPolicy="Delete"))
    try:
        site.start()
        wait_for(lambda: (right, 403) in asked(site, right.role), "the refusal")
        EFFECTS[right](site)
        assert {wanted for wanted, status in asked(site, right.role) if status == 403} == {right}
        assert site.sidecar.is_running
        assert site.manager.is_running
    finally:
        site.end()


def test_nothing_else_is_asked_for(cluster: ControlPlane, namespace: str, tmp_path: Path) -> None:
    with running(cluster, namespace, tmp_path) as site:
        served_with_points(site, "notes")
        served_with_points(site, "dropped", deletionPolicy="Delete")
        site.apply(collection("notes", owner="search-team", index={"efSearch": 80}))
        site.wait_reason("Served")
        wait_for(lambda: site.resource("dropped")["metadata"].get("finalizers"), "the finalizer")
        for role in (site.sidecar, site.manager):
            role.end()
        site.kubectl("delete", "lease", "vecstow-manager")  # so that no manager waits for its end
        for role in (site.sidecar, site.manager):
            role.start()
        fill(site, "notes")
        site.kubectl("delete", "vcol", "dropped", "--wait=false")
        wait_for(lambda: [r["metadata"]["name"] for r in site.resources()] == ["notes"], "the drop")
        site.kubectl("delete", "vcol", "notes")
        wait_for(lambda: '"api"' in manifest_path(site, "notes").read_text(), "the manifest to be let go")
        assert "Ready" in events(site)
        for name in ROLES:
            granted = {*rights(name), *common_rights(name)}
            wait_for(lambda name=name, granted=granted: used(site, name) >= granted, "the use of every right")
            assert used(site, name) == granted
            assert 403 not in {status for _, status in asked(site, name)}


# People ----------------------------------------------------------------------------------------------------


class Person:
    """A user with one of the cluster's own roles in a namespace."""

    def __init__(self, cluster: ControlPlane, namespace: str, role: str) -> None:
        self._cluster = cluster
        self._flags = (f"--as=somebody-with-{role}", "--namespace", namespace)
        self.name = f"somebody-with-{role}"
        cluster.kubectl(
            "create", "rolebinding", role, f"--clusterrole={role}", f"--user={self.name}", "-n", namespace
        )

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        return self._cluster.kubectl(*self._flags, *arguments, input=input)

    def may(self, *verb_and_resource: str) -> bool:
        try:
            return self.kubectl("auth", "can-i", *verb_and_resource).strip() == "yes"
        except KubectlFailed:
            return False

    def refused(self, *arguments: str, input: str | None = None) -> bool:
        try:
            self.kubectl(*arguments, input=input)
        except KubectlFailed as failed:
            return "forbidden" in str(failed).lower()
        return False


@pytest.fixture(scope="module")
def people(cluster: ControlPlane) -> Iterator[None]:
    cluster.kubectl("apply", "-f", str(PEOPLE))
    yield
    cluster.kubectl("delete", "-f", str(PEOPLE))


PROXY = ("pods", "--subresource=proxy")
STATUS = (
    "patch",
    "vcol",
    "notes",
    "--subresource=status",
    "--type=merge",
    "-p",
    '{"status":{"vectorCount":1}}',
)


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("role", ["edit", "admin"])
def test_who_may_edit_a_namespace_may_declare_collections(
    cluster: ControlPlane, namespace: str, role: str
) -> None:
    person = Person(cluster, namespace, role)
    wait_for(lambda: person.may("create", "vcol") and person.may("get", "vcol"), "the roles to be aggregated")
    person.kubectl("apply", "-f", "-", input=json.dumps(collection()))
    person.kubectl("annotate", "vcol", "notes", "vecstow.dev/replace=true")
    assert person.refused(*STATUS)
    person.kubectl("delete", "vcol", "--all")
    assert all(person.may(verb, *PROXY) for verb in ("get", "create", "delete"))
    assert all(person.may("list", resource) for resource in ("vcol", "statefulsets.apps", "pods"))


@pytest.mark.usefixtures("people")
def test_who_may_view_a_namespace_may_only_read_collections(cluster: ControlPlane, namespace: str) -> None:
    person = Person(cluster, namespace, "view")
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(collection()))
    wait_for(lambda: person.may("get", "vcol"), "the roles to be aggregated")
    assert person.kubectl("get", "vcol", "-o", "name").split() == ["vectorcollection.vecstow.dev/notes"]
    assert person.refused("apply", "-f", "-", input=json.dumps(collection("other")))
    assert person.refused("annotate", "vcol", "notes", "vecstow.dev/replace=true")
    assert person.refused("delete", "vcol", "notes")
    assert person.refused(*STATUS)
    assert not person.may("get", *PROXY)
