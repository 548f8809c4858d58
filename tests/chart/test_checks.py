"""Values beyond a schema's checks are refused before any object is made, with the setting to type."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.helm import Helm, HelmFailed, Values
from tests.chart.matrix import KEYS, OPEN, SECRET
from tests.chart.site import Site
from tests.cluster.control_plane import ControlPlane
from vecstow_engine.api.key_file import parse_keys
from vecstow_engine.api.settings import HttpSettings

ENTRIES = ("keys.yaml", "sidecar", "manager")
WITHOUT_MANAGER = {"manager": {"enabled": False}}
IN_MAINTENANCE = {"engine": {"maintenance": True}}
MONITORED = {"monitoring": {"podMonitor": {"enabled": True}}}
STORAGE = {"storageClass": "expandable", "size": "1.5Gi"}


def secret(*entries: str) -> dict[str, Any]:
    data = {entry: base64.b64encode(b"x").decode() for entry in entries}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "data": data}


# Values alone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param(
            {},
            "keys.existingSecret: name the Secret .* keys.create=true, .* keys.enabled=false",
            id="no keys",
        ),
        pytest.param(
            {"engine": {"maintenance": True}, "manager": {"enabled": False}},
            "keys.existingSecret: name the Secret",
            id="no keys, and nobody who reads them now",
        ),
        pytest.param(
            OPEN | {"serviceAccount": {"create": False}},
            "serviceAccount.names.engine: name the ServiceAccount",
            id="no account for the engine",
        ),
        pytest.param(
            OPEN | {"serviceAccount": {"create": False, "names": {"engine": "a"}}},
            "serviceAccount.names.manager: name the manager's",
            id="no account for the manager",
        ),
    ],
)
def test_what_must_be_named_is_asked_for(helm: Helm, values: Values, said: str) -> None:
    with pytest.raises(HelmFailed, match=said):
        helm.render(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param(
            {"resources": {"limits": {"memory": "255Mi"}, "requests": {"memory": "128Mi"}}},
            r"limits.memory: 255Mi is less than .* 256Mi",
            id="limit below the minimum",
        ),
        pytest.param(
            {"resources": {"limits": {"memory": "268M"}, "requests": {"memory": "128Mi"}}},
            r"limits.memory: 268M is less than",
            id="limit in powers of ten",
        ),
        pytest.param(
            {"resources": {"limits": {"memory": "512Mi"}, "requests": {"memory": "1Gi"}}},
            r"requests.memory: 1Gi is more than the limit 512Mi",
            id="request above the limit",
        ),
        pytest.param(
            {"settings": {"memory-limit": "3GiB"}},
            r"memory-limit: 3GiB is more than engine.resources.limits.memory, 2Gi",
            id="setting above the limit",
        ),
        pytest.param(
            {"settings": {"memory-limit": "100MiB"}}, r"memory-limit: 100MiB is less", id="setting too small"
        ),
    ],
)
def test_memory_that_the_engine_cannot_have_is_refused(helm: Helm, values: Values, said: str) -> None:
    with pytest.raises(HelmFailed, match=r"engine\.(resources\.|settings\.)" + said):
        helm.render(OPEN | {"engine": values})


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(
            {"resources": {"limits": {"memory": "256Mi"}, "requests": {"memory": "256Mi"}}}, id="the least"
        ),
        pytest.param({"resources": {"limits": None, "requests": None}}, id="none"),
        pytest.param({"settings": {"memory-limit": "1.5 GiB"}}, id="setting below the limit"),
        pytest.param({"settings": {"memory-limit": "1073741824"}}, id="setting in bytes"),
    ],
)
def test_memory_that_the_engine_can_have_is_taken(helm: Helm, values: Values) -> None:
    helm.render(OPEN | {"engine": values})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param(
            {"terminationGracePeriodSeconds": 37}, r": 37 is less than 38: .*\(20\)", id="as it comes"
        ),
        pytest.param(
            {"terminationGracePeriodSeconds": 95, "preStopSeconds": 60},
            ": 95 is less than 96",
            id="a long pause",
        ),
        pytest.param({"settings": {"drain-seconds": 89}}, ": 120 is less than 121", id="a long drain"),
        pytest.param(
            {"settings": {"shutdown-grace-seconds": 103}},
            r": 120 is less than 121: .*\(103\)",
            id="long requests",
        ),
    ],
)
def test_a_grace_that_leaves_no_time_for_the_checkpoint_is_refused(
    helm: Helm, values: Values, said: str
) -> None:
    with pytest.raises(HelmFailed, match=f"engine.terminationGracePeriodSeconds{said}"):
        helm.render(KEYS | {"engine": values})


def test_the_chart_counts_with_the_grace_for_requests_that_the_engine_has(helm: Helm) -> None:
    grace = HttpSettings().shutdown_grace_seconds
    with pytest.raises(HelmFailed, match=rf"shutdown-grace-seconds \({grace}\)"):
        helm.render(KEYS | {"engine": {"terminationGracePeriodSeconds": 30}})


def test_a_grace_that_suffices_is_taken(helm: Helm) -> None:
    settings = {"drain-seconds": 18, "shutdown-grace-seconds": 0}
    helm.render(KEYS | {"engine": {"terminationGracePeriodSeconds": 30, "settings": settings}})


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"service": {"type": "LoadBalancer"}}, id="load balancer"),
        pytest.param({"service": {"type": "NodePort"}}, id="node port"),
        pytest.param(
            {
                "ingress": {
                    "enabled": True,
                    "hosts": [{"host": "a", "paths": [{"path": "/", "pathType": "Exact"}]}],
                }
            },
            id="ingress",
        ),
    ],
)
def test_nobody_comes_from_beyond_the_cluster_without_a_key(helm: Helm, values: Values) -> None:
    with pytest.raises(HelmFailed, match=r"keys.enabled=false lets everybody in"):
        helm.render(OPEN | dict(values))


def test_a_name_that_no_service_may_have_is_refused(helm: Helm) -> None:
    with pytest.raises(HelmFailed, match=r'"1st-vecstow" is no name for a Service.*set fullnameOverride'):
        helm.render(KEYS, "1st")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param(
            {"engine": {"resources": {"requests": {"memory": "3Gi"}, "limits": {"memory": "2048Mi"}}}},
            "engine.resources.requests.memory: 3Gi is more than the limit 2048Mi",
            id="memory",
        ),
        pytest.param(
            {"manager": {"resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": 0.4}}}},
            "manager.resources.requests.cpu: 500m is more than the limit 0.4",
            id="processors",
        ),
        pytest.param(
            {"engine": {"extraEnv": [{"name": "VECSTOW_LOG_LEVEL", "value": "debug"}]}},
            "engine.extraEnv: the chart sets VECSTOW_LOG_LEVEL itself",
            id="a variable of the chart's own",
        ),
        pytest.param(
            {"sidecar": {"extraEnv": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}},
            "sidecar.extraEnv: A is there twice",
            id="a variable twice",
        ),
        pytest.param(
            {"service": {"type": "NodePort", "nodePort": 3030}},
            "service.nodePort: 3030 is not within 30000-32767",
            id="a port that no node gives",
        ),
        pytest.param(
            {"service": {"nodePort": 30303}},
            "service.nodePort: 30303 has no effect with service.type ClusterIP",
            id="a port of no node",
        ),
    ],
)
def test_what_kubernetes_would_refuse_or_ignore_is_refused_first(
    helm: Helm, values: Values, said: str
) -> None:
    with pytest.raises(HelmFailed, match=said):
        helm.render(KEYS | dict(values))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(
            {"engine": {"resources": {"requests": {"memory": "1024Mi"}, "limits": {"memory": "1Gi"}}}},
            id="equal in other words",
        ),
        pytest.param(
            {"engine": {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": 2147483648}}}},
            id="a limit in bytes",
        ),
        pytest.param(
            {"service": {"type": "NodePort", "nodePort": 8080, "nodePortRange": "8000-9000"}},
            id="another range of ports",
        ),
    ],
)
def test_what_kubernetes_takes_is_taken(helm: Helm, values: Values) -> None:
    helm.render(KEYS | dict(values))


# The cluster ----------------------------------------------------------------------------------------------


def test_a_missing_definition_is_told(site: Site) -> None:
    crd = "crd/vectorcollections.vecstow.dev"
    site.cluster.kubectl("delete", crd)
    site.cluster.kubectl("wait", "--for=delete", crd)
    try:
        with pytest.raises(HelmFailed, match="no definition of VectorCollection: helm upgrade --install"):
            site.ask(OPEN)
    finally:
        site.define()


def test_a_missing_class_is_told(site: Site) -> None:
    missing = {"storageClass": "nowhere"}
    with pytest.raises(HelmFailed, match="there is no StorageClass nowhere"):
        site.ask(OPEN | {"persistence": missing})
    site.ask(OPEN | {"persistence": missing | {"checkClass": False}})


def claim(name: str, **metadata: Any) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name} | metadata,
        "spec": spec | {"storageClassName": "", "volumeName": "pv-of-it"},
    }


def test_a_missing_claim_is_told(site: Site) -> None:
    with pytest.raises(HelmFailed, match="there is no PersistentVolumeClaim restored in namespace"):
        site.ask(OPEN | {"persistence": {"existingClaim": "restored"}})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        pytest.param("data-one-vecstow-0", {}, id="of before"),
        pytest.param("restored", {"persistence": {"existingClaim": "restored"}}, id="named"),
    ],
)
def test_a_claim_that_is_being_deleted_is_told_with_its_volume(site: Site, name: str, values: Values) -> None:
    site.apply(claim(name, finalizers=["example.com/held"]))
    site.cluster.kubectl("delete", f"--namespace={site.namespace}", "pvc", name, "--wait=false")
    with pytest.raises(HelmFailed, match=f"Claim {name} is being deleted") as refused:
        site.ask(OPEN | dict(values))
    assert "kubectl patch pv pv-of-it --patch" in str(refused.value)
    patch = '{"metadata": {"finalizers": null}}'
    site.cluster.kubectl("patch", f"--namespace={site.namespace}", "pvc", name, "--type=merge", "-p", patch)


# The Secret -----------------------------------------------------------------------------------------------


def test_keys_are_made_on_request_and_once(site: Site, tmp_path: Path) -> None:
    values = {"keys": {"create": True}, "engine": {"replicas": 0}, "manager": {"releaseOnUninstall": False}}
    site.install(values)
    made = json.loads(site.get("secret", "one-vecstow-keys", "--output=json"))["data"]
    assert sorted(made) == ["keys.yaml", "manager", "sidecar", "test"]
    admin = json.loads(site.get("secret", "one-vecstow-keys-admin", "--output=json"))["data"]
    listed = parse_keys(base64.b64decode(made["keys.yaml"]), "keys.yaml")
    for name in ("sidecar", "manager", "test", "admin"):
        found = listed.find(base64.b64decode((made | admin)[name]))
        assert found is not None
        assert found.name == name
    site.upgrade(values)
    site.helm.run("uninstall", "one", f"--namespace={site.namespace}")
    site.install(values)
    assert json.loads(site.get("secret", "one-vecstow-keys", "--output=json"))["data"] == made


def test_a_missing_secret_is_told(site: Site) -> None:
    with pytest.raises(HelmFailed, match=f"there is no Secret {SECRET} in namespace {site.namespace}"):
        site.ask(KEYS)


@pytest.mark.parametrize("missing", ENTRIES)
def test_an_entry_that_the_secret_lacks_is_told(site: Site, missing: str) -> None:
    site.apply(secret(*[entry for entry in ENTRIES if entry != missing]))
    with pytest.raises(HelmFailed, match=f'Secret {SECRET} has no entry "{missing}"'):
        site.ask(KEYS)


def test_an_entry_for_prometheus_is_asked_for_without_a_manager(site: Site) -> None:
    site.apply(secret("keys.yaml", "sidecar"))
    with pytest.raises(HelmFailed, match=f'Secret {SECRET} has no entry "manager"'):
        site.ask(KEYS | WITHOUT_MANAGER | MONITORED)


@pytest.mark.parametrize(
    ("values", "entries"),
    [
        pytest.param({}, ENTRIES, id="no key for the test"),
        pytest.param(WITHOUT_MANAGER, ("keys.yaml", "sidecar"), id="no manager"),
        pytest.param(IN_MAINTENANCE, ("manager",), id="an engine that serves nothing"),
        pytest.param(IN_MAINTENANCE | WITHOUT_MANAGER, (), id="nobody who reads one"),
        pytest.param(
            WITHOUT_MANAGER | MONITORED | {"engine": {"maintenance": True}},
            ("manager",),
            id="Prometheus alone",
        ),
    ],
)
def test_only_entries_that_somebody_reads_are_needed(
    site: Site, values: Values, entries: tuple[str, ...]
) -> None:
    site.apply(secret(*entries))
    site.ask(KEYS | dict(values))


# The StatefulSet ------------------------------------------------------------------------------------------


def test_a_second_engine_of_that_name_is_refused(site: Site) -> None:
    site.install(OPEN)
    with pytest.raises(HelmFailed, match=r'engine.name: "vecstow" is the engine of StatefulSet one-vecstow'):
        site.ask(OPEN, "two")
    site.ask(OPEN | {"engine": {"name": "two"}} | WITHOUT_MANAGER, "two")


def test_a_second_manager_is_refused(site: Site) -> None:
    """An uninstall of its release would take the finalizers of all resources."""
    site.install(OPEN)
    with pytest.raises(
        HelmFailed, match="Deployment one-vecstow-manager is this namespace's manager already"
    ):
        site.ask(OPEN | {"engine": {"name": "two"}}, "two")
    site.ask(OPEN)


def test_an_engine_is_not_renamed(site: Site) -> None:
    """Its resources would name one that is not there, and what they own would be anybody's to drop."""
    site.install(OPEN)
    with pytest.raises(
        HelmFailed, match=r'engine.name: this release is engine "vecstow".*set engine.name=vecstow'
    ):
        site.ask(OPEN | {"engine": {"name": "two"}})


