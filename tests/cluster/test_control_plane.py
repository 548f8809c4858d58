"""The control plane that the operator is tested on is a real one, in what those tests rely on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

from tests.cluster.binaries import kubernetes_version
from tests.cluster.control_plane import ControlPlane, KubectlFailed

CRD = Path(__file__).with_name("crd.yaml")
GROUP, VERSION, PLURAL = "example.test", "v1", "shelves"
SETTLE_SECONDS_MAX = 60.0


class Shelves:
    """The custom resources of one namespace, by the Python client."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.api = client.CustomObjectsApi(api)
        self.place = (GROUP, VERSION, namespace, PLURAL)

    def create(self, name: str, books: int = 1) -> None:
        self.api.create_namespaced_custom_object(*self.place, shelf(name, books))

    def list(self, **options: Any) -> Any:
        return self.api.list_namespaced_custom_object(*self.place, **options)

    def first_change_since(self, resource_version: str) -> Any:
        """The type and the name of it."""
        listed = self.api.list_namespaced_custom_object
        stream = watch.Watch().stream(
            listed, *self.place, resource_version=resource_version, timeout_seconds=20
        )
        event = next(stream)
        stream.close()
        return event["type"], event["object"]["metadata"]["name"]


@pytest.fixture
def shelves(admin: client.ApiClient, namespace: str, shelves_defined: None) -> Shelves:
    return Shelves(admin, namespace)


@pytest.fixture
def admin(cluster: ControlPlane) -> Iterator[client.ApiClient]:
    configuration = client.Configuration()
    config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    with client.ApiClient(configuration) as api:
        yield api


@pytest.fixture(scope="module")
def shelves_defined(cluster: ControlPlane) -> None:
    cluster.kubectl("apply", "-f", str(CRD))
    cluster.kubectl("wait", "--for=condition=Established", "crd/shelves.example.test", "--timeout=30s")


def test_it_serves_the_version_that_the_module_requires(cluster: ControlPlane) -> None:
    versions = json.loads(cluster.kubectl("version", "--output=json"))
    assert versions["serverVersion"]["gitVersion"] == kubernetes_version() == "v1.36.3"
    assert versions["clientVersion"]["gitVersion"] == kubernetes_version()


@pytest.mark.usefixtures("shelves_defined")
def test_a_custom_resource_gets_its_defaults_and_a_wrong_one_is_refused(
    cluster: ControlPlane, namespace: str
) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(shelf("one", 3)))
    kept = json.loads(cluster.kubectl("get", "shelf", "one", "-n", namespace, "--output=json"))
    assert kept["spec"] == {"books": 3, "colour": "white"}
    with pytest.raises(KubectlFailed, match="should be greater than or equal to 0"):
        cluster.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(shelf("two", -1)))


def test_the_python_client_creates_and_lists(shelves: Shelves) -> None:
    shelves.create("one")
    assert [item["metadata"]["name"] for item in shelves.list()["items"]] == ["one"]


@pytest.mark.usefixtures("shelves_defined")
def test_an_account_may_do_what_its_role_says_and_no_more(cluster: ControlPlane, namespace: str) -> None:
    cluster.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    cluster.kubectl(
        "create", "role", "reads", "--verb=list", "--resource=shelves.example.test", "-n", namespace
    )
    account = f"--serviceaccount={namespace}:reader"
    cluster.kubectl("create", "rolebinding", "reads", "--role=reads", account, "-n", namespace)
    as_reader = f"--kubeconfig={cluster.account_kubeconfig(namespace, 'reader')}"
    assert json.loads(cluster.kubectl(as_reader, "get", "shelves", "--output=json"))["items"] == []
    with pytest.raises(KubectlFailed, match=f"{namespace}:reader.*cannot list resource"):
        cluster.kubectl(as_reader, "get", "configmaps")
    asked = [event for event in cluster.asked(namespace, "reader") if "objectRef" in event]
    assert [(event["objectRef"]["resource"], event["responseStatus"]["code"]) for event in asked] == [
        ("shelves", 200), ("configmaps", 403),
    ]  # fmt: skip


def test_a_killed_api_server_comes_back_on_its_port_with_its_objects(
    cluster: ControlPlane, shelves: Shelves
) -> None:
    shelves.create("kept")
    before = shelves.list()["items"]
    with cluster.without_api_server(), pytest.raises(httpx.ConnectError):
        httpx.get(cluster.url, trust_env=False)
    assert shelves.list()["items"] == before


def test_a_watch_from_forgotten_history_is_gone(cluster: ControlPlane, shelves: Shelves) -> None:
    old = shelves.list()["metadata"]["resourceVersion"]
    shelves.create("one")
    assert shelves.first_change_since(old) == ("ADDED", "one")
    oldest = cluster.forget_history()
    assert oldest > int(old)
    with pytest.raises(ApiException, match="too old resource version") as refused:
        shelves.first_change_since(old)
    assert refused.value.status == 410


def test_a_list_is_not_continued_past_a_compaction(cluster: ControlPlane, shelves: Shelves) -> None:
    shelves.create("one")
    shelves.create("two")
    first = shelves.list(limit=1)
    shelves.create("three")
    cluster.forget_history()
    with pytest.raises(ApiException) as refused:
        shelves.list(limit=1, _continue=first["metadata"]["continue"])
    assert refused.value.status == 410


def test_a_namespace_goes_with_what_is_in_it(cluster: ControlPlane, namespace: str, shelves: Shelves) -> None:
    shelves.create("inside")
    cluster.kubectl("delete", "namespace", namespace, f"--timeout={SETTLE_SECONDS_MAX:.0f}s")
    assert shelves.list()["items"] == []


def test_what_belongs_to_a_deleted_object_is_collected(cluster: ControlPlane, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "owner", "-n", namespace)
    uid = cluster.kubectl("get", "configmap", "owner", "-n", namespace, "--output=jsonpath={.metadata.uid}")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    metadata = {"name": "owned", "namespace": namespace, "ownerReferences": [owner]}
    owned = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    cluster.kubectl("create", "-f", "-", input=json.dumps(owned))
    cluster.kubectl("delete", "configmap", "owner", "-n", namespace)
    cluster.kubectl("wait", "--for=delete", "configmap/owned", "-n", namespace, "--timeout=60s")


def shelf(name: str, books: int) -> dict[str, object]:
    kind = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Shelf"}
    return kind | {"metadata": {"name": name}, "spec": {"books": books}}
