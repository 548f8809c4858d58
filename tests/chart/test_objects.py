"""Every rendered release follows these rules, whatever its values."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from tests.chart.conftest import Render
from tests.chart.helm import CHART, CRD_CHART, NAMESPACE, Helm, Object, container, containers
from tests.chart.matrix import CASES, DIGEST, EVERYTHING_MONITORED, KEYS, PROMETHEUS, SECRET

SERVING = [name for name, case in CASES.items() if not case.values.get("engine", {}).get("maintenance")]
MAINTAINED = [name for name in CASES if name not in SERVING]
MOUNT = "/var/lib/vecstow"
LABELS = {
    "app.kubernetes.io/component",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/name",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
    "helm.sh/chart",
}
USER = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
SECURED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
UNTIL_IT_LISTENS = ("env", "--block-signal=TERM")
"""SIGTERM waits until the program handles it."""
START_SECONDS = 180
"""Limit on the time that Python's imports take on a busy node."""
every_case = pytest.mark.parametrize("case", CASES)
serving = pytest.mark.parametrize("case", SERVING)


def environment(found: Object) -> dict[str, str]:
    """The variables that have a value."""
    return {each["name"]: each["value"] for each in found.get("env", ()) if "value" in each}


def mounts(found: Object) -> dict[str, str]:
    """Where each volume is."""
    return {each["name"]: each["mountPath"] for each in found["volumeMounts"]}


def with_token(pod: Object) -> Iterator[str]:
    """The containers of a pod that have the account's token."""
    sources = {
        volume["name"]
        for volume in pod.get("volumes", ())
        if any("serviceAccountToken" in source for source in volume.get("projected", {}).get("sources", ()))
    }
    assert pod["automountServiceAccountToken"] is False
    return (found["name"] for found in containers(pod) if sources & mounts(found).keys())


# Every object ---------------------------------------------------------------------------------------------


@every_case
def test_rendering_again_changes_nothing(helm: Helm, render: Render, case: str) -> None:
    again = helm.render(CASES[case].values, CASES[case].release)
    assert (again.manifest, again.notes) == (render(case).manifest, render(case).notes)


@every_case
def test_objects_have_helms_labels_and_this_namespace(render: Render, case: str) -> None:
    for found in render(case).objects:
        labels = found["metadata"]["labels"]
        assert labels.keys() >= LABELS
        assert labels["app.kubernetes.io/instance"] == CASES[case].release
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/part-of"] == "vecstow"
        assert found["metadata"]["namespace"] == NAMESPACE


@every_case
def test_nothing_is_for_the_whole_cluster(render: Render, case: str) -> None:
    assert not {found["kind"] for found in render(case).objects} & {"ClusterRole", "ClusterRoleBinding"}


@every_case
def test_names_are_unique_and_short(render: Render, case: str) -> None:
    names = [(found["kind"], found["metadata"]["name"]) for found in render(case).objects]
    assert len(set(names)) == len(names)
    # A StatefulSet's pods have its name, a hyphen and a hash of ten characters in one label.
    assert max(len(name) for _, name in names) <= 63 - 11


def test_labels_of_users_are_added_and_replace_none_of_ours(render: Render) -> None:
    rendered = render("labels and annotations")
    assert all(found["metadata"]["labels"]["team"] == "search" for found in rendered.objects)
    engine = rendered.engine["spec"]["template"]["metadata"]
    assert engine["labels"]["tier"] == "engine"
    assert engine["labels"]["app.kubernetes.io/component"] == "engine"
    assert engine["annotations"] == {"example.org/inject": "false"}
    manager = rendered.one("Deployment", "-manager")["spec"]["template"]["metadata"]
    assert (manager["labels"]["tier"], manager["labels"]["team"]) == ("manager", "search")


# Every pod ------------------------------------------------------------------------------------------------


@every_case
def test_pods_are_one_user_and_can_do_little(render: Render, case: str) -> None:
    for name, pod in render(case).pods():
        spec = pod["spec"]
        assert spec["securityContext"] == USER, name
        assert spec["enableServiceLinks"] is False, name
        for found in containers(spec):
            assert found["securityContext"] == SECURED, name
            assert {"requests", "limits"} <= found["resources"].keys(), name