def test_other_names_for_an_engine_that_is_there_are_refused(site: Site) -> None:
    """The new StatefulSet would begin with an empty volume."""
    site.install(OPEN)
    with pytest.raises(
        HelmFailed, match=r"is the engine of StatefulSet one-vecstow in this namespace already"
    ):
        site.ask(OPEN | {"fullnameOverride": "vectors"})


KEPT = {
    "size": "1.5Ti", "storageClass": "-", "accessModes": ["ReadWriteOnce"], "annotations": {"a": "1"}
}  # fmt: skip


@pytest.fixture(scope="module")
def installed(helm: Helm, cluster: ControlPlane) -> Iterator[Site]:
    """A release with a volume of 1536Gi, as Kubernetes writes 1.5Ti."""
    name = "chart-checks"
    cluster.kubectl("create", "namespace", name)
    made = Site(Helm(helm.program, helm.folder, cluster.environment), cluster, name)
    made.define()
    made.install(OPEN | {"persistence": KEPT})
    yield made
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("size", ["1.5Ti", "1536Gi", "1572864Mi"])
def test_the_same_size_in_other_words_is_no_change(installed: Site, size: str) -> None:
    installed.ask(OPEN | {"persistence": KEPT | {"size": size}})


@pytest.mark.parametrize("size", ["1.5T", "1535Gi"])
def test_a_smaller_size_is_refused_without_a_command(installed: Site, size: str) -> None:
    with pytest.raises(HelmFailed, match=f"persistence.size is {size} .* 1536Gi: .* never shrinks") as no:
        installed.ask(OPEN | {"persistence": KEPT | {"size": size}})
    assert "kubectl" not in str(no.value)


