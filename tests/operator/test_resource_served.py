"""From `kubectl apply` to an answer over REST: Ready comes neither too soon nor for another resource."""

from __future__ import annotations

import json
import signal
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kubernetes import client, config, watch

from tests.cluster.control_plane import ControlPlane, KubectlFailed
from tests.crash.rest import Rest, Stored
from tests.operator.declaring import Document
from tests.operator.site import Site, collection
from tests.waiting import wait_for
from vecstow_operator.vocabulary import GROUP, PLURAL, VERSION

QUERY = struct.pack("<4f", 1, 0, 0, 0)
POINTS: dict[str, Stored] = {"one": (QUERY, {"tenant": "a"}), "two": (struct.pack("<4f", 0, 1, 0, 0), None)}
ROWS, WIDTH = 8_000, 32
FAST = {"maxConnections": 4, "efConstruction": 16, "efSearch": 1}
"""A poor graph, made in a moment."""
SLOW = {"maxConnections": 64, "efConstruction": 1000}
"""It takes some seconds."""


def wait_ready(site: Site, *names: str, seconds: int = 60) -> None:
    """`kubectl wait`."""
    resources = [f"vcol/{name}" for name in names]
    site.kubectl("wait", "--for=condition=Ready", *resources, f"--timeout={seconds}s")


# Ready -----------------------------------------------------------------------------------------------------


def test_search_is_answered_as_soon_as_ready_is_told(shared: Site) -> None:
    names = [f"soon-{number}" for number in range(8)]
    for name in names:
        shared.apply(collection(name))
        wait_ready(shared, name)
        with shared.rest() as rest:
            assert rest.search(name, QUERY) == []


def test_all_of_many_are_served_when_ready_is_told_of_all(shared: Site) -> None:
    names = [f"many-{number}" for number in range(50)]
    shared.apply(*(collection(name) for name in names))
    wait_ready(shared, *names)
    with shared.rest() as rest:
        for name in names:
            assert rest.search(name, QUERY) == []


def test_nothing_is_ready_without_the_sidecar(cluster: ControlPlane, namespace: str, tmp_path: Path) -> None:
    site = Site(cluster, namespace, tmp_path)
    try:
        site.engine.declare()
        site.manager.start()
        site.engine.start("/ready")
        site.apply(collection())
        site.wait_reason("Pending")
        with pytest.raises(KubectlFailed, match="timed out waiting for the condition"):
            wait_ready(site, "notes", seconds=3)
        assert site.condition()["message"] == "pod vecstow-0 does not follow generation 1 yet"
        site.sidecar.start()
        wait_ready(site, "notes")
        with site.rest() as rest:
            assert rest.search("notes", QUERY) == []
    finally:
        site.end()


def test_points_are_inserted_found_and_counted(shared: Site) -> None:
    shared.apply(collection("counted", payloadIndexes=[{"field": "tenant", "type": "keyword"}]))
    wait_ready(shared, "counted")
    with shared.rest() as rest:
        rest.put_many("counted", POINTS)
        assert [hit["id"] for hit in rest.search("counted", QUERY)] == ["one", "two"]

    def row() -> dict[str, str]:
        head, line = shared.kubectl("get", "vcol", "counted").splitlines()
        return dict(zip(head.split(), line.split(), strict=True))

    wait_for(lambda: row()["VECTORS"] == "2", lambda: f"two vectors in {row()}")
    expected = {
        "NAME": "counted", "READY": "True", "REASON": "Served", "DEGRADED": "False", "PAUSED": "false",
        "DIMENSION": "4", "METRIC": "Cosine", "VECTORS": "2", "ENGINE": "vecstow",
    }  # fmt: skip
    assert row().items() >= expected.items()
    status = shared.resource("counted")["status"]
    with shared.rest() as rest:
        assert status["collectionUid"] == rest.describe("counted")["collection_uid"]
        assert status["volumeId"] == rest.call("GET", "/state")["volume_id"]


# Index settings --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vectors() -> Any:
    return np.random.default_rng(11).standard_normal((ROWS, WIDTH)).astype("<f4")


def fill(rest: Rest, name: str, vectors: Any) -> None:
    for start in range(0, ROWS, 2_000):
        part = {str(n): (vectors[n].tobytes(), None) for n in range(start, start + 2_000)}
        rest.put_many(name, part)