@every_case
def test_the_token_is_where_the_api_server_is_asked_and_nowhere_else(render: Render, case: str) -> None:
    rendered = render(case)
    expected = {"engine": [] if case in MAINTAINED else ["sidecar"]}
    for name, pod in rendered.pods():
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        assert list(with_token(pod["spec"])) == expected.get(component, [component]), name


@every_case
def test_a_new_version_of_the_chart_alone_restarts_nothing(render: Render, case: str) -> None:
    for found in render(case).kind("StatefulSet") + render(case).kind("Deployment"):
        labels = found["spec"]["template"]["metadata"]["labels"]
        assert not labels.keys() & {"helm.sh/chart", "app.kubernetes.io/version"}
        assert found["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(
    ("case", "image"),
    [
        pytest.param("default", "vecstow:0.2.0", id="the chart's own version"),
        pytest.param("image by tag", "ghcr.io/vecstow/vecstow:1.10", id="tag"),
        pytest.param(
            "image by digest", f"registry.example.org:5000/team/vecstow@{DIGEST}", id="digest wins over a tag"
        ),
    ],
)
def test_all_containers_are_one_image(render: Render, case: str, image: str) -> None:
    images = {found["image"] for _, pod in render(case).pods() for found in containers(pod["spec"])}
    assert images == {image}


def test_pull_secrets_and_placement_reach_every_pod(render: Render) -> None:
    pods = [pod["spec"] for _, pod in render("image by digest").pods()]
    assert all(pod["imagePullSecrets"] == [{"name": "registry"}] for pod in pods)
    placed = [pod["spec"] for _, pod in render("placement").pods()]
    for field, value in CASES["placement"].values["engine"].items():
        assert all(pod[field] == value for pod in placed), field


# The engine -----------------------------------------------------------------------------------------------


@every_case
def test_the_stateful_set_recovers_from_a_bad_image(render: Render, case: str) -> None:
    assert render(case).engine["spec"]["podManagementPolicy"] == "Parallel"


@every_case
def test_data_is_in_a_folder_of_the_volume_and_not_its_root(render: Render, case: str) -> None:
    """Kubernetes changes the owner and the rights of the root."""
    pod = render(case).engine_pod
    engine = container(pod, "engine")
    assert environment(engine)["VECSTOW_DATA"] == f"{MOUNT}/data"
    assert mounts(engine)["data"] == MOUNT
    if case in SERVING:
        sidecar = container(pod, "sidecar")
        assert f"--data={MOUNT}/data" in sidecar["args"]
        assert mounts(sidecar)["data"] == MOUNT


@every_case
def test_the_claim_is_kept_and_whole(render: Render, case: str) -> None:
    spec = render(case).engine["spec"]
    if "persistence" in CASES[case].values and "existingClaim" in CASES[case].values["persistence"]:
        [data] = [volume for volume in spec["template"]["spec"]["volumes"] if volume["name"] == "data"]
        assert (
            data["persistentVolumeClaim"]["claimName"] == CASES[case].values["persistence"]["existingClaim"]
        )
        assert "volumeClaimTemplates" not in spec
        return
    [claim] = spec["volumeClaimTemplates"]
    # Without these Argo CD sees a difference for ever.
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    deleted = "Delete" if case == "storage of every kind" else "Retain"
    kept = {"whenDeleted": deleted, "whenScaled": "Retain"}
    assert spec["persistentVolumeClaimRetentionPolicy"] == kept


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        pytest.param(
            "default",
            {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}},
            id="the cluster's default class",
        ),
        pytest.param(
            "no storage class",
            {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "0.5Ti"}},
                "storageClassName": "",
            },
            id="none",
        ),
        pytest.param(
            "storage of every kind",
            {
                "accessModes": ["ReadWriteOncePod"],
                "resources": {"requests": {"storage": "500M"}},
                "storageClassName": "fast",
            },
            id="a named one",
        ),
    ],
)
def test_the_claim_is_what_was_asked_for(render: Render, case: str, wanted: Object) -> None:
    assert render(case).engine["spec"]["volumeClaimTemplates"][0]["spec"] == wanted


