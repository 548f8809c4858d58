"""The API server away, refusing, or without memory: all serves on, nothing is concluded, nothing ends."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster.control_plane import ControlPlane, KubectlFailed, Refused
from tests.operator.points import (
    POINTS,
    collection_uid,
    deleted,
    manifest,
    manifest_path,
    served_with_points,
    serves,
)
from tests.operator.site import CRD, Role, Site, collection, running
from tests.operator.wire import Wire, silence, unavailable
from tests.waiting import wait_for

AWAY_SECONDS = float(os.environ.get("VECSTOW_AWAY_SECONDS", "60"))
"""How long the API server is killed for; a nightly run takes more."""
SEEN_SECONDS_MAX = 240.0
"""Time until a role notices: a request without an answer runs into its timeout."""
WOKEN_SECONDS_MAX = 12.0
"""Well below the 30 s between lists by the clock, so that it was the watch."""
KILLS = 30
SEED = 20261122


@pytest.fixture(scope="module")
def wired(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Wire]]:
    """A site for the tests of this module, whose roles reach the API server over a wire."""
    name = f"wired-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    with wired_site(cluster, name, tmp_path_factory.mktemp("site")) as pair:
        yield pair
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@contextmanager
def wired_site(cluster: ControlPlane, namespace: str, folder: Path) -> Iterator[tuple[Site, Wire]]:
    wire, site = Wire(cluster), Site(cluster, namespace, folder)
    for role in (site.sidecar, site.manager):
        wire.reroute(role.kubeconfig)
    try:
        site.start()
        yield site, wire
    finally:
        site.end()
        wire.close()


class Writing:
    """A client that stores points until the block ends; each failed write is kept."""

    def __init__(self, site: Site, name: str) -> None:
        self._site = site
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.failures: list[str] = []
        self.written: list[str] = []

    def __enter__(self) -> Writing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        point = next(iter(POINTS.values()))
        with self._site.rest() as rest:
            while not self._stop.wait(0.01):
                key = f"written-{len(self.written) + len(self.failures)}"
                try:
                    rest.put(self._name, key, point)
                    self.written.append(key)
                except Exception as error:  # noqa: BLE001 - none is expected
                    self.failures.append(f"{key}: {error!r}")


def errors(role: Role) -> float:
    """Return how many requests the API server refused, or did not answer."""
    return role.metric('vecstow_operator_errors_total{source="api_server"}')


def resources(role: Role) -> float:
    """In its last complete list."""
    return role.metric("vecstow_operator_resources")


def managed_by(site: Site, name: str) -> str | None:
    return manifest(site, name).get("managed_by") if manifest_path(site, name).exists() else None


def edit(site: Site, name: str) -> None:
    """Write a setting into the manifest that no resource declares."""
    path = manifest_path(site, name)
    path.write_text(json.dumps(manifest(site, name) | {"index_config": {"ef_search": 7}}))


def is_put_right(site: Site, name: str) -> bool:
    return manifest(site, name)["index_config"]["ef_search"] != 7


def wait_served(site: Site, name: str, seconds: float = WOKEN_SECONDS_MAX) -> None:
    wait_for(lambda: site.reason(name) == "Served", lambda: str(site.condition("Ready", name)), seconds)


def is_gone(site: Site, name: str) -> bool:
    return all(item["metadata"]["name"] != name for item in site.resources())


def processes(site: Site) -> list[int]:
    """Their ids: who ended by itself is not there, or is another one."""
    running = [site.sidecar.process, site.manager.process, site.engine.process]
    assert all(process is not None and process.poll() is None for process in running)
    return [process.pid for process in running if process is not None]


# Killed ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(AWAY_SECONDS + 300)
def test_everything_serves_on_without_an_api_server(wired: tuple[Site, Wire]) -> None:
    site, _ = wired
    served_with_points(site, "long")
    before = processes(site)
    with Writing(site, "long") as writing:
        with site.cluster.without_api_server():
            ends = time.monotonic() + AWAY_SECONDS
            wait_for(lambda: errors(site.sidecar), "the sidecar's errors", SEEN_SECONDS_MAX)
            edit(site, "long")
            wait_for(lambda: is_put_right(site, "long"), "the manifest")
            while time.monotonic() < ends:
                time.sleep(1)
                assert processes(site) == before
                assert (site.sidecar.health(), site.manager.health()) == (200, 200)
                assert serves(site, "long")
        site.apply(collection("after-long"))
        wait_served(site, "after-long")
    assert (writing.failures, processes(site)) == ([], before)
    assert len(writing.written) > AWAY_SECONDS
    with site.rest() as rest:
        assert len(rest.get_many("long", writing.written)) == len(writing.written)


# Refusing --------------------------------------------------------------------------------------------------


@contextmanager
def cut(site: Site, wire: Wire) -> Iterator[None]:
    with wire.leading_to(None):
        yield


@contextmanager
def silent(site: Site, wire: Wire) -> Iterator[None]:
    failed = errors(site.sidecar)
    with silence() as port:
        with wire.leading_to(None):  # so that no role waits for the next list by the clock
            wait_for(lambda: errors(site.sidecar) > failed, "the sidecar's errors", SEEN_SECONDS_MAX)
        with wire.leading_to(port):
            failed = errors(site.sidecar)
            wait_for(lambda: errors(site.sidecar) > failed, "the sidecar's errors", SEEN_SECONDS_MAX)
            yield


@contextmanager
def saying_503(site: Site, wire: Wire) -> Iterator[None]:
    with unavailable(site.cluster) as port, wire.leading_to(port):
        yield


@contextmanager
def saying_401(site: Site, wire: Wire) -> Iterator[None]:
    """The accounts are rebuilt: their tokens are good for nothing, until new ones are written."""
    roles = {"sidecar": site.sidecar, "manager": site.manager}
    for name in roles:
        site.kubectl("delete", "serviceaccount", name)
        site.kubectl("create", "serviceaccount", name)
    wait_for(lambda: is_unauthorized(site, site.sidecar), "the old token to be forgotten")
    with wire.leading_to(site.cluster.port):  # else the watches go on
        yield
    for name, role in roles.items():
        kubeconfig = role.kubeconfig.read_text()
        old = json.loads(kubeconfig)["users"][0]["user"]["token"]
        written = role.kubeconfig.with_suffix(".new")
        written.write_text(kubeconfig.replace(old, site.cluster.token(site.namespace, name)))
        written.rename(role.kubeconfig)


def is_unauthorized(site: Site, role: Role) -> bool:
    try:
        site.kubectl(f"--kubeconfig={role.kubeconfig}", "get", "vcol")
    except KubectlFailed as failed:
        return "logged in" in str(failed) or "nauthorized" in str(failed)
    return False


@contextmanager
def saying_403(site: Site, wire: Wire) -> Iterator[None]:
    kept = json.loads(site.kubectl("get", "rolebindings", "-o", "json"))["items"]
    site.kubectl("delete", "rolebinding", "sidecar", "manager")
    with wire.leading_to(site.cluster.port):  # else the watches go on
        yield
    for binding in kept:
        binding["metadata"] = {"name": binding["metadata"]["name"]}
    site.apply(*kept)


@pytest.mark.parametrize(
    "refusing",
    [
        pytest.param(cut, id="connections are cut"),
        pytest.param(silent, id="nothing is answered"),
        pytest.param(saying_401, id="401, the token is revoked"),
        pytest.param(saying_403, id="403, the binding is gone"),
        pytest.param(saying_503, id="503"),
    ],
)
@pytest.mark.timeout(600)
def test_refusal_says_nothing_of_what_is_there(wired: tuple[Site, Wire], refusing: Any) -> None:
    site, wire = wired
    kind = refusing.__name__.replace("_", "-")
    kept, gone, new, last = (f"{what}-{kind}" for what in ("kept", "gone", "new", "last"))
    served_with_points(site, kept)
    served_with_points(site, gone)
    before, count = processes(site), errors(site.sidecar)
    with refusing(site, wire):
        wait_for(lambda: errors(site.sidecar) > count, "the sidecar's errors", SEEN_SECONDS_MAX)
        site.kubectl("delete", "vcol", gone)
        site.apply(collection(new))
        edit(site, kept)
        wait_for(lambda: is_put_right(site, kept), "the manifest")
        assert (managed_by(site, gone), managed_by(site, kept)) == ("kubernetes", "kubernetes")
        assert serves(site, gone)
        assert serves(site, kept)
        assert (site.sidecar.health(), site.manager.health()) == (200, 200)
    wait_for(lambda: managed_by(site, gone) == "api", "the manifest to be let go", SEEN_SECONDS_MAX)
    wait_served(site, new, SEEN_SECONDS_MAX)
    site.apply(collection(last))
    wait_served(site, last)
    assert serves(site, gone)
    assert serves(site, kept)
    assert processes(site) == before


# What happened meanwhile -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "is_forgotten", [pytest.param(False, id="history kept"), pytest.param(True, id="history forgotten, 410")]
)
@pytest.mark.timeout(600)
def test_deletions_that_no_watch_saw_are_found(wired: tuple[Site, Wire], is_forgotten: bool) -> None:
    site, wire = wired
    retained, dropped, kept = (f"{what}-{is_forgotten}".lower() for what in ("retained", "dropped", "kept"))
    served_with_points(site, retained)
    served_with_points(site, dropped, deletionPolicy="Delete")
    served_with_points(site, kept)
    wait_for(lambda: site.resource(dropped)["metadata"].get("finalizers"), "the finalizer")
    before = processes(site)
    with wire.leading_to(None):
        site.kubectl("delete", "vcol", retained, dropped, "--wait=false")
        if is_forgotten:
            site.cluster.forget_history()
        failed = errors(site.sidecar)
        wait_for(lambda: errors(site.sidecar) > failed, "the sidecar's errors")
        assert not is_gone(site, dropped)
        assert (managed_by(site, retained), managed_by(site, dropped)) == ("kubernetes", "kubernetes")
    wait_for(lambda: managed_by(site, retained) == "api", "the manifest to be let go")
    wait_for(lambda: is_gone(site, dropped), "the finalizer to be let go")
    assert len(deleted(site, dropped)) == 1
    assert not (site.data / dropped).exists()
    assert deleted(site, retained) == []
    assert serves(site, retained)
    assert serves(site, kept)
    assert managed_by(site, kept) == "kubernetes"
    wait_served(site, kept)
    declared = len(site.resources())
    for role in (site.sidecar, site.manager):
        wait_for(lambda role=role: resources(role) == declared, "no ghost", WOKEN_SECONDS_MAX)
    assert processes(site) == before


# The definition --------------------------------------------------------------------------------------------


def define(cluster: ControlPlane) -> None:
    cluster.kubectl("apply", "-f", str(CRD))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(CRD))


@contextmanager
def without_definition(cluster: ControlPlane) -> Iterator[None]:
    cluster.kubectl("delete", "-f", str(CRD), "--timeout=60s")
    try:
        yield
    finally:
        define(cluster)


@pytest.mark.timeout(600)
def test_definition_that_is_deleted_takes_no_collection_with_it(wired: tuple[Site, Wire]) -> None:
    site, _ = wired
    served_with_points(site, "defined")
    before, count = processes(site), errors(site.sidecar)
    with without_definition(site.cluster):
        wait_for(lambda: errors(site.sidecar) > count + 1, "the sidecar's errors", SEEN_SECONDS_MAX)
        time.sleep(7)  # a watch that begins again now finds nothing to watch
        assert serves(site, "defined")
        assert processes(site) == before
    wait_for(lambda: managed_by(site, "defined") == "api", "the manifest to be let go")
    assert serves(site, "defined")
    site.apply(collection("defined"))
    wait_served(site, "defined")
    site.apply(collection("after-definition"))
    wait_served(site, "after-definition")
    assert serves(site, "defined")
    assert collection_uid(site, "defined") == manifest(site, "defined")["collection_uid"]
    assert processes(site) == before


@pytest.mark.timeout(600)
def test_definition_that_is_deleted_drops_nothing_with_policy_delete(site: Site) -> None:
    """As the namespace's deletion: who deletes the definition of all resources names no collection."""
    uid = served_with_points(site, "notes", deletionPolicy="Delete")
    wait_for(lambda: site.resource()["metadata"].get("finalizers"), "the finalizer")
    with without_definition(site.cluster):
        assert serves(site, "notes")
        assert deleted(site, "notes") == []
        assert manifest(site, "notes")["collection_uid"] == uid
    site.apply(collection("notes", deletionPolicy="Delete"))
    site.wait_reason("Served", "notes")
    assert serves(site, "notes")