def recall(rest: Rest, name: str, vectors: Any) -> float:
    """Return the share of 100 points that a search without ef_search finds as nearest to themselves."""
    found = 0
    for number in range(0, ROWS, ROWS // 100):
        body = {"vector": vectors[number].tobytes(), "limit": 1}
        hits = rest.packed("POST", f"/collections/{name}/search", body)
        found += hits[0]["id"] == str(number)
    return found / 100


@pytest.fixture
def filled(shared: Site, vectors: Any) -> Iterator[str]:
    """A collection whose graph finds little."""
    name = "filled"
    shared.apply(collection(name, WIDTH, distanceMetric="Euclidean", index=FAST))
    wait_ready(shared, name)
    with shared.rest() as rest:
        fill(rest, name, vectors)
        wait_for(lambda: rest.describe(name)["indexed"] == ROWS, "the first graph")
    yield name
    shared.kubectl("delete", "vcol", name)


def change(site: Site, name: str, **spec: Any) -> int:
    """Returns the new generation."""
    patch = json.dumps({"spec": spec})
    site.kubectl("patch", "vcol", name, "--type=merge", "-p", patch)
    generation: int = site.resource(name)["metadata"]["generation"]
    return generation


def wait_followed(site: Site, name: str, generation: int) -> dict[str, Document]:
    """Until Ready is of that generation; returns the conditions of that moment."""

    def conditions() -> dict[str, Document] | None:
        found = {c["type"]: c for c in site.resource(name)["status"].get("conditions", ())}
        ready = found["Ready"]
        return found if (ready["status"], ready["observedGeneration"]) == ("True", generation) else None

    return wait_for(conditions, f"Ready of generation {generation}")


def test_index_settings_take_effect_while_the_engine_runs(shared: Site, filled: str, vectors: Any) -> None:
    process = shared.engine.process
    with shared.rest() as rest:
        poor = recall(rest, filled, vectors)
        generation = change(shared, filled, index={"efSearch": 500})
        found = wait_followed(shared, filled, generation)
        assert found["Reconciling"]["status"] == "False"
        assert rest.describe(filled)["index_config"]["ef_search"] == 500
        better = recall(rest, filled, vectors)
        assert poor + 0.1 < better

        generation = change(shared, filled, index=SLOW | {"efSearch": 1})
        found = wait_followed(shared, filled, generation)
        reconciling = found["Reconciling"]
        assert (reconciling["status"], reconciling["reason"]) == ("True", "Indexing")
        assert reconciling["message"].endswith("in a new graph; the old one answers searches")
        assert rest.describe(filled)["progress"]["task"] == "rebuild"
        assert recall(rest, filled, vectors) > 0
        wait_for(lambda: rest.describe(filled)["progress"] is None, "the new graph", seconds=240)
        assert poor + 0.1 < recall(rest, filled, vectors)
        found = wait_followed(shared, filled, change(shared, filled, owner="somebody"))
        assert found["Reconciling"]["status"] == "False"
    assert shared.engine.process is process
    assert shared.engine.process.poll() is None


def test_ready_of_the_generation_before_ends_nobodys_wait(shared: Site) -> None:
    shared.apply(collection("stuck"))
    wait_ready(shared, "stuck")
    assert shared.sidecar.process is not None
    shared.sidecar.process.send_signal(signal.SIGSTOP)
    try:
        change(shared, "stuck", owner="somebody")
        with pytest.raises(KubectlFailed, match="timed out waiting for the condition"):
            wait_ready(shared, "stuck", seconds=1)
        shared.wait_reason("Pending", "stuck")
    finally:
        shared.sidecar.process.send_signal(signal.SIGCONT)
    wait_ready(shared, "stuck")


# Made again -------------------------------------------------------------------------------------------------


@contextmanager
def watched(site: Site) -> Iterator[list[Document]]:
    """Collect every state of every resource of the namespace, as a waiting client sees it."""
    configuration = client.Configuration()
    config.load_kube_config(str(site.cluster.kubeconfig), client_configuration=configuration)
    seen: list[Document] = []
    watching, started = watch.Watch(), threading.Event()
    with client.ApiClient(configuration) as api:
        listed = client.CustomObjectsApi(api).list_namespaced_custom_object
        version = listed(GROUP, VERSION, site.namespace, PLURAL)["metadata"]["resourceVersion"]

        def follow() -> None:
            started.set()
            for event in watching.stream(
                listed, GROUP, VERSION, site.namespace, PLURAL, resource_version=version, timeout_seconds=100
            ):
                seen.append(event["object"])
                if event["object"]["metadata"]["name"] == "the-end":
                    return

        thread = threading.Thread(target=follow)
        thread.start()
        started.wait()
        try:
            yield seen
        finally:
            site.apply(collection("the-end"))
            thread.join()
            site.kubectl("delete", "vcol", "the-end")


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_resource_made_anew_never_shows_what_the_old_one_was(shared: Site, policy: str) -> None:
    """A generation begins at 1 again, so that it alone tells nothing."""
    name = f"anew-{policy.lower()}"
    document = collection(name, deletionPolicy=policy)
    shared.apply(document)
    wait_ready(shared, name)
    with watched(shared) as seen:
        for _ in range(5):
            shared.kubectl("delete", "vcol", name)
            shared.apply(document)
            wait_ready(shared, name)
            uid = shared.resource(name)["metadata"]["uid"]
            with shared.rest() as rest:
                assert uid in [row["resource_uid"] for row in rest.call("GET", "/state")["collections"]]
    states = [state for state in seen if state["metadata"]["name"] == name]
    assert len({state["metadata"]["uid"] for state in states}) == 6
    for state in states:
        conditions = {c["type"]: c["status"] for c in state["status"].get("conditions", ())}
        if conditions.get("Ready") == "True":
            [replica] = state["status"]["replicas"]
            assert (replica["resourceUid"], replica["generation"]) == (state["metadata"]["uid"], 1)


def test_resource_made_anew_waits_for_its_own_manifest(shared: Site) -> None:
    """The engine serves the old one's meanwhile, of the same name and generation."""
    shared.apply(collection("waiting"))
    wait_ready(shared, "waiting")
    assert shared.sidecar.process is not None
    shared.sidecar.process.send_signal(signal.SIGSTOP)
    try:
        shared.kubectl("delete", "vcol", "waiting")
        shared.apply(collection("waiting"))
        shared.wait_reason("Pending", "waiting")
        with shared.rest() as rest:
            assert rest.search("waiting", QUERY) == []
    finally:
        shared.sidecar.process.send_signal(signal.SIGCONT)
    wait_ready(shared, "waiting")


def test_first_state_of_a_resource_made_anew_is_that_nobody_looked(shared: Site) -> None:
    shared.apply(collection("reborn"))
    wait_ready(shared, "reborn")
    with watched(shared) as seen:
        shared.kubectl("delete", "vcol", "reborn")
        shared.apply(collection("reborn"))
        wait_ready(shared, "reborn")
    uid = shared.resource("reborn")["metadata"]["uid"]
    first = next(state for state in seen if state["metadata"]["uid"] == uid)
    assert first["status"] == {"observedGeneration": -1}