@serving
def test_the_engine_is_probed_and_ends_in_order(render: Render, case: str) -> None:
    pod = render(case).engine_pod
    engine = container(pod, "engine")
    assert engine["command"] == [*UNTIL_IT_LISTENS, "vecstow", "serve"]
    paths = {probe: engine[probe]["httpGet"]["path"] for probe in engine if probe.endswith("Probe")}
    assert paths == {
        "startupProbe": "/health/live", "livenessProbe": "/health/live", "readinessProbe": "/ready",
    }  # fmt: skip
    assert {engine[probe]["httpGet"]["port"] for probe in paths} == {"http"}
    pause = engine["lifecycle"]["preStop"]["sleep"]["seconds"]
    # Requests in flight have 20 s, and the rest is for a checkpoint.
    assert pod["terminationGracePeriodSeconds"] >= pause + 20 + 30


@serving
def test_the_sidecar_is_native_and_never_makes_the_engine_unready(render: Render, case: str) -> None:
    [sidecar] = render(case).engine_pod["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["command"] == [*UNTIL_IT_LISTENS, "vecstow-operator", "sidecar"]
    assert sidecar["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert not {"readinessProbe", "startupProbe"} & sidecar.keys()
    assert _seconds(sidecar["livenessProbe"]) >= START_SECONDS


def test_manager_has_minutes_to_start(render: Render) -> None:
    manager = container(
        render("default").one("Deployment", "-manager")["spec"]["template"]["spec"], "manager"
    )
    probes = {name: probe for name, probe in manager.items() if name.endswith("Probe")}
    assert probes.keys() == {"startupProbe", "livenessProbe", "readinessProbe"}
    assert {probe["httpGet"]["path"] for probe in probes.values()} == {"/healthz"}
    assert _seconds(probes["startupProbe"]) >= START_SECONDS


def _seconds(probe: Object) -> int:
    """How long the kubelet waits for the first answer."""
    return int(probe["periodSeconds"]) * int(probe.get("failureThreshold", 3))


@serving
def test_commands_in_the_pod_ask_the_engine_that_serves(render: Render, case: str) -> None:
    pod = render(case).engine_pod
    assert environment(container(pod, "engine"))["VECSTOW_URL"] == "http://127.0.0.1:3030"
    assert "--engine-url=http://127.0.0.1:3030" in container(pod, "sidecar")["args"]


@pytest.mark.parametrize(
    ("case", "host"), [pytest.param("default", "0.0.0.0", id="IPv4"), pytest.param("IPv6", "::", id="IPv6")]
)
def test_every_program_listens_where_it_was_told(render: Render, case: str, host: str) -> None:
    pod = render(case).engine_pod
    manager = render(case).one("Deployment", "-manager")["spec"]["template"]["spec"]
    assert environment(container(pod, "engine"))["VECSTOW_HOST"] == host
    assert f"--health-host={host}" in container(pod, "sidecar")["args"]
    assert f"--health-host={host}" in container(manager, "manager")["args"]


@pytest.mark.parametrize("case", MAINTAINED)
def test_in_maintenance_nothing_serves_and_nothing_is_waited_for(render: Render, case: str) -> None:
    pod = render(case).engine_pod
    [engine] = containers(pod)
    assert engine["command"] == [*UNTIL_IT_LISTENS, "vecstow", "maintenance"]
    assert "args" not in engine
    assert not {"startupProbe", "livenessProbe", "readinessProbe", "lifecycle"} & engine.keys()
    assert "VECSTOW_URL" not in environment(engine)
    assert mounts(engine).keys() == {"data", "tmp"}


def test_settings_become_flags(render: Render) -> None:
    def arguments(case: str) -> list[str]:
        return list(container(render(case).engine_pod, "engine")["args"])

    plain = arguments("default")
    assert [each for each in arguments("settings of every kind") if each not in plain] == [
        "--allow-network-file-system",
        "--body-bytes-max=134217728",
        "--import-root=/var/lib/vecstow/import: all #1",
        "--index-threads=4",
        "--retention-hours=48",
        "--slice-seconds=0.005",
    ]
    assert arguments("setting that is off") == plain


# Keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["default", "other entries of the Secret"])
def test_each_container_sees_its_own_entry_of_the_secret_alone(render: Render, case: str) -> None:
    keys = CASES[case].values["keys"]
    entries = {"engine": "keys.yaml", "sidecar": "sidecar", "manager": "manager", "test": "test"}
    entries |= keys.get("entries", {})
    seen = set()
    for _, pod in render(case).pods():
        secrets = {each["name"]: each["secret"] for each in pod["spec"]["volumes"] if "secret" in each}
        for found in containers(pod["spec"]):
            for volume in secrets.keys() & mounts(found).keys():
                name = found["name"]
                seen.add(name)
                assert secrets[volume]["secretName"] == keys["existingSecret"]
                assert secrets[volume]["items"] == [{"key": entries[name], "path": name}]
                assert secrets[volume]["defaultMode"] == 0o440
                # The test's pod says that it has no key, and does not wait for one.
                assert secrets[volume].get("optional", False) == (name == "test")
                option = "--keys" if name == "engine" else "--key-file"
                assert f"{option}={mounts(found)[volume]}/{name}" in found["args"]
                # A part of a volume would not follow the Secret.
                assert not [mount for mount in found["volumeMounts"] if "subPath" in mount]
    assert seen == set(entries)


def test_without_keys_everybody_is_let_in_and_no_secret_is_named(render: Render) -> None:
    rendered = render("without keys")
    assert "--without-keys" in container(rendered.engine_pod, "engine")["args"]
    assert "--key" not in rendered.manifest
    assert SECRET not in rendered.manifest


# Network --------------------------------------------------------------------------------------------------


@every_case
def test_clients_reach_the_first_pod_when_it_is_ready(render: Render, case: str) -> None:
    service = render(case).one("Service")["spec"]
    labels = render(case).engine["spec"]["template"]["metadata"]["labels"]
    # The StatefulSet gives each pod its number as a label.
    assert service["selector"].items() - labels.items() == {("apps.kubernetes.io/pod-index", "0")}
    assert not service.get("publishNotReadyAddresses")


@every_case
def test_the_stateful_sets_own_service_has_no_address_and_hides_no_pod(render: Render, case: str) -> None:
    rendered = render(case)
    own = rendered.one("Service", "-pods")
    assert rendered.engine["spec"]["serviceName"] == own["metadata"]["name"]
    assert (own["spec"]["clusterIP"], own["spec"]["publishNotReadyAddresses"]) == ("None", True)


@every_case
def test_ports_that_are_named_are_the_containers(render: Render, case: str) -> None:
    rendered = render(case)
    ports = {port["name"]: port["containerPort"]
             for _, pod in rendered.pods() for found in containers(pod["spec"])
             for port in found.get("ports", ())}  # fmt: skip
    named = [port["targetPort"] for found in rendered.kind("Service") for port in found["spec"]["ports"]]
    for monitor in rendered.kind("PodMonitor"):
        named += [each["port"] for each in monitor["spec"]["podMetricsEndpoints"]]
    assert set(named) <= ports.keys()
    for policy in rendered.kind("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", ()):
            assert {port["port"] for port in rule["ports"]} <= set(ports.values())


@every_case
def test_policies_are_about_who_comes_in_alone(render: Render, case: str) -> None:
    """A rule about what goes out would hold for the sidecar, too, which needs the API server."""
    for policy in render(case).kind("NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress"]
        assert "egress" not in policy["spec"]


def test_policies_let_in_who_is_named(render: Render) -> None:
    rendered = render("chosen clients")
    http, metrics = rendered.one("NetworkPolicy")["spec"]["ingress"]
    managers = {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "vecstow"}}}
    clients = CASES["chosen clients"].values["networkPolicy"]["clients"]
    servers = CASES["chosen clients"].values["networkPolicy"]["apiServer"]
    assert http == {"ports": [{"port": 3030}], "from": [managers, *clients, PROMETHEUS, *servers]}
    assert metrics == {"ports": [{"port": 3031}], "from": [PROMETHEUS]}
    manager = rendered.one("NetworkPolicy", "-manager")["spec"]["ingress"]
    assert manager == [{"ports": [{"port": 3032}], "from": [PROMETHEUS]}]
    [alone] = render("no clients").one("NetworkPolicy")["spec"]["ingress"]
    assert alone["from"] == [managers]