@pytest.mark.parametrize("size", ["2Ti", "15Ti"])
def test_a_size_that_the_class_does_not_give_is_refused_without_a_command(installed: Site, size: str) -> None:
    """The StatefulSet would be deleted, and its claim stay as it is."""
    with pytest.raises(HelmFailed, match=rf"persistence.size is {size} .*\(none\) does not allow") as no:
        installed.ask(OPEN | {"persistence": KEPT | {"size": size}})
    assert "kubectl" not in str(no.value)


@pytest.mark.parametrize("size", ["2Ti", "15Ti"])
def test_another_size_is_refused(installed: Site, size: str) -> None:
    unknown = {"size": size, "checkClass": False}
    with pytest.raises(HelmFailed, match=f"persistence.size is {size} and .* was made with 1536Gi"):
        installed.ask(OPEN | {"persistence": KEPT | unknown})


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"storageClass": "fast"}, id="class"),
        pytest.param({"storageClass": ""}, id="default class"),
        pytest.param({"accessModes": ["ReadWriteOncePod"]}, id="access"),
        pytest.param({"annotations": {"a": "1", "b": "2"}}, id="more annotations"),
        pytest.param({"annotations": {"a": "2"}}, id="other annotations"),
    ],
)
def test_what_holds_for_a_new_claim_alone_is_refused(installed: Site, change: Values) -> None:
    said = r'made with "", \["ReadWriteOnce"\] and {"a":"1"}'
    with pytest.raises(HelmFailed, match=said) as refused:
        installed.ask(OPEN | {"persistence": KEPT | dict(change)})
    assert "kubectl delete statefulset one-vecstow --namespace chart-checks --cascade=orphan" in str(
        refused.value
    )