def test_definition_may_come_after_everything_else(
    cluster: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    with without_definition(cluster), running(cluster, namespace, tmp_path) as site:
        before = processes(site)
        wait_for(lambda: errors(site.sidecar) > 1 and errors(site.manager) > 1, "errors of both")
        define(cluster)
        site.apply(collection("first"))
        wait_served(site, "first")
        site.apply(collection("second"))
        wait_served(site, "second")
        assert processes(site) == before


# Two managers ----------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_second_manager_waits_for_the_lease_of_the_first(wired: tuple[Site, Wire]) -> None:
    site, _ = wired
    second = site.new_manager()
    second.log = site.folder / "second.log"
    second.start()
    try:
        wait_for(lambda: answers(second), "the health of the second")
        site.apply(collection("two"))
        wait_served(site, "two")
        assert second.health() == 200
        assert passes(second) == 0
        site.manager.end(signal.SIGKILL)
        site.apply(collection("three"))
        wait_served(site, "three", SEEN_SECONDS_MAX)
        assert "lease taken" in second.log.read_text()
    finally:
        second.end()
        if not site.manager.is_running:
            site.manager.start()
    wait_for(lambda: answers(site.manager), "the health of the one started again")
    assert passes(site.manager) == 0
    site.kubectl("delete", "lease", "vecstow-manager")  # so that no manager waits for its end
    site.apply(collection("four"))
    wait_served(site, "four", SEEN_SECONDS_MAX)


def answers(role: Role) -> bool:
    try:
        return role.health() == 200
    except httpx.TransportError:
        return False


def passes(role: Role) -> float:
    return role.metric("vecstow_operator_pass_seconds_count")


# Killed again and again ------------------------------------------------------------------------------------


class Churn:
    """A client that declares, changes and deletes resources, by chance, until the block ends."""

    def __init__(self, site: Site, retained: list[str], dropped: list[str]) -> None:
        self._site = site
        self._retained = retained
        self._dropped = dropped
        self._random = random.Random(SEED)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go_on)
        self.steps = 0

    def __enter__(self) -> Churn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._stop.is_set():
            name = self._random.choice(self._retained + self._dropped)
            policy = "Retain" if name in self._retained else "Delete"
            with suppress(Refused):  # it is there already, or gone, or on its way
                self._step(name, policy)
            self.steps += 1

    def _step(self, name: str, policy: str) -> None:
        if self._random.random() < 0.6:
            index = {"efSearch": self._random.randint(20, 400)}
            self._site.apply(collection(name, deletionPolicy=policy, index=index))
        elif policy == "Retain" or self._site.resource(name)["metadata"].get("finalizers"):
            self._site.kubectl("delete", "vcol", name, "--wait=false")