@every_case
def test_a_node_can_be_drained(render: Render, case: str) -> None:
    for budget in render(case).kind("PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert budget["spec"]["selector"] == render(case).engine["spec"]["selector"]
    off = CASES[case].values.get("podDisruptionBudget") == {"enabled": False}
    assert len(render(case).kind("PodDisruptionBudget")) == (0 if off else 1)


# Manager and rights ---------------------------------------------------------------------------------------


def test_two_managers_never_run_side_by_side(render: Render) -> None:
    manager = render("default").one("Deployment", "-manager")["spec"]
    assert (manager["replicas"], manager["strategy"]) == (1, {"type": "Recreate"})


@every_case
def test_roles_have_the_rules_that_the_operator_is_tested_with(render: Render, case: str) -> None:
    files = {"engine": "sidecar"}
    for role in render(case).kind("Role"):
        component = role["metadata"]["labels"]["app.kubernetes.io/component"]
        rules = (CHART / "rbac" / f"{files.get(component, component)}.yaml").read_text()
        assert role["rules"] == yaml.safe_load(rules)


@every_case
def test_each_pod_runs_as_the_account_that_has_its_rights(render: Render, case: str) -> None:
    rendered = render(case)
    accounts = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["spec"]["serviceAccountName"]
        for _, pod in rendered.pods()
    }
    made = {found["metadata"]["name"] for found in rendered.kind("ServiceAccount")}
    if CASES[case].values.get("serviceAccount", {}).get("create", True):
        assert made == set(accounts.values())
    else:
        assert made == set()
    roles = {found["metadata"]["name"] for found in rendered.kind("Role")}
    for binding in rendered.kind("RoleBinding"):
        component = binding["metadata"]["labels"]["app.kubernetes.io/component"]
        [subject] = binding["subjects"]
        assert subject["name"] == accounts[component]
        assert subject["namespace"] == NAMESPACE
        assert binding["roleRef"]["name"] in roles