def test_the_default_class_is_no_change(site: Site) -> None:
    site.install(OPEN)
    site.ask(OPEN)
    with pytest.raises(HelmFailed, match=r"made with the default class"):
        site.ask(OPEN | {"persistence": {"storageClass": "fast"}})


def test_another_claim_is_refused(installed: Site) -> None:
    with pytest.raises(HelmFailed, match=r"persistence.existingClaim cannot be set or removed"):
        installed.ask(OPEN | {"persistence": {"existingClaim": "other"}})


def test_the_claim_of_before_is_no_change(site: Site) -> None:
    values = OPEN | {"persistence": {"existingClaim": "other"}}
    site.apply(claim("other"))
    site.install(values)
    site.ask(values)
    with pytest.raises(HelmFailed, match=r"persistence.existingClaim cannot be set or removed"):
        site.ask(OPEN)


def test_the_commands_for_a_larger_volume_make_it_larger(site: Site) -> None:
    """Word for word; the pod is not replaced."""
    site.apply(expandable(), volume(site.namespace))
    site.install(OPEN | {"persistence": STORAGE})
    site.cluster.kubectl(
        "wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s", f"--namespace={site.namespace}",
        "pvc/data-one-vecstow-0",
    )  # fmt: skip
    pod = site.get("pod", "one-vecstow-0", "--output=jsonpath={.metadata.uid}")
    larger = OPEN | {"persistence": STORAGE | {"size": "2Gi"}}
    with pytest.raises(HelmFailed) as refused:
        site.upgrade(larger)
    commands = [line for line in str(refused.value).splitlines() if line.startswith("  kubectl ")]
    assert len(commands) == 1
    path = f"{site.cluster.programs}:{os.environ['PATH']}"
    for command in commands:
        subprocess.run(
            ["sh", "-c", command], env=os.environ | site.cluster.environment | {"PATH": path}, check=True
        )
    site.upgrade(larger)
    asked = "--output=jsonpath={.spec.resources.requests.storage}"
    assert site.get("pvc", "data-one-vecstow-0", asked) == "2Gi"
    assert site.get("pod", "one-vecstow-0", "--output=jsonpath={.metadata.uid}") == pod


def expandable() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE["storageClass"]},
        "provisioner": "vecstow.test/nobody",
        "allowVolumeExpansion": True,
    }


def volume(name: str) -> dict[str, Any]:
    """For any claim; nothing ever mounts it."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": STORAGE["storageClass"],
            "capacity": {"storage": "1536Mi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/nowhere"},
        },
    }