@pytest.mark.timeout(600)
def test_roles_that_are_killed_again_and_again_bring_everything_to_what_is_declared(
    wired: tuple[Site, Wire],
) -> None:
    site, _ = wired
    retained, dropped = ([f"{what}-{number}" for number in range(4)] for what in ("stays", "goes"))
    for name in ["untouched", *retained]:
        served_with_points(site, name)
    chance = random.Random(SEED)
    with Churn(site, retained, dropped) as churn:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.1, 1.5))
            kill_and_start(site, chance.choice((site.sidecar, site.manager)))
    assert churn.steps > KILLS
    wait_for(
        lambda: not differences(site, retained, dropped), lambda: str(differences(site, retained, dropped))
    )
    for name in ["untouched", *retained]:
        assert serves(site, name), name
        assert deleted(site, name) == []
    processes(site)


def kill_and_start(site: Site, role: Role) -> None:
    assert role.is_running, role.log.read_text()[-2000:]
    role.end(signal.SIGKILL)
    if (
        role is site.manager
    ):  # a container that is started again has the name of the one before, and its lease
        site.kubectl("delete", "lease", "vecstow-manager", "--ignore-not-found")
    role.start()


def differences(site: Site, retained: list[str], dropped: list[str]) -> list[str]:
    """Return the names for which the resources, the volume and the status differ."""
    there = {item["metadata"]["name"]: item for item in site.resources()}
    found = [name for name, item in there.items() if not is_settled(site, item)]
    for name in {*retained, *dropped} - there.keys():
        if managed_by(site, name) != ("api" if name in retained else None):
            found.append(f"{name} without a resource: {managed_by(site, name)}")
    return found


def is_settled(site: Site, item: dict[str, Any]) -> bool:
    metadata, status = item["metadata"], item.get("status", {})
    ready = [c for c in status.get("conditions", ()) if c["type"] == "Ready" and c["status"] == "True"]
    document = manifest(site, metadata["name"]) if managed_by(site, metadata["name"]) else {}
    return (
        bool(ready)
        and status["observedGeneration"] == metadata["generation"]
        and (document.get("resource_uid"), document.get("generation"))
        == (metadata["uid"], metadata["generation"])
        and document["index_config"]["ef_search"] == item["spec"]["index"]["efSearch"]
        and "deletionTimestamp" not in metadata
    )