def test_accounts_that_are_there_are_bound_and_the_hook_is_the_manager(render: Render) -> None:
    rendered = render("accounts that are there")
    accounts = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["spec"]["serviceAccountName"]
        for _, pod in rendered.pods()
    }
    assert accounts == {"engine": "e", "manager": "m", "release": "m", "test": "1"}
    assert {role["metadata"]["name"] for role in rendered.kind("Role")} == {
        "one-vecstow-engine", "one-vecstow-manager", "one-vecstow-test",
    }  # fmt: skip
    assert rendered.kind("ServiceAccount") == []
    without = render("accounts without one for the test")
    assert without.kind("Pod") == []


def test_without_its_own_rights_the_hook_has_the_managers(render: Render) -> None:
    rendered = render("rights by hand")
    assert rendered.kind("Role") == rendered.kind("RoleBinding") == []
    [job] = rendered.kind("Job")
    manager = rendered.one("Deployment", "-manager")
    assert (
        job["spec"]["template"]["spec"]["serviceAccountName"]
        == manager["spec"]["template"]["spec"]["serviceAccountName"]
    )


def test_hooks_go_with_their_rights(render: Render) -> None:
    hooks = [
        found["metadata"]
        for found in render("default").objects
        if found["metadata"]["labels"]["app.kubernetes.io/component"] in ("release", "test")
    ]
    assert len(hooks) == 8
    for metadata in hooks:
        annotations = metadata["annotations"]
        component = metadata["labels"]["app.kubernetes.io/component"]
        assert annotations["helm.sh/hook"] == {"release": "pre-delete", "test": "test"}[component]
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        pytest.param("without a manager", "Deployment", id="manager"),
        pytest.param("without a manager", "Job", id="release of what a manager held"),
        pytest.param("no release on uninstall", "Job", id="release"),
        pytest.param("without network policies", "NetworkPolicy", id="network policies"),
        pytest.param("default", "Ingress", id="ingress"),
        pytest.param("default", "PodMonitor", id="monitor"),
        pytest.param("default", "PrometheusRule", id="alerts"),
        pytest.param("default", "ConfigMap", id="dashboard"),
    ],
)
def test_what_is_off_is_not_made(render: Render, case: str, kind: str) -> None:
    assert render(case).kind(kind) == []


def test_a_load_balancer_is_as_it_was_chosen(render: Render) -> None:
    chosen = dict(CASES["load balancer"].values["service"])
    port, _ = chosen.pop("port"), chosen.pop("annotations")
    spec = render("load balancer").one("Service")["spec"]
    assert chosen.items() <= spec.items()
    assert spec["ports"] == [{"name": "http", "port": port, "targetPort": "http"}]
    [of_nodes] = render("node port").one("Service")["spec"]["ports"]
    assert of_nodes["nodePort"] == 30303
    assert set(render("default").one("Service")["spec"]) == {"type", "selector", "ports"}


def test_an_account_has_the_name_that_was_chosen(render: Render) -> None:
    rendered = render("accounts with names of one's own")
    assert rendered.engine_pod["serviceAccountName"] == "e"
    assert "e" in {account["metadata"]["name"] for account in rendered.kind("ServiceAccount")}


# Monitoring -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "credentials"),
    [
        pytest.param("everything monitored", {"name": SECRET, "key": "manager"}, id="the manager's key"),
        pytest.param("monitored with a key of its own", {"name": "scrape", "key": "key"}, id="its own"),
        pytest.param("monitored without keys and manager", None, id="none"),
    ],
)
def test_prometheus_has_a_key_where_one_is_asked_for(
    render: Render, case: str, credentials: dict[str, str] | None
) -> None:
    monitor = render(case).one("PodMonitor")["spec"]
    http, *others = monitor["podMetricsEndpoints"]
    assert http.get("authorization", {}).get("credentials") == credentials
    assert not any("authorization" in each for each in others)
    for _, pod in render(case).pods():
        assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_alerts_that_are_not_wanted_are_left_out_and_no_other(render: Render) -> None:
    def alerts(case: str) -> set[str]:
        [group] = render(case).one("PrometheusRule")["spec"]["groups"]
        return {rule["alert"] for rule in group["rules"]}

    assert alerts("everything monitored") - alerts("alerts but two") == {
        "VecstowBusy",
        "VecstowCheckpointLate",
    }
    assert alerts("alerts but two") < alerts("everything monitored")


def test_monitoring_is_found_by_its_labels(render: Render) -> None:
    rendered = render("everything monitored")
    for kind in ("PodMonitor", "PrometheusRule"):
        assert rendered.one(kind)["metadata"]["labels"]["prometheus"] == "main"
    dashboard = rendered.one("ConfigMap", "-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["data"]["vecstow.json"] == (CHART / "dashboard.json").read_text()


# The chart of the definition ------------------------------------------------------------------------------


def test_the_roles_for_people_are_the_cluster_s_own(helm: Helm) -> None:
    kinds = [found["kind"] for found in helm.render(KEYS | EVERYTHING_MONITORED).objects]
    assert "CustomResourceDefinition" not in kinds
    made = helm.render({}, "crds", CRD_CHART).objects
    assert sorted(found["kind"] for found in made) == [
        "ClusterRole", "ClusterRole", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition",
    ]  # fmt: skip
    for role in made:
        if role["kind"] == "ClusterRole" and role["metadata"]["name"] != "vecstow-definition-reader":
            [label] = role["metadata"]["labels"]
            assert re.fullmatch(r"rbac\.authorization\.k8s\.io/aggregate-to-(view|edit)", label)
